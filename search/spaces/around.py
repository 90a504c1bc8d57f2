"""`around:MODEL`: sub-networks of a model that is trained already, weights kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset, drawn_inputs
from compress.model.io import load_model
from compress.reconstruction import FEWEST
from search.spaces._base import DeclaredSpace
from search.spaces._choices import Choice, Chosen, pick
from search.spaces._subnetworks import OPTIONS, Subnetworks

if TYPE_CHECKING:
    import keras

    from compress.core.summary import OnProgress
    from compress.prune.channels.selection.measured_times import Timed

PREFIX = "around:"
KEEP = "keep."
"""In front of a group's name: the share of its channels that is kept."""
EXAMPLES = 512
"""Training examples on which a sub-network is repaired."""
FEW_EXAMPLES = 256
"""Where it is one of hundreds: a third of the seconds, half a point to two points less, and nearly
the same order (seven sub-networks of a ResNet-20, 3,000 validation images of Fashion-MNIST)."""
RUNTIME, FORMAT, THREADS = "litert", "float32", 1
"""What a search's latency is of."""
BATCHES = 8
"""Batches of training examples that re-estimate statistics where these are too few."""


class Around(DeclaredSpace):
    """Thinner versions of one trained model: search and channel pruning in one.

    Choices: for each group of channels that must be kept or removed together the share that
    is kept, of 0.25, 0.375, ... 1, as far as the engine's rounding tells them apart. Where
    there are more than 24 such groups, those of one resolution and width share one choice;
    see `search.spaces._subnetworks`. Which channels stay is decided by the engine's default
    criterion on the model's own weights, once a process. A sub-network's weights are slices
    of the model's; `prepare` solves for them on training examples, so that its layers compute
    what the model's do (`compress.reconstruction.repair`): what it is worth before fine-tuning
    is what it is worth repaired.

    Args:
        name: "around:" and a `.keras` or `.h5` file; it is not read before `check`.

    Raises:
        InputError: No file is named.
    """

    trained = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path(name.removeprefix(PREFIX))
        if not name.startswith(PREFIX) or not self.path.name:
            raise InputError(
                f"Space '{name}' must name a model's file, {PREFIX}model.keras. Received: none."
            )

    def whole(self) -> tuple[Path, keras.Model]:
        """See `Space.whole`."""
        with self._named("must be around a trained model that can be thinned."):
            return self.path, self._subnetworks().cut({})

    def check(self, data: Dataset) -> None:
        """Requires a model that fits the data and has channels that can be removed.

        Raises:
            InputError: There is no such file, it cannot be read, it does not fit the data,
                or nothing in it can be thinned or trained.
        """
        from compress.model.heads import check_head

        with self._named("must be around a trained model that can be thinned."):
            found = self._subnetworks()
        whole = found.cut({})
        with self._named("must be around a model that fits the data."):
            check_head(whole, data)
        if not whole.trainable_variables:
            raise InputError(
                f"Space '{self.name}' must be around a model with trainable weights. "
                "Received: none."
            )
        if not found.widths:
            groups = found.coupling.groups
            narrow = ", ".join(f"{group.name} ({group.channels} channels)" for group in groups[:5])
            raise InputError(
                f"Space '{self.name}' must have layers wide enough to be thinned: kept numbers "
                f"are multiples of 4 at least. Received: {narrow}."
            )

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Returns the choices that keep everything: the model itself."""
        return self.largest(data)

    def facts(self) -> dict[str, str]:
        """Returns a hash of the model's file.

        Raises:
            InputError: It cannot be read.
        """
        try:
            digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"Cannot read '{self.path}': {error.strerror}.") from None
        return {"model_sha256": digest[:16]}

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        return tuple(
            pick(f"{KEEP}{width.name}", width.shares) for width in self._subnetworks().widths
        )

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Cuts the sub-network of complete choices, with the statistics of the whole model."""
        return self._subnetworks().cut(_shares(chosen))

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        return self._subnetworks().count(_shares(chosen))

    def timed(self, on_progress: OnProgress) -> Timed:
        """Times the model's calls, and some whole sub-networks, for `latency`.

        What was timed on this machine before, by whatever command, is not timed again.

        Args:
            on_progress: See `compress.core.summary.OnProgress`.

        Raises:
            RunFailed: No call could be timed, or no whole net could be converted.
        """
        from compress.exporting.side_by_side import litert_files

        return self._subnetworks().timed(
            litert_files, runtime=RUNTIME, format=FORMAT, threads=THREADS, seed=0,
            on_progress=on_progress,
        )  # fmt: skip

    def latency(self, found: Timed) -> Callable[[Chosen], float]:
        """Returns what estimates the milliseconds of complete choices, nothing built.

        Args:
            found: What `timed` returned.
        """
        parts = self._subnetworks()
        times = parts.times(found)
        return lambda chosen: parts.latency(_shares(chosen), times)

    def prepare(
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """Repairs a thinner model on training examples; the whole model keeps its weights.

        Quickly: on fewer examples, each layer by itself. Where there are too few examples,
        normalization statistics are re-estimated instead.
        """
        from compress.prune.recalibrate import recalibrate
        from compress.reconstruction import repair

        shares = _shares(chosen)
        if all(share >= 1 for share in shares.values()):
            return
        if len(data.train) < FEWEST:
            recalibrate(model, data, BATCHES)
            return
        found = self._subnetworks()
        count = FEW_EXAMPLES if quickly else EXAMPLES
        repair(
            model,
            found.coupling.program.model,
            drawn_inputs(data, count, 0),
            kept=found.kept(shares),
            examples=count,
            joint=not quickly,
        )

    def _subnetworks(self) -> Subnetworks:
        path = self.path.resolve()
        # another file under the same name is another model
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        return _read(str(path), stamp)

    @contextmanager
    def _named(self, rule: str) -> Iterator[None]:
        """Puts the space and what it must be before an error's text."""
        try:
            yield
        except InputError as error:
            raise InputError(f"Space '{self.name}' {rule} {error}") from None


def _shares(chosen: Chosen) -> dict[str, float]:
    """Returns the shares that widths keep; settings of the optimizer may be among the choices."""
    return {
        name.removeprefix(KEEP): share for name, share in chosen.items() if name.startswith(KEEP)
    }


@lru_cache(maxsize=2)
def _read(path: str, stamp: int) -> Subnetworks:  # noqa: ARG001 - stamp tells files apart
    """Loads and ranks a model; kept, as each trial asks for it."""
    from compress.prune.channels import check_channels
    from compress.prune.channels.analysis import coupling_of

    coupling = coupling_of(load_model(path))
    # half of every layer is a target that only a model without removable channels misses
    check_channels(coupling, replace(OPTIONS, target_metric="amount", target=0.5))
    return Subnetworks(coupling)

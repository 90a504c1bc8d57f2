"""`around:MODEL`: sub-networks of a model that is trained already, weights kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset, drawn_inputs
from compress.model.io import load_model
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.criteria import CRITERIA, Context
from compress.prune.channels.selection.allowed import Allowed, Counts, allowed_for
from compress.prune.channels.selection.by_rank import keep_best
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import Timed, TimedCalls, timed_here
from compress.prune.channels.surgery import KeptIndices, kept_indices, sliced_model
from compress.reconstruction import FEWEST
from search.spaces._base import Choice, Chosen, DeclaredSpace, pick

if TYPE_CHECKING:
    from compress.core.summary import OnProgress
    from compress.measure.latency_table.measuring import Convert

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
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
MAX_WIDTHS = 24
"""Above this many widths groups are tied: tens of trials say nothing of more."""
OPTIONS = ChannelOptions().without_comparison()
"""The engine's defaults: what ranks channels, and which numbers of them may be kept."""


class Around(DeclaredSpace):
    """Thinner versions of one trained model: search and channel pruning in one.

    Choices: for each group of channels that must be kept or removed together the share that
    is kept, of 0.25, 0.375, ... 1, as far as the engine's rounding tells them apart. Where
    there are more than 24 such groups, those of one resolution and width share one choice.
    Which channels stay is decided by the engine's default criterion on the model's own weights,
    once a process. A sub-network's weights are slices of the model's; `prepare` solves for them
    on training examples, so that its layers compute what the model's do
    (`compress.reconstruction.repair`): what it is worth before fine-tuning is what it is worth
    repaired.

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
        """Require a model that fits the data and has channels that can be removed.

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
        """Return the choices that keep everything: the model itself."""
        return self.largest(data)

    def facts(self) -> dict[str, str]:
        """Return a hash of the model's file.

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
        return tuple(pick(width.name, width.shares) for width in self._subnetworks().widths)

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Cut the sub-network of complete choices, with the statistics of the whole model."""
        return self._subnetworks().cut(chosen)

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        return self._subnetworks().count(chosen)

    def timed(self, on_progress: OnProgress) -> Timed:
        """Time the model's calls, and some whole sub-networks, for `latency`.

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
        """Return a function that estimates the milliseconds of complete choices, nothing built.

        Args:
            found: What `timed` returned.
        """
        parts = self._subnetworks()
        times = found.times(parts.calls)
        return lambda chosen: float(times(parts.count_kept(chosen)))

    def prepare(
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """Repair a thinner model on training examples; the whole model keeps its weights.

        Quickly: on fewer examples, each layer by itself. Where there are too few examples,
        normalization statistics are re-estimated instead.
        """
        from compress.prune.recalibrate import recalibrate
        from compress.reconstruction import repair

        found = self._subnetworks()
        if all(chosen.get(width.name, 1.0) >= 1 for width in found.widths):
            return
        if len(data.train) < FEWEST:
            recalibrate(model, data, BATCHES)
            return
        count = FEW_EXAMPLES if quickly else EXAMPLES
        repair(
            model,
            found.coupling.program.model,
            drawn_inputs(data, count, 0),
            kept=found.kept(chosen),
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
        """Put the space and its rule before an error's text."""
        try:
            yield
        except InputError as error:
            raise InputError(f"Space '{self.name}' {rule} {error}") from None


@lru_cache(maxsize=2)
def _read(path: str, stamp: int) -> Subnetworks:  # noqa: ARG001 - stamp tells files apart
    """Load a model and rank its channels; kept, as each trial asks for it."""
    from compress.prune.channels import check_channels
    from compress.prune.channels.analysis import coupling_of

    coupling = coupling_of(load_model(path))
    # half of every layer is a target that only a model without removable channels misses
    check_channels(coupling, replace(OPTIONS, target_metric="amount", target=0.5))
    return Subnetworks(coupling)


@dataclass(frozen=True)
class Width:
    """One number that is searched: the share of channels that one group, or several, keep.

    Attributes:
        name: "keep." and that of its first group; "+2" behind it: two groups more are tied to it.
        groups: Places in `Coupling.groups`.
        shares: Those of `SHARES` that lead to different numbers of channels, rising, at least
            two; of shares that lead to the same number the one nearest to it. The last is 1.
    """

    name: str
    groups: tuple[int, ...]
    shares: tuple[float, ...]


class Subnetworks:
    """A model's sub-networks. Which channels go first is ranked once, here.

    Args:
        coupling: Of a model, which stays as it is.

    Attributes:
        widths: What may be chosen, in the order of the model; (): nothing.
        coupling: Of the model.
    """

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        context = Context(self.coupling, aggregate=OPTIONS.aggregate)
        score = CRITERIA[OPTIONS.ranking]
        groups = self.coupling.groups
        self._scores = [context.scored(score, group) for group in groups]
        self._allowed = allowed_for(self.coupling, OPTIONS, OPTIONS.round_to)
        self.widths = _widths(self.coupling, self._allowed)

    def cut(self, chosen: Mapping[str, float]) -> keras.Model:
        """Build a sub-network: the same layers, thinner, with their weights.

        Args:
            chosen: Shares of the channels to keep, by the widths' names; others stay whole, and
                settings of the optimizer may be among them.
        """
        return sliced_model(self.coupling, self._mask(chosen))

    def kept(self, chosen: Mapping[str, float]) -> KeptIndices:
        """Return the kept indices of the model's weights for the same choices as `cut`."""
        return kept_indices(self.coupling, self._mask(chosen))

    def count(self, chosen: Mapping[str, float]) -> tuple[int, int]:
        """Return the MACs and parameters of the model that `cut` builds, without building it.

        Raises:
            InputError: An input's size is open.
        """
        costs, kept = CostModel.of(self.coupling), self.count_kept(chosen)
        return int(costs.macs(kept)), int(costs.params(kept))

    @cached_property
    def calls(self) -> TimedCalls:
        """The model's calls at the widths that may be chosen."""
        return TimedCalls(self.coupling, self._allowed)

    def timed(self, convert: Convert, **how: Any) -> Timed:
        """Time these calls, and some whole sub-networks.

        Args:
            convert: See `compress.prune.channels.selection.measured_times.timed_here`.
            **how: Likewise.

        Returns:
            What was timed, without the calls of other models that are known.
        """
        found = timed_here(self.calls, self.coupling, self._allowed, convert, **how)
        return Timed(found.table.only(self.calls.models()), found.kept, found.whole)

    def count_kept(self, chosen: Mapping[str, float]) -> Counts:
        """Return how many removable units each group keeps."""
        wanted = np.ones(len(self.coupling.groups))
        for width in self.widths:
            wanted[list(width.groups)] = chosen.get(width.name, 1.0)
        totals = self._allowed.nearest(self._allowed.total * wanted)
        return totals - self._allowed.fixed

    def _mask(self, chosen: Mapping[str, float]) -> Mask:
        return keep_best(self.coupling, self._scores, self.count_kept(chosen))


def _widths(coupling: Coupling, allowed: Allowed) -> tuple[Width, ...]:
    free = [group for group in coupling.groups if len(_shares(allowed, (group.index,))) > 1]
    found: list[Width] = []
    names: dict[str, int] = {}
    for tie in _ties(coupling, free):
        places = tuple(group.index for group in tie)
        name = KEEP + tie[0].name + (f"+{len(tie) - 1}" if len(tie) > 1 else "")
        # one layer may make several groups: heads and their widths, parts of a split
        number = names[name] = names.get(name, 0) + 1
        name = name if number == 1 else f"{name}.{number}"
        found.append(Width(name, places, _shares(allowed, places)))
    return tuple(found)


def _shares(allowed: Allowed, groups: tuple[int, ...]) -> tuple[float, ...]:
    """Return the shares that lead to different numbers; see `Width.shares`."""
    places = list(groups)
    total: Counts = allowed.total[places]
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    for share in SHARES:
        counts = allowed.nearest(allowed.total * share)[places]
        error = abs(share - counts.sum() / total.sum())
        key = tuple(counts.tolist())
        if key not in found or error < found[key][0]:
            found[key] = error, share
    return tuple(share for _, share in found.values())


def _ties(coupling: Coupling, groups: list[Group]) -> list[list[Group]]:
    """Tie groups of one role in a stage of the network, until there are few enough.

    First each group by itself; then those of one resolution and number of channels that are,
    or are not, tied by additions (the trunk of a residual stage, the insides of its blocks);
    then whatever their numbers of channels are. The finest with at most `MAX_WIDTHS` is taken.
    """
    resolutions = _resolutions(coupling)

    def role(group: Group) -> tuple[Hashable, ...]:
        return group.kind, len(group.makers) > 1, resolutions.get(group.index)

    keys: list[Callable[[Group], Hashable]] = [
        lambda group: group.index,
        lambda group: (*role(group), group.channels),
        role,
    ]
    for key in keys:
        ties: dict[Hashable, list[Group]] = {}
        for group in groups:
            ties.setdefault(key(group), []).append(group)
        if len(ties) <= MAX_WIDTHS:
            break
    return list(ties.values())


def _resolutions(coupling: Coupling) -> dict[int, tuple[Any, ...]]:
    """Return for each group the other axes of the first tensor that its channels lie on."""
    found: dict[int, tuple[Any, ...]] = {}
    tensors = coupling.graph.tensors
    for node in coupling.program.walk():
        for slots in (tensors[id(tensor)] for tensor in node.outputs if id(tensor) in tensors):
            for axis in slots.tracked:
                for group in np.unique(coupling.group_of[coupling.unit[slots.axes[axis]]]):
                    others = slots.shape[1:axis] + slots.shape[axis + 1 :]
                    found.setdefault(int(group), others)
    return found

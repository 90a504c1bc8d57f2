"""`around:MODEL`, the space of sub-networks of a trained model, which keep its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset, sample_inputs
from compress.model.io import load_model
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.criteria import CRITERIA, Context
from compress.prune.channels.selection.allowed_counts import (
    AllowedCounts,
    Counts,
    compute_allowed_counts,
)
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.latency_measurement import (
    LatencyMeasurements,
    TimedCalls,
    measure_local_latencies,
)
from compress.prune.channels.selection.rank_selection import keep_best
from compress.prune.channels.surgery import build_pruned_model, compute_kept_indices
from compress.reconstruction import MIN_EXAMPLES
from search.spaces._base import Choice, Chosen, DeclaredSpace, declare_categorical

if TYPE_CHECKING:
    from compress.core.summary import OnProgress

PREFIX = "around:"
KEEP_PREFIX = "keep."
"""Prefix of parameter names for the kept share of a group's channels."""
CALIBRATION_EXAMPLES = 512
"""Number of calibration examples for the reconstruction of a sub-network."""
QUICK_CALIBRATION_EXAMPLES = 256
"""Number of calibration examples for one of hundreds of sub-networks.

Measured with seven sub-networks of a ResNet-20 on 3,000 validation images of Fashion-MNIST: a
third of the time, 0.5 to 2 percentage points lower accuracy, and nearly the same order.
"""
RUNTIME, FORMAT, THREADS = "litert", "float32", 1
"""Runtime, format and threads of the latencies of a search."""
RECALIBRATION_BATCHES = 8
"""Number of batches for re-estimating statistics if there are too few calibration examples."""
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
MAX_KEEP_RATIOS = 24
"""Maximum number of parameters, above which groups share one.

Tens of trials cannot explore more parameters.
"""
OPTIONS = ChannelOptions().select_single_method()
"""Default options of channel pruning: the ranking criterion and the allowed channel counts."""


class SubnetworkSpace(DeclaredSpace):
    """Sub-networks of a trained model, for architecture search combined with channel pruning.

    Choices: for each group of coupled channels the kept share, of 0.25, 0.375, ... 1, as far as the
    rounding of channel counts distinguishes them. If there are more than 24 such groups, groups
    with the same resolution and channel count share one choice.

    The default criterion of channel pruning selects the kept channels by the weights of the model,
    once per process. A sub-network's weights are slices of the model's. `prepare` reconstructs them
    with calibration examples, so that the layers' outputs approximate those of the model
    (`compress.reconstruction.repair`). Metrics before fine-tuning are those of the reconstructed
    sub-network.

    Args:
        name: "around:" and a `.keras` or `.h5` file, which is not read before `check`.

    Raises:
        InputError: The name contains no file.
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
        with self._wrap_errors("must be around a trained model that can be thinned."):
            return self.path, self._load_subnetworks().cut_model({})

    def check(self, data: Dataset) -> None:
        """Require a model that fits the data and has channels that can be removed.

        Raises:
            InputError: The file is missing or cannot be read, the model does not fit the data, or
                it has no prunable channels or no trainable weights.
        """
        from compress.model.heads import check_head

        with self._wrap_errors("must be around a trained model that can be thinned."):
            subnetworks = self._load_subnetworks()
        base_model = subnetworks.cut_model({})
        with self._wrap_errors("must be around a model that fits the data."):
            check_head(base_model, data)
        if not base_model.trainable_variables:
            raise InputError(
                f"Space '{self.name}' must be around a model with trainable weights. "
                "Received: none."
            )
        if not subnetworks.keep_ratios:
            groups = subnetworks.coupling.groups
            narrow = ", ".join(f"{group.name} ({group.channels} channels)" for group in groups[:5])
            raise InputError(
                f"Space '{self.name}' must have layers wide enough to be thinned: kept numbers "
                f"are multiples of 4 at least. Received: {narrow}."
            )

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return the choices that keep all channels: the model itself."""
        return self.largest(data)

    def facts(self) -> dict[str, str]:
        """Return a hash of the model's file.

        Raises:
            InputError: The file cannot be read.
        """
        try:
            digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"Cannot read '{self.path}': {error.strerror}.") from None
        return {"model_sha256": digest[:16]}

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        return tuple(
            declare_categorical(ratio.name, ratio.shares)
            for ratio in self._load_subnetworks().keep_ratios
        )

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Build the sub-network of complete choices, with the original weights of kept channels."""
        return self._load_subnetworks().cut_model(chosen)

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        subnetworks = self._load_subnetworks()
        costs = CostModel.from_coupling(subnetworks.coupling)
        kept = subnetworks.count_kept_units(chosen)
        return int(costs.macs(kept)), int(costs.params(kept))

    def time_calls(self, on_progress: OnProgress) -> LatencyMeasurements:
        """Time the model's calls and some whole sub-networks, for `build_latency_estimator`.

        Calls that any command has timed on this machine before are not timed again.

        Args:
            on_progress: See `compress.core.summary.OnProgress`.

        Raises:
            RunFailed: No call could be timed, or no whole sub-network could be converted.
        """
        return self._load_subnetworks().time_calls(on_progress)

    def build_latency_estimator(self, timing: LatencyMeasurements) -> Callable[[Chosen], float]:
        """Return a function that estimates the milliseconds of complete choices from timed calls.

        Args:
            timing: Result of `time_calls`.
        """
        subnetworks = self._load_subnetworks()
        times = timing.build_latency_model(subnetworks.calls)
        return lambda chosen: float(times(subnetworks.count_kept_units(chosen)))

    def prepare(
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """Reconstruct the weights of a sub-network with calibration examples.

        The original model keeps its weights. With `quickly`, fewer examples are used and each layer
        is reconstructed by itself. If there are too few examples, normalization statistics are
        re-estimated instead.
        """
        from compress.prune.recalibrate import recalibrate
        from compress.reconstruction import repair

        subnetworks = self._load_subnetworks()
        if all(chosen.get(ratio.name, 1.0) >= 1 for ratio in subnetworks.keep_ratios):
            return
        if len(data.train) < MIN_EXAMPLES:
            recalibrate(model, data, RECALIBRATION_BATCHES)
            return
        count = QUICK_CALIBRATION_EXAMPLES if quickly else CALIBRATION_EXAMPLES
        repair(
            model,
            subnetworks.coupling.program.model,
            sample_inputs(data, count, 0),
            kept=compute_kept_indices(subnetworks.coupling, subnetworks.build_mask(chosen)),
            examples=count,
            joint=not quickly,
        )

    def _load_subnetworks(self) -> Subnetworks:
        path = self.path.resolve()
        # a changed file of the same name is another model
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        return _read_subnetworks(str(path), stamp)

    @contextmanager
    def _wrap_errors(self, rule: str) -> Iterator[None]:
        """Prefix an error's text with the space and its rule."""
        try:
            yield
        except InputError as error:
            raise InputError(f"Space '{self.name}' {rule} {error}") from None


@lru_cache(maxsize=2)
def _read_subnetworks(path: str, stamp: int) -> Subnetworks:  # noqa: ARG001 - stamp tells files apart
    """Load a model and rank its channels; cached, because each trial uses it."""
    from compress.prune.channels import check_channels
    from compress.prune.channels.analysis import analyze_coupling

    coupling = analyze_coupling(load_model(path))
    check_channels(coupling, OPTIONS)
    return Subnetworks(coupling)


@dataclass(frozen=True)
class KeepRatio:
    """A parameter of the search: the kept share of channels of one or more groups.

    Attributes:
        name: "keep." and the name of its first group; a suffix "+2": two more groups share it.
        groups: Indices in `Coupling.groups`.
        shares: Ascending values of `SHARES` that lead to different channel counts, at least two;
            of shares that lead to the same count the one nearest to it. The last is 1.
    """

    name: str
    groups: tuple[int, ...]
    shares: tuple[float, ...]


class Subnetworks:
    """Sub-networks of a model, whose channels are ranked once.

    Args:
        coupling: Coupling of the original model, which is not modified.

    Attributes:
        keep_ratios: Parameters of the search, in the order of the model; (): none.
        coupling: Coupling of the original model.
    """

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        context = Context(self.coupling)
        score = CRITERIA[OPTIONS.ranking_criterion]
        groups = self.coupling.groups
        self._scores = [context.score(score, group) for group in groups]
        self._allowed = compute_allowed_counts(self.coupling, OPTIONS, OPTIONS.round_to)
        self.keep_ratios = _list_keep_ratios(self.coupling, self._allowed)

    def cut_model(self, chosen: Mapping[str, float]) -> keras.Model:
        """Build a sub-network: the same layers with fewer channels and the weights of these.

        Args:
            chosen: Shares of the channels to keep, by the name of the `KeepRatio`. Missing groups
                keep all channels; other names, such as settings of the optimizer, are ignored.
        """
        return build_pruned_model(self.coupling, self.build_mask(chosen))

    @cached_property
    def calls(self) -> TimedCalls:
        """The model's calls at the channel counts that may be chosen."""
        return TimedCalls(self.coupling, self._allowed)

    def time_calls(self, on_progress: OnProgress) -> LatencyMeasurements:
        """Time the calls of `calls`, and some whole sub-networks.

        Args:
            on_progress: See `compress.core.summary.OnProgress`.

        Returns:
            The measurements, without known calls of other models.
        """
        from compress.exporting.batch_conversion import write_latency_files

        timing = measure_local_latencies(
            self.calls, self.coupling, self._allowed, write_latency_files,
            runtime=RUNTIME, format=FORMAT, threads=THREADS, seed=0, on_progress=on_progress,
        )  # fmt: skip
        return LatencyMeasurements(
            timing.table.select_calls(self.calls.list_model_makers()), timing.kept, timing.model_ms
        )

    def count_kept_units(self, chosen: Mapping[str, float]) -> Counts:
        """Return the number of removable units that each group keeps."""
        shares = np.ones(len(self.coupling.groups))
        for ratio in self.keep_ratios:
            shares[list(ratio.groups)] = chosen.get(ratio.name, 1.0)
        totals = self._allowed.round_totals(self._allowed.total * shares)
        return totals - self._allowed.fixed

    def build_mask(self, chosen: Mapping[str, float]) -> Mask:
        """Return the mask of the units that the model of `cut_model` keeps."""
        return keep_best(self.coupling, self._scores, self.count_kept_units(chosen))


def _list_keep_ratios(coupling: Coupling, allowed: AllowedCounts) -> tuple[KeepRatio, ...]:
    """Return the search parameters of all groups that may have more than one channel count."""
    prunable = [
        group
        for group in coupling.groups
        if len(_find_distinct_shares(allowed, (group.index,))) > 1
    ]
    ratios: list[KeepRatio] = []
    names: dict[str, int] = {}
    for tie in _tie_groups(coupling, prunable):
        indices = tuple(group.index for group in tie)
        name = KEEP_PREFIX + tie[0].name + (f"+{len(tie) - 1}" if len(tie) > 1 else "")
        # one layer may produce several groups, such as heads and head sizes, or parts of a split
        number = names[name] = names.get(name, 0) + 1
        name = name if number == 1 else f"{name}.{number}"
        ratios.append(KeepRatio(name, indices, _find_distinct_shares(allowed, indices)))
    return tuple(ratios)


def _find_distinct_shares(allowed: AllowedCounts, groups: tuple[int, ...]) -> tuple[float, ...]:
    """Return the shares that lead to different channel counts; see `KeepRatio.shares`."""
    indices = list(groups)
    total: Counts = allowed.total[indices]
    share_by_counts: dict[tuple[int, ...], tuple[float, float]] = {}
    for share in SHARES:
        counts = allowed.round_totals(allowed.total * share)[indices]
        error = abs(share - counts.sum() / total.sum())
        key = tuple(counts.tolist())
        if key not in share_by_counts or error < share_by_counts[key][0]:
            share_by_counts[key] = error, share
    return tuple(share for _, share in share_by_counts.values())


def _tie_groups(coupling: Coupling, groups: list[Group]) -> list[list[Group]]:
    """Return lists of groups that share a parameter, at most `MAX_KEEP_RATIOS` lists if possible.

    The first of three partitions that is small enough is taken: each group by itself; groups with
    the same resolution, channel count and role (the trunk of a residual stage, tied by additions,
    or the insides of its blocks); groups with the same resolution and role.
    """
    resolutions = _find_resolutions(coupling)

    def get_role(group: Group) -> tuple[Hashable, ...]:
        return group.kind, len(group.makers) > 1, resolutions.get(group.index)

    keys: list[Callable[[Group], Hashable]] = [
        lambda group: group.index,
        lambda group: (*get_role(group), group.channels),
        get_role,
    ]
    for key in keys:
        ties: dict[Hashable, list[Group]] = {}
        for group in groups:
            ties.setdefault(key(group), []).append(group)
        if len(ties) <= MAX_KEEP_RATIOS:
            break
    return list(ties.values())


def _find_resolutions(coupling: Coupling) -> dict[int, tuple[Any, ...]]:
    """Return for each group the other axes of the first tensor with its channels."""
    resolutions: dict[int, tuple[Any, ...]] = {}
    tensors = coupling.graph.tensors
    for node in coupling.program.walk():
        for slots in (tensors[id(tensor)] for tensor in node.outputs if id(tensor) in tensors):
            for axis in slots.tracked:
                for group in np.unique(
                    coupling.group_of_unit[coupling.unit_of_slot[slots.axes[axis]]]
                ):
                    other_axes = slots.shape[1:axis] + slots.shape[axis + 1 :]
                    resolutions.setdefault(int(group), other_axes)
    return resolutions

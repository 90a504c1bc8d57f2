"""The sub-networks of a trained model that differ in their widths, cut by channel pruning."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.criteria import CRITERIA, Context
from compress.prune.channels.selection.allowed import Allowed, Counts, allowed_for
from compress.prune.channels.selection.by_rank import keep_best
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import Timed, TimedCalls, timed_here
from compress.prune.channels.selection.times import TimeModel
from compress.prune.channels.surgery import KeptIndices, kept_indices, sliced_model

if TYPE_CHECKING:
    import keras

    from compress.measure.latency_table.measuring import Convert

SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
MAX_WIDTHS = 24
"""Above this many widths groups are tied: tens of trials say nothing of more."""
OPTIONS = ChannelOptions().without_comparison()
"""The engine's defaults: what ranks channels, and which numbers of them may be kept."""


@dataclass(frozen=True)
class Width:
    """One number that is searched: the share of channels that one group, or several, keep.

    Attributes:
        name: Of its first group; "+2" behind it: two groups more are tied to it.
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

    def cut(self, shares: Mapping[str, float]) -> keras.Model:
        """Builds a sub-network: the same layers, thinner, with their weights.

        Args:
            shares: Of the channels to keep, by the widths' names; others stay whole.
        """
        return sliced_model(self.coupling, self._mask(shares))

    def kept(self, shares: Mapping[str, float]) -> KeptIndices:
        """Returns the kept indices of the model's weights for the same shares as `cut`."""
        return kept_indices(self.coupling, self._mask(shares))

    def count(self, shares: Mapping[str, float]) -> tuple[int, int]:
        """Returns MACs and parameters of what `cut` builds, without building it.

        Raises:
            InputError: An input's size is open.
        """
        costs, kept = CostModel.of(self.coupling), self._kept(shares)
        return int(costs.macs(kept)), int(costs.params(kept))

    def latency(self, shares: Mapping[str, float], times: TimeModel) -> float:
        """Returns milliseconds of what `cut` builds, estimated from what was timed."""
        return float(times(self._kept(shares)))

    def timed(self, convert: Convert, **how: Any) -> Timed:
        """Times the model's calls at widths that may be chosen, and some whole sub-networks.

        Args:
            convert: See `compress.prune.channels.selection.measured_times.timed_here`.
            **how: Likewise.

        Returns:
            What was timed, without the calls of other models that are known.
        """
        found = timed_here(self._calls, self.coupling, self._allowed, convert, **how)
        return Timed(found.table.only(self._calls.models()), found.kept, found.whole)

    def times(self, found: Timed) -> TimeModel:
        """Returns how the time of sub-networks follows from their widths.

        Raises:
            InputError: Calls of this model were not timed.
        """
        return found.times(self._calls)

    @cached_property
    def _calls(self) -> TimedCalls:
        return TimedCalls(self.coupling, self._allowed)

    def _mask(self, shares: Mapping[str, float]) -> Mask:
        return keep_best(self.coupling, self._scores, self._kept(shares))

    def _kept(self, shares: Mapping[str, float]) -> Counts:
        """Returns how many removable units each group keeps."""
        wanted = np.ones(len(self.coupling.groups))
        for width in self.widths:
            wanted[list(width.groups)] = shares.get(width.name, 1.0)
        totals = self._allowed.nearest(self._allowed.total * wanted)
        return totals - self._allowed.fixed


def _widths(coupling: Coupling, allowed: Allowed) -> tuple[Width, ...]:
    free = [group for group in coupling.groups if len(_shares(allowed, (group.index,))) > 1]
    found: list[Width] = []
    names: dict[str, int] = {}
    for tie in _ties(coupling, free):
        places = tuple(group.index for group in tie)
        name = tie[0].name + (f"+{len(tie) - 1}" if len(tie) > 1 else "")
        # one layer may make several groups: heads and their widths, parts of a split
        number = names[name] = names.get(name, 0) + 1
        name = name if number == 1 else f"{name}.{number}"
        found.append(Width(name, places, _shares(allowed, places)))
    return tuple(found)


def _shares(allowed: Allowed, groups: tuple[int, ...]) -> tuple[float, ...]:
    """Returns the shares that lead to different numbers; see `Width.shares`."""
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
    """Puts groups together until there are few enough, by what a stage of a network is.

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
    """Returns for each group the other axes of the first tensor that its channels lie on."""
    found: dict[int, tuple[Any, ...]] = {}
    tensors = coupling.graph.tensors
    for node in coupling.program.walk():
        for slots in (tensors[id(tensor)] for tensor in node.outputs if id(tensor) in tensors):
            for axis in slots.tracked:
                for group in np.unique(coupling.group_of[coupling.unit[slots.axes[axis]]]):
                    others = slots.shape[1:axis] + slots.shape[axis + 1 :]
                    found.setdefault(int(group), others)
    return found

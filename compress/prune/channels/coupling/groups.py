"""The coupling of a model: units, groups, and frozen units with reasons."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.program import Program
from compress.prune.channels.coupling.blocks import Depth
from compress.prune.channels.coupling.slots import HEADS, CouplingGraph, Ids

if TYPE_CHECKING:
    import scipy.sparse

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that lie on the same axes of the same layers.

    Attributes:
        index: Place in `Coupling.groups`.
        name: The first layer that makes the channels.
        makers: All layers that make them: tied by additions, say.
        units: Unit numbers that may be removed.
        fixed: Units on the same axes that are frozen.
        width: Channels that a unit has on its narrowest axis (more than 1 in grouped
            convolutions).
        kind: "channels" or "heads".
        layers: Names of the layers whose weights the units lie on.
    """

    index: int
    name: str
    makers: tuple[str, ...]
    units: Ids
    fixed: int
    width: int
    kind: str
    layers: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Channels on the narrowest axis, frozen ones included."""
        return (len(self.units) + self.fixed) * self.width


@dataclass(frozen=True)
class Frozen:
    """Units that stay, by reason: "model output 'probabilities'"."""

    layer: str
    reason: str
    units: int
    made_by: tuple[str, ...]


class KeptSlots:
    """A kept set of units, asked by axes.

    Args:
        unit: Unit of every slot.
        mask: True for kept units.
    """

    def __init__(self, unit: Ids, mask: Mask) -> None:
        self._unit = unit
        self._mask = mask

    def __call__(self, ids: Ids) -> Ids:
        """Return the kept indices of an axis."""
        return np.flatnonzero(self.flags(ids))

    def flags(self, ids: Ids) -> Mask:
        """Return a boolean for each index of an axis: True where it is kept."""
        return np.asarray(self._mask[self._unit[ids]])

    def count(self, ids: Ids) -> int:
        """Return the number of kept indices."""
        return int(np.count_nonzero(self.flags(ids)))


class Coupling:
    """Units and groups of a model: channels that must be kept or removed together.

    Args:
        program: From `compress.model.recording.record`.
        graph: Filled by the rules.
        input_shape: At which MACs are counted, where the model's own has open sizes.

    Attributes:
        unit: Unit of every slot id.
        weight_axes: id of a weight -> axis -> its slots.
        axis_of: id of the slots of an axis -> its row of `incidence`.
        frozen: True for units that must be kept.
        groups: Prunable units by the axes that they lie on, in the order of the model.
        whole: Removable units of each group, (groups,): what is kept when nothing is removed.
        began: Units of each group before any step, frozen ones included, (groups,).
    """

    def __init__(self, program: Program, graph: CouplingGraph, input_shape: Any = None) -> None:
        self.program = program
        self.graph = graph
        self.input_shape = input_shape
        self.unit, self.units = _components(graph)
        self.frozen = np.zeros(self.units, bool)
        self._reason = np.full(self.units, -1)
        for index in range(len(graph.freezes) - 1, -1, -1):
            units = self.unit[graph.freezes[index].ids]
            self.frozen[units] = True
            self._reason[units] = index
        self.bindings = [binding for binding in graph.bindings.values() if binding is not None]
        self.weight_axes: dict[int, dict[int, Ids]] = defaultdict(dict)
        for binding in self.bindings:
            self.weight_axes[id(binding.variable)][binding.axis] = binding.ids
        # rules share one array among the axes that it indexes
        used = [binding.ids for binding in self.bindings]
        used += [ids for term in graph.terms for ids in term.factors]
        self.axes = list({id(ids): ids for ids in used}.values())
        self.axis_of = {id(ids): place for place, ids in enumerate(self.axes)}
        self.incidence = _incidence(self.axes, self.unit, self.units)
        self.groups, self.group_of = self._grouped()
        self.whole = np.array([len(group.units) for group in self.groups], np.int64)
        self.began = self.whole + np.array([group.fixed for group in self.groups], np.int64)

    def kept(self, mask: Mask) -> KeptSlots:
        """Turn a mask over units into a kept set; frozen units must be in it.

        Raises:
            ValueError: A frozen unit is not kept.
        """
        if not np.all(mask[self.frozen]):
            raise ValueError("mask must keep the frozen units.")
        return KeptSlots(self.unit, mask)

    def continues(self, original: Coupling) -> None:
        """Take the channel counts of the unpruned original for rounding and floors.

        Steps of kept numbers and floors are those of the original's widths: a layer of 16
        channels that lost 8 is not one of 8, which might be thinned to 4.
        """
        totals = {key: len(group.units) + group.fixed for key, group in _keyed(original.groups)}
        self.began = np.array(
            [totals.get(key, total) for (key, _), total in zip(_keyed(self.groups), self.began,
                                                               strict=True)], np.int64,
        )  # fmt: skip

    @cached_property
    def depth(self) -> Depth:
        """The blocks of the model, with what they carry and what is held."""
        return Depth(self.program, self.graph)

    def keep_first_units(self, kept: Ids) -> Mask:
        """Return the mask that keeps the first `kept` units of each group."""
        mask = np.ones(self.units, bool)
        for group, count in zip(self.groups, kept, strict=True):
            mask[group.units[count:]] = False
        return mask

    def frozen_report(self) -> tuple[Frozen, ...]:
        """List frozen units by reason, in the order in which the reasons arose."""
        makers = self._makers_by(self._reason, len(self.graph.freezes))
        counts = np.bincount(self._reason[self.frozen], minlength=len(makers)).tolist()
        return tuple(
            Frozen(freeze.layer, freeze.reason, count, names)
            for freeze, count, names in zip(self.graph.freezes, counts, makers, strict=True)
            if count
        )

    def reasons_of(self, group: Group) -> tuple[str, ...]:
        """Return the reasons why units on the axes of a group are frozen."""
        units = np.flatnonzero((self._signature == self._signature[group.units[0]]) & self.frozen)
        indices = dict.fromkeys(self._reason[units].tolist())
        return tuple(self.graph.freezes[index].reason for index in indices)

    def _grouped(self) -> tuple[tuple[Group, ...], Ids]:
        weights = np.random.default_rng(0).integers(1, 2**62, size=len(self.axes))
        self._signature = np.asarray(self.incidence.T @ weights)
        group_of = np.full(self.units, -1)
        prunable = np.flatnonzero(~self.frozen & (self._signature != 0))
        if not len(prunable):
            return (), group_of
        _, first, inverse = np.unique(
            self._signature[prunable], return_index=True, return_inverse=True
        )
        order = np.argsort(first)  # in the order of the model
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        group_of[prunable] = rank[inverse]
        by_group = np.split(
            prunable[np.argsort(rank[inverse], kind="stable")],
            np.cumsum(np.bincount(rank[inverse]))[:-1],
        )
        columns = self.incidence.tocsc()
        axes = np.array([self.axis_of[id(binding.ids)] for binding in self.bindings])
        heads = np.zeros(self.units, bool)
        for start, stop in self.graph.heads:
            heads[self.unit[start:stop]] = True
        fixed = self._signature[self.frozen]
        makers = self._makers_by(group_of, len(by_group))
        groups = []
        for index, units in enumerate(by_group):
            column = slice(columns.indptr[units[0]], columns.indptr[units[0] + 1])
            rows, counts = columns.indices[column], columns.data[column]
            found = np.flatnonzero(np.isin(axes, rows))
            names = dict.fromkeys(self.bindings[place].layer for place in found)
            groups.append(
                Group(
                    index,
                    makers[index][0],
                    makers[index],
                    units,
                    int(np.count_nonzero(fixed == self._signature[units[0]])),
                    int(counts.min()),
                    HEADS if heads[units[0]] else "channels",
                    tuple(names),
                )
            )
        return tuple(groups), group_of

    def _makers_by(self, label: Ids, count: int) -> list[tuple[str, ...]]:
        """Return the layers that made the units of each label, in the order of the model."""
        names: list[dict[str, None]] = [{} for _ in range(count)]
        bounds = [*(start for start, _ in self.graph.makers), self.graph.count]
        for (start, layer), stop in zip(self.graph.makers, bounds[1:], strict=True):
            for place in np.unique(label[self.unit[start:stop]]):
                if place >= 0:
                    names[place][layer] = None
        return [tuple(found) for found in names]


def _keyed(groups: tuple[Group, ...]) -> list[tuple[tuple[str, str, int], Group]]:
    """Pair groups with a key that is the same in every step: maker, kind, place among equals."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for group in groups:
        name = (group.name, group.kind)
        seen[name] = seen.get(name, -1) + 1
        found.append(((*name, seen[name]), group))
    return found


def _components(graph: CouplingGraph) -> tuple[Ids, int]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not graph.pairs:
        return np.arange(graph.count), graph.count
    pairs = [np.broadcast_arrays(first, second) for first, second in graph.pairs]
    rows = np.concatenate([first.ravel() for first, _ in pairs])
    columns = np.concatenate([second.ravel() for _, second in pairs])
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), (graph.count, graph.count))
    count, unit = connected_components(links, directed=False)
    return unit.astype(np.int64), int(count)


def _incidence(axes: list[Ids], unit: Ids, units: int) -> scipy.sparse.csr_array:
    """Count the entries of each unit on each axis, (axes, units)."""
    from scipy.sparse import coo_array

    columns = unit[np.concatenate(axes)] if axes else np.zeros(0, np.int64)
    rows = np.repeat(np.arange(len(axes)), [len(ids) for ids in axes])
    ones = np.ones(len(rows), np.int64)
    return coo_array((ones, (rows, columns)), shape=(len(axes), units)).tocsr()

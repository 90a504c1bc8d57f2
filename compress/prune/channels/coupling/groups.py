"""Coupling of a model: units, groups, and frozen units with reasons."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.program import Program
from compress.prune.channels.coupling.blocks import BlockDependencies
from compress.prune.channels.coupling.slots import HEADS, CouplingGraph, Ids

if TYPE_CHECKING:
    import scipy.sparse

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that have entries on the same axes of the same layers.

    Attributes:
        index: Index in `Coupling.groups`.
        name: First layer that produces the channels.
        makers: All layers that produce them, such as layers tied by additions.
        units: Indices of the units that can be removed.
        fixed: Number of frozen units on the same axes.
        width: Channels of a unit on its narrowest axis (more than 1 in grouped convolutions).
        kind: "channels" or "heads".
        layers: Names of the layers whose weights the units have entries in.
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
        """The number of channels on the narrowest axis, frozen ones included."""
        return (len(self.units) + self.fixed) * self.width


@dataclass(frozen=True)
class FrozenUnits:
    """Units that cannot be removed for one reason, such as "model output 'probabilities'".

    Attributes:
        layer: Name of the layer that froze them.
        reason: Reason why they cannot be removed.
        units: Number of units.
        made_by: Layers that produce them.
    """

    layer: str
    reason: str
    units: int
    made_by: tuple[str, ...]


class KeptSlots:
    """The kept entries of axes, for a mask of kept units.

    Args:
        unit: Unit of every slot, (slots,).
        mask: True for kept units, (units,).
    """

    def __init__(self, unit: Ids, mask: Mask) -> None:
        self._unit = unit
        self._mask = mask

    def __call__(self, ids: Ids) -> Ids:
        """Return the kept indices of an axis."""
        return np.flatnonzero(self.get_flags(ids))

    def get_flags(self, ids: Ids) -> Mask:
        """Return a boolean for each index of an axis, True if it is kept."""
        return np.asarray(self._mask[self._unit[ids]])

    def count(self, ids: Ids) -> int:
        """Return the number of kept indices of an axis."""
        return int(np.count_nonzero(self.get_flags(ids)))


class Coupling:
    """Units and groups of a model: channels that must be kept or removed together.

    Args:
        program: Result of `compress.model.recording.record_program`.
        graph: Coupling graph filled by the rules.
        input_shape: Shape of one example at which MACs are counted, if the model's input has open
            sizes.

    Attributes:
        unit_of_slot: Unit of every slot, (slots,).
        unit_count: Number of units.
        bindings: Bindings of slots to weight axes.
        weight_axes: id of a weight -> axis -> its slots.
        axes: Slots of all axes of weights and of MAC terms.
        axis_rows: id of the slots of an axis -> its row of `incidence`.
        incidence: Number of entries of each unit on each axis, sparse, (axes, units).
        frozen: True for units that must be kept, (units,).
        groups: Removable units, grouped by their axes, in the order of the model.
        group_of_unit: Group of each unit, -1 if it has none, (units,).
        removable_counts: Number of removable units of each group, (groups,).
    """

    def __init__(self, program: Program, graph: CouplingGraph, input_shape: Any = None) -> None:
        self.program = program
        self.graph = graph
        self.input_shape = input_shape
        self.unit_of_slot, self.unit_count = _find_components(graph)
        self.frozen = np.zeros(self.unit_count, bool)
        self._freeze_index = np.full(self.unit_count, -1)
        for index in range(len(graph.freezes) - 1, -1, -1):
            units = self.unit_of_slot[graph.freezes[index].ids]
            self.frozen[units] = True
            self._freeze_index[units] = index
        self.bindings = [binding for binding in graph.bindings.values() if binding is not None]
        self.weight_axes: dict[int, dict[int, Ids]] = defaultdict(dict)
        for binding in self.bindings:
            self.weight_axes[id(binding.variable)][binding.axis] = binding.ids
        # axes with the same slots share one array
        used = [binding.ids for binding in self.bindings]
        used += [ids for term in graph.terms for ids in term.factors]
        self.axes = list({id(ids): ids for ids in used}.values())
        self.axis_rows = {id(ids): row for row, ids in enumerate(self.axes)}
        self.incidence = _build_incidence(self.axes, self.unit_of_slot, self.unit_count)
        self.groups, self.group_of_unit = self._build_groups()
        self.removable_counts = np.array([len(group.units) for group in self.groups], np.int64)

    def build_kept_slots(self, mask: Mask) -> KeptSlots:
        """Return the kept entries of axes for a mask of units, which must include frozen units.

        Args:
            mask: True for kept units, (units,).

        Raises:
            ValueError: A frozen unit is not kept.
        """
        if not np.all(mask[self.frozen]):
            raise ValueError("mask must keep the frozen units.")
        return KeptSlots(self.unit_of_slot, mask)

    @cached_property
    def block_dependencies(self) -> BlockDependencies:
        """The blocks of the model, with the calls and weights that depend on them."""
        return BlockDependencies(self.program, self.graph)

    def keep_first_units(self, kept: Ids) -> Mask:
        """Return the mask that keeps frozen units and the first `kept` units of each group.

        Args:
            kept: Number of units to keep in each group, (groups,).
        """
        mask = np.ones(self.unit_count, bool)
        for group, count in zip(self.groups, kept, strict=True):
            mask[group.units[count:]] = False
        return mask

    def list_frozen(self) -> tuple[FrozenUnits, ...]:
        """Return the frozen units by reason, in the order in which the reasons arose."""
        makers = self._group_makers(self._freeze_index, len(self.graph.freezes))
        counts = np.bincount(self._freeze_index[self.frozen], minlength=len(makers)).tolist()
        return tuple(
            FrozenUnits(freeze.layer, freeze.reason, count, names)
            for freeze, count, names in zip(self.graph.freezes, counts, makers, strict=True)
            if count
        )

    def list_frozen_reasons(self, group: Group) -> tuple[str, ...]:
        """Return the reasons why units on the axes of a group are frozen."""
        units = np.flatnonzero((self._signature == self._signature[group.units[0]]) & self.frozen)
        indices = dict.fromkeys(self._freeze_index[units].tolist())
        return tuple(self.graph.freezes[index].reason for index in indices)

    def _build_groups(self) -> tuple[tuple[Group, ...], Ids]:
        weights = np.random.default_rng(0).integers(1, 2**62, size=len(self.axes))
        self._signature = np.asarray(self.incidence.T @ weights)
        group_of = np.full(self.unit_count, -1)
        prunable = np.flatnonzero(~self.frozen & (self._signature != 0))
        units_by_signature: dict[int, list[int]] = defaultdict(list)  # in the order of the model
        signatures = self._signature[prunable].tolist()
        for unit, signature in zip(prunable.tolist(), signatures, strict=True):
            units_by_signature[signature].append(unit)
        by_group = [np.array(units) for units in units_by_signature.values()]
        for index, units in enumerate(by_group):
            group_of[units] = index
        columns = self.incidence.tocsc()
        axes = np.array([self.axis_rows[id(binding.ids)] for binding in self.bindings])
        heads = np.zeros(self.unit_count, bool)
        for start, stop in self.graph.heads:
            heads[self.unit_of_slot[start:stop]] = True
        fixed = self._signature[self.frozen]
        makers = self._group_makers(group_of, len(by_group))
        groups = []
        for index, units in enumerate(by_group):
            column = slice(columns.indptr[units[0]], columns.indptr[units[0] + 1])
            rows, counts = columns.indices[column], columns.data[column]
            binding_rows = np.flatnonzero(np.isin(axes, rows))
            names = dict.fromkeys(self.bindings[row].layer for row in binding_rows)
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

    def _group_makers(self, label: Ids, count: int) -> list[tuple[str, ...]]:
        """Return the layers that produced the units of each label, in the order of the model."""
        names: list[dict[str, None]] = [{} for _ in range(count)]
        bounds = [*(start for start, _ in self.graph.makers), self.graph.count]
        for (start, layer), stop in zip(self.graph.makers, bounds[1:], strict=True):
            for index in np.unique(label[self.unit_of_slot[start:stop]]):
                if index >= 0:
                    names[index][layer] = None
        return [tuple(layer_names) for layer_names in names]


def _find_components(graph: CouplingGraph) -> tuple[Ids, int]:
    """Return the unit of every slot, (slots,), and the number of units."""
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


def _build_incidence(axes: list[Ids], unit: Ids, units: int) -> scipy.sparse.csr_array:
    """Count the entries of each unit on each axis, (axes, units)."""
    from scipy.sparse import coo_array

    columns = unit[np.concatenate(axes)] if axes else np.zeros(0, np.int64)
    rows = np.repeat(np.arange(len(axes)), [len(ids) for ids in axes])
    ones = np.ones(len(rows), np.int64)
    return coo_array((ones, (rows, columns)), shape=(len(axes), units)).tocsr()

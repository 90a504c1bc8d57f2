"""Context of a criterion: the weights of units, and examples for criteria that need data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Dataset, UnlabelledDataset
from compress.model.activations import find_batch_size
from compress.model.ports import flatten_inputs
from compress.model.program import Node
from compress.plugins import CRITERIA
from compress.prune.channels.coupling.groups import Coupling, Group
from compress.prune.channels.coupling.slots import Ids

Scores = npt.NDArray[np.float64]
T = TypeVar("T")
Criterion = Callable[[Group, "Context"], Any]

BATCH = 128
"""Number of examples run at a time, if the memory budget allows it."""
FIRST_BATCH = 16
"""Number of examples run first when dead units are looked for."""


def resolve_criterion(criterion: str | Criterion) -> tuple[str, Criterion]:
    """Return the name of a criterion, as reports and maps use it, and its function.

    Args:
        criterion: Name, or a function (group, context) -> (units,).

    Raises:
        InputError: There is no criterion of this name.
    """
    if isinstance(criterion, str):
        return criterion, CRITERIA[criterion]
    return getattr(criterion, "__name__", type(criterion).__name__), criterion


@dataclass(frozen=True, eq=False)
class Slice:
    """The entries of one weight axis that belong to the units of a group.

    Attributes:
        binding: Index in `Coupling.bindings`.
        variable: The weight.
        axis: Axis of the weight.
        entries: Indices on the axis, ordered by unit.
        local: For each entry, the index of its unit in `Group.units`.
    """

    binding: int
    variable: Any
    axis: int
    entries: Ids
    local: Ids


class Context:
    """Weights by unit, and the scores computed from them, cached for all groups.

    Args:
        coupling: Coupling of the model.
        data: Examples for criteria that need data; None: no data.
        seed: Seed of random criteria and of drawn examples.
        examples: Number of training examples for criteria that need data.
    """

    def __init__(
        self,
        coupling: Coupling,
        *,
        data: Dataset | UnlabelledDataset | None = None,
        seed: int = 0,
        examples: int = 1024,
    ) -> None:
        self.coupling = coupling
        self.data = data
        self.seed = seed
        self.examples = examples
        self.notes: list[str] = []
        self._results: dict[Any, Any] = {}
        self._scores: dict[tuple[int, int], Scores] = {}
        self._sums: dict[tuple[int, float], Scores] = {}

    def compute_once(self, compute: Callable[[Context], T]) -> T:
        """Return `compute(self)`, cached: for criteria that compute all groups together."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        result: T = self._results[compute]
        return result

    def cache_scores(self, criterion: Criterion, scores: Sequence[Scores]) -> None:
        """Store scores that a criterion returned before, one array for each group."""
        self._scores |= {(id(criterion), index): part for index, part in enumerate(scores)}

    def score(self, criterion: Criterion, group: Group) -> Scores:
        """Return a criterion's scores of a group's units, (units,), higher = keep; cached.

        If there are examples, units that layers read as zero on all of them get the lowest score.
        They are removed first, because they do not affect the outputs, however large their weights
        are.

        Args:
            criterion: Function that scores units.
            group: Group of units.

        Raises:
            InputError: The criterion did not return one finite number for each unit.
        """
        key = id(criterion), group.index
        if key not in self._scores:
            self._scores[key] = self._compute_scores(criterion, group)
        return self._scores[key]

    def _compute_scores(self, criterion: Criterion, group: Group) -> Scores:
        size = len(group.units)
        scores = np.asarray(criterion(group, self), np.float64)
        if scores.shape != (size,) or not np.all(np.isfinite(scores)):
            raise InputError(
                f"A channel criterion must return {size} finite numbers for group "
                f"'{group.name}'. Received: shape {scores.shape}"
                + ("." if scores.shape != (size,) else ", some not finite.")
            )
        if self.data is None:
            return scores
        dead = self.compute_once(find_dead_units)[group.units]
        if not dead.any():
            return scores
        count = min(self.examples, len(self.data.train))
        self.notes.append(
            f"group '{group.name}': {np.count_nonzero(dead)} of {size} units are zero on all "
            f"{count:,} calibration examples: they are removed first"
        )
        return np.where(dead, min(0.0, float(scores.min())), scores)

    def slices(self, group: Group) -> list[Slice]:
        """Return all weight slices of a group's units."""
        return self._slices[group.index]

    def kernels(self, group: Group) -> list[Slice]:
        """Return the slices of kernels and tables: weights with at least two axes."""
        return [part for part in self.slices(group) if len(part.variable.shape) > 1]

    def scales(self, group: Group) -> list[Slice]:
        """Return the slices of normalization scales."""
        return [part for part in self.slices(group) if id(part.variable) in self._scales]

    def value(self, variable: Any) -> npt.NDArray[Any]:
        """Return a weight as an array."""
        return np.asarray(variable.numpy())

    def power_sums(self, part: Slice, power: float) -> Scores:
        """Return the sum of |w|^power over the entries of each unit of a slice, (units,)."""
        sums = self._sum_axis(part, power)[part.entries]
        count = int(part.local.max()) + 1
        if len(sums) == count:  # one entry per unit, in the order of the units
            return sums
        return np.asarray(np.bincount(part.local, sums, count), np.float64)

    def combined(self, parts: list[Scores]) -> Scores:
        """Return the mean of the norms of a unit's slices, (slices, units) -> (units,)."""
        return np.asarray(np.mean(parts, axis=0))

    def _sum_axis(self, part: Slice, power: float) -> Scores:
        key = (part.binding, power)
        if key not in self._sums:
            value = self.value(part.variable)
            value = value.astype(np.float32, copy=False)
            shape = value.shape
            table = value.reshape(
                int(np.prod(shape[: part.axis])),
                shape[part.axis],
                int(np.prod(shape[part.axis + 1 :])),
            )
            if power == 2:  # a fifth of the time
                sums = np.einsum("ijk,ijk->j", table, table)
            else:
                sums = (np.abs(table) ** power).sum((0, 2))
            self._sums[key] = sums.astype(np.float64)
        return self._sums[key]

    @cached_property
    def _scales(self) -> set[int]:
        return {
            id(weight)
            for node in self.coupling.program.walk()
            if "Normalization" in type(node.operation).__name__
            for weight in (getattr(node.operation, name, None) for name in ("gamma", "scale"))
            if weight is not None
        }

    @cached_property
    def _slices(self) -> list[list[Slice]]:
        coupling = self.coupling
        position = np.zeros(coupling.unit_count, np.int64)
        for group in coupling.groups:
            position[group.units] = np.arange(len(group.units))
        by_axis: dict[int, list[tuple[int, Ids, Ids]]] = {}
        slices_by_group: list[list[Slice]] = [[] for _ in coupling.groups]
        for index, binding in enumerate(coupling.bindings):
            if id(binding.ids) not in by_axis:
                by_axis[id(binding.ids)] = _group_entries(coupling, binding.ids, position)
            for number, entries, local in by_axis[id(binding.ids)]:
                slices_by_group[number].append(
                    Slice(index, binding.variable, binding.axis, entries, local)
                )
        return slices_by_group


def _group_entries(coupling: Coupling, ids: Ids, position: Ids) -> list[tuple[int, Ids, Ids]]:
    units = coupling.unit_of_slot[ids]
    groups = coupling.group_of_unit[units]
    order = np.lexsort((position[units], groups))
    order = order[np.searchsorted(groups[order], 0) :]
    if not len(order):
        return []
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [
        (int(groups[entries[0]]), entries, position[units[entries]])
        for entries in np.split(order, starts[1:])
    ]


def find_dead_units(context: Context) -> npt.NDArray[np.bool_]:
    """Return which units layers read as zero on all examples, (units,).

    Most models have no such units, and a few examples show it: the first batch is small, and no
    further one runs when every unit that is read has been nonzero once.
    """
    sums, read_counts = measure_magnitudes(context, until_nonzero=True)
    return np.asarray((read_counts > 0) & (sums == 0))


def measure_magnitudes(context: Context, *, until_nonzero: bool = False) -> tuple[Scores, Scores]:
    """Return the sum over all reads of a unit's mean magnitude, and the number of its reads.

    A read is one of the unit's channels in one batch of a tensor. The tensors are the inputs of
    layers with weights. Inputs of normalization layers are excluded: a unit may be nonzero
    there, but zero after the activation that follows.

    Args:
        context: Data, coupling, seed and number of examples.
        until_nonzero: Whether to stop when every unit that is read has been nonzero once.

    Returns:
        The sums, (units,), and the numbers of reads, (units,).
    """
    data, coupling = context.data, context.coupling
    assert data is not None
    sums, read_counts = np.zeros(coupling.unit_count), np.zeros(coupling.unit_count)
    order = np.random.default_rng(context.seed).permutation(len(data.train))[: context.examples]

    def record_inputs(node: Node, arguments: list[Any]) -> None:
        operation, tensors = node.operation, node.inputs
        if not getattr(operation, "weights", None) or "Normalization" in type(operation).__name__:
            return
        for tensor, value in zip(tensors, arguments, strict=True):
            slots = coupling.graph.tensors[id(tensor)]
            array = np.abs(np.asarray(value))
            for axis in slots.tracked:
                other_axes = tuple(other for other in range(array.ndim) if other != axis)
                units = coupling.unit_of_slot[slots.axes[axis]]
                sums[:] += np.bincount(units, array.mean(other_axes), minlength=coupling.unit_count)
                read_counts[:] += np.bincount(units, minlength=coupling.unit_count)

    # record_inputs() copies the inputs of a layer
    size = find_batch_size(coupling.program, BATCH, copies=1.5)
    first = min(size, FIRST_BATCH) if until_nonzero else size
    start = 0
    while start < len(order):
        stop = start + (size if start else first)
        part = data.train.take(order[start:stop])
        coupling.program.run(
            flatten_inputs(coupling.program.model, data.preprocess(part.x)), record_inputs
        )
        if until_nonzero and np.all(sums[read_counts > 0]):
            break
        start = stop
    return sums, read_counts

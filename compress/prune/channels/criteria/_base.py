"""Context of a criterion: the weights of units, and data where it needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.model.activations import examples_at_once
from compress.model.ports import listed
from compress.model.program import Node
from compress.plugins import CRITERIA
from compress.prune.channels.coupling.groups import Coupling, Group
from compress.prune.channels.coupling.slots import Ids

if TYPE_CHECKING:
    from compress.data import Dataset, Unlabelled

Scores = npt.NDArray[np.float64]
T = TypeVar("T")
Criterion = Callable[[Group, "Context"], Any]

BATCH = 128
"""Examples at a time, where the memory budget allows."""


def named(criterion: str | Criterion) -> tuple[str, Criterion]:
    """Return a criterion with the name that reports and maps know it by.

    Raises:
        InputError: There is none of this name.
    """
    if isinstance(criterion, str):
        return criterion, CRITERIA[criterion]
    return getattr(criterion, "__name__", type(criterion).__name__), criterion


@dataclass(frozen=True, eq=False)
class Slice:
    """The entries of one weight axis that belong to a group's units.

    Attributes:
        binding: Index in `Coupling.bindings`.
        variable: The weight.
        axis: Its axis.
        entries: Indices on the axis, ordered by unit.
        local: For each entry its unit's place in `Group.units`.
    """

    binding: int
    variable: Any
    axis: int
    entries: Ids
    local: Ids


class Context:
    """Weights by unit, computed once for all groups.

    Args:
        coupling: Of the model.
        data: For criteria that look at examples; may be None.
        seed: For criteria that draw.
        examples: Number of training examples that data criteria look at.
        aggregate: How a unit's slices are put together: "mean", "sum", "max" or "norm".
    """

    def __init__(
        self,
        coupling: Coupling,
        *,
        data: Dataset | Unlabelled | None = None,
        seed: int = 0,
        examples: int = 1024,
        aggregate: str = "mean",
    ) -> None:
        self.coupling = coupling
        self.data = data
        self.seed = seed
        self.examples = examples
        self.aggregate = aggregate
        self.notes: list[str] = []
        self._of_all: dict[Any, Any] = {}
        self._scored: dict[tuple[int, int], Scores] = {}
        self._values: dict[int, npt.NDArray[Any]] = {}
        self._sums: dict[tuple[int, float], Scores] = {}

    def of_all(self, compute: Callable[[Context], T]) -> T:
        """Return `compute(self)`, for criteria that compute all groups at once; it is run once."""
        if compute not in self._of_all:
            self._of_all[compute] = compute(self)
        found: T = self._of_all[compute]
        return found

    def know(self, criterion: Criterion, scores: Sequence[Scores]) -> None:
        """Take scores that a criterion gave before, one array a group, in place of asking it."""
        self._scored |= {(id(criterion), index): part for index, part in enumerate(scores)}

    def scored(self, criterion: Criterion, group: Group) -> Scores:
        """Return a criterion's scores of a group's units, (units,), higher = keep; computed once.

        Where there are examples, units that are zero on all of them have the least of all, so
        that they leave first: nothing reads anything in them, however large their weights are.

        Raises:
            InputError: The criterion returned something else than one finite number a unit.
        """
        key = id(criterion), group.index
        if key not in self._scored:
            self._scored[key] = self._ask(criterion, group)
        return self._scored[key]

    def _ask(self, criterion: Criterion, group: Group) -> Scores:
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
        sums, seen = (part[group.units] for part in self.of_all(magnitudes))
        dead = (seen > 0) & (sums == 0)
        if not dead.any():
            return scores
        count = min(self.examples, len(self.data.train))
        self.notes.append(
            f"group '{group.name}': {np.count_nonzero(dead)} of {size} units are zero on all "
            f"{count:,} examples that were looked at: they leave first"
        )
        return np.where(dead, min(0.0, float(scores.min())), scores)

    def slices(self, group: Group) -> list[Slice]:
        """Return all weight slices that the group's units own."""
        return self._slices[group.index]

    def kernels(self, group: Group) -> list[Slice]:
        """Return the slices of kernels and tables: weights with two axes or more."""
        return [part for part in self.slices(group) if len(part.variable.shape) > 1]

    def scales(self, group: Group) -> list[Slice]:
        """Return the slices of normalization scales."""
        return [part for part in self.slices(group) if id(part.variable) in self._scales]

    def value(self, variable: Any) -> npt.NDArray[Any]:
        """Return a weight as an array."""
        if id(variable) not in self._values:
            self._values[id(variable)] = _array(variable)
        return self._values[id(variable)]

    def power_sums(self, part: Slice, power: float) -> Scores:
        """Return the sum of |w|^power over the entries of each unit of a slice, (units,)."""
        sums = self._axis_sums(part, power)[part.entries]
        count = int(part.local.max()) + 1
        if len(sums) == count:  # one entry a unit, in the order of the units
            return sums
        return np.asarray(np.bincount(part.local, sums, count), np.float64)

    def combined(self, parts: list[Scores]) -> Scores:
        """Combine the norms of a unit's slices, (slices, units) -> (units,)."""
        table = np.stack(parts)
        if self.aggregate == "norm":
            return np.asarray(np.sqrt((table**2).sum(0)))
        if self.aggregate == "max":
            return np.asarray(table.max(0))
        return np.asarray(table.sum(0) / (1 if self.aggregate == "sum" else len(parts)))

    def _axis_sums(self, part: Slice, power: float) -> Scores:
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
            if power == 2:
                sums = np.einsum("ijk,ijk->j", table, table)
            elif power == 1:
                sums = np.abs(table).sum((0, 2))
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
        place = np.zeros(coupling.units, np.int64)
        for group in coupling.groups:
            place[group.units] = np.arange(len(group.units))
        by_axis: dict[int, list[tuple[int, Ids, Ids]]] = {}
        found: list[list[Slice]] = [[] for _ in coupling.groups]
        for index, binding in enumerate(coupling.bindings):
            if id(binding.ids) not in by_axis:
                by_axis[id(binding.ids)] = _by_group(coupling, binding.ids, place)
            for number, entries, local in by_axis[id(binding.ids)]:
                found[number].append(Slice(index, binding.variable, binding.axis, entries, local))
        return found


def _array(variable: Any) -> npt.NDArray[Any]:
    """Return a weight for reading; where TensorFlow lends its buffer, without a copy."""
    try:
        return np.asarray(memoryview(variable.value.read_value()))
    except (AttributeError, TypeError, ValueError, BufferError):
        # bfloat16, a place other than the CPU, a variable of another kind
        return np.asarray(variable.numpy())


def _by_group(coupling: Coupling, ids: Ids, place: Ids) -> list[tuple[int, Ids, Ids]]:
    units = coupling.unit[ids]
    groups = coupling.group_of[units]
    order = np.lexsort((place[units], groups))
    order = order[np.searchsorted(groups[order], 0) :]
    if not len(order):
        return []
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [
        (int(groups[entries[0]]), entries, place[units[entries]])
        for entries in np.split(order, starts[1:])
    ]


def magnitudes(context: Context) -> tuple[Scores, Scores]:
    """Return mean magnitudes by unit, summed over all read tensors, and how often each is read.

    Tensors that layers with weights read are looked at, normalizations apart: there a unit may be
    alive that an activation behind them silences.
    """
    data, coupling = context.data, context.coupling
    assert data is not None
    sums, seen = np.zeros(coupling.units), np.zeros(coupling.units)
    order = np.random.default_rng(context.seed).permutation(len(data.train))[: context.examples]

    def watch(node: Node, arguments: list[Any]) -> None:
        operation, tensors = node.operation, node.inputs
        if not getattr(operation, "weights", None) or "Normalization" in type(operation).__name__:
            return
        for tensor, value in zip(tensors, arguments, strict=True):
            slots = coupling.graph.tensors[id(tensor)]
            array = np.abs(np.asarray(value))
            for axis in slots.tracked:
                others = tuple(other for other in range(array.ndim) if other != axis)
                units = coupling.unit[slots.axes[axis]]
                sums[:] += np.bincount(units, array.mean(others), minlength=coupling.units)
                seen[:] += np.bincount(units, minlength=coupling.units)

    # the values that a layer reads are looked at in a copy
    size = examples_at_once(coupling.program, BATCH, copies=1.5)
    for start in range(0, len(order), size):
        part = data.train.take(order[start : start + size])
        coupling.program.run(listed(coupling.program.model, data.preprocess(part.x)), watch)
    return sums, seen

"""Channel counts at which the calls of a model are timed, and these calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import SizedTensor
from compress.measure.latency_table import CallKey, build_call_key
from compress.measure.latency_table.fusion import FusedCalls, get_class_name
from compress.measure.latency_table.prediction import (
    build_interpolation_matrix,
    select_channel_counts,
    select_evenly,
)
from compress.model.keras_internals import update_derived_state
from compress.model.program import replace_tensors
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Ids, Numbers
from compress.prune.channels.selection.allowed_counts import AllowedCounts, Counts
from compress.prune.channels.surgery import PrunedModelBuilder

JOINT_POINTS = 7
"""Number of measured channel counts of groups that share an axis."""
Row = tuple[tuple[int, float], ...]
"""Groups with units on an axis, each with the number of entries per unit."""


@dataclass(frozen=True, eq=False)
class TimedUnit:
    """Fused calls that are timed together, and the condition on which they run.

    Attributes:
        unit: The calls.
        present_blocks: The unit runs only if all of these blocks are present.
        absent_blocks: If not empty, the unit runs only if at least one of these blocks is absent.
    """

    unit: FusedCalls
    present_blocks: tuple[int, ...] = ()
    absent_blocks: tuple[int, ...] = ()

    def compute_presence(self, present: Numbers) -> Numbers:
        """Return 1 if the unit runs, else 0; (..., blocks) -> (...)."""
        presence = present[..., list(self.present_blocks)].prod(-1)
        all_absent = present[..., list(self.absent_blocks)].prod(-1) if self.absent_blocks else 0.0
        return np.asarray(presence * (1.0 - all_absent))


@dataclass(frozen=True, eq=False)
class CountAxis:
    """Channel count, of one group or several together, that the latency of a unit depends on.

    The count of a single group is its number of units, frozen ones included.

    Attributes:
        groups: Indices of the groups, (n,).
        weights: Entries that one kept unit of each group adds to the count, (n,).
        fixed: Entries of frozen units; 0 if several groups are measured together.
        counts: All possible counts, increasing, (counts,).
        kept: Removable units of each group at these counts, (counts, n).
        measured: Indices of the measured counts.
        interpolation: Matrix from measured times to times at all counts, (counts, measured).
        is_linear: Whether the latency is about linear in the count, as in counts of input channels.
        is_joint: Whether several groups are measured together, all pruned by the same share.
    """

    groups: tuple[int, ...]
    weights: Numbers
    fixed: float
    counts: Numbers
    kept: Counts
    measured: tuple[int, ...]
    interpolation: Numbers
    is_linear: bool
    is_joint: bool = False

    def compute_counts(self, kept: npt.NDArray[Any]) -> Numbers:
        """Return the counts for kept units of all groups, (..., groups) -> (...)."""
        return np.asarray(kept[..., list(self.groups)] @ self.weights + self.fixed, np.float64)


def select_places(axes: Sequence[CountAxis]) -> list[tuple[int, ...]]:
    """Return the combinations of measured counts at which a unit is measured.

    Where the latency is about linear in one of two counts, the other one is measured in full at the
    largest first one only, and at its ends elsewhere; `complete_table` fills in the rest.

    Args:
        axes: Counts that the latency of the unit depends on.

    Returns:
        Positions among the measured counts of each axis, the last axis fastest.
    """
    shape = [len(axis.measured) for axis in axes]
    every = list(product(*map(range, shape)))
    line = find_full_axis(axes)
    if line is None:
        return every
    most, last = shape[1 - line] - 1, shape[line] - 1
    return [place for place in every if place[1 - line] == most or place[line] in (0, last)]


def find_full_axis(axes: Sequence[CountAxis]) -> int | None:
    """Return which of two axes is measured in full at the other's end; None: all combinations are.

    Args:
        axes: Counts that the latency of a unit depends on.
    """
    linear = [axis.is_linear for axis in axes]
    return linear.index(False) if sorted(linear) == [False, True] else None


class CallGrid:
    """The units of a coupling at the measured channel counts.

    If a group may have many channel counts, some are selected, see `select_channel_counts`. Counts
    of input channels are measured at three points.

    Args:
        coupling: Coupling of the model.
        allowed: Totals that the groups may have.
    """

    def __init__(self, coupling: Coupling, allowed: AllowedCounts) -> None:
        self._coupling, self._allowed = coupling, allowed
        self._count_axes: dict[tuple[tuple[Row, ...], bool], CountAxis] = {}

    def find_axes(self, unit: FusedCalls) -> tuple[CountAxis, ...]:
        """Return the channel counts that the latency of a unit depends on; () if they are fixed."""
        rows = {row for row in map(self._build_row, self._iter_axes(unit)) if row}
        parts: list[set[Row]] = []
        for row in rows:
            row_groups = _collect_groups([row])
            overlapping = [part for part in parts if row_groups & _collect_groups(part)]
            parts = [part for part in parts if part not in overlapping]
            parts.append({row}.union(*overlapping))
        input_groups, output_groups = (
            _collect_groups(
                map(self._build_row, self._iter_tracked(symbolic for _, symbolic in tensors))
            )
            for tensors in (unit.inputs, unit.outputs)
        )
        # with three or more axes, all counts would be too many combinations
        return tuple(
            self._get_axis(
                part, len(parts) > 2 or bool(_collect_groups(part) & (input_groups - output_groups))
            )
            for part in sorted(tuple(sorted(part)) for part in parts)
        )

    def iter_calls(self, unit: FusedCalls) -> Iterator[tuple[CallKey, Callable[[], Any]]]:
        """Yield the calls of a unit that are measured, in the order of `select_places`.

        Each item is the key of a call and a function that builds its model.
        """
        axes = self.find_axes(unit)
        for places in select_places(axes):
            kept = self._coupling.removable_counts.copy()
            for axis, place in zip(axes, places, strict=True):
                kept[list(axis.groups)] = axis.kept[axis.measured[place]]
            yield self.build_call(unit, kept)

    def build_call(self, unit: FusedCalls, kept: Counts) -> tuple[CallKey, Callable[[], Any]]:
        """Return the key of a unit's call and a function that builds its model.

        Args:
            unit: The unit.
            kept: Removable units kept in each group, (groups,).
        """
        smaller = PrunedModelBuilder(self._coupling, self._coupling.keep_first_units(kept))
        return self._build_key(unit, smaller), partial(self._build_model, unit, smaller)

    # -- channel counts ------------------------------------------------------------------

    def _iter_axes(self, unit: FusedCalls) -> Iterator[Ids]:
        for step in unit.steps:
            yield from self._iter_tracked((*step.node.inputs, *step.node.outputs))
            for weight in getattr(step.node.operation, "weights", ()):
                yield from self._coupling.weight_axes[id(weight)].values()

    def _iter_tracked(self, tensors: Iterable[Any]) -> Iterator[Ids]:
        for tensor in tensors:
            slots = self._coupling.graph.tensors.get(id(tensor))
            yield from (ids for ids in (slots.axes if slots else ()) if ids is not None)

    def _build_row(self, ids: Ids) -> Row:
        group = self._coupling.group_of_unit[self._coupling.unit_of_slot[ids]]
        names, counts = np.unique(group[group >= 0], return_counts=True)
        return tuple(
            (int(name), float(count) / len(self._coupling.groups[name].units))
            for name, count in zip(names, counts, strict=True)
        )

    def _get_axis(self, rows: tuple[Row, ...], is_linear: bool) -> CountAxis:
        groups = sorted(_collect_groups(rows))
        # the count of a single group is its total, regardless of its number of axes
        key = ((((groups[0], 1.0),),) if len(groups) == 1 else rows, is_linear)
        if key not in self._count_axes:
            self._count_axes[key] = (
                self._build_group_axis(groups[0], is_linear)
                if len(groups) == 1
                else self._build_joint_axis(groups, rows, is_linear)
            )
        return self._count_axes[key]

    def _list_allowed_totals(self, index: int) -> Counts:
        """Return all totals that a group may have, ascending; only some are measured."""
        allowed = self._allowed
        lowest, step = int(allowed.lowest[index]), int(allowed.step[index])
        total, highest = int(allowed.total[index]), int(allowed.highest[index])
        return np.unique(
            np.r_[lowest, np.arange(-(-lowest // step) * step, highest + 1, step), total]
        )

    def _build_group_axis(self, index: int, is_linear: bool) -> CountAxis:
        totals, fixed = self._list_allowed_totals(index), int(self._allowed.fixed[index])
        channels = [int(total) * self._coupling.groups[index].width for total in totals]
        picked = select_evenly(len(channels)) if is_linear else select_channel_counts(channels)
        return CountAxis(
            (index,),
            np.ones(1),
            float(fixed),
            totals.astype(np.float64),
            (totals - fixed)[:, None],
            tuple(picked),
            build_interpolation_matrix(channels, picked, tiled=not is_linear),
            is_linear,
        )

    def _build_joint_axis(
        self, groups: Sequence[int], rows: tuple[Row, ...], is_linear: bool
    ) -> CountAxis:
        """Return the joint axis of groups that share an axis, all pruned by the same share.

        Its count is the sum over the axes that the groups have units on.
        """
        weights = np.zeros(len(groups))
        for group, count in (item for row in rows for item in row):
            weights[groups.index(group)] += count
        totals = [self._list_allowed_totals(group) for group in groups]
        shares = np.linspace(0.0, 1.0, JOINT_POINTS)
        kept = (
            np.array(
                [
                    [
                        group_totals[round(share * (len(group_totals) - 1))]
                        for group_totals in totals
                    ]
                    for share in shares
                ]
            )
            - self._allowed.fixed[list(groups)]
        )
        counts, first = np.unique(kept @ weights, return_index=True)
        places = tuple(range(len(counts)))
        return CountAxis(
            tuple(groups), weights, 0.0, counts, kept[first], places, np.eye(len(counts)),
            is_linear, is_joint=True,
        )  # fmt: skip

    # -- calls ---------------------------------------------------------------------------

    def _compute_shape(
        self, tensor: SizedTensor, symbolic: Any, smaller: PrunedModelBuilder
    ) -> tuple[int, ...]:
        slots = self._coupling.graph.tensors.get(id(symbolic))
        axes = slots.axes if slots else (None,) * len(tensor.shape)
        sizes = tuple(
            size if ids is None else smaller.kept.count(ids)
            for size, ids in zip(tensor.shape, axes, strict=True)
        )
        if None in sizes:
            raise InputError(
                f"Times must be measured at a known input size. Received: {sizes} in model "
                f"'{self._coupling.program.model.name}'. Give input_shape (--input-shape)."
            )
        return tuple(int(size) for size in sizes if size is not None)

    def _build_key(self, unit: FusedCalls, smaller: PrunedModelBuilder) -> CallKey:
        inputs = unit.inputs
        numbers = {tensor.key: f"input {index}" for index, (tensor, _) in enumerate(inputs)}
        calls = []
        for step in unit.steps:
            # results of earlier calls are identified by their position in the unit
            names = [numbers.get(tensor.key, "before") for tensor in step.inputs]
            args, kwargs = replace_tensors(
                smaller.build_arguments(step.node), step.node.inputs, names
            )
            config = smaller.build_config(step.node)
            calls.append((get_class_name(step), {"config": config, "args": args, "kwargs": kwargs}))
        shapes = (
            [self._compute_shape(tensor, symbolic, smaller) for tensor, symbolic in tensors]
            for tensors in (inputs, unit.outputs)
        )
        return build_call_key(calls, *shapes)

    def _build_model(self, unit: FusedCalls, smaller: PrunedModelBuilder) -> Any:
        """Return a model of a unit, with random weights: converters may omit zeros and ones."""
        import keras

        values: dict[int, Any] = {}
        for tensor, symbolic in unit.inputs:
            shape = self._compute_shape(tensor, symbolic, smaller)
            values[tensor.key] = keras.Input(batch_shape=shape, dtype=tensor.dtype)
        model_inputs = list(values.values())
        results: list[Any] = []
        for step in unit.steps:
            results = smaller.call_layer(step.node, [values[tensor.key] for tensor in step.inputs])
            values.update(
                (tensor.key, result) for tensor, result in zip(step.outputs, results, strict=True)
            )
        model = keras.Model(model_inputs, results)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if "float" in str(weight.dtype):
                weight.assign(rng.uniform(0.5, 1.5, tuple(weight.shape)))
        update_derived_state(model)
        return model


def _collect_groups(rows: Iterable[Row]) -> set[int]:
    return {group for row in rows for group, _ in row}

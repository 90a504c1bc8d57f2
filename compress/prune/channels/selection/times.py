"""The time of every choice of channel counts and blocks, from a table of measured calls."""

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
from compress.measure.latency_table import CallKey, key_of
from compress.measure.latency_table.fused import Unit, kind_of
from compress.measure.latency_table.prediction import (
    MOST,
    Calibration,
    calibrate,
    few,
    located,
    multilinear,
    spreading,
    thinned,
)
from compress.model.internals import weights_changed
from compress.model.program import replaced
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Ids, Numbers
from compress.prune.channels.selection.allowed import Allowed, Counts
from compress.prune.channels.surgery import Surgeon

TOGETHER = 7
"""Measured widths of groups that meet on one axis."""
Row = tuple[tuple[int, float], ...]
"""Of an axis: the groups whose units lie on it, with the entries that one unit has there."""


@dataclass(frozen=True, eq=False)
class Part:
    """A unit, and when it runs.

    Attributes:
        unit: The calls.
        present: It runs where all of these blocks are present,
        absent: and, where this is not empty, one of these is absent.
    """

    unit: Unit
    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()

    def runs(self, present: Numbers) -> Numbers:
        """Return 1 where it runs, else 0; (..., blocks) -> (...)."""
        found = present[..., list(self.present)].prod(-1)
        if self.absent:
            found = found * (1.0 - present[..., list(self.absent)].prod(-1))
        return np.asarray(found)


@dataclass(frozen=True, eq=False)
class Surface:
    """The times of one unit: tables over the widths that it depends on.

    Attributes:
        part: The unit.
        widths: What it depends on, one axis of the tables each.
        times: In ms.
        weight_bytes: Of its weights.
        reason: Why some times are estimates; empty: they are measured, or between measured ones.
    """

    part: Part
    widths: tuple[Widths, ...]
    times: Numbers
    weight_bytes: Numbers
    reason: str


class TimeModel:
    """Milliseconds of one inference as a function of kept units and present blocks.

    Each unit's time is interpolated between measured widths. The model's time is the sum over its
    units and what a run costs beside them, put right by some nets that were measured whole
    (`calibrated`). Made by `TimedCalls.times`.

    Attributes:
        calibration: The last; of no nets where nothing was put right.
        estimated: Units whose times, or whose courses between the ends, are estimates, with the
            reasons: "softmax: ...".
    """

    def __init__(
        self, coupling: Coupling, blocks: int, overhead: float, surfaces: Sequence[Surface],
        calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self._coupling, self._blocks = coupling, blocks
        self._overhead, self._surfaces = overhead, list(surfaces)
        self.calibration = calibration or Calibration()
        self.estimated = tuple(_reasons(self._surfaces))

    def calibrated(
        self,
        kept: npt.NDArray[Any],
        measured: npt.NDArray[Any],
        present: npt.NDArray[Any] | None = None,
    ) -> TimeModel:
        """Return a time model whose mean error on whole models is zero.

        Args:
            kept: Removable units kept in each group by some nets, (nets, groups).
            measured: Their times as whole files in ms, (nets,).
            present: See `time`.

        Raises:
            InputError: There are fewer than four nets; or see `time`.
        """
        sums, held = self._sums(kept, present)
        return TimeModel(
            self._coupling,
            self._blocks,
            self._overhead,
            self._surfaces,
            calibrate(sums, held, measured),
        )

    def time(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Return the time of whole inferences in ms.

        Args:
            kept: Removable units kept in each group, (..., groups).
            present: 1 where a block stays, 0 where it leaves, (..., blocks); default: all stay.

        Returns:
            (...), with leading axes broadcast.

        Raises:
            InputError: A group keeps fewer or more units than were measured, or a shape is wrong.
        """
        sums, held = self._sums(kept, present)
        return np.asarray(self.calibration.factor * sums + self.calibration.weights_ms(held))

    def by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Return the time of each unit in ms, by the name of its kernel layer; see `time`.

        What a run costs beside them is "(run)"; what weights cost goes by their bytes. The sum
        is that of `time`.
        """
        rows = list(self._each(kept, present))
        total = np.asarray(sum(held for _, _, held in rows))
        share = self.calibration.weights_ms(total) / np.maximum(total, 1.0)
        factor = self.calibration.factor
        found: dict[str, Numbers] = {"(run)": np.asarray(factor * self._overhead)}
        for name, time, held in rows:
            found[name] = found.get(name, 0.0) + factor * time + share * held
        return found

    __call__ = time

    def _sums(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> tuple[Numbers, Numbers]:
        """Return the sums of the units' times, with a run's cost, and of their weights' bytes."""
        total, weight_bytes = np.asarray(self._overhead), np.zeros(())
        for _, time, held in self._each(kept, present):
            total, weight_bytes = total + time, weight_bytes + held
        return np.asarray(total), np.asarray(weight_bytes)

    def _each(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> Iterator[tuple[str, Numbers, Numbers]]:
        """Yield name, time and bytes of the weights of each unit."""
        counts = np.asarray(kept, np.float64)
        stays = np.ones(self._blocks) if present is None else np.asarray(present, np.float64)
        for name, given, size in (("kept", counts, len(self._coupling.groups)),
                                  ("present", stays, self._blocks)):  # fmt: skip
            if given.shape[-1:] != (size,):
                raise InputError(
                    f"{name} must have a last axis of {size}. Received: shape {given.shape}."
                )
        shape = np.broadcast_shapes(counts.shape[:-1], stays.shape[:-1])
        where: dict[int, Any] = {}
        for surface in self._surfaces:
            for width in surface.widths:
                if id(width) not in where:
                    where[id(width)] = self._located(width, counts)
            places = [where[id(width)] for width in surface.widths]
            runs = surface.part.runs(stays)
            # a unit of fixed channels takes one time for all
            time, held = (
                np.broadcast_to(multilinear(table, places) * runs, shape)
                for table in (surface.times, surface.weight_bytes)
            )
            yield surface.part.unit.name, time, held

    def _located(self, width: Widths, kept: Numbers) -> Any:
        values = width.of(kept)
        low, high = width.at[0], width.at[-1]
        if values.size and (values.min() < low - 1e-9 or values.max() > high + 1e-9):
            names = ", ".join(f"'{self._coupling.groups[group].name}'" for group in width.groups)
            raise InputError(
                f"Kept units of {names} must be within the widths that were measured, "
                f"{low - width.fixed:g} to {high - width.fixed:g}. "
                f"Received: {values.min() - width.fixed:g} to {values.max() - width.fixed:g}."
            )
        return located(np.clip(values, low, high), width.at)


def _reasons(surfaces: Sequence[Surface]) -> Iterator[str]:
    for surface in surfaces:
        if surface.reason:
            yield f"{surface.part.unit.name}: {surface.reason}"
        elif any(width.together for width in surface.widths):
            yield (
                f"{surface.part.unit.name}: several groups meet on one axis; they are measured "
                "all thinned alike"
            )


@dataclass(frozen=True, eq=False)
class Widths:
    """One thing that the time of a unit depends on: a group's width, or several together.

    Attributes:
        groups: Indices of the groups, (n,).
        weights: What one kept unit of each adds to the width, (n,).
        fixed: Of the width, what frozen units hold.
        at: All widths that can be asked for, rising, (widths,).
        kept: Removable units of each group at these, (widths, n).
        picked: Places of the measured ones.
        spread: (widths, picked): from measured times to those at all widths.
        together: Several groups are measured along one line, all thinned alike.
    """

    groups: tuple[int, ...]
    weights: Numbers
    fixed: float
    at: Numbers
    kept: Counts
    picked: tuple[int, ...]
    spread: Numbers
    together: bool = False

    def of(self, kept: npt.NDArray[Any]) -> Numbers:
        """Return the widths for kept units of all groups, (..., groups) -> (...)."""
        return np.asarray(kept[..., list(self.groups)] @ self.weights + self.fixed, np.float64)


class CallGrid:
    """The units of a coupling at the widths that are measured.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        most: Widths of a group that are all measured; of more some, see `thinned`. Along input
            channels alone three are.
    """

    def __init__(self, coupling: Coupling, allowed: Allowed, most: int = MOST) -> None:
        self._coupling, self._allowed, self._most = coupling, allowed, most
        self._widths: dict[tuple[tuple[Row, ...], bool], Widths] = {}

    def widths(self, unit: Unit) -> tuple[Widths, ...]:
        """Return the channel counts that the time of a unit depends on; none of fixed channels."""
        rows = {row for row in map(self._row, self._axes(unit)) if row}
        parts: list[set[Row]] = []
        for row in rows:
            own = _groups([row])
            met = [part for part in parts if own & _groups(part)]
            parts = [part for part in parts if part not in met]
            parts.append({row}.union(*met))
        given, made = (
            _groups(map(self._row, self._tracked(symbolic for _, symbolic in tensors)))
            for tensors in (unit.inputs, unit.outputs)
        )
        # of three or more all widths would be too many combinations
        return tuple(
            self._width_of(part, len(parts) > 2 or bool(_groups(part) & (given - made)))
            for part in sorted(tuple(sorted(part)) for part in parts)
        )

    def calls(self, unit: Unit) -> Iterator[tuple[CallKey, Callable[[], Any]]]:
        """Yield a unit's calls at all combinations of measured widths, the last fastest.

        With each key comes what makes the call's model.
        """
        widths = self.widths(unit)
        for places in product(*(width.picked for width in widths)):
            kept = self._coupling.whole.copy()
            for width, place in zip(widths, places, strict=True):
                kept[list(width.groups)] = width.kept[place]
            yield self.call_at(unit, kept)

    def call_at(self, unit: Unit, kept: Counts) -> tuple[CallKey, Callable[[], Any]]:
        """Return a unit's call where groups keep so many removable units, (groups,)."""
        smaller = Surgeon(self._coupling, self._coupling.keep_first_units(kept))
        return self._key(unit, smaller), partial(self._model, unit, smaller)

    # -- widths --------------------------------------------------------------------------

    def _axes(self, unit: Unit) -> Iterator[Ids]:
        for step in unit.steps:
            yield from self._tracked((*step.node.inputs, *step.node.outputs))
            for weight in getattr(step.node.operation, "weights", ()):
                yield from self._coupling.weight_axes[id(weight)].values()

    def _tracked(self, tensors: Iterable[Any]) -> Iterator[Ids]:
        for tensor in tensors:
            slots = self._coupling.graph.tensors.get(id(tensor))
            yield from (ids for ids in (slots.axes if slots else ()) if ids is not None)

    def _row(self, ids: Ids) -> Row:
        group = self._coupling.group_of[self._coupling.unit[ids]]
        names, counts = np.unique(group[group >= 0], return_counts=True)
        return tuple(
            (int(name), float(count) / len(self._coupling.groups[name].units))
            for name, count in zip(names, counts, strict=True)
        )

    def _width_of(self, rows: tuple[Row, ...], line: bool) -> Widths:
        groups = sorted(_groups(rows))
        # one group's width is its total, on however many axes it lies
        key = ((((groups[0], 1.0),),) if len(groups) == 1 else rows, line)
        if key not in self._widths:
            self._widths[key] = (
                self._alone(groups[0], line) if len(groups) == 1 else self._together(groups, rows)
            )
        return self._widths[key]

    def _totals(self, index: int) -> Counts:
        allowed = self._allowed
        lowest, step = int(allowed.lowest[index]), int(allowed.step[index])
        total, most = int(allowed.total[index]), int(allowed.highest[index])
        return np.unique(np.r_[lowest, np.arange(-(-lowest // step) * step, most + 1, step), total])

    def _alone(self, index: int, line: bool) -> Widths:
        totals, fixed = self._totals(index), int(self._allowed.fixed[index])
        channels = [int(total) * self._coupling.groups[index].width for total in totals]
        picked = few(len(channels)) if line else thinned(channels, self._most)
        return Widths(
            (index,),
            np.ones(1),
            float(fixed),
            totals.astype(np.float64),
            (totals - fixed)[:, None],
            tuple(picked),
            spreading(channels, picked, tiled=not line),
        )

    def _together(self, groups: Sequence[int], rows: tuple[Row, ...]) -> Widths:
        """Return the widths of groups that meet on an axis, thinned by one share.

        Their width is the sum of the axes that they lie on.
        """
        weights = np.zeros(len(groups))
        for group, count in (item for row in rows for item in row):
            weights[groups.index(group)] += count
        totals = [self._totals(group) for group in groups]
        shares = np.linspace(0.0, 1.0, TOGETHER)
        kept = np.array(
            [[found[round(share * (len(found) - 1))] for found in totals] for share in shares]
        ) - self._allowed.fixed[list(groups)]  # fmt: skip
        at, first = np.unique(kept @ weights, return_index=True)
        places = tuple(range(len(at)))
        return Widths(tuple(groups), weights, 0.0, at, kept[first], places, np.eye(len(at)), True)

    # -- calls ---------------------------------------------------------------------------

    def _shape(self, tensor: SizedTensor, symbolic: Any, smaller: Surgeon) -> tuple[int, ...]:
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

    def _key(self, unit: Unit, smaller: Surgeon) -> CallKey:
        inputs = unit.inputs
        numbers = {tensor.key: f"input {place}" for place, (tensor, _) in enumerate(inputs)}
        calls = []
        for step in unit.steps:
            # what an earlier call of the unit made is told by its place
            names = [numbers.get(tensor.key, "before") for tensor in step.inputs]
            args, kwargs = replaced(smaller.arguments(step.node), step.node.inputs, names)
            config = smaller.config(step.node)
            calls.append((kind_of(step), {"config": config, "args": args, "kwargs": kwargs}))
        shapes = (
            [self._shape(tensor, symbolic, smaller) for tensor, symbolic in tensors]
            for tensors in (inputs, unit.outputs)
        )
        return key_of(calls, *shapes)

    def _model(self, unit: Unit, smaller: Surgeon) -> Any:
        """Build a unit alone, with random weights: zeros and ones would be left out of a file."""
        import keras

        values: dict[int, Any] = {}
        for tensor, symbolic in unit.inputs:
            shape = self._shape(tensor, symbolic, smaller)
            values[tensor.key] = keras.Input(batch_shape=shape, dtype=tensor.dtype)
        given = list(values.values())
        results: list[Any] = []
        for step in unit.steps:
            results = smaller.results(step.node, [values[tensor.key] for tensor in step.inputs])
            values.update(
                (tensor.key, result) for tensor, result in zip(step.outputs, results, strict=True)
            )
        model = keras.Model(given, results)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if "float" in str(weight.dtype):
                weight.assign(rng.uniform(0.5, 1.5, tuple(weight.shape)))
        weights_changed(model)
        return model


def _groups(rows: Iterable[Row]) -> set[int]:
    return {group for row in rows for group, _ in row}

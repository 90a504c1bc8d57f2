"""The time of every choice of widths and blocks, from a table of measured calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import walked
from compress.measure.latency_table import CallKey, LatencyTable
from compress.measure.latency_table.fused import Unit, fuses, leaving, units_of
from compress.measure.latency_table.interpolation import MOST, located, multilinear
from compress.prune.channels.selection.call_grid import CallGrid, Widths
from compress.prune.channels.selection.solver import Allowed

if TYPE_CHECKING:
    from compress.measure.walk import Step
    from compress.prune.channels.coupling.groups import Coupling

Numbers = npt.NDArray[np.float64]


class Branch(Protocol):
    """A residual branch that may leave.

    Attributes:
        layers: Names of its layers.
    """

    @property
    def layers(self) -> Sequence[str]: ...


@dataclass(frozen=True, eq=False)
class _Part:
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
        """Returns 1 where it runs, else 0; (..., blocks) -> (...)."""
        found = present[..., list(self.present)].prod(-1)
        if self.absent:
            found = found * (1.0 - present[..., list(self.absent)].prod(-1))
        return np.asarray(found)


class TimedCalls:
    """Which calls must be measured to know the time of any choice, and the times made of them.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Residual branches that may leave; see `Branch`.
        most: Widths of a group that are measured, about: all of 5 or fewer. A call that depends
            on two groups is measured at all combinations.

    Raises:
        InputError: An input size is unknown.
    """

    def __init__(
        self,
        coupling: Coupling,
        allowed: Allowed,
        blocks: Sequence[Branch] = (),
        *,
        most: int = MOST,
    ) -> None:
        self._coupling, self._allowed, self._blocks = coupling, allowed, tuple(blocks)
        self._grid = CallGrid(coupling, allowed, most)
        self._parts = list(_parts(coupling, self._blocks))

    def models(self) -> dict[CallKey, Callable[[], Any]]:
        """Returns for each call to measure what makes its model: what `measure_calls` takes."""
        found: dict[CallKey, Callable[[], Any]] = {}
        for part in self._parts:
            for key, make in self._grid.calls(part.unit):
                found.setdefault(key, make)
        return found

    def calls_at(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> list[tuple[str, CallKey, Callable[[], Any]]]:
        """Returns the calls of one choice itself: names, keys, and what makes their models.

        Args:
            kept: Removable units kept in each group, (groups,).
            present: 1 where a block stays, (blocks,); default: all stay.
        """
        stays = np.ones(len(self._blocks)) if present is None else np.asarray(present, np.float64)
        return [
            (part.unit.name, *self._grid.call_at(part.unit, np.asarray(kept, np.int64)))
            for part in self._parts
            if part.runs(stays)
        ]

    def times(self, table: LatencyTable) -> TimeModel:
        """Returns the times by a table.

        Raises:
            InputError: It lacks a call.
        """
        surfaces = []
        for part in self._parts:
            widths = self._grid.widths(part.unit)
            calls = [table[key] for key, _ in self._grid.calls(part.unit)]
            grid = np.array([call.ms for call in calls])
            grid = grid.reshape([len(width.picked) for width in widths])
            for axis, width in enumerate(widths):
                grid = np.moveaxis(np.tensordot(width.spread, grid, (1, axis)), 0, axis)
            reason = next((call.reason for call in calls if call.reason), "")
            surfaces.append(_Surface(part, widths, grid, reason))
        return TimeModel(self._coupling, len(self._blocks), table.overhead_ms, surfaces)


@dataclass(frozen=True, eq=False)
class _Surface:
    """The times of one unit: a table over the widths that it depends on."""

    part: _Part
    widths: tuple[Widths, ...]
    times: Numbers
    reason: str


class TimeModel:
    """Milliseconds of one inference as a function of kept units and present blocks.

    Each unit's time is interpolated between measured widths; the sum over units, and what a run
    costs beside them, is the model's. Made by `TimedCalls.times`.

    Attributes:
        estimated: Units whose times, or whose courses between the ends, are estimates, with the
            reasons: "softmax: ...".
    """

    def __init__(
        self, coupling: Coupling, blocks: int, overhead: float, surfaces: Sequence[_Surface]
    ) -> None:
        self._groups, self._blocks = coupling.groups, blocks
        self._overhead, self._surfaces = overhead, list(surfaces)
        self.estimated = tuple(_reasons(self._surfaces))

    def time(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the time of whole inferences in ms.

        Args:
            kept: Removable units kept in each group, (..., groups).
            present: 1 where a block stays, 0 where it leaves, (..., blocks); default: all stay.

        Returns:
            (...), with leading axes broadcast.

        Raises:
            InputError: A group keeps fewer or more units than were measured, or a shape is wrong.
        """
        total: Numbers = np.asarray(self._overhead)
        for _, time in self._each(kept, present):
            total = total + time
        return np.asarray(total)

    def by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Returns the time of each unit in ms, by the name of its kernel layer; see `time`.

        What a run costs beside them is "(run)".
        """
        found: dict[str, Numbers] = {"(run)": np.asarray(self._overhead)}
        for name, time in self._each(kept, present):
            found[name] = found[name] + time if name in found else time
        return found

    def _each(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> Iterator[tuple[str, Numbers]]:
        counts = np.asarray(kept, np.float64)
        stays = np.ones(self._blocks) if present is None else np.asarray(present, np.float64)
        for name, given, size in (("kept", counts, len(self._groups)),
                                  ("present", stays, self._blocks)):  # fmt: skip
            if given.shape[-1:] != (size,):
                raise InputError(
                    f"{name} must have a last axis of {size}. Received: shape {given.shape}."
                )
        where: dict[int, Any] = {}
        for surface in self._surfaces:
            for width in surface.widths:
                if id(width) not in where:
                    where[id(width)] = self._located(width, counts)
            places = [where[id(width)] for width in surface.widths]
            time = multilinear(surface.times, places)
            # a unit of fixed channels takes one time for all
            shape = np.broadcast_shapes(counts.shape[:-1], stays.shape[:-1])
            time = np.broadcast_to(time * surface.part.runs(stays), shape)
            yield surface.part.unit.name, time

    def _located(self, width: Widths, kept: Numbers) -> Any:
        values = width.of(kept)
        low, high = width.at[0], width.at[-1]
        if values.size and (values.min() < low - 1e-9 or values.max() > high + 1e-9):
            names = ", ".join(f"'{self._groups[group].name}'" for group in width.groups)
            raise InputError(
                f"Kept units of {names} must be within the widths that were measured, "
                f"{low - width.fixed:g} to {high - width.fixed:g}. "
                f"Received: {values.min() - width.fixed:g} to {values.max() - width.fixed:g}."
            )
        return located(np.clip(values, low, high), width.at)


def _parts(coupling: Coupling, blocks: Sequence[Branch]) -> Iterator[_Part]:
    """Yields the units of a model, with the blocks that they need."""
    steps = walked(coupling.program, coupling.input_shape)
    outputs = coupling.program.outputs
    gone = [leaving(steps, block.layers, outputs) for block in blocks]
    units = units_of(steps, outputs)
    for unit in units:
        inside = [sum(id(step) in ids for step in unit.steps) for ids in gone]
        whole = tuple(b for b, count in enumerate(inside) if count == len(unit.steps))
        partly = tuple(b for b, count in enumerate(inside) if 0 < count < len(unit.steps))
        yield _Part(unit, (*whole, *partly))
        if not partly:
            continue
        # the sum leaves, the activation behind it stays
        left = tuple(step for step in unit.steps if id(step) not in gone[partly[0]])
        if not _joins(left, unit, units, steps, gone[partly[0]]):
            yield _Part(Unit(left), whole, partly)


def _joins(
    left: tuple[Step, ...], unit: Unit, units: Sequence[Unit], steps: Sequence[Step], gone: set[int]
) -> bool:
    """Tells whether what is left of a unit runs with the unit that makes the sum's other side."""
    made = {tensor.key for step in steps if id(step) in gone for tensor in step.outputs}
    sums = [step for step in unit.steps if id(step) in gone]
    operands = {tensor.key for tensor in sums[0].inputs if tensor.key not in made}
    for other in units:
        if {tensor.key for tensor in other.steps[-1].outputs} & operands:
            users = [
                step for step in steps
                if id(step) not in gone and operands & {tensor.key for tensor in step.inputs}
            ]  # fmt: skip
            return not users and fuses(other.steps, left[0])
    return False


def _reasons(surfaces: Sequence[_Surface]) -> Iterator[str]:
    for surface in surfaces:
        if surface.reason:
            yield f"{surface.part.unit.name}: {surface.reason}"
        elif any(width.together for width in surface.widths):
            yield (
                f"{surface.part.unit.name}: several groups meet on one axis; they are measured "
                "all thinned alike"
            )

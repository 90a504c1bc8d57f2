"""Which calls tell the time of every choice of widths and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.measure.counting import walked
from compress.measure.latency_table import CallKey, LatencyTable
from compress.measure.latency_table.fused import Unit, fuses, leaving, units_of
from compress.measure.latency_table.prediction import MOST
from compress.prune.channels.selection.call_grid import CallGrid
from compress.prune.channels.selection.solver import Allowed
from compress.prune.channels.selection.times import Part, Surface, TimeModel

if TYPE_CHECKING:
    from compress.measure.walk import Step
    from compress.prune.channels.coupling.groups import Coupling


class Branch(Protocol):
    """A residual branch that may leave: `coupling.blocks.Block` is one."""

    @property
    def layers(self) -> Sequence[str]:
        """Names of its layers with weights."""
        ...


class TimedCalls:
    """Which calls must be measured to know the time of any choice, and the times made of them.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Residual branches that may leave; see `Branch`.
        most: Widths of a group that are all measured; of more some are. A call that depends on
            two groups is measured at all combinations.
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
        """Returns for each call to measure what makes its model: what `measure_calls` takes.

        Raises:
            InputError: An input size is unknown.
        """
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
            grid = np.array([(call.ms, call.weight_bytes) for call in calls], np.float64).T
            grid = grid.reshape([2, *(len(width.picked) for width in widths)])
            for axis, width in enumerate(widths, 1):
                grid = np.moveaxis(np.tensordot(width.spread, grid, (1, axis)), 0, axis)
            reason = next((call.reason for call in calls if call.reason), "")
            surfaces.append(Surface(part, widths, grid[0], grid[1], reason))
        return TimeModel(self._coupling, len(self._blocks), table.overhead_ms, surfaces)


def _parts(coupling: Coupling, blocks: Sequence[Branch]) -> Iterator[Part]:
    """Yields the units of a model, with the blocks that they need."""
    steps = walked(coupling.program, coupling.input_shape)
    outputs = coupling.program.outputs
    gone = [leaving(steps, block.layers, outputs) for block in blocks]
    units = units_of(steps, outputs)
    for unit in units:
        inside = [sum(id(step) in ids for step in unit.steps) for ids in gone]
        whole = tuple(b for b, count in enumerate(inside) if count == len(unit.steps))
        partly = tuple(b for b, count in enumerate(inside) if 0 < count < len(unit.steps))
        yield Part(unit, (*whole, *partly))
        if not partly:
            continue
        # the sum leaves, the activation behind it stays
        left = tuple(step for step in unit.steps if id(step) not in gone[partly[0]])
        sums = unit.steps[: len(unit.steps) - len(left)]
        if not _joins(left[0], sums[0], units, _left(steps, gone[partly[0]]), outputs):
            yield Part(Unit(left), whole, partly)


def _left(steps: Sequence[Step], gone: set[int]) -> list[Step]:
    return [step for step in steps if id(step) not in gone]


def _joins(
    activation: Step, merge: Step, units: Sequence[Unit], left: Sequence[Step], ends: Sequence[Any]
) -> bool:
    """Tells whether the activation behind a sum that leaves runs with what makes its other side.

    There it costs nothing: kernels take it in, unless others take what they make too.
    """
    staying = {id(step) for step in left}
    operands = {tensor.key for tensor in merge.inputs}
    makers = [unit for unit in units if {out.key for out, _ in unit.outputs} & operands]
    for maker in makers:
        if id(maker.steps[-1]) in staying:
            (made, symbolic), *more = maker.outputs
            alone = not more and all(symbolic is not end for end in ends)
            taken = any(made.key == tensor.key for step in left for tensor in step.inputs)
            return alone and not taken and fuses(maker.steps, activation)
    return False

"""Measurement of the calls and whole models that the time of any choice follows from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.core.summary import OnProgress, silent
from compress.measure.counting import Walk
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_table import CallKey, LatencyTable, measure_calls
from compress.measure.latency_table.fused import Unit, fuses, leaving, units_of
from compress.measure.latency_table.measuring import ERROR, Convert
from compress.measure.latency_table.prediction import MOST
from compress.measure.latency_table.record import keep_table, kept_table
from compress.prune.channels.selection.allowed import Allowed, Counts
from compress.prune.channels.selection.times import CallGrid, Part, Surface, TimeModel
from compress.prune.channels.surgery import sliced_model

if TYPE_CHECKING:
    import keras

    from compress.measure.counting import Step
    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling

NETS = 8
"""Whole nets beside the calls: what they tell has three unknowns."""
NET_ERROR = 0.01
SECONDS_A_NET = 2.0
HERE_ERROR, HERE_SECONDS = 0.05, 60.0
"""Timing of calls ends at this relative error, or after so long, where files put times right."""
_CALLS = 0.7
"""Share of the work that is done when all calls are measured."""


class Timed(NamedTuple):
    """Measured times of a model, from which the times of all its choices follow.

    Attributes:
        table: Single calls.
        kept: Removable units kept in each group by some nets, (nets, groups); all by the last.
        whole: Their times as whole files in ms, (nets,).
    """

    table: LatencyTable
    kept: Counts
    whole: npt.NDArray[np.float64]

    def times(self, calls: TimedCalls) -> TimeModel:
        """Return a model's time as a function of its channel counts and blocks.

        Args:
            calls: Of the model.

        Raises:
            InputError: One of them was not timed.
        """
        return calls.times(self.table).calibrated(self.kept, self.whole)


def measured_times(
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    blocks: Sequence[Block] = (),
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known: LatencyTable | None = None,
    error: float = ERROR,
    budget: float | None = None,
    most: int = MOST,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[TimeModel, LatencyTable]:
    """Measure a model's time as a function of its channel counts and blocks.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        convert: Writes files of models: `compress.exporting.side_by_side.litert_files`, handed
            in because exporting stands beside pruning.
        blocks: Residual branches that may leave.
        runtime, format, threads, error, budget, seed: See `measure_calls`; whole nets take as
            much again.
        known: A table measured before, on the same runtime and machine: what it holds is not
            measured again.
        most: See `TimedCalls`.
        on_progress: Told what is done now, and the share of all that is done.

    Returns:
        The times, and the table that they are made of.

    Raises:
        InputError: An input size is unknown, or `known` was measured otherwise.
        RunFailed: No call could be measured, or no whole net could be converted.
        MissingDependency: The runtime is not installed.
    """
    calls = TimedCalls(coupling, allowed, blocks, most=most)
    found = timed(
        calls, coupling, allowed, convert, runtime=runtime, format=format, threads=threads,
        known=known, error=error, budget=budget, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    return found.times(calls), found.table


def timed(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known: LatencyTable | None = None,
    error: float = ERROR,
    budget: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Timed:
    """Time calls that are not known yet, and some whole nets; see `measured_times`.

    Args:
        calls: Of the model.
        coupling, allowed, convert, runtime, format, threads, known, error, budget, seed,
            on_progress: See there.

    Raises:
        InputError, RunFailed, MissingDependency: Likewise.
    """
    told = on_progress or silent
    models = calls.models()
    table = known
    if missing := models if known is None else {key: models[key] for key in known.missing(models)}:
        found = measure_calls(
            missing, convert, runtime=runtime, format=format, threads=threads, error=error,
            budget=budget, seed=seed, on_progress=lambda text, share: told(text, _CALLS * share),
        )  # fmt: skip
        table = found if known is None else known.joined(found)
    assert table is not None
    kept = some_choices(allowed, NETS, seed)
    told(f"timing {len(kept)} whole nets", _CALLS)
    whole = time_nets(
        coupling, kept, convert, runtime=runtime, format=format, threads=threads, budget=budget,
        seed=seed,
    )  # fmt: skip
    told("measured", 1.0)
    return Timed(table, kept, whole)


def timed_here(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    *,
    runtime: str,
    format: str,
    threads: int,
    seed: int,
    on_progress: OnProgress,
) -> Timed:
    """Time a model on this machine; times of calls that were measured before are read.

    Errors of a call are larger than `timed` leaves them by itself, for files put estimates right.

    Args:
        calls, coupling, allowed, convert, runtime, format, threads, seed, on_progress: See `timed`.

    Raises:
        InputError, RunFailed, MissingDependency: Likewise.
    """
    known = kept_table(runtime, format, threads)
    found = timed(
        calls, coupling, allowed, convert, runtime=runtime, format=format, threads=threads,
        known=known, error=HERE_ERROR, budget=HERE_SECONDS, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    if found.table is not known:
        keep_table(found.table)
    return found


def some_choices(allowed: Allowed, count: int, seed: int) -> Counts:
    """Return the kept units of some choices: all, the least, and random ones of all sizes.

    Returns:
        (count, groups).
    """
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.0, 1.0, count)[:, None]
    # around a common share, so that small and large nets are among them
    around = np.clip(shares + rng.uniform(-0.3, 0.3, (count, len(allowed.total))), 0.0, 1.0)
    around[0], around[-1] = 0.0, 1.0
    totals = allowed.nearest(allowed.lowest + around * (allowed.total - allowed.lowest))
    return np.asarray(totals - allowed.fixed)


def thinner_nets(
    coupling: Coupling, kept: Counts, dropped: Sequence[tuple[Block, ...]] = ()
) -> list[keras.Model]:
    """Return models of some widths, whichever units they keep.

    Args:
        coupling: Of the original.
        kept: Removable units kept in each group, (nets, groups); the first ones of each.
        dropped: The blocks that leave each; default: none of any.
    """
    return [
        sliced_model(coupling, coupling.keep_first_units(row), blocks)
        for row, blocks in zip(kept, dropped or [()] * len(kept), strict=True)
    ]


def time_nets(
    coupling: Coupling,
    kept: Counts,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return the quiet times (`Latency.quiet_ms`) of whole nets in ms, (nets,).

    They are timed against each other.

    Args:
        coupling: Of the original.
        kept: Removable units kept in each group, (nets, groups); the first ones of each.
        convert, runtime, format, threads, seed: See `measured_times`.
        budget: Seconds of timing; default: two a net.

    Raises:
        RunFailed: One could not be converted.
    """
    nets = thinner_nets(coupling, kept)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(nets, Path(folder), format)
        for file in files:
            if isinstance(file, str):
                name = coupling.program.model.name
                raise RunFailed(f"Model '{name}' must become a file to be timed: {file}")
        entries = {str(place): Entry(Path(file), runtime, threads)
                   for place, file in enumerate(files)}  # fmt: skip
        found = time_entries(
            entries, precision=NET_ERROR, seed=seed,
            budget=SECONDS_A_NET * len(nets) if budget is None else budget,
            baselines={name: name for name in entries},
        )  # fmt: skip
    return np.array([found[name].quiet_ms for name in entries])


class TimedCalls:
    """The calls to measure for the time of any choice, and the times that follow from them.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Residual branches that may leave.
        most: Widths of a group that are all measured; of more some are. A call that depends on
            two groups is measured at all combinations.
    """

    def __init__(
        self,
        coupling: Coupling,
        allowed: Allowed,
        blocks: Sequence[Block] = (),
        *,
        most: int = MOST,
    ) -> None:
        self._coupling, self._allowed, self._blocks = coupling, allowed, tuple(blocks)
        self._grid = CallGrid(coupling, allowed, most)
        self._parts = list(_parts(coupling, self._blocks))

    def models(self) -> dict[CallKey, Callable[[], Any]]:
        """Return a maker of a model for each call to measure, for `measure_calls`.

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
        """Return the calls of one choice: names, keys, and makers of their models.

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
        """Return the times by a table.

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


def _parts(coupling: Coupling, blocks: Sequence[Block]) -> Iterator[Part]:
    """Yield the units of a model, with the blocks that they need."""
    steps = Walk(coupling.program, coupling.input_shape).steps
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
        rest = [step for step in steps if id(step) not in gone[partly[0]]]
        if not _joins(left[0], sums[0], units, rest, outputs):
            yield Part(Unit(left), whole, partly)


def _joins(
    activation: Step, merge: Step, units: Sequence[Unit], left: Sequence[Step], ends: Sequence[Any]
) -> bool:
    """Return whether the activation behind a removed sum is fused with the other operand's call.

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

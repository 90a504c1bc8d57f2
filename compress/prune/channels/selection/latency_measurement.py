"""Measurement of the calls and whole models from which the latency model is built."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, RunFailed
from compress.core.summary import OnProgress, ignore_progress
from compress.measure.counting import ShapePropagation, Step
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_table import CallKey, LatencyTable, measure_calls
from compress.measure.latency_table.fusion import (
    FusedCalls,
    can_fuse,
    find_removed_calls,
    fuse_calls,
)
from compress.measure.latency_table.measurement import DEFAULT_ERROR, Convert
from compress.measure.latency_table.prediction import complete_table
from compress.measure.latency_table.record import cache_table, load_cached_table
from compress.prune.channels.selection.allowed_counts import AllowedCounts, Counts
from compress.prune.channels.selection.call_grid import (
    CallGrid,
    TimedUnit,
    find_full_axis,
    select_places,
)
from compress.prune.channels.selection.latency_model import LatencyModel, LatencySurface
from compress.prune.channels.surgery import build_pruned_model

if TYPE_CHECKING:
    import keras

    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling

MODEL_COUNT = 8
"""Number of whole models measured besides the calls; the calibration has three unknowns."""
MODEL_ERROR, MODEL_SECONDS = 0.01, 2.0
"""Relative error of timing whole models, and the time limit (s) for each of them."""
LOCAL_ERROR, LOCAL_SECONDS = 0.05, 20.0
"""Relative error and time limit (s) of timing calls if whole files calibrate the estimates."""
_MODELS_SHARE = 0.3
"""Share of the progress after the whole models are measured, which are first."""


class LatencyMeasurements(NamedTuple):
    """Measurements of a model, from which the latency of all its configurations is computed.

    Attributes:
        table: Latency of single calls.
        kept: Removable units kept in each group by some models, (models, groups); the last model
            keeps all.
        model_ms: Latency of these models as whole files in ms, (models,).
        new_table: Calls of the table that were not known before; None: all were.
    """

    table: LatencyTable
    kept: Counts
    model_ms: npt.NDArray[np.float64]
    new_table: LatencyTable | None = None

    def build_latency_model(self, calls: TimedCalls) -> LatencyModel:
        """Return the calibrated latency model.

        Args:
            calls: Calls of the model.

        Raises:
            InputError: A call was not measured.
        """
        return calls.build_latency_model(self.table).calibrate(self.kept, self.model_ms)


def measure_latency_model(
    coupling: Coupling,
    allowed: AllowedCounts,
    convert: Convert,
    blocks: Sequence[Block] = (),
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known_table: LatencyTable | None = None,
    error: float = DEFAULT_ERROR,
    budget: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[LatencyModel, LatencyTable]:
    """Measure the latency of a model as a function of its channel counts and blocks.

    Args:
        coupling: Coupling of the model.
        allowed: Totals that the groups may have.
        convert: Function that writes model files:
            `compress.exporting.batch_conversion.write_latency_files`. It is an argument because
            pruning must not import exporting.
        blocks: Residual branches that can be removed.
        runtime, format, threads, error, budget, seed: See `measure_calls`; whole models take up to
            the same budget again, and at most 2 seconds each.
        known_table: Earlier table of the same runtime and machine; its calls are not measured
            again.
        on_progress: Called with (text, completed share).

    Returns:
        The latency model, and the table that it is built from.

    Raises:
        InputError: An input size is unknown, or `known_table` was measured with other settings.
        RunFailed: No call could be measured, or no whole model could be converted.
        MissingDependency: The runtime is not installed.
    """
    calls = TimedCalls(coupling, allowed, blocks)
    measurements = measure_latencies(
        calls, coupling, allowed, convert, runtime=runtime, format=format, threads=threads,
        known_table=known_table, error=error, budget=budget, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    return measurements.build_latency_model(calls), measurements.table


def measure_latencies(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: AllowedCounts,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known_table: LatencyTable | None = None,
    error: float = DEFAULT_ERROR,
    budget: float | None = None,
    seed: int = 0,
    check_models: Callable[[npt.NDArray[np.float64]], None] | None = None,
    on_progress: OnProgress | None = None,
) -> LatencyMeasurements:
    """Measure some whole models, and calls that are not known yet; see `measure_latency_model`.

    Args:
        calls: Calls of the model.
        coupling, allowed, convert, runtime, format, threads, known_table, error, budget, seed,
            on_progress: See `measure_latency_model`.
        check_models: Called with the latency of the whole models in ms, the smallest first and the
            largest last, before any call is measured, which takes longer. It may raise.

    Raises:
        InputError, RunFailed, MissingDependency: See `measure_latency_model`.
    """
    report_progress = on_progress or ignore_progress
    kept = sample_kept_counts(allowed, MODEL_COUNT, seed)
    report_progress(f"timing {len(kept)} whole models", 0.0)
    model_ms = time_models(
        coupling, kept, convert, runtime=runtime, format=format, threads=threads, budget=budget,
        seed=seed,
        on_progress=lambda share: report_progress(
            f"timing {len(kept)} whole models", _MODELS_SHARE * share
        ),
    )  # fmt: skip
    if check_models is not None:
        check_models(model_ms)
    models = calls.list_model_makers()
    table, new_table = known_table, None
    if (
        missing := models
        if known_table is None
        else {key: models[key] for key in known_table.find_missing(models)}
    ):
        new_table = measure_calls(
            missing,
            convert,
            runtime=runtime,
            format=format,
            threads=threads,
            error=error,
            budget=budget,
            seed=seed,
            on_progress=lambda text, share: report_progress(
                text, _MODELS_SHARE + (1 - _MODELS_SHARE) * share
            ),
        )
        table = new_table if known_table is None else known_table.merge(new_table)
    assert table is not None
    report_progress("measured", 1.0)
    return LatencyMeasurements(table, kept, model_ms, new_table)


def measure_local_latencies(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: AllowedCounts,
    convert: Convert,
    *,
    runtime: str,
    format: str,
    threads: int,
    seed: int,
    check_models: Callable[[npt.NDArray[np.float64]], None] | None = None,
    on_progress: OnProgress,
) -> LatencyMeasurements:
    """Measure a model on this machine, reusing calls measured before.

    Calls are measured less precisely than by default in `measure_latencies`, because whole files
    calibrate the estimates.

    Args:
        calls, coupling, allowed, convert, runtime, format, threads, seed, check_models,
            on_progress: See `measure_latencies`.

    Raises:
        InputError, RunFailed, MissingDependency: See `measure_latency_model`.
    """
    known_table = load_cached_table(runtime, format, threads)
    measurements = measure_latencies(
        calls,
        coupling,
        allowed,
        convert,
        runtime=runtime,
        format=format,
        threads=threads,
        known_table=known_table,
        error=LOCAL_ERROR,
        budget=LOCAL_SECONDS,
        seed=seed,
        check_models=check_models,
        on_progress=on_progress,
    )
    if measurements.new_table is not None:
        cache_table(measurements.new_table)
    return measurements


def sample_kept_counts(allowed: AllowedCounts, count: int, seed: int) -> Counts:
    """Return the kept units of the smallest, some random and the largest configurations.

    Args:
        allowed: Totals that the groups may have.
        count: Number of configurations.
        seed: Seed of the random ones.

    Returns:
        Removable units kept in each group, (count, groups), roughly by increasing size.
    """
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.0, 1.0, count)[:, None]
    # around a common share for each model, so that sizes vary from small to large
    spread_shares = np.clip(shares + rng.uniform(-0.3, 0.3, (count, len(allowed.total))), 0.0, 1.0)
    spread_shares[0], spread_shares[-1] = 0.0, 1.0
    totals = allowed.round_totals(allowed.lowest + spread_shares * (allowed.total - allowed.lowest))
    return np.asarray(totals - allowed.fixed)


def build_pruned_models(
    coupling: Coupling, kept: Counts, removed_blocks: Sequence[tuple[Block, ...]] = ()
) -> list[keras.Model]:
    """Return models with given channel counts, which keep the first units of each group.

    Args:
        coupling: Coupling of the original model.
        kept: Removable units kept in each group, (models, groups).
        removed_blocks: Blocks removed from each model; default: none.
    """
    return [
        build_pruned_model(coupling, coupling.keep_first_units(row), blocks)
        for row, blocks in zip(kept, removed_blocks or [()] * len(kept), strict=True)
    ]


def time_models(
    coupling: Coupling,
    kept: Counts,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return the quiet latency (`Latency.quiet_ms`) of whole models in ms, (models,).

    The models are timed in comparison with each other.

    Args:
        coupling: Coupling of the original model.
        kept: Removable units kept in each group, (models, groups); the first ones of each.
        convert, runtime, format, threads, seed: See `measure_latency_model`.
        budget: Time limit in seconds; default, and at most: two seconds per model.
        on_progress: See `time_entries`.

    Raises:
        RunFailed: A model could not be converted, or its file cannot be run.
    """
    models = build_pruned_models(coupling, kept)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(models, Path(folder), format)
        for file in files:
            if isinstance(file, str):
                name = coupling.program.model.name
                raise RunFailed(f"Model '{name}' must become a file to be timed: {file}")
        entries = {str(index): Entry(Path(file), runtime, threads)
                   for index, file in enumerate(files)}  # fmt: skip
        try:
            latencies = time_entries(
                entries, precision=MODEL_ERROR, seed=seed,
                budget=min(MODEL_SECONDS * len(models), budget or math.inf),
                baselines={name: name for name in entries}, on_progress=on_progress,
            )  # fmt: skip
        except InputError as error:  # not the user's file
            raise RunFailed(f"A pruned model's {format} file cannot be timed: {error}") from None
    return np.array([latencies[name].quiet_ms for name in entries])


class TimedCalls:
    """The calls to measure for the latency of any configuration.

    Args:
        coupling: Coupling of the model.
        allowed: Totals that the groups may have.
        blocks: Residual branches that can be removed.
    """

    def __init__(
        self,
        coupling: Coupling,
        allowed: AllowedCounts,
        blocks: Sequence[Block] = (),
    ) -> None:
        self._coupling, self._allowed, self._blocks = coupling, allowed, tuple(blocks)
        self._grid = CallGrid(coupling, allowed)
        self._parts = list(_iter_timed_units(coupling, self._blocks))

    def list_model_makers(self) -> dict[CallKey, Callable[[], Any]]:
        """Return a function that builds the model of each call to measure, for `measure_calls`.

        Raises:
            InputError: An input size is unknown.
        """
        makers: dict[CallKey, Callable[[], Any]] = {}
        for part in self._parts:
            for key, make in self._grid.iter_calls(part.unit):
                makers.setdefault(key, make)
        return makers

    def list_calls(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> list[tuple[str, CallKey, Callable[[], Any]]]:
        """Return the calls of one configuration, each with its name, key and model maker.

        Args:
            kept: Removable units kept in each group, (groups,).
            present: 1 for each kept block, 0 for each removed one, (blocks,); default: all blocks
                are kept.

        Returns:
            (name, key, function that builds the model) of each call.
        """
        block_presence = (
            np.ones(len(self._blocks)) if present is None else np.asarray(present, np.float64)
        )
        return [
            (part.unit.name, *self._grid.build_call(part.unit, np.asarray(kept, np.int64)))
            for part in self._parts
            if part.compute_presence(block_presence)
        ]

    def build_latency_model(self, table: LatencyTable) -> LatencyModel:
        """Return the latency model of a table, without calibration.

        Args:
            table: Latency of single calls.

        Raises:
            InputError: The table lacks a call.
        """
        surfaces = []
        for part in self._parts:
            count_axes = self._grid.find_axes(part.unit)
            calls = [table[key] for key, _ in self._grid.iter_calls(part.unit)]
            grid = np.full([2, *(len(count_axis.measured) for count_axis in count_axes)], np.nan)
            for place, call in zip(select_places(count_axes), calls, strict=True):
                grid[(0, *place)], grid[(1, *place)] = call.ms, call.weight_bytes
            if (line := find_full_axis(count_axes)) is not None:
                grid = np.stack([complete_table(values, line) for values in grid])
            for axis, count_axis in enumerate(count_axes, 1):
                grid = np.moveaxis(np.tensordot(count_axis.interpolation, grid, (1, axis)), 0, axis)
            reason = next((call.reason for call in calls if call.reason), "")
            surfaces.append(LatencySurface(part, count_axes, grid[0], grid[1], reason))
        return LatencyModel(self._coupling, len(self._blocks), table.overhead_ms, surfaces)


def _iter_timed_units(coupling: Coupling, blocks: Sequence[Block]) -> Iterator[TimedUnit]:
    """Yield the units of a model, with the blocks that they need."""
    steps = ShapePropagation(coupling.program, coupling.input_shape).steps
    outputs = coupling.program.outputs
    removed_steps = [find_removed_calls(steps, block.layers, outputs) for block in blocks]
    units = fuse_calls(steps, outputs)
    for unit in units:
        inside = [sum(id(step) in ids for step in unit.steps) for ids in removed_steps]
        full_blocks = tuple(b for b, count in enumerate(inside) if count == len(unit.steps))
        partial_blocks = tuple(b for b, count in enumerate(inside) if 0 < count < len(unit.steps))
        yield TimedUnit(unit, (*full_blocks, *partial_blocks))
        if not partial_blocks:
            continue
        # the sum is removed with its block, but the activation after it is kept
        kept_steps = tuple(
            step for step in unit.steps if id(step) not in removed_steps[partial_blocks[0]]
        )
        sums = unit.steps[: len(unit.steps) - len(kept_steps)]
        rest = [step for step in steps if id(step) not in removed_steps[partial_blocks[0]]]
        if not _is_fused(kept_steps[0], sums[0], units, rest, outputs):
            yield TimedUnit(FusedCalls(kept_steps), full_blocks, partial_blocks)


def _is_fused(
    activation: Step,
    merge: Step,
    units: Sequence[FusedCalls],
    remaining: Sequence[Step],
    outputs: Sequence[Any],
) -> bool:
    """Return whether the activation after a removed sum is fused with the other operand's call.

    It then costs nothing: a kernel includes its activation, unless other calls read the kernel's
    result too.
    """
    kept_ids = {id(step) for step in remaining}
    operands = {tensor.key for tensor in merge.inputs}
    makers = [unit for unit in units if {out.key for out, _ in unit.outputs} & operands]
    for maker in makers:
        if id(maker.steps[-1]) in kept_ids:
            (output, symbolic), *more = maker.outputs
            alone = not more and all(symbolic is not end for end in outputs)
            taken = any(output.key == tensor.key for step in remaining for tensor in step.inputs)
            return alone and not taken and can_fuse(maker.steps, activation)
    return False

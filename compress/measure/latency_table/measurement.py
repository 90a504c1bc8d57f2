"""Measurement of many calls: each is a small model, converted and timed in batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.device import read_cpu_name
from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras
from compress.core.memory_budget import get_current_budget
from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON, parse_integer
from compress.core.statistics import Z
from compress.core.summary import OnProgress, ignore_progress
from compress.measure.counting import count_macs
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_record import Latency
from compress.measure.latency_table.record import CallKey, CallTime, LatencyTable
from compress.measure.runtimes import RUNTIMES
from compress.model.activations import count_activation_bytes
from compress.plan.fields import require

Convert = Callable[[Sequence[Any], Path, str], list[Path | str]]
"""(models, folder, format) -> for each model its file, or the reason that there is none. Passed as
an argument because `compress.exporting` imports this package; see
`compress.exporting.batch_conversion.write_latency_files`."""
DEFAULT_ERROR = 0.03
_CONVERSION_SHARE = 0.3
"""Progress of a batch when all its files are converted."""
AT_ONCE = 1024
BYTES_AT_ONCE = 2**28
"""Limits of a batch: number of calls and bytes of weights; all its files are in memory at once."""


def measure_calls(
    models: Mapping[CallKey, Callable[[], keras.Model]],
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    error: float = DEFAULT_ERROR,
    budget: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> LatencyTable:
    """Measure the latency of single calls with a runtime, at batch size 1.

    Calls are converted in batches, each to a file of its own, and timed in one interleaved loop.
    The loop includes an empty file (one operation on one number). Its time is the overhead of a run
    and is subtracted from all times. Times are those of quiet blocks (`Latency.quiet_ms`). A call
    that cannot be converted or run gets an estimate, with the reason: its number of operations at
    the average rate of all measured calls.

    An interrupted measurement leaves no files behind.

    Args:
        models: Call key -> function that builds a small model of that call. Models are built in
            batches to limit memory.
        convert: Function that writes files of models, see `Convert`.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        format: Format of the files.
        threads: Number of CPU threads.
        error: Relative standard error of the times at which timing stops, in (0, 1).
        budget: Time limit in seconds, above 0. Default: one second per call.
        seed: Seed of the order, the inputs and the bootstrap.
        on_progress: See `OnProgress`.

    Returns:
        The table of all calls.

    Raises:
        InputError: There are no calls, or an argument is out of range.
        RunFailed: No call could be measured, or the empty file could not be converted.
        MissingDependency: The runtime is not installed.
    """
    require(bool(models), "models", "hold at least one call", "none")
    require(0 < error < 1, "error", "be in (0, 1)", error)
    require(budget is None or budget > 0, "budget", "be above 0 seconds", budget)
    parse_integer(threads, "threads", least=1, most=MAX_THREADS, why=MAX_THREADS_REASON)
    runtime_text = RUNTIMES[runtime].describe()
    # one second per call is ample: a quiet machine needs 0.1 to 0.3 seconds
    seconds = len(models) if budget is None else budget
    calls, empty_times, done = list[CallTime](), list[Latency](), 0
    for batch in iterate_batches(models):
        share = len(batch) / len(models)
        report_progress = _scale_progress(on_progress, done / len(models), share)
        with tempfile.TemporaryDirectory() as folder:
            report_progress(f"converting {len(batch)} calls", 0.0)
            small_models = [
                build_empty_model(),
                *(item.model for item in batch if item.model is not None),
            ]
            files = iter(convert(small_models, Path(folder), format))
            empty = next(files)
            if isinstance(empty, str):
                raise RunFailed(
                    f"An empty file must be made for {runtime_text} ({format}): {empty}"
                )
            for item in batch:
                if item.model is not None:
                    item.set_file(next(files), runtime, threads)
            report_progress(f"timing {len(batch)} calls", _CONVERSION_SHARE)
            timed, time = _time_batch(
                batch, empty, runtime=runtime, threads=threads, error=error,
                budget=seconds * share, seed=seed, report_progress=report_progress,
            )  # fmt: skip
        calls += timed
        empty_times.append(time)
        done += len(batch)
    report_progress("measured", 1.0)
    overhead = float(np.median([time.quiet_ms for time in empty_times]))
    spread = float(np.median([time.quiet_error_ms for time in empty_times]))
    warnings = tuple(dict.fromkeys(text for time in empty_times for text in time.warnings))
    return LatencyTable(
        runtime_text,
        format,
        threads,
        read_cpu_name(),
        overhead,
        spread,
        estimate_missing(calls),
        warnings,
    )


def _time_batch(
    batch: list[CallItem],
    empty: Path,
    *,
    runtime: str,
    threads: int,
    error: float,
    budget: float,
    seed: int,
    report_progress: OnProgress,
) -> tuple[list[CallTime], Latency]:
    """Return the times of a batch's files and of the empty file."""
    files = {"empty": empty} | {
        str(index): item.file for index, item in enumerate(batch) if item.file is not None
    }
    times = time_entries(
        {name: Entry(file, runtime, threads) for name, file in files.items()},
        precision=Z * error,
        budget=budget,
        # each file is its own baseline: times matter here, not ratios
        baselines={name: name for name in files},
        seed=seed,
        on_progress=lambda share: report_progress(
            f"timing {len(batch)} calls", _CONVERSION_SHARE + (1 - _CONVERSION_SHARE) * share
        ),
    )
    empty_time, today = times["empty"], f"{datetime.now(UTC):%Y-%m-%d}"
    calls = []
    for index, item in enumerate(batch):
        time = times.get(str(index))
        if time is None:
            calls.append(CallTime(item.key, 0.0, 0.0, 0, item.ops, item.weight_bytes, item.reason))
            continue
        # a call of a few nanoseconds may measure below the empty file
        ms = max(0.0, time.quiet_ms - empty_time.quiet_ms)
        spread = float(np.hypot(time.quiet_error_ms, empty_time.quiet_error_ms))
        calls.append(
            CallTime(item.key, ms, spread, time.rounds, item.ops, item.weight_bytes, date=today)
        )
    return calls, empty_time


def _scale_progress(on_progress: OnProgress | None, start: float, share: float) -> OnProgress:
    report_progress = on_progress or ignore_progress
    return lambda text, part: report_progress(text, min(1.0, start + share * part))


@dataclass(eq=False)
class CallItem:
    """One call during measurement: its model, then its file or the reason that it has none.

    Attributes:
        key: Key of the call.
        model: Small model of the call; None if it could not be built or is already converted.
        ops: MACs and elementwise operations.
        weight_bytes: Bytes of its weights as float32.
        activations: Bytes of its inputs and outputs.
        reason: Why it cannot be timed; empty if it can.
        file: File of the model.
    """

    key: CallKey
    model: Any
    ops: int = 0
    weight_bytes: int = 0
    activations: int = 0
    reason: str = ""
    file: Path | None = None

    @classmethod
    def build(cls, key: CallKey, make: Callable[[], Any]) -> CallItem:
        """Build the model of a call; a call that cannot be timed gets a reason instead."""
        try:
            model = make()
            costs = count_macs(model)
        except InputError as error:
            return cls(key, None, reason=str(error))
        item = cls(
            key, model, costs.macs + costs.other_ops, 4 * costs.params,
            count_activation_bytes(model).total,
        )  # fmt: skip
        kinds = [str(tensor.dtype) for tensor in model.inputs if "float" not in str(tensor.dtype)]
        if kinds:
            item.model = None
            item.reason = f"it takes {kinds[0]}, and only real numbers are drawn for inputs"
        return item

    def set_file(self, file: Path | str, runtime: str, threads: int) -> None:
        """Set the file if the runtime can run it, and release the model.

        Args:
            file: File of the model, or the reason that there is none.
            runtime: A name in `compress.measure.runtimes.RUNTIMES`.
            threads: Number of CPU threads.
        """
        self.model = None
        if isinstance(file, str):
            self.reason = file
            return
        try:
            session = RUNTIMES[runtime].prepare(file, threads)
            session.set_inputs([np.zeros(info.shape) for info in session.inputs])
            session.invoke()
        except (InputError, RuntimeError, ValueError) as error:
            self.reason = f"{runtime} does not run it alone: {' '.join(str(error).split())}"
            return
        self.file = file


def iterate_batches(models: Mapping[CallKey, Callable[[], Any]]) -> Iterator[list[CallItem]]:
    """Yield batches of calls with their models; each batch fits in memory.

    Args:
        models: Call key -> function that builds a small model of that call.
    """
    batch: list[CallItem] = []
    batch_weights = batch_activations = 0
    budget = get_current_budget()
    # a conversion copies weights many times; activations are allocated by the timed files
    weights, activations = (
        budget.compute_share(1 / 16, BYTES_AT_ONCE),
        budget.measure_free_bytes() / 4,
    )
    for key, make in models.items():
        item = CallItem.build(key, make)
        is_full = (
            batch_weights + item.weight_bytes > weights
            or batch_activations + item.activations > activations
        )
        if batch and (len(batch) == AT_ONCE or is_full):
            yield batch
            batch, batch_weights, batch_activations = [], 0, 0
        batch.append(item)
        batch_weights += item.weight_bytes
        batch_activations += item.activations
    yield batch


def build_empty_model() -> Any:
    """Return a model of one operation on one number."""
    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Activation("tanh")(inputs))


def estimate_missing(calls: list[CallTime]) -> tuple[CallTime, ...]:
    """Return the calls with estimated times, by operations, for those that were not measured.

    Raises:
        RunFailed: No call was measured.
    """
    measured = [call for call in calls if call.is_measured]
    if not measured:
        raise RunFailed(
            "No layer of the model could be timed for the latency table. The first one, "
            f"{calls[0].key}, failed: {calls[0].reason}."
        )
    ops = sum(call.ops for call in measured)
    rate = sum(call.ms for call in measured) / ops if ops else 0.0
    return tuple(call if call.is_measured else replace(call, ms=rate * call.ops) for call in calls)

"""Measures the times of many calls: each a small model, converted together, timed interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.device import cpu_name
from compress.core.errors import InputError, RunFailed
from compress.core.memory_budget import current_budget
from compress.core.quantities import MORE_THREADS, MOST_THREADS, parse_whole_number
from compress.core.statistics import Z
from compress.core.summary import OnProgress, silent
from compress.measure.counting import count_macs
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_record import Latency
from compress.measure.latency_table.record import CallKey, CallTime, LatencyTable
from compress.measure.runtimes import RUNTIMES
from compress.model.activations import activation_bytes
from compress.plan.fields import require

if TYPE_CHECKING:
    import keras

Convert = Callable[[Sequence[Any], Path, str], list[Path | str]]
"""(models, folder, format) -> for each model its file, or why there is none. It is handed in:
converters stand on what measures (`compress.exporting.side_by_side.litert_files`)."""
ERROR = 0.03
_CONVERTED = 0.3
"""Share of the work when all files are there."""
AT_ONCE = 256
BYTES_AT_ONCE = 2**28
"""Calls in one conversion, and bytes of their weights: files are timed while all are in memory."""


def measure_calls(
    models: Mapping[CallKey, Callable[[], keras.Model]],
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    error: float = ERROR,
    budget: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> LatencyTable:
    """Measure the latency of single calls on a runtime, at batch size 1.

    Many calls are converted at once and timed in one interleaved loop, each in a file of its
    own, beside a file of one operation on one number: its time is what a run costs beside the
    call, and is subtracted. Times are those of the quiet blocks (`Latency.quiet_ms`). A call
    that cannot be converted or run gets an estimate, which says so and why: its operations at
    the rate of all that was measured.

    Nothing is left behind when it is interrupted.

    Args:
        models: Makes a small model of each call alone, when its turn comes.
        convert: Writes files of models; see `Convert`.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        format: Of the files.
        threads: CPU threads.
        error: Relative standard error of a file's median time that ends the timing.
        budget: Seconds of timing at most; default: one second a call.
        seed: Of the order, the inputs and the bootstrap.
        on_progress: See `OnProgress`.

    Returns:
        The table of all calls.

    Raises:
        InputError: There are no calls, or an argument breaks its rule.
        RunFailed: No call could be measured.
        MissingDependency: The runtime is not installed.
    """
    require(bool(models), "models", "hold at least one call", "none")
    require(0 < error < 1, "error", "be in (0, 1)", error)
    require(budget is None or budget > 0, "budget", "be above 0 seconds", budget)
    parse_whole_number(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
    described = RUNTIMES[runtime].describe()
    # a quiet machine takes 0.1 to 0.3 seconds a call
    seconds = len(models) if budget is None else budget
    calls, empties, done = list[CallTime](), list[Latency](), 0
    for batch in batches(models):
        share = len(batch) / len(models)
        told = _scaled(on_progress, done / len(models), share)
        with tempfile.TemporaryDirectory() as folder:
            told(f"converting {len(batch)} calls", 0.0)
            small = [empty_model(), *(item.model for item in batch if item.model is not None)]
            files = iter(convert(small, Path(folder), format))
            empty = next(files)
            if isinstance(empty, str):
                raise RunFailed(f"An empty file must be made for {described} ({format}): {empty}")
            for item in batch:
                if item.model is not None:
                    item.place(next(files), runtime, threads)
            told(f"timing {len(batch)} calls", _CONVERTED)
            timed, time = _timed(
                batch, empty, runtime=runtime, threads=threads, error=error,
                budget=seconds * share, seed=seed, told=told,
            )  # fmt: skip
        calls += timed
        empties.append(time)
        done += len(batch)
    told("measured", 1.0)
    overhead = float(np.median([time.quiet_ms for time in empties]))
    spread = float(np.median([time.quiet_error_ms for time in empties]))
    warnings = tuple(dict.fromkeys(text for time in empties for text in time.warnings))
    return LatencyTable(
        described, format, threads, cpu_name(), overhead, spread, estimated(calls), warnings
    )


def _timed(
    batch: list[CallItem],
    empty: Path,
    *,
    runtime: str,
    threads: int,
    error: float,
    budget: float,
    seed: int,
    told: OnProgress,
) -> tuple[list[CallTime], Latency]:
    """Time the files of a batch and the empty one, until each time's error is small enough."""
    files = {"empty": empty} | {
        str(place): item.file for place, item in enumerate(batch) if item.file is not None
    }
    found = time_entries(
        {name: Entry(file, runtime, threads) for name, file in files.items()},
        precision=Z * error,
        budget=budget,
        # of ratios there is no use here: the times themselves must be sharp
        baselines={name: name for name in files},
        seed=seed,
        on_progress=lambda share: told(
            f"timing {len(batch)} calls", _CONVERTED + (1 - _CONVERTED) * share
        ),
    )
    empty_time, today = found["empty"], f"{datetime.now(UTC):%Y-%m-%d}"
    calls = []
    for place, item in enumerate(batch):
        time = found.get(str(place))
        if time is None:
            calls.append(CallTime(item.key, 0.0, 0.0, 0, item.ops, item.weight_bytes, item.reason))
            continue
        # a call of some nanoseconds may come out below the empty file
        ms = max(0.0, time.quiet_ms - empty_time.quiet_ms)
        spread = float(np.hypot(time.quiet_error_ms, empty_time.quiet_error_ms))
        calls.append(
            CallTime(item.key, ms, spread, time.rounds, item.ops, item.weight_bytes, date=today)
        )
    return calls, empty_time


def _scaled(on_progress: OnProgress | None, start: float, share: float) -> OnProgress:
    told = on_progress or silent
    return lambda text, part: told(text, min(1.0, start + share * part))


@dataclass(eq=False)
class CallItem:
    """One call on its way: its model, then its file, or why there is none.

    Attributes:
        key: Of the call.
        model: Of the call alone; None where there is none, or it is needed no more.
        ops: MACs and elementwise operations.
        weight_bytes: Of its weights, as float32.
        activations: Bytes of its inputs and outputs.
        reason: Why it cannot be timed; empty: nothing is known against it.
        file: Of the model.
    """

    key: CallKey
    model: Any
    ops: int = 0
    weight_bytes: int = 0
    activations: int = 0
    reason: str = ""
    file: Path | None = None

    @classmethod
    def made(cls, key: CallKey, make: Callable[[], Any]) -> CallItem:
        """Make the model of a call; one that cannot be timed gets the reason in its place."""
        try:
            model = make()
            costs = count_macs(model)
        except InputError as error:
            return cls(key, None, reason=str(error))
        found = cls(
            key, model, costs.macs + costs.other_ops, 4 * costs.params,
            activation_bytes(model).total,
        )  # fmt: skip
        kinds = [str(tensor.dtype) for tensor in model.inputs if "float" not in str(tensor.dtype)]
        if kinds:
            found.model = None
            found.reason = f"it takes {kinds[0]}, and only real numbers are drawn for inputs"
        return found

    def place(self, found: Path | str, runtime: str, threads: int) -> None:
        """Take the file, if the runtime runs it; the model is needed no more."""
        self.model = None
        if isinstance(found, str):
            self.reason = found
            return
        try:
            session = RUNTIMES[runtime].prepare(found, threads)
            session.set_inputs([np.zeros(info.shape) for info in session.inputs])
            session.invoke()
        except (InputError, RuntimeError, ValueError) as error:
            self.reason = f"{runtime} does not run it alone: {' '.join(str(error).split())}"
            return
        self.file = found


def batches(models: Mapping[CallKey, Callable[[], Any]]) -> Iterator[list[CallItem]]:
    """Yield calls with their models, few enough to be in memory together.

    Args:
        models: Makes a small model of each call alone.
    """
    batch: list[CallItem] = []
    held = live = 0
    budget = current_budget()
    # a conversion makes many copies of weights; inputs and outputs are those of the timed files
    weights, activations = budget.share(1 / 16, BYTES_AT_ONCE), budget.free() / 4
    for key, make in models.items():
        item = CallItem.made(key, make)
        full = held + item.weight_bytes > weights or live + item.activations > activations
        if batch and (len(batch) == AT_ONCE or full):
            yield batch
            batch, held, live = [], 0, 0
        batch.append(item)
        held += item.weight_bytes
        live += item.activations
    yield batch


def empty_model() -> Any:
    """Return the model of one operation on one number."""
    import keras

    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Activation("tanh")(inputs))


def estimated(calls: list[CallTime]) -> tuple[CallTime, ...]:
    """Fill in the times of calls that were not measured, by their operations.

    Raises:
        RunFailed: None was measured.
    """
    measured = [call for call in calls if call.measured]
    if not measured:
        raise RunFailed(f"No call could be measured: {calls[0].key}: {calls[0].reason}")
    ops = sum(call.ops for call in measured)
    rate = sum(call.ms for call in measured) / ops if ops else 0.0
    return tuple(call if call.measured else replace(call, ms=rate * call.ops) for call in calls)

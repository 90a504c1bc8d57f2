"""The timing loop: short blocks in random order, with ratios paired by round.

Timing files one after the other suffers from drift (ratios of two such medians spread by 9 to 135 %
under load). Strict A-B-A-B alternation keeps caches cold and can reverse a verdict. Blocks of a few
runs, with all files in each round, stay within 2 to 5 %.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core import linux
from compress.core.arguments import check_arguments
from compress.core.device import is_vnni_missing, read_cpu_name
from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON, parse_integer
from compress.core.statistics import Z
from compress.measure.latency_record import (
    QUIET,
    Latency,
    Spread,
    compute_median_spread,
    estimate_quantile,
)
from compress.measure.runtimes import RUNTIMES, Runtime, Session, TensorInfo
from compress.measure.runtimes.tensorflow import list_server_processes
from compress.plan import LatencyOptions
from compress.plan.fields import require

ROUNDS_PER_INSTANCE = 2
"""Rounds after which each file is prepared again. Instances of one file differ by up to 5 %, and
rounds of the same instance are correlated: only instances are independent."""
MIN_ROUNDS = 40
MEDIAN_FACTOR = 1.25
"""Standard error of a median relative to that of a mean, for normal numbers."""
PRECISION = 0.02
"""Relative half-width of the 95 % interval of every ratio at which timing stops."""
BUSY = "other processes kept"
"""First words of the warning about other busy processes."""
MIN_RUNS = 7
"""Least number of runs in a block; the first is dropped because it starts with a cold cache."""


@dataclass(frozen=True)
class Entry:
    """One file to time, with a runtime name and a number of CPU threads."""

    path: Path
    runtime: str
    threads: int


@check_arguments()
def measure_latency(
    files: Mapping[str, str | Path],
    options: LatencyOptions | None = None,
    *,
    precision: float = PRECISION,
    baselines: Mapping[str, str] | None = None,
    runtime: str = "litert",
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Latency]:
    """Measure the latency of model files against each other with one runtime.

    Args:
        files: Name -> path of a file that the runtime can run.
        options: Threads and budget (seconds).
        precision: Relative half-width of every ratio at which timing stops, above 0.
        baselines: Name -> name of the file that its ratio compares with. Default: the first file.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        seed: Seed of the order, the inputs and the bootstrap.
        on_progress: Called after each round with the share that is done, see `time_entries`.

    Returns:
        Name -> times with intervals and ratios.

    Raises:
        InputError: A file cannot be run, or a baseline is not among the files.
        MissingDependency: The runtime is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> times = measure_latency({"m": file}, LatencyOptions(budget=0.3))
        >>> times["m"].median_ms > 0, times["m"].runtime[:6]
        (True, 'LiteRT')

    Reference:
        docs/results/latency.md: blocks in random order, ratios paired by round.
    """
    options = options or LatencyOptions()
    require(bool(files), "files", "name at least one file", "none")
    return time_entries(
        {name: Entry(Path(path), runtime, options.threads) for name, path in files.items()},
        precision=precision,
        budget=options.budget,
        baselines=baselines,
        seed=seed,
        on_progress=on_progress,
    )


def time_entries(
    entries: Mapping[str, Entry],
    *,
    precision: float,
    budget: float,
    baselines: Mapping[str, str] | None = None,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Latency]:
    """Measure files, runtimes and thread counts against each other.

    In each round every entry runs a short block, in random order. Files are prepared again every
    few rounds. Timing stops when the relative half-width of the 95 % interval of every ratio is at
    most `precision` (of every time, if no entry has another one as its baseline), or when the
    budget is spent; the result has the reason. `Latency.spread` is "range" if there were too few
    instances for intervals.

    Args:
        entries: Name -> entry.
        precision: Relative half-width, above 0.
        budget: Time limit in seconds, above 0.
        baselines: Name -> name of the entry that its ratio compares with. Default: the first entry.
        seed: Seed of the order, the inputs and the bootstrap.
        on_progress: Called after each round with the share that is done: of the budget, or of the
            estimated time to reach the precision.

    Returns:
        Name -> `Latency`, in the order of `entries`.

    Raises:
        InputError: A baseline is not among the entries, or a file cannot be run.
        MissingDependency: A runtime is not installed.
    """
    names = list(entries)
    baseline_names = {name: (baselines or {}).get(name, names[0]) for name in names}
    for name, entry in entries.items():
        parse_integer(
            entry.threads, f"threads of '{name}'", least=1, most=MAX_THREADS, why=MAX_THREADS_REASON
        )
    for name, base in baseline_names.items():
        require(base in entries, f"baseline of '{name}'", "be among the files", base)
    timers = {
        name: Timer(RUNTIMES[entry.runtime], entry.path, entry.threads, seed)
        for name, entry in entries.items()
    }
    rng = np.random.default_rng(seed)
    meter = LoadMeter(list_server_processes)
    start = time.perf_counter()
    stopped_by, next_check, shown_share = "", MIN_ROUNDS, 0.0
    gc_was_enabled = gc.isenabled()
    gc.disable()
    try:
        while not stopped_by:
            rounds_done = len(timers[names[0]].medians)
            if rounds_done and rounds_done % ROUNDS_PER_INSTANCE == 0:
                for timer in timers.values():
                    timer.prepare_session()
            for index in rng.permutation(len(names)):
                timers[names[index]].time_block()
            share_spent = (time.perf_counter() - start) / budget
            if on_progress:
                rounds_share = _estimate_rounds_share(timers, baseline_names, precision)
                shown_share = min(1.0, max(shown_share, share_spent, rounds_share))
                on_progress(shown_share)
            if rounds_done + 1 >= next_check:
                # check rarely: each check may stop while an interval is narrow by chance
                next_check = max(rounds_done + 5, math.ceil((rounds_done + 1) * 1.1))
                if _find_widest(timers, baseline_names, seed) <= precision:
                    stopped_by = "precision"
            if not stopped_by and share_spent >= 1.0:
                stopped_by = "budget"
    finally:
        if gc_was_enabled:
            gc.enable()
    warnings = _collect_warnings(
        meter.measure_busy_cores(), [entry.path for entry in entries.values()]
    )
    return {
        name: _summarize_timer(
            timers, name, baseline_names[name], entries[name], stopped_by, warnings, seed
        )
        for name in names
    }


def _estimate_rounds_share(
    timers: Mapping[str, Timer], baseline_names: Mapping[str, str], precision: float
) -> float:
    """Return the share of the rounds that are estimated to give the precision.

    The standard error of a median falls with the square root of the rounds. A bootstrap after each
    round would take longer than the round.
    """
    medians = {name: np.asarray(timer.medians) for name, timer in timers.items()}
    rounds = len(next(iter(medians.values())))
    if rounds < MIN_ROUNDS // 8:
        return 0.0
    ratios = [
        medians[base] / medians[name] for name, base in baseline_names.items() if name != base
    ] or list(medians.values())
    low, middle, high = np.quantile(np.stack(ratios), (0.16, 0.5, 0.84), axis=1)
    widths = Z * MEDIAN_FACTOR * (high - low) / 2 / (middle * math.sqrt(rounds))
    return rounds / max(MIN_ROUNDS, rounds * (float(widths.max()) / precision) ** 2)


def _find_widest(
    timers: Mapping[str, Timer], baseline_names: Mapping[str, str], seed: int
) -> float:
    """Return the largest relative half-width of all ratios.

    The ratio of a file to itself has no width. If there are no other ratios, those of the
    times count. (Times drift with the machine, paired ratios do not.)
    """
    spreads = [
        compute_spread(timers[name], seed, timers[base])
        for name, base in baseline_names.items()
        if name != base
    ] or [compute_spread(timer, seed) for timer in timers.values()]
    return max(spread.half_width for spread in spreads)


def _summarize_timer(
    timers: Mapping[str, Timer],
    name: str,
    base: str,
    entry: Entry,
    stopped_by: str,
    warnings: tuple[str, ...],
    seed: int,
) -> Latency:
    """Return one entry's latency in ms with its interval, and the ratio of the baseline's to it."""
    timer = timers[name]
    times, ratio = compute_spread(timer, seed), compute_spread(timer, seed, timers[base])
    runs = np.concatenate(timer.runs)
    quiet, quiet_error = estimate_quantile(timer.medians, QUIET)
    return Latency(
        median_ms=times.median * 1e3,
        low_ms=times.low * 1e3,
        high_ms=times.high * 1e3,
        p95_ms=float(np.quantile(runs, 0.95)) * 1e3,
        min_ms=float(runs.min()) * 1e3,
        ratio=ratio.median,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        baseline=base,
        rounds=len(timer.medians),
        instances=math.ceil(len(timer.medians) / ROUNDS_PER_INSTANCE),
        runs=len(runs),
        threads=entry.threads,
        device=read_cpu_name(),
        runtime=RUNTIMES[entry.runtime].describe(),
        stopped_by=stopped_by,
        warnings=warnings,
        spread=times.kind,
        quiet_ms=quiet * 1e3,
        quiet_error_ms=quiet_error * 1e3,
    )


def _collect_warnings(busy_cores: float | None, files: Sequence[Path]) -> tuple[str, ...]:
    """Return warnings: int8 ONNX without VNNI, CPU governor, cores kept busy by others."""
    warnings = []
    # operator names are plain text in the file, so the onnx package is not needed
    if is_vnni_missing() and any(
        path.suffix == ".onnx" and b"QuantizeLinear" in path.read_bytes() for path in files
    ):
        warnings.append(
            "this processor has no VNNI instructions: int8 .onnx files take longer here than on "
            "processors that have them"
        )
    governor = linux.read_cpu_governor()
    if governor not in ("", "performance"):
        warnings.append(f"the CPU's frequency governor is '{governor}', not 'performance'")
    if busy_cores is not None and busy_cores >= 0.2:
        warnings.append(f"{BUSY} {busy_cores:.1f} of {os.cpu_count()} cores busy during the timing")
    return tuple(warnings)


class Timer:
    """The runs of one file: sessions, single run times, block medians."""

    def __init__(self, runtime: Runtime, path: Path, threads: int, seed: int) -> None:
        self._runtime, self._path, self._threads, self._seed = runtime, path, threads, seed
        self.runs: list[npt.NDArray[np.float64]] = []
        self.medians: list[float] = []
        self.prepare_session()
        self._session.invoke()
        seconds_per_run = min(self._session.time_runs(3))
        # a block takes about 3 ms
        self._runs_per_block = min(60, max(MIN_RUNS, math.ceil(0.003 / max(seconds_per_run, 1e-9))))

    def prepare_session(self) -> None:
        """Prepare a new session and set fixed random inputs."""
        self._session: Session = self._runtime.prepare(self._path, self._threads)
        random = np.random.default_rng(self._seed)
        self._session.set_inputs([sample_input(info, random) for info in self._session.inputs])

    def time_block(self) -> None:
        """Time one block and drop its first run."""
        kept = np.asarray(self._session.time_runs(self._runs_per_block)[1:])
        self.runs.append(kept)
        self.medians.append(float(np.median(kept)))


def sample_input(info: TensorInfo, random: np.random.Generator) -> npt.NDArray[Any]:
    """Return random values in an input's shape: normal numbers, or 0 and 1 for index inputs."""
    if info.has_indices:
        return random.integers(2, size=info.shape)
    return random.normal(size=info.shape).astype(np.float32)


def compute_spread(timer: Timer, seed: int, base: Timer | None = None) -> Spread:
    """Return the spread of a file's times, or of its ratios to a baseline.

    All files are prepared again in the same rounds, so their rounds have the same groups.

    Args:
        timer: Runs of the file.
        seed: Seed of the bootstrap.
        base: Runs of the baseline. None: spread of the times; otherwise of base / file, by round.
    """
    values = np.asarray(timer.medians if base is None else np.divide(base.medians, timer.medians))
    groups = [index // ROUNDS_PER_INSTANCE for index in range(len(values))]
    return compute_median_spread(values, np.random.default_rng(seed), groups=groups)


class LoadMeter:
    """Meter of the CPU cores that other processes keep busy after its creation.

    The load average is not usable here: it includes our own workers for minutes after they end.
    """

    def __init__(self, children: Callable[[], Sequence[int]] = lambda: ()) -> None:
        """Start measuring.

        Args:
            children: Function that returns the ids of our own worker processes.
        """
        self._children = children
        self._busy, self._total = linux.read_core_seconds()
        self._own_start = self._measure_own_seconds()

    def _measure_own_seconds(self) -> float:
        return time.process_time() + sum(map(linux.read_process_seconds, self._children()))

    def measure_busy_cores(self) -> float | None:
        """Return the mean number of cores busy with other processes; None if unknown."""
        busy, total = linux.read_core_seconds()
        elapsed = (total - self._total) / (os.cpu_count() or 1)  # seconds are summed over cores
        if elapsed <= 0:
            return None
        other_seconds = busy - self._busy - (self._measure_own_seconds() - self._own_start)
        return max(0.0, other_seconds) / elapsed

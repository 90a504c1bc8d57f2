"""The only timing loop: short blocks in random order, ratios paired by round.

Sequential runs drift (a ratio of two medians taken one after the other spread by 9 to
135 % under load), strict A-B-A-B keeps caches cold and can flip a verdict. Blocks of a
few runs, all files in each round, stay within 2 to 5 %.
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
from compress.core.device import cpu_name, lacks_vnni
from compress.core.quantities import MORE_THREADS, MOST_THREADS, parse_whole_number
from compress.measure.latency_record import (
    QUIET,
    Latency,
    Spread,
    median_spread,
    quantile_and_error,
)
from compress.measure.runtimes import RUNTIMES, Runtime, Session, TensorInfo
from compress.measure.runtimes.tensorflow import server_processes
from compress.plan import LatencyOptions
from compress.plan.fields import require

ROUNDS_PER_INSTANCE = 2
"""Instances of one file differ by up to 5 %, and rounds of one instance alike: instances are what
is independent, so each file is prepared anew this often."""
MIN_ROUNDS = 40
BUSY = "other processes kept"
"""How the warning begins that others had worked meanwhile."""
MIN_RUNS = 7
"""Runs in a block; the first is dropped: it pays for the previous file's cache."""


@dataclass(frozen=True)
class Entry:
    """What is timed: a file, by a runtime, with a number of CPU threads."""

    path: Path
    runtime: str
    threads: int


@check_arguments()
def measure_latency(
    files: Mapping[str, str | Path],
    options: LatencyOptions | None = None,
    *,
    baselines: Mapping[str, str] | None = None,
    runtime: str = "litert",
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Latency]:
    """Time model files against each other by the block protocol, with one runtime.

    Args:
        files: Name -> path of a file that the runtime can run.
        options: Threads, precision (relative half-width), budget (seconds).
        baselines: Name -> name of the file that its ratio is against; default: the
            first file.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        seed: Seed of the order, the inputs and the bootstrap.
        on_progress: Called after each round with the share of the budget spent.

    Returns:
        Name -> times, with intervals and ratios.

    Raises:
        InputError: A file cannot be run, or a baseline is none of the files.
        MissingDependency: The runtime is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> times = measure_latency({"m": file}, LatencyOptions(budget=0.3))
        >>> times["m"].median_ms > 0, times["m"].runtime[:6]
        (True, 'LiteRT')

    Reference:
        docs/latency.md: blocks in random order, ratios paired by round.
    """
    options = options or LatencyOptions()
    require(bool(files), "files", "name at least one file", "none")
    return time_entries(
        {name: Entry(Path(path), runtime, options.threads) for name, path in files.items()},
        precision=options.precision,
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
    """Time files, runtimes and thread counts against each other by the block protocol.

    In each round, in random order, every entry runs a short block. Files are prepared
    anew every few rounds. Timing stops when every ratio's 95 % half-width is within the
    precision asked for, or when the budget is spent; the result says which, and whether
    there were instances enough for intervals.

    Args:
        entries: By name.
        precision: Relative half-width, above 0.
        budget: Seconds, above 0.
        baselines: Name -> name of the entry that its ratio is against; default: the first.
        seed: Seed of the order, the inputs and the bootstrap.
        on_progress: Called after each round with the share of the budget spent.

    Returns:
        One `Latency` an entry, in their order.

    Raises:
        InputError: A baseline that is not among the entries, or a file that cannot be run.
        MissingDependency: A runtime is not installed.
    """
    names = list(entries)
    against = {name: (baselines or {}).get(name, names[0]) for name in names}
    for name, entry in entries.items():
        parse_whole_number(
            entry.threads, f"threads of '{name}'", least=1, most=MOST_THREADS, why=MORE_THREADS
        )
    for name, base in against.items():
        require(base in entries, f"baseline of '{name}'", "be among the files", base)
    timers = {
        name: Timer(RUNTIMES[entry.runtime], entry.path, entry.threads, seed)
        for name, entry in entries.items()
    }
    rng = np.random.default_rng(seed)
    meter = LoadMeter(server_processes)
    began = time.perf_counter()
    stopped_by, next_check = "", MIN_ROUNDS
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not stopped_by:
            done = len(timers[names[0]].medians)
            if done and done % ROUNDS_PER_INSTANCE == 0:
                for timer in timers.values():
                    timer.renew()
            for index in rng.permutation(len(names)):
                timers[names[index]].block()
            spent = (time.perf_counter() - began) / budget
            if on_progress:
                on_progress(min(1.0, spent))
            if done + 1 >= next_check:
                # every look is a chance to stop while an interval happens to be narrow
                next_check = max(done + 5, math.ceil((done + 1) * 1.1))
                if _widest(timers, against, seed) <= precision:
                    stopped_by = "precision"
            if not stopped_by and spent >= 1.0:
                stopped_by = "budget"
    finally:
        if collecting:
            gc.enable()
    warnings = _warnings(meter.others(), [entry.path for entry in entries.values()])
    return {
        name: _summary(timers, name, against[name], entries[name], stopped_by, warnings, seed)
        for name in names
    }


def _widest(timers: Mapping[str, Timer], against: Mapping[str, str], seed: int) -> float:
    """Return the largest relative half-width of all ratios.

    Files that are only compared with themselves have none; of them the times count,
    where there is no other file. (Times drift with the machine, paired ratios do not.)
    """
    spreads = [
        spread_of(timers[name], seed, timers[base])
        for name, base in against.items()
        if name != base
    ] or [spread_of(timer, seed) for timer in timers.values()]
    return max(spread.half_width for spread in spreads)


def _summary(
    timers: Mapping[str, Timer],
    name: str,
    base: str,
    entry: Entry,
    stopped_by: str,
    warnings: tuple[str, ...],
    seed: int,
) -> Latency:
    timer = timers[name]
    times, ratio = spread_of(timer, seed), spread_of(timer, seed, timers[base])
    runs = np.concatenate(timer.runs)
    quiet, quiet_error = quantile_and_error(timer.medians, QUIET)
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
        instances=timer.instances,
        runs=len(runs),
        threads=entry.threads,
        device=cpu_name(),
        runtime=RUNTIMES[entry.runtime].describe(),
        stopped_by=stopped_by,
        warnings=warnings,
        spread=times.kind,
        quiet_ms=quiet * 1e3,
        quiet_error_ms=quiet_error * 1e3,
    )


def _warnings(busy: float | None, files: Sequence[Path]) -> tuple[str, ...]:
    found = []
    # operators are named in a file as text: the onnx package is not needed to run it
    if lacks_vnni() and any(
        path.suffix == ".onnx" and b"QuantizeLinear" in path.read_bytes() for path in files
    ):
        found.append(
            "this processor has no VNNI instructions: int8 .onnx files take longer here than on "
            "processors that have them"
        )
    governor = linux.governor()
    if governor not in ("", "performance"):
        found.append(f"the CPU's frequency governor is '{governor}', not 'performance'")
    if busy is not None and busy >= 0.2:
        found.append(f"{BUSY} {busy:.1f} of {os.cpu_count()} cores busy during the timing")
    return tuple(found)


class Timer:
    """The runs of one file: sessions, single run times, block medians."""

    def __init__(self, runtime: Runtime, path: Path, threads: int, seed: int) -> None:
        self._runtime, self._path, self._threads, self._seed = runtime, path, threads, seed
        self.instances = 0
        self.runs: list[npt.NDArray[np.float64]] = []
        self.medians: list[float] = []
        self.groups: list[int] = []
        self.renew()
        self._session.invoke()
        once = min(self._session.timed(3))
        # about 3 ms
        self._block = min(60, max(MIN_RUNS, math.ceil(0.003 / max(once, 1e-9))))

    def renew(self) -> None:
        """Prepare the file anew and feed it fixed random inputs."""
        self._session: Session = self._runtime.prepare(self._path, self._threads)
        random = np.random.default_rng(self._seed)
        self._session.set_inputs([drawn(info, random) for info in self._session.inputs])
        self.instances += 1

    def block(self) -> None:
        """Time one block and drop its first run."""
        kept = np.asarray(self._session.timed(self._block)[1:])
        self.runs.append(kept)
        self.medians.append(float(np.median(kept)))
        self.groups.append(self.instances)


def drawn(info: TensorInfo, random: np.random.Generator) -> npt.NDArray[Any]:
    """Return random numbers for an input: normal; 0 and 1 where indices are taken."""
    if info.indices:
        return random.integers(2, size=info.shape)
    return random.normal(size=info.shape).astype(np.float32)


def spread_of(timer: Timer, seed: int, base: Timer | None = None) -> Spread:
    """Return the spread of a file's times, or of the ratios of a base's to them.

    All files are prepared anew together, so their rounds have the same groups.
    """
    values = np.asarray(timer.medians)
    if base is not None:
        values = np.asarray(base.medians) / values
    return median_spread(values, np.random.default_rng(seed), groups=timer.groups)


class LoadMeter:
    """Counts the cores that other processes keep busy between its making and `others`.

    The load average would count our own workers for minutes after they ended.
    """

    def __init__(self, children: Callable[[], Sequence[int]] = lambda: ()) -> None:
        """Start to count.

        Args:
            children: Returns the ids of processes that work for us.
        """
        self._children = children
        self._busy, self._total = linux.core_seconds()
        self._own = self._own_seconds()

    def _own_seconds(self) -> float:
        return time.process_time() + sum(map(linux.process_seconds, self._children()))

    def others(self) -> float | None:
        """Return the mean number of cores busy with others; None where it is unknown."""
        busy, total = linux.core_seconds()
        passed = (total - self._total) / (os.cpu_count() or 1)  # the seconds are of all cores
        if passed <= 0:
            return None
        others = busy - self._busy - (self._own_seconds() - self._own)
        return max(0.0, others) / passed

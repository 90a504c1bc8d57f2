"""Does the timing loop say what is so? A file against itself, and a ratio known from more rounds.

    python -m benchmarks.latency_repeat [--repeats 40]

The same LiteRT file under two names, quiet and beside a process that burns one core: the true
ratio is 1, so its 95 % interval should hold 1.00, and be narrow when nothing else runs. Then a
ResNet-20 against one of half its widths, with ten times the rounds, and in short runs: do they
agree?
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored
from benchmarks.resnet20 import build
from compress.core.device import quiet_tensorflow
from compress.exporting.litert import export_litert
from compress.measure import latency, measure_latency
from compress.plan import LatencyOptions


@contextmanager
def burner(on: bool) -> Iterator[None]:
    """Keeps one core busy while the context lasts."""
    if not on:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def against_itself(path: Path, repeats: int, busy: bool) -> dict[str, Any]:
    """Times a file against itself."""
    rows = []
    with burner(busy):
        for seed in range(repeats):
            found = measure_latency({"a": path, "b": path}, seed=seed)["b"]
            rows.append({
                "ratio": found.ratio, "low": found.ratio_low, "high": found.ratio_high,
                "half_width": (found.ratio_high - found.ratio_low) / 2 / found.ratio,
                "holds_1": found.ratio_low <= 1.0 <= found.ratio_high,
                "rounds": found.rounds, "stopped_by": found.stopped_by,
                "warnings": list(found.warnings),
            })  # fmt: skip
            print("busy" if busy else "quiet", rows[-1], flush=True)
    return {
        "holds_1": sum(row["holds_1"] for row in rows),
        "of": repeats,
        "widest_half_width": max(row["half_width"] for row in rows),
        "runs": rows,
    }


def known_ratio(files: dict[str, Path], repeats: int) -> dict[str, Any]:
    """Times two files with ten times the rounds, then in short runs."""
    with mock.patch.object(latency, "MIN_ROUNDS", 10 * latency.MIN_ROUNDS):
        long = measure_latency(files, LatencyOptions(budget=600.0), seed=99)["half"]
    shorts = [measure_latency(files, seed=seed)["half"] for seed in range(repeats)]
    result = {
        "long": {"ratio": long.ratio, "low": long.ratio_low, "high": long.ratio_high,
                 "rounds": long.rounds},
        "short": [{"ratio": s.ratio, "low": s.ratio_low, "high": s.ratio_high, "rounds": s.rounds}
                  for s in shorts],
        "short_intervals_that_hold_it": sum(s.ratio_low <= long.ratio <= s.ratio_high
                                            for s in shorts),
        "same_verdict": sum((s.ratio_low > 1) == (long.ratio_low > 1) for s in shorts),
        "of": repeats,
    }  # fmt: skip
    print(result, flush=True)
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=40)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs all."""
    repeats = given.repeats
    quiet_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, widths in (("whole", (16, 32, 64)), ("half", (8, 16, 32))):
            files[name] = Path(folder) / f"{name}.tflite"
            export_litert(build(widths), files[name])
        stored.save(quiet=against_itself(files["whole"], repeats, busy=False))
        stored.save(**{"one core busy": against_itself(files["whole"], repeats, busy=True)})
        stored.save(**{"known ratio": known_ratio(files, 5)})


def itself(result: dict[str, Any]) -> str:
    """A file against itself."""
    labels = {"quiet": "quiet", "one core busy": "another process on one of two cores"}
    rows = [
        [label, f"{got['holds_1']} of {got['of']}", f"{100 * got['widest_half_width']:.1f} %"]
        for key, label in labels.items()
        if (got := result.get(key))
    ]
    return table(["machine", "intervals that hold 1.00", "widest half-width"], rows)


def known(result: dict[str, Any]) -> str:
    """A ratio known from many rounds."""
    got = result["known ratio"]
    long = got["long"]
    rows = [[
        f"{long['ratio']:.2f}x [{long['low']:.2f}, {long['high']:.2f}], {long['rounds']} rounds",
        ", ".join(f"{run['ratio']:.2f}x" for run in got["short"]),
        f"{got['short_intervals_that_hold_it']} of {got['of']}",
        f"{got['same_verdict']} of {got['of']}",
    ]]  # fmt: skip
    return table(["long run", "short runs", "their intervals that hold it", "same verdict"], rows)


BENCHMARK = Benchmark(
    "latency_repeat", __doc__, run, {"itself": itself, "known": known}, arguments,
    seeds=lambda settings: tuple(range(settings["repeats"])),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

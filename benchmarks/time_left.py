"""How well the time left is estimated that commands show beside each stage.

    python -m benchmarks.time_left [--cases shrink,compress] [--resume FILE]

Two commands shrink stored nets on Fashion-MNIST; what they report is recorded with the time. Then
it is shown once more to the progress bars of the command line, with a clock that is set to half of
each stage: the estimate there, relative to the time that the stage really took from then on. A
stage ends where the bar begins anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.progress import Progress

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "shrink": ("mobilenet", {"latency": 0.5, "finetune_epochs": 1, "formats": ("float32", "int8")}),
    "compress": ("separable", {"channels": "0.5x", "finetune_epochs": 2,
                               "formats": ("float32", "int8-qat")}),
}  # fmt: skip
"""Net and options of each command."""
LEAST = 5.0
"""Seconds of a stage whose estimate counts: nobody reads that of a shorter one."""
Event = tuple[float, str, float]
"""Seconds, text and completed share of a report of progress."""


def replay(events: Sequence[Event], ended: float) -> list[dict[str, Any]]:
    """Return each stage with its estimate at half time.

    Args:
        events: Reports in the order of time.
        ended: When the last stage ended, in seconds.

    Returns:
        For each stage its first text ("stage"), its "seconds", and "ratio": the estimated time left
        at half time over the true one; None where none is shown.
    """
    from search.cli._console import RichDisplay, TimeLeft

    starts = [index for index, ((_, _, before), (_, _, share)) in enumerate(pairwise(events), 1)
              if share < before]  # fmt: skip
    stages = []
    for start, stop in pairwise([0, *starts, len(events)]):
        began = events[start][0]
        end = events[stop][0] if stop < len(events) else ended
        clock = [began]
        progress = Progress(get_time=lambda clock=clock: clock[0], disable=True)  # type: ignore[misc]
        display = RichDisplay(progress)
        half = (began + end) / 2
        for seconds, text, share in events[start:stop]:
            if seconds > half:
                break
            clock[0] = seconds
            display.update_worker(0, text, share)
        clock[0] = half
        estimate = TimeLeft.estimate_seconds(progress.tasks[0])
        left = end - half
        stages.append({
            "stage": events[start][1], "seconds": end - began,
            "ratio": None if estimate is None or not left else estimate / left,
        })  # fmt: skip
    return stages


def measure_case(name: str) -> list[dict[str, Any]]:
    """Run a command and return its stages."""
    import paretune as pt
    from benchmarks.repair_nets import trained

    net, options = CASES[name]
    command = pt.shrink if name == "shrink" else pt.compress_model
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as folder:
        command(
            trained(net).model, "fashion_mnist", out=f"{folder}/out", **options,
            on_progress=lambda text, share: events.append((time.perf_counter(), text, share)),
        )  # fmt: skip
        return replay(events, time.perf_counter())


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--cases", default=",".join(CASES), help="with commas")


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Measure the missing cases."""
    from compress.core.device import silence_tensorflow

    silence_tensorflow()
    cases: dict[str, Any] = stored.result.setdefault("cases", {})
    for name in given.cases.split(","):
        if name not in cases:
            cases[name] = measure_case(name)
            stored.save(cases=cases)


def list_estimates(result: dict[str, Any]) -> str:
    """Return the table of all stages that take long enough."""
    rows = [
        [name, row["stage"], f"{row['seconds']:.0f} s",
         "none" if row["ratio"] is None else f"{row['ratio']:.2f}"]
        for name, stages in result["cases"].items()
        for row in stages
        if row["seconds"] >= LEAST
    ]  # fmt: skip
    return table(["command", "stage", "time", "estimated / true time left at half time"], rows)


BENCHMARK = Benchmark(
    "time_left", __doc__, measure, {"estimates": list_estimates}, arguments, resumable=True,
    grows=("cases",),
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()

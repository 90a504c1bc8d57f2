"""Kills at random moments, and memory over many trials: the slow fault tests, made longer.

    python -m benchmarks.search_faults [--kills 20] [--trials 200]

tests/search/engines/test_faults.py asserts what must hold (no finished trial lost, changed or
repeated, the plan's number at the end, memory flat, no process left) and writes its figures; one
that fails ends this script without a result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._common import Benchmark, table
from benchmarks._stored import ROOT, Stored
from compress.core.atomic_files import read_json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=200)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs both tests and takes their figures."""
    with tempfile.TemporaryDirectory() as place:
        told = {
            "PARETUNE_KILLS": str(given.kills), "PARETUNE_TRIALS": str(given.trials),
            "PARETUNE_FIGURES": place,
        }  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "slow", "tests/search/engines/test_faults.py",
             "-k", "killed or memory", "-p", "no:cacheprovider"],
            cwd=ROOT, check=True, env={**os.environ, **told},
        )  # fmt: skip
        figures = {path.stem: read_json(path) for path in sorted(Path(place).glob("*.json"))}
    stored.save(**figures)


def faults(result: dict[str, Any]) -> str:
    """What was done, and what came of it."""
    kills, memory = result["kills"], result["memory"]
    mib = {
        place: " and ".join(f"{value / 2**20:,.0f} MiB" for value in memory[place])
        for place in ("worker", "run")
    }
    return table(["what", "result"], [
        [f"the run's process killed (SIGKILL) at {kills['kills']} random moments, two workers",
         f"no finished trial lost, changed or repeated; {kills['trials']} at the end, as planned; "
         "no process left"],
        [f"{memory['trials']} tiny trials, one worker: memory at trials 10 to 20, and at the end",
         f"worker and its fork together {mib['worker']}; the run's own process {mib['run']}"],
    ])  # fmt: skip


BENCHMARK = Benchmark("search_faults", __doc__, run, {"faults": faults}, arguments, seeds=(1,))


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

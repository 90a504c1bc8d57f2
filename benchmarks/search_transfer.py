"""How many trials a warm start saves on another data set: Fashion-MNIST, then rotated.

For each seed: a search on 3,000 images of Fashion-MNIST; then on 3,000 other images turned by
90 degrees, once cold and once with `--warm-start` of the first. Counted: trials until the warm
run's front has the hypervolume (accuracy in [0.5, 1], log10 MACs in [4, 8]) that the cold run
ends with, and until the cold run has it itself. Two seeds run at a time, a core each.

    python -m benchmarks.search_transfer [--seeds 0,1,2,3,4] [--resume FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from benchmarks.search_front import difference
from benchmarks.search_stopping import volume
from search.study.directory import SearchFolder

TRIALS, EPOCHS, MAX_MACS = 16, 4, 600_000


def search(core: int, seed: int, data: str, out: Path, *more: str) -> list[float]:
    """Runs a search; returns the hypervolume after each trial."""
    subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-c",
         "from search.cli import main; main()", "search", "--data", data, "--trials", str(TRIALS),
         "--epochs", str(EPOCHS), "--max-macs", str(MAX_MACS), "--workers", "1", "--threads", "1",
         "--seed", str(seed), "--out", str(out), *more],
        check=True, capture_output=True,
    )  # fmt: skip
    points, volumes = [], []
    for item in SearchFolder(out).read_candidates():
        if not item.is_trial:
            continue
        if item.state == "complete":
            points.append((-item.val["accuracy"], float(item.macs or 1)))
        volumes.append(volume(points))
    return volumes


def one(seed: int) -> dict[str, Any]:
    """Returns the three runs of one seed."""
    core = seed % 2
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        other = "benchmarks.fashion_small:rotated"
        first = search(core, seed, "benchmarks.fashion_small:few", root / "first")
        cold = search(core, seed + 100, other, root / "cold")
        warm = search(core, seed + 100, other, root / "warm", "--warm-start", str(root / "first"))
    reached = {
        name: next((n for n, value in enumerate(run, 1) if value >= cold[-1]), None)
        for name, run in (("cold", cold), ("warm", warm))
    }
    return {"first": first, "cold": cold, "warm": warm, "reached": reached}


def arguments(parser: argparse.ArgumentParser) -> None:
    seed_list(parser, range(5))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs the seeds that are missing, two at a time."""
    runs: dict[str, Any] = stored.result.setdefault("runs", {})
    missing = [seed for seed in given.seeds if str(seed) not in runs]
    with ThreadPoolExecutor(2) as pool:
        for seed, found in zip(missing, pool.map(one, missing), strict=True):
            runs[str(seed)] = found
            print(seed, found["reached"], f"{found['cold'][-1]:.4f}", f"{found['warm'][-1]:.4f}")
            stored.save(trials=TRIALS, runs=runs)


def reached(result: dict[str, Any]) -> str:
    """Trials until a run has what the cold one ends with, by seed."""
    sides, last = ("cold", "warm"), result["trials"]
    rows = [
        [f"seed {seed}", *(run["reached"][side] or f"never ({last})" for side in sides),
         *(f"{run[side][-1]:.3f}" for side in sides)]
        for seed, run in result["runs"].items()
    ]  # fmt: skip
    runs = result["runs"].values()
    middle = [
        f"median {np.median([run['reached'][side] or last + 1 for run in runs]):g}"
        for side in sides
    ]
    means = {side: Mean.of([run[side][-1] for run in runs]) for side in sides}
    rows.append(["", *middle, *(mean.number() for mean in means.values())])
    head = ["", "trials, cold", "trials, warm", "hypervolume at the end, cold",
            f"warm ({difference(means['warm'], means['cold'])})"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "search_transfer", __doc__, run, {"reached": reached}, arguments, resumable=True
)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

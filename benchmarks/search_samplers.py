"""Samplers beside each other in whole searches of a few minutes: which one is the default.

Each searches the space `cnn` on 10,000 training and 5,000 validation images of Fashion-MNIST,
up to 8 epochs a trial, with the default stopping, on one core for the same wall time; two run at
a time, a core each. Shown: hypervolume of validation accuracy in [0.5, 1] and log10 MACs in
[4, 8] at the end. Goes on where it was interrupted.

    python -m benchmarks.search_samplers [--minutes 4] [--seeds 3] [tpe greedy evolution random]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np

from benchmarks._common import RESULTS, environment
from benchmarks.search_front import Point, ours, over_time
from compress.files import read_json, write_json

FILE = RESULTS / "search_samplers.json"
SAMPLERS = ("tpe", "greedy", "evolution", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samplers", nargs="*", default=SAMPLERS)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    runs: dict[str, Any] = read_json(FILE)["runs"] if FILE.exists() else {}
    wanted = [(name, seed) for seed in range(given.seeds) for name in given.samplers]
    missing = [(name, seed) for name, seed in wanted if f"{name} {seed}" not in runs]
    cores: SimpleQueue[int] = SimpleQueue()
    for core in (0, 1):
        cores.put(core)

    def one(job: tuple[str, int]) -> list[Point]:
        name, seed = job
        core = cores.get()
        try:
            return ours(seed, given.minutes, core, "--sampler", name)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(2) as pool:
        for (name, seed), found in zip(missing, pool.map(one, missing), strict=True):
            runs[f"{name} {seed}"] = found
            write_json(FILE, {"environment": environment(), "minutes": given.minutes, "runs": runs})
    for name in given.samplers:
        ends = [
            over_time(runs[f"{name} {seed}"], 60 * given.minutes)[-1] for seed in range(given.seeds)
        ]
        print(f"{name}: mean {np.mean(ends):.4f}, {[round(end, 4) for end in ends]}")


if __name__ == "__main__":
    main()

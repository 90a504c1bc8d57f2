"""Samplers beside each other in whole searches of a few minutes: which one is the default.

Each searches the space `cnn` on 10,000 training and 5,000 validation images of Fashion-MNIST,
up to 8 epochs a trial, with the default stopping, on one core for the same wall time; two run at
a time, a core each. Shown: hypervolume of validation accuracy in [0.5, 1] and log10 MACs in
[4, 8] at the end.

    python -m benchmarks.search_samplers [--minutes 4] [--seeds 0,1,2] [--resume FILE]
        [tpe greedy evolution random]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from benchmarks.search_front import Point, difference, ours, over_time

SAMPLERS = ("tpe", "greedy", "evolution", "random")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samplers", nargs="*", default=SAMPLERS)
    parser.add_argument("--minutes", type=float, default=4)
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs what is missing, two searches at a time."""
    runs: dict[str, Any] = stored.result.setdefault("runs", {})
    wanted = [(name, seed) for seed in given.seeds for name in given.samplers]
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
            end = over_time(found, 60 * given.minutes)[-1]
            runs[f"{name} {seed}"] = {"points": found, "end": end}
            print(f"{name}, seed {seed}: {end:.3f}", flush=True)
            stored.save(minutes=given.minutes, runs=runs)


def ends(result: dict[str, Any]) -> str:
    """Hypervolume at the end, and whether a sampler differs from the default one."""
    found: dict[str, list[float]] = {}
    for key, run in sorted(result["runs"].items()):
        found.setdefault(key.rpartition(" ")[0], []).append(run["end"])
    means = {name: Mean.of(values) for name, values in found.items()}
    first = SAMPLERS[0]
    rows = [
        [f"`{name}`", ", ".join(f"{value:.3f}" for value in found[name]), mean.number(),
         difference(mean, means[first]) if first in means and name != first else ""]
        for name, mean in sorted(means.items(), key=lambda item: -item[1].mean)
    ]  # fmt: skip
    head = ["sampler", "hypervolume by seed", "mean", f"against `{first}`"]
    return table(head, rows)


BENCHMARK = Benchmark(
    "search_samplers", __doc__, run, {"ends": ends}, arguments,
    resumable=True, grows=("seeds", "samplers"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

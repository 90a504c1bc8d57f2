"""Strategies on a made-up landscape whose front is known: nothing is trained.

    python -m benchmarks.search_strategies [--seeds 0,1,...,19] [--trials 100]
        [--resume FILE] [pareto tpe greedy evolution random pareto-without-costs ...]

The landscape of tests/search/samplers/landscape.py, with noise on the qualities; no first trials
are queued. `pareto` knows what networks cost, as in a search ("-without-" something:
_ablated.py). Shown: hypervolume of the tried networks' true values after all trials.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from benchmarks.search_front import difference

NAMES = ("pareto", "greedy", "evolution", "tpe", "random")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samplers", nargs="*", default=NAMES)
    parser.add_argument("--trials", type=int, default=100)
    seed_list(parser, range(20))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Searches with every sampler and seed."""
    from benchmarks._ablated import sampler_named
    from tests.search.samplers.landscape import dominated, search

    runs: dict[str, dict[str, float]] = stored.result.setdefault("volumes", {})
    for name in given.samplers:
        found = runs.setdefault(name, {})
        for seed in given.seeds:
            if str(seed) not in found:
                found[str(seed)] = dominated(search(sampler_named(name), seed, given.trials))
        print(f"{name}: {median(found.values()):.3f}", flush=True)
        stored.save(trials=given.trials, volumes=runs)


def volumes(result: dict[str, Any]) -> str:
    """Hypervolume by sampler, and whether it differs from random search."""
    means = {name: Mean.of(list(found.values())) for name, found in result["volumes"].items()}
    rows = [
        [f"`{name}`", f"{median(result['volumes'][name].values()):.3f}", mean.number(),
         "" if name == "random" or "random" not in means else difference(mean, means["random"])]
        for name, mean in sorted(means.items(), key=lambda item: -item[1].mean)
    ]  # fmt: skip
    head = ["sampler", f"median after {result['trials']} trials", "mean", "against `random`"]
    return table(head, rows)


BENCHMARK = Benchmark(
    "search_strategies", __doc__, run, {"volumes": volumes}, arguments,
    resumable=True, grows=("seeds", "samplers"), seeds=tuple(range(20)),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

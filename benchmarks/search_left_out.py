"""What a part of the search is worth in searches that train: each left out.

    python -m benchmarks.search_left_out [--variants stopping,costs] [--seeds 0,1,2]
        [--minutes 12] [--sampler pareto] [--resume FILE]

Both sides are `paretune search` over the space `cnn` as `search_front.py` runs it: 10,000 training
and 5,000 validation images of Fashion-MNIST, 8 epochs, the same seed, the same wall time, a core
each at the same time (which has which alternates by seed). One is as it is; of the other one part
is left out (stopping; what the default sampler knows and `tpe` does not). Shown: hypervolume of
validation accuracy and log10 MACs in the end, in the same box as there, paired by seed.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from benchmarks.search_front import ours, over_time
from compress.core.errors import unknown_name

VARIANTS = {
    "stopping": ("every trial trained to its end", ("--stopping", "none")),
    "costs": ("`tpe`, which knows no costs before training", ("--sampler", "tpe")),
}


def together(seed: int, minutes: float, sampler: str, variant: str) -> dict[str, Any]:
    """Runs a seed as it is and with the variant at the same time, a core each."""
    given = ("--sampler", sampler) if sampler else ()
    more = VARIANTS[variant][1]
    options = {"as it is": given, "changed": more if "--sampler" in more else (*given, *more)}
    with ThreadPoolExecutor(2) as pool:
        waiting = {
            side: pool.submit(ours, seed, minutes, (place + seed) % 2, *words)
            for place, (side, words) in enumerate(options.items())
        }
        return {side: future.result() for side, future in waiting.items()}


def arguments(parser: argparse.ArgumentParser) -> None:
    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        for name in found:
            if name not in VARIANTS:
                raise argparse.ArgumentTypeError(str(unknown_name("variant", name, VARIANTS)))
        return found

    parser.add_argument("--variants", type=names, default=tuple(VARIANTS))
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--sampler", default="", help="of both sides; default: the search's")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs the pairs that are missing."""
    runs = stored.result.setdefault("runs", {})
    stored.result["minutes"] = given.minutes
    for variant in given.variants:
        for seed in given.seeds:
            key = f"{variant}, seed {seed}"
            if key in runs:
                continue
            points = together(seed, given.minutes, given.sampler, variant)
            runs[key] = {
                side: {"curve": over_time(found, 60 * given.minutes), "trials": len(found)}
                for side, found in points.items()
            }
            ends = {side: row["curve"][-1] for side, row in runs[key].items()}
            print(key, ends, flush=True)
            stored.save(runs=runs)


def ends(result: dict[str, Any]) -> str:
    """Hypervolumes in the end, and their difference by seed."""
    rows = []
    for variant, (text, _) in VARIANTS.items():
        found = [row for key, row in result["runs"].items() if key.startswith(f"{variant}, ")]
        if not found:
            continue
        sides = {
            side: [row[side]["curve"][-1] for row in found] for side in ("as it is", "changed")
        }
        gaps = [changed - plain for plain, changed in zip(*sides.values(), strict=True)]
        mean = Mean.of(gaps)
        change = mean.compare()
        tie = change is not None and change.is_tie
        trials = [f"{sum(row[side]['trials'] for row in found) / len(found):.0f}" for side in sides]
        rows.append([
            text, *(Mean.of(values).number() for values in sides.values()),
            mean.number() + (", a tie" if tie else ""), ", ".join(trials),
        ])  # fmt: skip
    minutes = f"{result['minutes']:g} min"
    head = ["changed", f"as it is, {minutes}", "changed", "difference by seed", "trials to the end"]
    return table(head, rows)


BENCHMARK = Benchmark(
    "search_left_out", __doc__, run, {"ends": ends}, arguments, resumable=True,
    grows=("seeds", "variants"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

"""Samplers on candidates that were trained once and recorded: nothing is trained here.

    python -m benchmarks.search_recorded [--curves FILE] [--seeds 0,1,...,19]
        [--resume FILE] [pareto tpe greedy evolution nsga2 random pareto-without-curves ...]

The 50 candidates of a result of benchmarks.search_curves (space `cnn`, Fashion-MNIST, 8 epochs). A
sampler is asked for a candidate of the whole space; it gets the one of the 50 that is most like it
and was not tried yet: of the fewest choices that differ, numbers by how far they are apart. The
search's rule stops trials by their recorded curves. Shown: the hypervolume of those that ended
(accuracy in [0.5, 1], log10 MACs in [4, 8]) as a share of that of all 50. `pareto` knows what
candidates of the space cost, as in a search ("-without-" something: _ablated.py). No first trials.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._ablated import made
from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored, newest, read
from benchmarks.fashion_small import load
from benchmarks.search_front import difference
from benchmarks.search_stopping import volume
from compress.data import Dataset

NAMES = ("pareto", "tpe", "greedy", "evolution", "nsga2", "random")
AT = (5, 10, 20, 30)
EPOCHS = 8

Record = Mapping[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samplers", nargs="*", default=NAMES)
    parser.add_argument("--curves", type=Path, help="a result of benchmarks.search_curves")
    seed_list(parser, range(20))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Searches with every sampler and seed."""
    source = read(given.curves, "search_curves") if given.curves else newest("search_curves")
    print(f"recorded: stored of {source.origin()}", flush=True)
    data = load()
    records: list[Record] = [item for item in source.result["candidates"] if item["accuracy"]]
    runs: dict[str, dict[str, dict[str, float]]] = stored.result.setdefault("runs", {})
    for name in given.samplers:
        found = runs.setdefault(name, {})
        for seed in given.seeds:
            if str(seed) not in found:
                found[str(seed)] = shares(records, tried(records, data, name, seed))
                stored.save(runs=runs, candidates=len(records), curves=source.origin())
        print(f"{name}: {_medians(found)}", flush=True)


def tried(records: Sequence[Record], data: Dataset, name: str, seed: int) -> list[Record | None]:
    """Returns the candidates that a sampler leads to, in order; None: it was stopped."""
    import optuna
    from optuna.trial import TrialState, create_trial

    from compress.plan.fields import from_flat
    from search.plan import SearchPlan
    from search.spaces import SPACES
    from search.spaces._choices import choose
    from search.study import optimizers
    from search.study.objective import is_dominated, rung_attr
    from search.study.recovery import declared
    from search.study.study import free_knowledge

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = from_flat(SearchPlan, {"space": "cnn", "epochs": EPOCHS})
    known, options = free_knowledge(plan, data), plan.stopping
    at: dict[int, list[tuple[float, float]]] = {epoch: [] for epoch in plan.rungs()}
    choices, all_names = SPACES["cnn"].choices(data), declared(plan, data)
    study = optuna.create_study(directions=["maximize", "minimize"])
    left, found = list(records), list[Record | None]()
    while len(found) < max(AT):
        study.sampler = made(name, seed, len(found), known)
        trial = study.ask()
        choose(trial, choices)
        optimizers.sample(trial, plan, data)
        # what it asked for was not trained: it has never been
        study.tell(trial, state=TrialState.FAIL)
        asked = trial.params
        nearest = min(left, key=lambda item: apart(item["choices"], asked, all_names))
        left.remove(nearest)
        curve, macs = nearest["accuracy"], float(nearest["macs"])
        rungs: dict[str, float] = {}
        stopped = False
        for epoch, others in at.items():
            rungs[rung_attr(epoch)] = max(curve[:epoch])
            others.append((-max(curve[:epoch]), macs))
            if is_dominated(np.array(others), len(others) - 1, options.margin):
                stopped = True
                break
        found.append(None if stopped else nearest)
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if stopped else TrialState.COMPLETE,
                values=None if stopped else [max(curve), macs],
                params=nearest["choices"],
                distributions={key: all_names[key] for key in nearest["choices"]},
                user_attrs=rungs,
            )
        )
    return found


def apart(one: Mapping[str, Any], other: Mapping[str, Any], names: Mapping[str, Any]) -> float:
    """Returns how far choices are apart: 1 for each that differs, of numbers a share of that.

    Args:
        one: Choices.
        other: Choices.
        names: Distributions, by parameter.
    """
    total = 0.0
    for name in one.keys() | other.keys():
        if name not in one or name not in other:
            total += 1
            continue
        a, b, kind = one[name], other[name], names[name]
        if not hasattr(kind, "low"):
            total += a != b
            continue
        scale = math.log if getattr(kind, "log", False) else float
        total += abs(scale(a) - scale(b)) / (scale(kind.high) - scale(kind.low))
    return total


def shares(records: Sequence[Record], found: Sequence[Record | None]) -> dict[str, float]:
    """Returns the share of all candidates' hypervolume after so many."""

    def dominated(some: Sequence[Record | None]) -> float:
        return volume([(-max(item["accuracy"]), float(item["macs"])) for item in some if item])

    return {str(count): dominated(found[:count]) / dominated(records) for count in AT}


def _medians(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {str(count): round(median(run[str(count)] for run in found.values()), 3)
            for count in AT}  # fmt: skip


def told(result: dict[str, Any]) -> str:
    """Medians over seeds by sampler, and whether the mean after 20 differs from random search."""
    after = "20"
    means = {name: Mean.of([run[after] for run in found.values()])
             for name, found in result["runs"].items()}  # fmt: skip
    rows = [
        [f"`{name}`", *(f"{value:.3f}" for value in _medians(found).values()), means[name].number(),
         "" if name == "random" or "random" not in means
         else difference(means[name], means["random"])]
        for name, found in result["runs"].items()
    ]  # fmt: skip
    head = ["sampler", *(f"after {count}" for count in AT), f"mean after {after}"]
    return table([*head, "against `random`"], rows)


BENCHMARK = Benchmark(
    "search_recorded", __doc__, run, {"told": told}, arguments,
    resumable=True, grows=("seeds", "samplers"), seeds=tuple(range(20)),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

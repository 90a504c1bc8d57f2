"""Samplers on NAS-Bench-Macro, where the whole front is known: nothing is trained here.

    python -m benchmarks.search_nas_table --table nas-bench-macro_cifar10.json
        [--seeds 0,1,...,19] [--trials 200] [--reads mean,one] [--workers 1] [--at-once 1]
        [--resume FILE]
        [pareto tpe greedy evolution nsga2 random pareto-without-costs ...]

6,561 networks of eight layers, each trained three times on CIFAR-10 by the table's authors (Su et
al. 2021, "Prioritized Architecture Sampling with Monto-Carlo Tree Search"; the file
nas-bench-macro_cifar10.json of github.com/xiusu/NAS-Bench-Macro). A sampler is told accuracy and
FLOPs: the mean of the three trainings ("mean"), or one of them at random ("one"). Shown: the
hypervolume of what it tried as a share of the whole table's, by mean accuracy above 80 % and by
FLOPs below the largest. `pareto` is given the FLOPs of all networks beforehand, as a search gives
it those of its own; no first trials are queued. "-without-" something: `ABLATED`. Several workers
are as many trials that are asked for before the oldest of them is told, as searches do it whose
trials take equally long. Other packages' samplers, by name "optuna-gp", "smac", "ax" or
"syne-tune", run by the Python that SAMPLERS_PYTHON names (benchmarks/peers/nas_table_samplers.py),
one trial at a time; several searches at once with --at-once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._common import PEERS, Benchmark, not_run, seed_list, table
from benchmarks._stored import Stored
from compress.core.pareto import measure_hypervolume
from search.plugins import SAMPLERS
from search.samplers._base import Choices
from search.samplers.pareto import ParetoSampler
from search.samplers.pareto.history import ConditionalSpace, Curves, History, read_reported_values

NAMES = ("pareto", "tpe", "greedy", "evolution", "nsga2", "random")
READS = {"mean": "mean of three trainings", "one": "one training of three"}
AT = (25, 50, 100, 200)
FLOOR = 80.0
LAYERS, KINDS = 8, ("0", "1", "2")
"""Identity, MobileNet blocks of expansion 3 and kernel 3, and of 6 and 5."""

PEER = Path(__file__).parent / "peers" / "nas_table_samplers.py"
THEIRS = {"optuna-gp": "gp", "smac": "smac", "ax": "ax", "syne-tune": "syne-tune"}
"""Peers, and what the script that runs them calls their samplers."""

Networks = Mapping[str, Mapping[str, Any]]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samplers", nargs="*", default=NAMES)
    parser.add_argument("--table", type=Path, help="nas-bench-macro_cifar10.json")
    parser.add_argument("--trials", type=int, default=max(AT))
    parser.add_argument("--reads", type=lambda text: tuple(text.split(",")), default=tuple(READS))
    parser.add_argument(
        "--workers", type=lambda text: tuple(map(int, text.split(","))), default=(1,),
        help="trials at work at once, with commas",
    )  # fmt: skip
    parser.add_argument(
        "--at-once", type=int, default=1,
        help="searches of other packages at the same time; an ask takes longer then",
    )  # fmt: skip
    seed_list(parser, range(20))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Search with every sampler, seed and way of reading."""
    if given.table is None or not given.table.is_file():
        stored.result["not run"] = "the table is missing: give it by --table"
        print(stored.result["not run"])
        return
    networks: Networks = json.loads(given.table.read_text("utf-8"))
    runs: dict[str, dict[str, Any]] = stored.result.setdefault("runs", {})
    for reads, name, workers in product(given.reads, given.samplers, given.workers):
        said = name if workers == 1 else f"{name} with {workers} workers"
        if name in THEIRS and (state := stored.provenance["peers"][name]).startswith("not run"):
            stored.save(missing={**stored.result.get("missing", {}), name: not_run(state)})
            print(f"{name}: {state}", flush=True)
            continue
        found = runs.setdefault(f"{said}, {reads}", {})
        missing = [seed for seed in given.seeds if str(seed) not in found]
        with ThreadPoolExecutor(given.at_once if name in THEIRS else 1) as pool:
            if name in THEIRS:
                one = partial(by_peer, given.table, name, given.trials, reads)
            else:
                one = partial(searched, networks, name, given.trials, reads, workers)
            asked = {pool.submit(one, seed): seed for seed in missing}
            try:
                for done in as_completed(asked):
                    tried, seconds = done.result()
                    found[str(asked[done])] = {"shares": shares(networks, tried), "ask": seconds}
                    stored.save(runs=runs)
            finally:  # after an error or Ctrl-C nothing more begins
                pool.shutdown(cancel_futures=True)
        print(f"{said}, {reads}: {_medians(found)}", flush=True)


def searched(
    networks: Networks, name: str, trials: int, reads: str, workers: int, seed: int
) -> tuple[list[str], float]:
    """Return the networks that a sampler tries, as they are told, and seconds an ask."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    space = {f"layer{place}": optuna.distributions.CategoricalDistribution(KINDS)
             for place in range(LAYERS)}  # fmt: skip

    def cost(chosen: Mapping[str, Any]) -> tuple[float]:
        return (float(networks[key_of(chosen)]["flops"]),)

    known = {"space": space, "costs": cost}
    rng = np.random.default_rng(seed)
    tried, running = [], deque[Any]()
    began = time.perf_counter()
    for number in range(trials + workers - 1):
        if number < trials:
            study.sampler = made(name, seed, number, known)
            running.append(study.ask(space))
        if number < workers - 1:
            continue
        trial = running.popleft()
        key = key_of(trial.params)
        network = networks[key]
        once = network["test_acc"][int(rng.integers(3))]
        study.tell(trial, [network["mean_acc"] if reads == "mean" else once, network["flops"]])
        tried.append(key)
    return tried, (time.perf_counter() - began) / trials


def by_peer(file: Path, name: str, trials: int, reads: str, seed: int) -> tuple[list[str], float]:
    """Return the networks that another package's sampler tries, and seconds an ask."""
    words = [str(file), THEIRS[name], str(seed), str(trials), reads]
    done = subprocess.run(
        [PEERS[name].python(), str(PEER), *words], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["tried"], found["seconds"]


def key_of(chosen: Mapping[str, Any]) -> str:
    """Return the key of a network in the table."""
    return "".join(chosen[f"layer{place}"] for place in range(LAYERS))


def shares(networks: Networks, tried: Sequence[str]) -> dict[str, float]:
    """Return the share of the whole front's hypervolume after so many trials."""
    worst = np.array([-FLOOR, max(item["flops"] for item in networks.values())])

    def volume(keys: Sequence[str]) -> float:
        rows = [[-networks[key]["mean_acc"], networks[key]["flops"]] for key in keys]
        return measure_hypervolume(np.array(rows), worst)

    whole = volume(list(networks))
    return {str(count): volume(tried[:count]) / whole for count in AT if count <= len(tried)}


def _medians(found: Mapping[str, Any]) -> dict[str, float]:
    counts = next(iter(found.values()))["shares"]
    return {count: round(median(run["shares"][count] for run in found.values()), 4)
            for count in counts}  # fmt: skip


def told(result: dict[str, Any]) -> str | None:
    """Return the table of medians over seeds, with the worst seed, by sampler and reading."""
    if "runs" not in result:
        return None
    rows, counts = [], list[str]()
    for key, found in result["runs"].items():
        name, _, reads = key.partition(", ")
        middle = _medians(found)
        counts = list(middle)
        cells = [
            f"{middle[count]:.3f} ({min(run['shares'][count] for run in found.values()):.3f})"
            for count in counts
        ]
        asks = [1000 * run["ask"] for run in found.values()]
        rows.append([f"`{name}`", READS[reads], str(len(found)), *cells, f"{median(asks):.0f} ms"])
    measured = {key.partition(", ")[0] for key in result["runs"]}
    for name, missing in result.get("missing", {}).items():
        if name not in measured:
            told_why = f"not run: {missing['not run']}"
            rows.append([f"`{name}`", told_why, *[""] * (len(counts) + 2)])
    head = ["sampler", "told", "seeds", *(f"after {count} trials" for count in counts)]
    return table([*head, "an ask, mean"], rows)


class WithoutCosts(ParetoSampler):
    """`pareto` that learns the costs of candidates from finished trials."""

    def __init__(
        self, seed: int, space: Any = None, costs: Any = None, curves: Curves = read_reported_values
    ) -> None:
        super().__init__(seed, space, None, curves)


class WithoutCurves(ParetoSampler):
    """`pareto` that ignores stopped trials."""

    def __init__(
        self, seed: int, space: Any = None, costs: Any = None, curves: Curves = read_reported_values
    ) -> None:
        super().__init__(seed, space, costs, lambda trial: {})


class WithoutPredictor(ParetoSampler):
    """`pareto` that spreads candidates over the costs and predicts nothing."""

    def _select_promising(
        self, full_space: ConditionalSpace, history: History, rng: np.random.Generator
    ) -> tuple[list[Choices], str]:
        return self._select_spread(full_space, history, len(history.observed), rng), ""


ABLATED: dict[str, Callable[..., Any]] = {
    "pareto-without-costs": WithoutCosts,
    "pareto-without-predictor": WithoutPredictor,
    "pareto-without-curves": WithoutCurves,
}


def sampler_named(name: str) -> Callable[..., Any]:
    """Return the factory of a sampler, whole or ablated."""
    return ABLATED[name] if name in ABLATED else SAMPLERS[name]


def made(name: str, seed: int, number: int, known: Mapping[str, Any]) -> Any:
    """Return the sampler of one trial, as a search makes it.

    Args:
        name: See `sampler_named`.
        seed: Of the search.
        number: Trials before.
        known: What samplers that know spaces are given.
    """
    make = sampler_named(name)
    more = known if getattr(make, "KNOWS_SPACE", False) else {}
    return make((seed * 1_000_003 + number) % 2**31, **more)


BENCHMARK = Benchmark(
    "search_nas_table", __doc__, run, {"shares": told}, arguments,
    peers=tuple(THEIRS), resumable=True, grows=("seeds", "samplers", "reads", "workers"),
    seeds=tuple(range(20)),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

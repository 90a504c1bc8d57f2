"""Learning curves of 50 random candidates of the space `cnn`, each trained to the end.

Candidates of more than 5 M MACs are left out, as a search with `--max-macs` does. The curves
are what rules for stopping trials are judged on (tests/search/study/test_stopping.py) without
training anything again. 10,000 images of Fashion-MNIST train, 5,000 validate, 8 epochs, one
thread.

    python -m benchmarks.search_curves [--candidates 50] [--resume FILE]
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored
from benchmarks.fashion_small import load
from compress.core.device import quiet_tensorflow, setup
from compress.core.errors import TrainingDiverged
from compress.measure import count_macs
from compress.plan.fields import from_nested
from compress.train import train
from search.plan import SearchPlan
from search.spaces import SPACES
from search.study import optimizers

EPOCHS, MAX_MACS = 8, 5_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidates", type=int, default=50)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Trains what is missing."""
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    quiet_tensorflow()
    device, data = setup("cpu", 1), load()
    plan = from_nested(SearchPlan, {"search": {"epochs": EPOCHS}})
    space = SPACES[plan.search.space]
    done: list[dict[str, Any]] = stored.result.setdefault("candidates", [])
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=1)
    )
    known = {item["trial"]: item for item in done}
    while len(done) < given.candidates:
        trial = study.ask()  # asked for again after an interruption: the sampler's numbers go on
        number = trial.number
        keras.utils.set_random_seed(number)
        model = space.build(trial, data)
        settings = optimizers.sample(trial, plan, data)
        if number in known:
            assert known[number]["choices"] == trial.params, "the space is another one now"
            continue
        analysis = count_macs(model)
        if analysis.macs > MAX_MACS or number <= max(known, default=-1):
            continue
        record: dict[str, Any] = {
            "trial": number, "choices": trial.params,
            "macs": analysis.macs, "params": analysis.params,
        }  # fmt: skip
        try:
            result = train(model, data, settings, device=device, seed=number)
            record["accuracy"] = [epoch.val["accuracy"] for epoch in result.history]
            record["seconds"] = [round(epoch.seconds, 3) for epoch in result.history]
        except TrainingDiverged as error:
            record |= {"accuracy": [], "seconds": [], "diverged": str(error)}
        done.append(record)
        print(number, f"{analysis.macs:,}", record["accuracy"][-1:], flush=True)
        stored.save(epochs=EPOCHS, candidates=done)


def summary(result: dict[str, Any]) -> str:
    """How many there are, and how far they came."""
    done = result["candidates"]
    best = [max(item["accuracy"]) for item in done if item["accuracy"]]
    return table(
        ["candidates", "diverged", "epochs each", "best validation accuracy"],
        [[len(done), len(done) - len(best), result["epochs"],
          f"{100 * min(best):.1f} to {100 * max(best):.1f} %"]],
    )  # fmt: skip


BENCHMARK = Benchmark(
    "search_curves", __doc__, run, {"summary": summary}, arguments,
    resumable=True, grows=("candidates",), seeds=(1,),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()

"""Learning curves of 50 random candidates of the space `cnn`, each trained to the end.

Candidates of more than 5 M MACs are left out, as a search with `--max-macs` does. The curves
are what rules for stopping trials are judged on (tests/search/test_stopping.py) without
training anything again. 10,000 images of Fashion-MNIST train, 5,000 validate, 8 epochs, one
thread. Goes on where it was interrupted.

    python -m benchmarks.search_curves [--candidates 50]
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import RESULTS, environment
from benchmarks.fashion_small import load
from compress.device import quiet_tensorflow, setup
from compress.errors import TrainingDiverged
from compress.files import read_json, write_json
from compress.measure import count_macs
from compress.options import from_nested
from compress.train import train
from search import optimizers
from search.plan import SearchPlan
from search.spaces import SPACES

FILE = RESULTS / "search_curves.json"
EPOCHS, MAX_MACS = 8, 5_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=50)
    count = parser.parse_args().candidates
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    quiet_tensorflow()
    device, data = setup("cpu", 1), load()
    plan = from_nested(SearchPlan, {"search": {"epochs": EPOCHS}})
    space = SPACES[plan.search.space]
    done: list[dict[str, Any]] = read_json(FILE)["candidates"] if FILE.exists() else []
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=1)
    )
    known = {item["trial"]: item for item in done}
    while len(done) < count:
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
        write_json(FILE, {"environment": environment(), "epochs": EPOCHS, "candidates": done})


if __name__ == "__main__":
    main()

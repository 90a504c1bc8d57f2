"""Samplers of other packages on NAS-Bench-Macro; see `search_nas_table.py`.

    python benchmarks/peers/nas_table_samplers.py TABLE NAME SEED TRIALS READS

Prints what was tried, in its order, and seconds an ask, as JSON. NAME: "gp" is Optuna's
`GPSampler`, which needs torch; "smac" is SMAC3 with ParEGO over its random forest; "ax" is Ax's
default for two objectives; "syne-tune" is Syne Tune's evolution for several objectives (its EHVI
has a fixed reference point of 2, whatever the objectives measure). All are told accuracy (negated
where they minimize) and FLOPs, and none knows FLOPs beforehand: their interfaces have no place for
it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, KINDS = 8, ("0", "1", "2")
NAMES = [f"layer{place}" for place in range(LAYERS)]

Told = Callable[[str], tuple[float, float]]
"""A network's key -> its accuracy, as it is read, and its FLOPs."""


def gp(seed: int, trials: int, told: Told) -> Iterator[str]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.GPSampler(seed=seed)
    )
    space = {name: optuna.distributions.CategoricalDistribution(KINDS) for name in NAMES}
    for _ in range(trials):
        trial = study.ask(space)
        key = "".join(trial.params[name] for name in NAMES)
        study.tell(trial, told(key))
        yield key


def smac(seed: int, trials: int, told: Told) -> Iterator[str]:
    import ConfigSpace
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.multi_objective.parego import ParEGO
    from smac.runhistory.dataclasses import TrialValue

    space = ConfigSpace.ConfigurationSpace({name: list(KINDS) for name in NAMES}, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space, objectives=["error", "flops"], n_trials=trials, seed=seed,
            output_directory=Path(folder), deterministic=True,
        )  # fmt: skip
        search = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: None, overwrite=True,
            multi_objective_algorithm=ParEGO(scenario), logging_level=40,
        )  # fmt: skip
        for _ in range(trials):
            info = search.ask()
            key = "".join(str(info.config[name]) for name in NAMES)
            accuracy, flops = told(key)
            search.tell(info, TrialValue(cost=[100.0 - accuracy, flops]))
            yield key


def ax(seed: int, trials: int, told: Told) -> Iterator[str]:
    import logging

    from ax.service.ax_client import AxClient, ObjectiveProperties

    logging.disable(logging.WARNING)
    client = AxClient(random_seed=seed, verbose_logging=False)
    client.create_experiment(
        parameters=[
            {"name": name, "type": "choice", "values": list(KINDS), "is_ordered": True,
             "sort_values": True}
            for name in NAMES
        ],
        objectives={
            "accuracy": ObjectiveProperties(minimize=False, threshold=80.0),
            "flops": ObjectiveProperties(minimize=True),
        },
    )  # fmt: skip
    for _ in range(trials):
        chosen, place = client.get_next_trial()
        key = "".join(str(chosen[name]) for name in NAMES)
        accuracy, flops = told(key)
        client.complete_trial(place, {"accuracy": (accuracy, 0.0), "flops": (flops, 0.0)})
        yield key


def syne_tune(seed: int, trials: int, told: Told) -> Iterator[str]:
    from syne_tune.config_space import choice
    from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution

    searcher = MultiObjectiveRegularizedEvolution(
        {name: choice(list(KINDS)) for name in NAMES}, random_seed=seed
    )
    for number in range(trials):
        chosen = searcher.suggest()
        key = "".join(chosen[name] for name in NAMES)
        accuracy, flops = told(key)
        searcher.on_trial_complete(number, chosen, [100.0 - accuracy, flops])
        yield key


SAMPLERS = {"gp": gp, "smac": smac, "ax": ax, "syne-tune": syne_tune}


def main() -> None:
    file, name, seed, trials, reads = sys.argv[1:]
    warnings.filterwarnings("ignore")
    networks: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
    rng = np.random.default_rng(int(seed))

    def told(key: str) -> tuple[float, float]:
        network = networks[key]
        once = network["test_acc"][int(rng.integers(3))]
        return network["mean_acc"] if reads == "mean" else once, network["flops"]

    began = time.perf_counter()
    tried = list(SAMPLERS[name](int(seed), int(trials), told))
    seconds = (time.perf_counter() - began) / int(trials)
    print(json.dumps({"tried": tried, "seconds": seconds}))


if __name__ == "__main__":
    main()

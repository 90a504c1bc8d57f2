"""Every sampler by the same contract."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from search.samplers import SAMPLERS


def run(name: str, seed: int, trials: int) -> list[dict[str, Any]]:
    """Minimises two conflicting functions with a conditional parameter."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[name](seed))
    for _ in range(trials):
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        extra = 0.0
        if trial.suggest_categorical("kind", ("a", "b")) == "b":
            extra = trial.suggest_int("extra", 1, 5)
        study.tell(trial, [x, x * x + extra])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_several_objectives_conditions_and_seeds(name: str) -> None:
    first = run(name, 1, 25)
    assert all(("extra" in params) == (params["kind"] == "b") for params in first)
    assert run(name, 1, 25) == first
    assert run(name, 2, 25) != first

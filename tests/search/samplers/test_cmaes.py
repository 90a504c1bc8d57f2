"""The view with one objective that CMA-ES gets, and a low-discrepancy check of qmc."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.samplers import SAMPLERS
from search.samplers.cmaes import SPACE_ATTR, augmented_chebyshev, scalarised


def test_augmented_chebyshev_by_hand() -> None:
    losses = np.array([[0.0, 40.0], [1.0, 20.0], [2.0, 0.0]])
    weights = np.array([0.25, 0.75])
    expected = [0.75 + 0.05 * 0.75, 0.375 + 0.05 * 0.5, 0.25 + 0.05 * 0.25]
    assert augmented_chebyshev(losses, weights) == pytest.approx(expected)
    assert augmented_chebyshev(np.zeros((0, 2)), weights) == []
    assert augmented_chebyshev(np.ones((2, 2)), weights) == [0.0, 0.0]


def run(trials: int, optimum: float = 0.8) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for count in range(trials):
        study.sampler = SAMPLERS["cmaes"](count)
        trial = study.ask()
        x, y = (trial.suggest_float(name, 0.0, 1.0) for name in "xy")
        trial.suggest_categorical("kind", ("a", "b"))
        if count % 6 == 5:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            loss = (x - optimum) ** 2 + (y - optimum) ** 2
            study.tell(trial, [1 - loss, 10 ** (2 + loss)])
    return study


def test_the_view_has_one_objective_and_the_same_numbers() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(6):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        if number == 2:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [0.1 * number, 10.0**number])
    running = study.ask()
    frozen = study.trials[running.number]
    view, own = scalarised(study, frozen, np.random.default_rng(0), "x")
    assert [trial.state for trial in view.trials] == [trial.state for trial in study.trials]
    assert [trial.params for trial in view.trials] == [trial.params for trial in study.trials]
    assert own.number == running.number
    assert view.trials[2].values is None
    assert {len(trial.values) for trial in view.trials if trial.values} == {1}


def test_the_state_goes_from_trial_to_trial_and_moves() -> None:
    study = run(80)
    generations = [trial.system_attrs.get("cma:generation", -1) for trial in study.trials]
    assert max(generations) >= 8
    assert [g for g in generations if g >= 0] == sorted(g for g in generations if g >= 0)
    late: list[Any] = [trial.params for trial in study.trials[-20:]]
    # both objectives have the same optimum: whatever the weights, it moves there
    assert np.mean([params["x"] for params in late]) > 0.65
    assert {params["kind"] for params in late} == {"a", "b"}


def test_another_space_begins_anew() -> None:
    study = run(30)
    spaces = {trial.system_attrs.get(SPACE_ATTR) for trial in study.trials}
    assert "x,y" in spaces
    for count in range(100, 120):
        study.sampler = SAMPLERS["cmaes"](count)
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, [x, 1 + x])
    last = study.trials[-1].system_attrs
    assert last[SPACE_ATTR] == "x"
    assert last["cma:generation"] >= 1
    assert [trial.system_attrs["cma:generation"] for trial in study.trials[31:33]] == [0, 0]


def test_qmc_points_of_one_study_are_one_sequence() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = []
    for count in range(17):
        study.sampler = SAMPLERS["qmc"](1000 * count)
        trial = study.ask()
        points.append([trial.suggest_float(name, 0.0, 1.0) for name in "xyz"])
        study.tell(trial, [1.0, 1.0])
    # the first is random; Sobol's first 16 fall one into each sixteenth of each axis
    cells = np.floor(16 * np.array(points[1:])).astype(int)
    for axis in cells.T:
        assert sorted(axis) == list(range(16))

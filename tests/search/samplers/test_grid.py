"""The grid: every point once, spread from the beginning, over storage only."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from search.samplers.grid import GridSampler, is_exhausted, list_grid_values


def choose(trial: optuna.Trial) -> None:
    """A conditional space of POINTS points; of `rate` and `decay` the grid has three."""
    if trial.suggest_categorical("kind", ("plain", "separable")) == "plain":
        trial.suggest_int("width", 8, 16, step=8)
        trial.suggest_float("rate", 1e-4, 1e-2, log=True)
    else:
        level = trial.suggest_int("level", 1, 3)
        if level < 3 and trial.suggest_categorical("small", (True, False)):
            return
        trial.suggest_float("drop", 0.0, 0.2, step=0.1)
        trial.suggest_float("decay", 0.0, 1.0)


POINTS = 2 * 3 + 2 * (1 + 3 * 3) + 3 * 3


def new_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"])


def step(study: optuna.Study, state: TrialState | None = None) -> dict[str, Any]:
    study.sampler = GridSampler(len(study.trials))
    trial = study.ask()
    choose(trial)
    if state is None:
        study.tell(trial, [1.0, 1.0])
    elif state is not TrialState.RUNNING:
        study.tell(trial, state=state)
    return trial.params


STATES = (None, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING)


@pytest.mark.parametrize("states", [STATES[:1], STATES, STATES[3:]])
def test_every_point_once_whatever_becomes_of_the_trials(states: Any) -> None:
    study = new_study()
    seen = []
    for state in itertools.islice(itertools.cycle(states), POINTS):
        assert not is_exhausted(study)
        seen.append(step(study, state))
    assert len({tuple(params.items()) for params in seen}) == POINTS
    assert is_exhausted(study)


def test_an_exhausted_grid_repeats_itself() -> None:
    study = new_study()
    for _ in range(POINTS + 5):
        step(study)
    assert is_exhausted(study)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == POINTS


def test_queued_points_count_and_others_do_not() -> None:
    study = new_study()
    study.enqueue_trial({"kind": "plain", "width": 8, "rate": 1e-3})  # (1e-4 * 1e-2)^(1/2)
    study.enqueue_trial({"kind": "plain", "width": 8, "rate": 2e-3})  # between grid points
    for _ in range(POINTS + 1):
        assert not is_exhausted(study)
        step(study)
    assert is_exhausted(study)


def test_a_branch_in_which_a_worker_is_choosing_is_left_to_it() -> None:
    study = new_study()
    study.sampler = GridSampler(0)
    study.enqueue_trial({"kind": "plain"})
    study.ask().suggest_categorical("kind", ("plain", "separable"))
    others = [step(study) for _ in range(POINTS - 6)]
    assert {params["kind"] for params in others} == {"separable"}
    assert is_exhausted(study)  # as far as one can see while that trial has not chosen more


def test_the_first_trials_are_spread_over_all_parameters() -> None:
    study = new_study()
    study.sampler = GridSampler(3)
    chosen = []
    for _ in range(12):
        trial = study.ask()
        chosen.append([trial.suggest_int(f"x{index}", 0, 2) for index in range(8)])
        study.tell(trial, [1.0, 1.0])
    for column in zip(*chosen, strict=True):
        assert set(column) == {0, 1, 2}
    first = [column[0] for column in chosen]
    assert [first.count(value) for value in range(3)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(("a", None, 3)), ["a", None, 3]),
        (IntDistribution(1, 4), [1, 2, 3, 4]),
        (IntDistribution(8, 64, step=8), [8, 16, 24, 32, 40, 48, 56, 64]),
        (IntDistribution(0, 1000), [0, 500, 1000]),
        (IntDistribution(1, 10000, log=True), [1, 100, 10000]),
        (IntDistribution(1, 4, log=True), [1, 2, 3, 4]),
        (FloatDistribution(0.0, 0.4, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4]),
        (FloatDistribution(0.0, 10.0, step=0.25), [0.0, 5.0, 10.0]),
        (FloatDistribution(-1.0, 3.0), [-1.0, 1.0, 3.0]),
        (FloatDistribution(1e-4, 1e-2, log=True), pytest.approx([1e-4, 1e-3, 1e-2])),
        (FloatDistribution(2.0, 2.0), [2.0]),
    ],
)
def test_grid_values_lie_in_the_distribution(distribution: Any, values: Any) -> None:
    found = list_grid_values(distribution)
    assert found == values
    for value in found:
        assert distribution._contains(distribution.to_internal_repr(value))

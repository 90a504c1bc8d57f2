"""Children differ in one choice; parents come from the front, or are young."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.samplers import evolution, greedy
from search.samplers._base import (
    MutationSampler,
    StatelessSampler,
    compute_losses,
    mutate,
    sample_other_value,
)
from search.samplers.evolution import EvolutionSampler
from search.samplers.greedy import GreedySampler
from tests.search.samplers.landscape import measure

DISTRIBUTIONS = [
    (CategoricalDistribution(("a", "b", None)), "b"),
    (CategoricalDistribution((False, True)), True),
    (IntDistribution(1, 3), 2),
    (IntDistribution(0, 10_000), 10_000),
    (IntDistribution(1, 10_000, log=True), 1),
    (FloatDistribution(0.0, 0.4, step=0.1), 0.1),
    (FloatDistribution(0.0, 0.3, step=0.1), 0.1 + 0.2),
    (FloatDistribution(0.0, 9.0, step=0.1), 9.0),
    (FloatDistribution(-1.0, 1.0), 0.0),
    (FloatDistribution(1e-5, 1e-1, log=True), 1e-5),
]


@pytest.mark.parametrize(("distribution", "value"), DISTRIBUTIONS)
def test_another_value_of_the_same_distribution(distribution: Any, value: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        new = sample_other_value(distribution, value, rng)
        assert new != value
        assert distribution._contains(distribution.to_internal_repr(new))


def test_of_few_all_others_are_equally_likely() -> None:
    rng = np.random.default_rng(1)
    for distribution, value, others in (
        (CategoricalDistribution("abcd"), "c", "abd"),
        (IntDistribution(1, 4), 3, (1, 2, 4)),
    ):
        drawn = [sample_other_value(distribution, value, rng) for _ in range(3000)]
        counts = [drawn.count(other) for other in others]
        assert sum(counts) == 3000
        assert min(counts) > 900  # 1000 expected, standard deviation 26


def test_steps_are_local_and_logarithmic() -> None:
    rng = np.random.default_rng(2)
    rate = FloatDistribution(1e-6, 1e-1, log=True)
    steps = [math.log10(sample_other_value(rate, 1e-4, rng)) + 4 for _ in range(2000)]
    assert np.mean(steps) == pytest.approx(0.0, abs=0.15)
    assert np.std(steps) == pytest.approx(0.2 * 5, abs=0.15)


def grown(sampler: StatelessSampler, trials: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, list(measure(trial)))
    return study


def changed(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one if name in other and one[name] != other[name]]


@pytest.mark.parametrize("kind", [GreedySampler, EvolutionSampler])
def test_a_child_has_all_choices_of_an_earlier_trial_but_one(
    kind: type[MutationSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "RESTART", 0.0)
    trials = grown(kind(1), 60).trials
    assert len(trials) == 60 > evolution.POPULATION
    kept = 0
    for trial in trials[evolution.POPULATION :]:
        parents = [
            other
            for other in trials[: trial.number]
            if len(changed(trial.params, other.params)) == 1
            # what one of them has alone came or went with the changed choice
            and (
                set(trial.params) == set(other.params)
                or changed(trial.params, other.params)[0] in ("stages", "optimizer")
                or changed(trial.params, other.params)[0].endswith(".kind")
            )
        ]
        assert parents
        kept += len(parents)
    assert kept


@pytest.mark.parametrize("kind", [GreedySampler, EvolutionSampler])
def test_a_small_space_is_searched_without_repeats(kind: type[MutationSampler]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=kind(0))
    for _ in range(40):
        trial = study.ask()
        x, y = (trial.suggest_int(name, 0, 7) for name in "xy")
        study.tell(trial, [float(x), float(1 + x * y)])
    params = [tuple(trial.params.items()) for trial in study.trials]
    # while nothing is known of the space, the first trials are drawn blindly
    assert len(set(params)) >= 39


def test_mutation_needs_a_choice() -> None:
    only = create_trial(
        values=[1.0, 1.0], params={"x": 1}, distributions={"x": IntDistribution(1, 1)}
    )
    assert mutate(only, np.random.default_rng(0)) == {"x": 1}


def study_of(values: list[tuple[float, float]]) -> optuna.Study:
    """A study whose trial i has x = i."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number, pair in enumerate(values):
        study.add_trial(
            create_trial(
                values=list(pair),
                params={"x": number},
                distributions={"x": IntDistribution(0, 1000)},
            )
        )
    return study


def parents(sampler: MutationSampler, study: optuna.Study, draws: int = 300) -> list[int]:
    rng = np.random.default_rng(0)
    found: list[FrozenTrial | None] = [sampler.select_parent(study, rng) for _ in range(draws)]
    return [trial.number for trial in found if trial is not None]


def test_greedy_takes_members_of_the_front_and_restarts() -> None:
    front = [(0.5 + number / 20, 10.0**number) for number in range(1, 6)]
    study = study_of([*front, *[(0.5, 1e6)] * 10])
    drawn = parents(GreedySampler(0), study)
    assert set(drawn) == set(range(5))
    assert 0.05 < 1 - len(drawn) / 300 < 0.15


def test_greedy_prefers_the_less_crowded() -> None:
    costs = [1e2, 1e4, 1e4 * 1.01, 1e4 * 1.02, 1e4 * 1.03, 1e6, 1e8]
    study = study_of([(number / 10, cost) for number, cost in enumerate(costs)] + [(0.0, 1e9)] * 5)
    drawn = parents(GreedySampler(0), study, 1000)
    assert drawn.count(5) > 2 * drawn.count(2)


def test_greedy_begins_at_random() -> None:
    assert parents(GreedySampler(0), study_of([(0.5, 1e3)] * (greedy.STARTUP - 1))) == []


def test_evolution_forgets_the_old_however_good() -> None:
    young = [(0.1 + number / 100, 1e5 - number) for number in range(evolution.POPULATION)]
    drawn = parents(EvolutionSampler(0), study_of([(1.0, 1.0), *young]))
    assert 0 not in drawn
    # a chain in which each dominates those before it: the youngest wins its tournaments
    assert drawn.count(evolution.POPULATION) == pytest.approx(150, abs=40)


def test_evolution_begins_with_a_random_population() -> None:
    assert parents(EvolutionSampler(0), study_of([(0.5, 1e3)] * (evolution.POPULATION - 1))) == []


def test_losses_turn_and_take_logarithms() -> None:
    study = study_of([(0.5, 100.0), (0.75, 1e6)])
    expected = [[-0.5, math.log(100)], [-0.75, math.log(1e6)]]
    np.testing.assert_allclose(compute_losses(study, study.trials), expected)
    assert compute_losses(study, []).shape == (0, 2)
    free = study_of([(0.5, 0.0), (-math.inf, 10.0)])
    np.testing.assert_allclose(compute_losses(free, free.trials), [[-0.5, 0.0], [1e300, 10.0]])


def with_unfinished(top: int) -> optuna.Study:
    """Ten complete trials, x = 0 to 9, and two without values, x = 10 and 11."""
    space = {"x": IntDistribution(0, top)}
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(10):
        study.add_trial(create_trial(values=[0.5, 1e3], params={"x": number}, distributions=space))
    for number, state in ((10, TrialState.PRUNED), (11, TrialState.FAIL)):
        study.add_trial(create_trial(state=state, params={"x": number}, distributions=space))
    return study


def test_what_did_not_complete_is_no_parent() -> None:
    assert max(parents(GreedySampler(0), with_unfinished(1000))) < 10


@pytest.mark.parametrize("kind", [GreedySampler, EvolutionSampler])
def test_what_did_not_complete_is_not_repeated(kind: type[MutationSampler]) -> None:
    drawn = []
    for seed in range(30):
        study = with_unfinished(13)
        study.sampler = kind(seed)
        drawn.append(study.ask().suggest_int("x", 0, 13))
    # by chance 2 in 14; 20 draws without 12 and 13 have a probability of 5 %
    assert sum(x >= 12 for x in drawn) >= 24

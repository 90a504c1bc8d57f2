"""The sampler that knows costs: its parts against sums by hand, itself on what is known."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from compress.core.pareto import measure_hypervolume
from search.samplers.pareto import ParetoSampler
from search.samplers.pareto.history import (
    CLAIM_ATTR,
    ConditionalSpace,
    History,
    collect_choices,
    read_reported_values,
)
from search.samplers.pareto.predictor import Encoding, GaussianProcess, compute_expected_improvement
from search.spaces import resolve_space
from tests.search.samplers.landscape import dominated

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestImprovement:
    @pytest.mark.parametrize("costs", [0, 1, 2, 3])
    def test_without_doubt_it_is_what_the_hypervolume_grows_by(self, costs: int) -> None:
        rng = np.random.default_rng(costs)
        front, reference = rng.random((5, 1 + costs)), np.array([0.1, *(1.0,) * costs])
        mean, own = 1.1 * rng.random(40), rng.random((40, costs))
        found = compute_expected_improvement(mean, np.zeros(40), own, front, reference)
        worst = np.array([-reference[0], *reference[1:]])
        rows = np.concatenate([-front[:, :1], front[:, 1:]], 1)
        before = measure_hypervolume(rows, worst)
        for gain, quality, cost in zip(found, mean, own, strict=True):
            after = measure_hypervolume(np.concatenate([rows, [[-quality, *cost]]]), worst)
            # of several costs volumes are measured at 1,024 points
            assert gain == pytest.approx(after - before, abs=1e-9 if costs < 2 else 0.02)

    def test_in_doubt_it_is_the_mean_over_what_may_be(self) -> None:
        rng = np.random.default_rng(0)
        front, reference = rng.random((4, 2)), np.array([0.0, 1.0])
        mean, spread, cost = np.array([0.5]), np.array([0.3]), np.array([[0.4]])
        drawn = mean + spread * rng.standard_normal(200_000)
        gains = compute_expected_improvement(
            drawn, np.zeros(len(drawn)), np.full((len(drawn), 1), 0.4), front, reference
        )
        found = compute_expected_improvement(mean, spread, cost, front, reference)[0]
        assert found == pytest.approx(gains.mean(), abs=4 * gains.std() / math.sqrt(len(drawn)))


class TestPredictor:
    def data(self, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        rng = np.random.default_rng(1)
        rows = rng.standard_normal((count, 4))
        return rows, rows @ [0.5, -0.2, 0.1, 0.0] + 0.3 * np.sin(rows[:, 0])

    def test_it_foretells_what_it_has_not_seen(self) -> None:
        rows, values = self.data(200)
        predict = GaussianProcess(rows[:60], values[:60], np.zeros(60), np.random.default_rng(0))
        mean, spread = predict(rows[60:])
        assert np.abs(mean - values[60:]).mean() < 0.05
        # in doubt by as much as it is wrong: within three spreads nearly always
        assert (np.abs(mean - values[60:]) < 3 * spread + 0.02).mean() > 0.95
        assert predict.compute_correlation() > 0.95

    def test_it_is_a_gaussian_process(self) -> None:
        """Against scikit-learn's, with the same kernel; fitting finds as likely a one."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        rows, values = self.data(60)
        values = values + np.random.default_rng(4).normal(0, 0.1, 60)
        predict = GaussianProcess(rows[:50], values[:50], np.zeros(50), np.random.default_rng(0))
        kernel = predict.kernel
        theirs = (
            ConstantKernel(kernel.a) * DotProduct(math.sqrt(kernel.b))
            + ConstantKernel(kernel.c) * RBF(kernel.length)
        ) + WhiteKernel(kernel.noise)
        process = GaussianProcessRegressor(theirs, optimizer=None, normalize_y=True)
        process.fit(rows[:50], values[:50])
        mean, spread = process.predict(rows[50:], return_std=True)
        found = predict(rows[50:])
        np.testing.assert_allclose(found[0], mean, atol=1e-5)
        scale = values[:50].std()
        np.testing.assert_allclose(
            np.hypot(found[1], scale * math.sqrt(kernel.noise)), spread, rtol=1e-3
        )
        free = GaussianProcessRegressor(theirs, normalize_y=True, random_state=0)
        free.fit(rows[:50], values[:50])
        likely = process.log_marginal_likelihood(process.kernel_.theta)
        assert likely > free.log_marginal_likelihood(free.kernel_.theta) - 0.5

    def test_chance_is_told_from_knowledge(self) -> None:
        rows, _ = self.data(60)
        values = np.random.default_rng(2).standard_normal(60)
        predict = GaussianProcess(rows, values, np.zeros(60), np.random.default_rng(0))
        assert predict.compute_correlation() < 0.3

    def test_what_is_left_out_is_what_the_others_say(self) -> None:
        """Leaving one out in closed form, against doing it."""
        rows, values = self.data(12)
        values = values + np.random.default_rng(3).normal(0, 0.3, 12)
        whole = GaussianProcess(rows, values, np.zeros(12), np.random.default_rng(0))
        kernel, apart = whole.kernel, []
        y = (values - values.mean()) / values.std()
        for one in range(12):
            rest = np.arange(12) != one
            told = kernel(rows[rest], rows[rest]) + kernel.noise * np.eye(11)
            apart.append((kernel(rows[[one]], rows[rest]) @ np.linalg.solve(told, y[rest]))[0])
        ranks = [np.argsort(np.argsort(part)) for part in (apart, y)]
        assert whole.compute_correlation() == pytest.approx(np.corrcoef(*ranks)[0, 1])

    def test_less_is_made_of_what_is_uncertain(self) -> None:
        rows, values = self.data(40)
        wrong = values.copy()
        wrong[0] += 5
        noise = np.zeros(40)
        noise[0] = 100.0
        predict = GaussianProcess(rows, wrong, noise, np.random.default_rng(0))
        assert abs(predict(rows[:1])[0][0] - values[0]) < 1


def test_rows_by_hand() -> None:
    kinds = CategoricalDistribution(["a", "b"])
    encoding = Encoding({
        "one.kind": kinds, "two.kind": kinds, "size": CategoricalDistribution([8, 16, 32]),
        "rate": FloatDistribution(1e-3, 1e-1, log=True), "same": IntDistribution(7, 7),
    })  # fmt: skip
    rows = encoding.encode([
        {"one.kind": "a", "two.kind": "a", "size": 16, "rate": 1e-2, "same": 7},
        {"one.kind": "b", "rate": 1e-1, "same": 7},
    ])  # fmt: skip
    nan = math.nan
    #        one   two  size: number, each  rate           how often a, b
    wanted = [
        [1, 0, 1, 0, 16, 0, 1, 0, math.log(1e-2), 2, 0],
        [0, 1, 0, 0, nan, 0, 0, 0, math.log(1e-1), 0, 1],
    ]
    np.testing.assert_allclose(rows, wanted)


def test_candidates_answer_what_is_asked(digits: Any) -> None:
    questions = ConditionalSpace(
        resolve_space("cnn").choices(digits), {"rate": FloatDistribution(0, 1)}, []
    )
    rng = np.random.default_rng(0)
    parent = questions.sample(rng)
    for count in (1, 3):
        for _ in range(50):
            child = questions.mutate(parent, rng, count)
            stages = child["stages"]
            asked = {name.partition(".")[0] for name in child if name.startswith("stage")}
            assert asked == {"stages", *(f"stage{stage + 1}" for stage in range(stages))}
            assert ("stage1.kernel" in child) == (child["stage1.kind"] == "separable")
            assert 0 <= child["rate"] <= 1
            changed = [name for name in parent if name in child and child[name] != parent[name]]
            assert len(changed) <= count


def test_what_was_to_be_expected_of_a_stopped_trial() -> None:
    """Five that went on gained 0.1, 0.2, 0.3, 0.2, 0.2 from the second epoch on."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    there = {"x": FloatDistribution(0, 1)}

    def told(early: float, values: list[float] | None) -> None:
        study.add_trial(create_trial(
            state=TrialState.PRUNED if values is None else TrialState.COMPLETE, values=values,
            params={"x": 0.5}, distributions=there, intermediate_values={1: early / 2, 2: early},
        ))  # fmt: skip

    for early, gain in ((0.5, 0.1), (0.6, 0.2), (0.4, 0.3), (0.5, 0.2), (0.3, 0.2)):
        told(early, [early + gain, 10.0])
    told(0.45, None)
    trial = study.ask()
    history = History(study, study._storage.get_trial(trial._trial_id), read_reported_values)
    ((stopped, quality, variance),) = history.predict_stopped(9)
    assert stopped.number == 5
    assert quality == pytest.approx(0.45 + 0.2)
    assert variance == pytest.approx(np.var([0.1, 0.2, 0.3, 0.2, 0.2]))


def test_when_settings_are_asked_is_seen_from_trials() -> None:
    """A learning rate comes with its optimizer; a candidate has that of its own alone."""
    rates = {f"rate.{name}": FloatDistribution(0, 1) for name in ("adam", "sgd")}
    seen = {"optimizer": CategoricalDistribution(["adam", "sgd"]), **rates,
            "decay": FloatDistribution(0, 1)}  # fmt: skip
    told = [{"optimizer": name, f"rate.{name}": 0.5, "decay": 0.1} for name in ("adam", "sgd")]
    questions = ConditionalSpace({}, seen, told)
    rng = np.random.default_rng(0)
    for candidate in [questions.sample(rng) for _ in range(20)]:
        assert set(candidate) == {"optimizer", f"rate.{candidate['optimizer']}", "decay"}
    assert questions.is_complete({"optimizer": "sgd", "rate.sgd": 0.1, "decay": 0.0})
    assert not questions.is_complete({"optimizer": "sgd", "rate.adam": 0.1, "decay": 0.0})
    assert not questions.is_complete({"optimizer": "sgd"})


WIDTHS = {f"width{place}": CategoricalDistribution([8, 16, 32, 64]) for place in range(5)}


def cost_of(chosen: dict[str, Any]) -> tuple[float]:
    widths = [chosen[name] for name in WIDTHS]
    return (float(sum(one * two for one, two in pairwise(widths))),)


Found = list[tuple[float, float]]
"""(quality without noise, cost) of all trials."""


def searched(trials: int, seed: int, **known: Any) -> tuple[optuna.Study, Found]:
    """Widths that should grow: quality is known, and noisy by a hundredth."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng, found = np.random.default_rng(seed), []
    for number in range(trials):
        study.sampler = ParetoSampler(1000 * seed + number, **known)
        params = study.ask(WIDTHS).params
        widths = np.log2([params[name] for name in WIDTHS])
        quality = 1 - math.exp(-widths.sum() / 12) - 0.03 * float((np.diff(widths) < 0).sum())
        (cost,) = cost_of(params)
        study.tell(number, [quality + 0.01 * rng.standard_normal(), cost])
        found.append((quality, cost))
    return study, found


@pytest.mark.slow
def test_known_costs_find_more_than_learnt_ones_than_chance() -> None:
    """By the volume in front of a fixed point, the median of three seeds after 30 trials."""

    def volume(found: Found) -> float:
        rows = np.array([[-quality, math.log(cost)] for quality, cost in found])
        return measure_hypervolume(rows, [-0.5, math.log(20_000)])

    ways: dict[str, dict[str, Any]] = {"learnt": {}, "known": {"space": WIDTHS, "costs": cost_of}}
    medians = {}
    for name, known in ways.items():
        medians[name] = float(np.median([volume(searched(30, s, **known)[1]) for s in range(3)]))
    rng = np.random.default_rng(0)

    def by_chance() -> float:
        study = optuna.create_study(
            directions=["maximize", "minimize"],
            sampler=optuna.samplers.RandomSampler(seed=int(rng.integers(100))),
        )
        found = []
        for _ in range(30):
            params = study.ask(WIDTHS).params
            widths = np.log2([params[name] for name in WIDTHS])
            lost = 0.03 * float((np.diff(widths) < 0).sum())
            found.append((1 - math.exp(-widths.sum() / 12) - lost, cost_of(params)[0]))
        return volume(found)

    assert medians["known"] > medians["learnt"]
    assert medians["known"] > np.median([by_chance() for _ in range(3)])


def test_what_may_not_be_tried_is_not_proposed() -> None:
    def costs(chosen: dict[str, Any]) -> tuple[float] | None:
        return None if cost_of(chosen)[0] > 3000 else cost_of(chosen)

    _, found = searched(25, 0, space=WIDTHS, costs=costs)
    assert max(cost for _, cost in found) <= 3000


def test_the_first_trials_are_spread_over_the_costs() -> None:
    _, found = searched(8, 0, space=WIDTHS, costs=cost_of)
    costs = np.log([cost for _, cost in found])
    everything = np.log(
        [
            cost_of(ConditionalSpace(WIDTHS, {}, []).sample(np.random.default_rng(seed)))[0]
            for seed in range(200)
        ]
    )
    eighths = np.quantile(everything, np.linspace(0, 1, 9)[1:-1])
    assert len(set(np.searchsorted(eighths, costs))) >= 6


def test_it_says_what_it_did_not_know() -> None:
    notes = [searched(trials, 0)[0].sampler.note for trials in (1, 12)]  # type: ignore[attr-defined]
    assert notes == ["", "costs that nothing tells beforehand were predicted from other trials'"]


def test_chance_is_explored() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng, notes = np.random.default_rng(0), []
    for number in range(30):
        study.sampler = sampler = ParetoSampler(number, space=WIDTHS, costs=cost_of)
        params = study.ask(WIDTHS).params
        notes.append(sampler.note)
        study.tell(number, [rng.standard_normal(), cost_of(params)[0]])
    assert any(note.startswith("sampled at random: what was told does not") for note in notes)


def test_trials_side_by_side_are_apart() -> None:
    study, _ = searched(20, 0, space=WIDTHS, costs=cost_of)
    asked = []
    for number in range(4):
        study.sampler = ParetoSampler(number, space=WIDTHS, costs=cost_of)
        asked.append(tuple(study.ask(WIDTHS).params.values()))
    assert len(set(asked)) == 4


def test_a_trial_in_the_middle_of_its_questions_is_left_alone() -> None:
    """A worker reads the study while another one's trial is still being asked: no cost of half."""
    study, _ = searched(12, 0, space=WIDTHS, costs=cost_of)
    half = study.ask()
    half.suggest_categorical("width0", [8, 16, 32, 64])
    study.sampler = ParetoSampler(5, space=WIDTHS, costs=cost_of)
    assert set(study.ask(WIDTHS).params) == set(WIDTHS)


def test_one_above_a_limit_does_not_make_costs_unknown() -> None:
    """The first trial of a search may be; while it runs, it tells nothing."""

    def costs(chosen: dict[str, Any]) -> tuple[float] | None:
        return None if cost_of(chosen)[0] > 3000 else cost_of(chosen)

    study, _ = searched(12, 0, space=WIDTHS, costs=costs)
    alone = ParetoSampler(5, space=WIDTHS, costs=costs)
    own = study._storage.get_trial(study.ask()._trial_id)
    before = alone.sample_relative(study, own, WIDTHS)
    study.enqueue_trial(dict.fromkeys(WIDTHS, 64))
    study.ask(WIDTHS)
    assert alone.sample_relative(study, own, WIDTHS) == before


@pytest.mark.slow
def test_the_landscape() -> None:
    """At least as much as the sampler that was the best there, by the median of three seeds."""
    from search.plugins import SAMPLERS
    from tests.search.samplers.landscape import search

    ours, theirs = (
        np.median([dominated(search(SAMPLERS[name], seed, 60)) for seed in range(3)])
        for name in ("pareto", "evolution")
    )
    assert ours >= 0.98 * theirs


def test_workers_that_ask_at_the_same_time_try_different_things() -> None:
    """Each has read the history before any other has answered a question."""
    study, _ = searched(12, 0, space=WIDTHS, costs=cost_of)
    trials = []
    for _ in range(4):
        study.sampler = sampler = ParetoSampler(7, space=WIDTHS, costs=cost_of)
        trial = study.ask()
        frozen = study._storage.get_trial(trial._trial_id)
        sampler.infer_relative_search_space(study, frozen)
        trials.append((sampler, trial, frozen))
    found = [sampler.sample_relative(study, frozen, WIDTHS) for sampler, _, frozen in trials]
    assert len({tuple(sorted(item.items())) for item in found}) == 4
    for (_, trial, _), chosen in zip(trials, found, strict=True):
        claimed = study._storage.get_trial(trial._trial_id).system_attrs[CLAIM_ATTR]
        assert claimed == chosen


def test_a_queued_trial_is_known_by_what_it_brings() -> None:
    study = optuna.create_study()
    own = dict.fromkeys(WIDTHS, 64)
    study.enqueue_trial(own)
    trial = study.ask()
    assert trial.params == {}
    assert collect_choices(study._storage.get_trial(trial._trial_id)) == own
    study.tell(trial, 1.0)
    assert collect_choices(study.trials[0]) == {}, "what ended is what it was asked"

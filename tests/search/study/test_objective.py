"""One trial, from choices to files."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from compress import load_model
from compress.core.device import Device
from compress.data import Dataset, Preprocessing, Split
from compress.plan.nesting import from_flat
from compress.train import loop
from compress.train.predict import predict_logits
from search.plan import SearchPlan
from search.spaces import SPACES
from search.study import objective, optimizers
from search.study.directory import SearchFolder
from search.study.objective import (
    SpeedMonitor,
    TrialTooSlow,
    evaluate_trial,
    get_objective_values,
)
from tests.contracts.space import ask


def trial_with(plan: SearchPlan, data: Dataset, **changes: object) -> optuna.Trial:
    choices = {**SPACES["cnn"].baseline(data), **optimizers.build_baseline(plan, data), **changes}
    return ask(0, choices)


def run(plan: SearchPlan, data: Dataset, device: Device, path: Path, **changes: object):  # type: ignore[no-untyped-def]
    folder = SearchFolder(path)
    folder.claim("run", plan)
    trial = trial_with(plan, data, **changes)
    candidate = evaluate_trial(trial, data, plan, folder, device, lambda text, share: None)
    assert folder.read_candidates() == [candidate]
    return candidate, folder


def test_a_trained_candidate(digits: Dataset, cpu: Device, tmp_path: Path) -> None:
    plan = from_flat(SearchPlan, {"epochs": 2})
    candidate, folder = run(plan, digits, cpu, tmp_path / "a")
    assert candidate.state == "complete"
    assert len(candidate.history) == 2
    # the saved model has the validation accuracy that was told
    model = load_model(folder.get_model_path(candidate.id))
    predicted = predict_logits(model, digits, "val").argmax(-1)
    assert candidate.val["accuracy"] == pytest.approx((predicted == digits.val.y).mean())
    assert candidate.params == model.count_params()
    assert get_objective_values(candidate, plan) == [candidate.val["accuracy"], candidate.macs]
    again, _ = run(plan, digits, cpu, tmp_path / "b")
    assert again.val["accuracy"] == pytest.approx(candidate.val["accuracy"], abs=0.02)
    assert again.seed == candidate.seed


def test_a_trial_whose_time_is_over_counts_as_it_is(
    digits: Dataset, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over before its training begins, which makes one call of 2 steps."""
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 2)
    plan = from_flat(SearchPlan, {"epochs": 3})
    folder = SearchFolder(tmp_path)
    folder.claim("run", plan)
    trial = trial_with(plan, digits, batch_size=32)
    candidate = evaluate_trial(
        trial, digits, plan, folder, cpu, lambda text, share: None, seconds=0.0
    )
    assert candidate.state == "complete"
    assert [record["share"] for record in candidate.history] == [2 / (len(digits.train) // 32)]
    assert "ended the training after 2 of" in candidate.notes[-1]
    model = load_model(folder.get_model_path(candidate.id))
    predicted = predict_logits(model, digits, "val").argmax(-1)
    assert candidate.val["accuracy"] == pytest.approx((predicted == digits.val.y).mean())


def watch(monkeypatch: pytest.MonkeyPatch, seconds: float, *calls: tuple[float, float]) -> None:
    """Tell a monitor the shares that are done at some times."""
    clock = [5.0]
    monkeypatch.setattr(objective, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monitor = SpeedMonitor(seconds)
    for now, share in calls:
        clock[0] = now
        monitor.on_share(share)


def test_a_training_that_will_do_a_quarter_of_its_epochs_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the first 2 % take 30 s, because they compile, the next ones 8 s each: 2 + 70 / 8 x 2 = 19.5 %
    calls = (10.0, 0.0), (40.0, 0.02), (48.0, 0.04)
    with pytest.raises(TrialTooSlow, match="too slow: 20 % of its training would fit into the 100"):
        watch(monkeypatch, 100.0, *calls)
    # 2 + 100 / 8 x 2 = 27 %, and what is done already counts
    watch(monkeypatch, 130.0, *calls)
    watch(monkeypatch, 100.0, *calls[:2])
    watch(monkeypatch, 100.0, *calls[:2], (48.0, 0.25))


def test_slow_trials_are_rejected_early_but_for_the_first_one(
    digits: Dataset, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 2)
    plan = from_flat(SearchPlan, {"epochs": 3})
    folder = SearchFolder(tmp_path)
    folder.claim("run", plan)
    monkeypatch.setattr(objective, "LEAST_SHARE", 1e6)  # nothing is as fast as that
    study, found = optuna.create_study(), []
    for size in (32, 64):
        study.enqueue_trial(trial_with(plan, digits, batch_size=size).params)
        found.append(evaluate_trial(
            study.ask(), digits, plan, folder, cpu, lambda text, share: None, seconds=60.0
        ))  # fmt: skip
    first, second = found
    assert first.state == "complete"
    assert second.state == "rejected"
    assert second.reason.startswith("too slow: ")
    assert second.seconds > 0
    assert not folder.get_model_path(second.id).exists()


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_macs", "MACs exceed the limit of 10"), ("max_params", "parameters")]
)
def test_costly_candidates_are_not_trained(
    digits: Dataset, cpu: Device, tmp_path: Path, limit: str, reason: str
) -> None:
    plan = from_flat(SearchPlan, {limit: 10})
    candidate, folder = run(plan, digits, cpu, tmp_path)
    assert candidate.state == "rejected"
    assert reason in candidate.reason
    assert candidate.history == ()
    assert not folder.get_model_path(candidate.id).exists()
    assert set(candidate.choices) >= {"optimizer", "stages"}


def test_divergence_is_a_result(
    digits: Dataset, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(optimizers.LEARNING_RATES, "sgd", (1e37, 3e38))
    plan = from_flat(SearchPlan, {"optimizers": "sgd", "epochs": 1})
    candidate, folder = run(plan, digits, cpu, tmp_path)
    assert candidate.state == "failed"
    assert "epoch 1" in candidate.reason
    assert not folder.get_model_path(candidate.id).exists()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_labels_far_from_zero_are_learnt(cpu: Device, tmp_path: Path, optimizer: str) -> None:
    """Means 200 and -50: an untrained head at 0 costs thousands of times the variance."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(6, 2))

    def part(count: int) -> Split:
        x = rng.normal(size=(count, 6)).astype(np.float32)
        return Split(x, (x @ slopes + [200.0, -50.0]).astype(np.float32))

    data = Dataset(
        "far", part(600), part(200), part(200), ("a", "b"), Preprocessing(), (), "regression"
    )
    plan = from_flat(SearchPlan, {"space": "mlp", "epochs": 10, "objectives": "r2,params"})
    folder = SearchFolder(tmp_path)
    folder.claim("run", plan)
    rate = {"adam": 0.005, "sgd": 0.05}[optimizer]
    choices = {
        **SPACES["mlp"].baseline(data),
        **optimizers.build_baseline(plan, data),
        "optimizer": optimizer,
        f"learning_rate.{optimizer}": rate,
        "dropout": 0.0,
        "batch_size": 32,
    }
    candidate = evaluate_trial(ask(0, choices), data, plan, folder, cpu, lambda text, share: None)
    assert candidate.state == "complete"
    assert candidate.val["r2"] > 0.9
    bias = load_model(folder.get_model_path(candidate.id)).get_layer("logits").bias.numpy()
    np.testing.assert_allclose(bias, [200.0, -50.0], atol=10.0)


def test_other_objectives_select_and_are_told(digits: Dataset, cpu: Device, tmp_path: Path) -> None:
    plan = from_flat(SearchPlan, {"objectives": "f1_macro,params", "epochs": 1})
    candidate, _ = run(plan, digits, cpu, tmp_path)
    assert get_objective_values(candidate, plan) == [candidate.val["f1_macro"], candidate.params]


def test_sampled_settings_stay_in_their_ranges(digits: Dataset) -> None:
    plan = SearchPlan()
    seen = set()
    for seed in range(60):
        settings = optimizers.sample_settings(ask(seed), plan, digits)
        low, high = optimizers.LEARNING_RATES[settings.optimizer]
        assert low <= settings.learning_rate <= high
        assert math.isfinite(settings.weight_decay)
        assert len(digits.train) // settings.batch_size >= optimizers.MIN_STEPS
        seen.add(settings.optimizer)
    assert seen == set(plan.search.optimizers)


@pytest.mark.parametrize("note", ["drawn by lot", ""])
def test_what_the_sampler_says_is_in_the_record(
    note: str, digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan = from_flat(SearchPlan, {"epochs": 1, "space": "mlp"})
    folder = SearchFolder(tmp_path / "run")
    folder.claim("run", plan)
    sampler = optuna.samplers.RandomSampler(seed=0)
    sampler.note = note  # type: ignore[attr-defined]
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial(
        {**SPACES["mlp"].baseline(digits), **optimizers.build_baseline(plan, digits)}
    )
    found = evaluate_trial(study.ask(), digits, plan, folder, cpu, lambda text, share: None)
    assert found.notes == ((note,) if note else ())

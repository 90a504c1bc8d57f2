"""Final trainings: the same model again, what ships, what is done already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compress import load_model
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan.nesting import from_flat
from compress.run.origin import read_training
from compress.train.predict import predict_logits
from search.engines import Display
from search.engines.jobs import create_final_jobs
from search.plan import SearchPlan
from search.spaces import SPACES
from search.study import optimizers
from search.study.directory import FinalTraining, SearchFolder
from search.study.objective import evaluate_trial
from search.study.retrain import promote_final, train_final, train_further
from tests.contracts.space import ask


def made(path: Path, **flat: object) -> tuple[SearchPlan, SearchFolder]:
    plan = from_flat(SearchPlan, {"epochs": 2, "space": "mlp", **flat})
    folder = SearchFolder(path)
    folder.claim("search", plan)
    return plan, folder


def silent(text: str, share: float) -> None:
    """Ignores progress."""


def test_a_training_repeats_the_candidates(digits: Dataset, cpu: Device, tmp_path: Path) -> None:
    """Same seed and epochs: the same result to the last digit."""
    plan, folder = made(tmp_path / "run", final_epochs=2)
    choices = {**SPACES["mlp"].baseline(digits), **optimizers.build_baseline(plan, digits)}
    candidate = evaluate_trial(ask(0, choices), digits, plan, folder, cpu, silent)
    assert folder.get_shipped_path("0000") == folder.get_model_path("0000")
    assert not [*folder.final.iterdir()]
    record = train_final(candidate, digits, plan, folder, cpu, silent)
    assert (record.val, record.best_epoch) == (candidate.val, candidate.best_epoch)
    assert (record.seed, record.epochs) == (candidate.seed, 2)
    assert folder.read_finals() == [record]
    model = load_model(folder.final / "0000-final0.keras")
    predicted = predict_logits(model, digits, "test").argmax(-1)
    assert record.test["accuracy"] == pytest.approx((predicted == digits.test.y).mean())
    assert {path.suffix for path in folder.final.iterdir()} == {".keras", ".json"}
    promote_final("0000", folder)
    assert folder.get_shipped_path("0000") == folder.final / "0000.keras"
    shipped = folder.get_shipped_path("0000").read_bytes()
    assert shipped == (folder.final / "0000-final0.keras").read_bytes()


def test_a_better_model_of_further_training_is_kept(
    digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", budget="10m")
    choices = {**SPACES["mlp"].baseline(digits), **optimizers.build_baseline(plan, digits)}
    candidate = evaluate_trial(ask(0, choices), digits, plan, folder, cpu, silent)
    before = folder.get_model_path("0000").read_bytes()

    # no model is better than one that is right everywhere
    perfect = replace(candidate, val={"accuracy": 1.0})
    assert train_further(perfect, digits, plan, folder, cpu, silent, 1, 60.0) == (1.0, None)
    assert folder.get_shipped_path("0000") == folder.get_model_path("0000")

    epochs, quality = train_further(candidate, digits, plan, folder, cpu, silent, 4, 60.0)
    assert epochs == 4
    assert quality is not None
    assert quality > candidate.val["accuracy"]
    model = load_model(folder.get_shipped_path("0000"))
    predicted = predict_logits(model, digits, "val").argmax(-1)
    assert quality == pytest.approx((predicted == digits.val.y).mean())
    assert folder.get_model_path("0000").read_bytes() == before
    # so that a report can say how long the model was trained: in its trial and afterwards
    folder.data.write_text("{}")  # the models of a run without it are not its own
    trial_epochs = len(candidate.history)
    assert trial_epochs > 0
    assert read_training(folder.get_model_path("0000")).epochs == trial_epochs
    assert read_training(folder.get_shipped_path("0000")).epochs == trial_epochs + 4
    assert not folder.read_finals()

    # it begins with the candidate's weights: an epoch from new ones leads less far; a time limit
    # ends it long before the fourth epoch
    poor = replace(candidate, val={"accuracy": 0.0})
    epochs, quality = train_further(poor, digits, plan, folder, cpu, silent, 4, 0.0)
    assert 0 < epochs <= 1
    one, other = made(tmp_path / "one", final_epochs=1)
    assert quality is not None
    assert quality > train_final(candidate, digits, one, other, cpu, silent).val["accuracy"] + 0.02


def record(model: str, accuracy: float) -> FinalTraining:
    return FinalTraining(model, 0, 1, 5, 5, {"accuracy": accuracy}, {"accuracy": 0.1}, 1.0)


def test_jobs_leave_out_what_is_done(tmp_path: Path) -> None:
    plan, folder = made(tmp_path / "run", final_epochs=5)
    folder.write_final(record("0001", 0.9))
    jobs = create_final_jobs(folder, plan, ["0001", "0002", "0003", "0004"], Display())
    given = []
    while (job := jobs.take_job()) is not None:
        given.append(job["name"])
    assert given == ["0004", "0003", "0002"]
    assert (jobs.done, jobs.total) == (1, 4)
    jobs.on_done(0, {"name": "0004"}, {"error": "ValueError: no"})
    jobs.on_death(0, {"name": "0003"}, None, "signal SIGKILL")
    jobs.on_done(0, {}, {"final": record("0002", 0.5).to_json()})
    assert jobs.done == 4
    assert jobs.failures == [
        "0004: ValueError: no",
        "0003: its worker died (signal SIGKILL)",
    ]


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"final_epochs": -1}, "final_epochs must be at least 0"),
        ({"final_models": 0}, "final_models must be at least 1"),
    ],
)
def test_bad_options(flat: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, flat)

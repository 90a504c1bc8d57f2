"""Final trainings: the same model again, more seeds, the validation part, which one ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress import load_model
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan.fields import from_flat
from compress.train.predict import predict_logits
from search.engines import Display
from search.engines.jobs import FinalJobs
from search.plan import SearchPlan
from search.spaces import SPACES
from search.study import optimizers
from search.study.directory import Candidate, FinalTraining, SearchFolder, build_final_name
from search.study.objective import evaluate_trial
from search.study.retrain import derive_final_seed, merge_validation, promote_best, train_final
from tests.contracts.space import ask


def made(path: Path, **flat: object) -> tuple[SearchPlan, SearchFolder]:
    plan = from_flat(SearchPlan, {"epochs": 2, "space": "mlp", **flat})
    folder = SearchFolder(path)
    folder.claim("search", plan)
    return plan, folder


def silent(text: str, share: float) -> None:
    """Ignores progress."""


def test_the_first_training_repeats_the_candidates(
    digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    """Same seed and epochs: the same result to the last digit; another place is another seed."""
    plan, folder = made(tmp_path / "run", final_epochs=2, final_seeds=2)
    choices = {**SPACES["mlp"].baseline(digits), **optimizers.build_baseline(plan, digits)}
    candidate = evaluate_trial(ask(0, choices), digits, plan, folder, cpu, silent)
    first, second = (
        train_final(candidate, place, digits, plan, folder, cpu, silent) for place in (0, 1)
    )
    assert (first.val, first.best_epoch) == (candidate.val, candidate.best_epoch)
    assert first.seed == candidate.seed != second.seed
    assert second.val != first.val
    assert folder.read_finals() == [first, second]
    model = load_model(folder.final / "0000-final1.keras")
    predicted = predict_logits(model, digits, "test").argmax(-1)
    assert second.test["accuracy"] == pytest.approx((predicted == digits.test.y).mean())
    assert not list(folder.final.glob("*.unfinished"))
    best = promote_best("0000", folder, "accuracy")
    assert best == max((first, second), key=lambda item: (item.val["accuracy"], -item.place))
    chosen = folder.final / f"{build_final_name('0000', best.place)}.keras"
    assert folder.get_shipped_path("0000").read_bytes() == chosen.read_bytes()


def test_with_the_validation_part(digits: Dataset, cpu: Device, tmp_path: Path) -> None:
    plan, folder = made(tmp_path / "run", final_epochs=3, final_on_validation=True)
    choices = {**SPACES["mlp"].baseline(digits), **optimizers.build_baseline(plan, digits)}
    candidate = evaluate_trial(ask(0, choices), digits, plan, folder, cpu, silent)
    record = train_final(candidate, 0, digits, plan, folder, cpu, silent)
    assert (record.epochs, record.best_epoch, record.val) == (3, 3, {})
    assert record.test["accuracy"] > 0.5
    both = merge_validation(digits)
    assert len(both.train) == len(digits.train) + len(digits.val)
    np.testing.assert_array_equal(both.train.y[len(digits.train) :], digits.val.y)
    assert both.test is digits.test


def test_weights_of_examples_are_joined(digits: Dataset) -> None:
    weighted = replace(digits.train, weight=np.full(len(digits.train), 0.5, np.float32))
    both = merge_validation(replace(digits, train=weighted))
    assert both.train.weight is not None
    assert both.train.weight.sum() == 0.5 * len(digits.train) + len(digits.val)


def record(model: str, place: int, accuracy: float | None) -> FinalTraining:
    val = {} if accuracy is None else {"accuracy": accuracy}
    return FinalTraining(model, place, 1, 5, 5, accuracy is None, val, {"accuracy": 0.1}, 1.0)


@pytest.mark.parametrize(
    ("accuracies", "place"), [((0.8, 0.9, 0.9), 1), ((None, None, None), 0), ((0.7, 0.6, 0.5), 0)]
)
def test_validation_chooses_what_ships(
    tmp_path: Path, accuracies: tuple[float | None, ...], place: int
) -> None:
    _, folder = made(tmp_path / "run")
    for index, accuracy in enumerate(accuracies):
        folder.write_final(record("0003", index, accuracy))
        (folder.final / f"0003-final{index}.keras").write_text(str(index))
    folder.write_final(record("0004", 0, 1.0))
    assert folder.get_shipped_path("0003") == folder.get_model_path("0003")
    assert promote_best("0003", folder, "accuracy").place == place
    assert folder.get_shipped_path("0003").read_text() == str(place)


def test_jobs_leave_out_what_is_done(tmp_path: Path) -> None:
    plan, folder = made(tmp_path / "run", final_epochs=5, final_seeds=2)
    folder.write_final(record("0001", 1, 0.9))
    jobs = FinalJobs(folder, plan, ["0001", "0002"], Display())
    given = []
    while (job := jobs.take_job()) is not None:
        given.append((job["name"], job["place"]))
    assert given == [("0002", 0), ("0002", 1), ("0001", 0)]
    assert (jobs.done, jobs.total) == (1, 4)
    jobs.on_done(0, {"name": "0002", "place": 0}, {"error": "ValueError: no"})
    jobs.on_death(0, {"name": "0002", "place": 1}, None, "signal SIGKILL")
    jobs.on_done(0, {}, {"final": record("0001", 0, 0.5).to_json()})
    assert jobs.done == 4
    assert jobs.failures == [
        "0002 (training 1): ValueError: no",
        "0002 (training 2): its worker died (signal SIGKILL)",
    ]


def test_seeds_differ() -> None:
    candidate = Candidate("0000", "complete", {}, 7)
    assert derive_final_seed(candidate, 0) == 7
    assert len({derive_final_seed(candidate, place) for place in range(5)}) == 5


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"final_epochs": -1}, "final_epochs must be at least 0"),
        ({"final_seeds": 0}, "final_seeds must be at least 1"),
        ({"final_seeds": 2}, "final_epochs must be at least 1 where"),
        ({"final_on_validation": True}, "final_epochs must be at least 1 where"),
    ],
)
def test_bad_options(flat: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, flat)

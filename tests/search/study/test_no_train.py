"""Sub-networks that are judged untrained, and those of the front that are trained at the end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

from compress import load_model
from compress.core.device import Device
from compress.core.errors import InputError
from compress.core.pareto import measure_hypervolume
from compress.data import Dataset
from compress.distillation import distill
from compress.model.io import save_model
from compress.plan import TrainSettings
from compress.plan.fields import from_flat
from compress.shrinking.compression_job import load_teachers
from compress.train import train
from compress.train.predict import evaluate_model, predict_logits
from search.engines import Display
from search.engines.jobs import _select_teachers, create_final_jobs
from search.pipeline import run, run_search
from search.plan import SearchPlan
from search.spaces import SubnetworkSpace
from search.study import objective, optimizers
from search.study.directory import Candidate, SearchFolder
from search.study.front import select_final_candidates, select_hypervolume_subset
from search.study.objective import evaluate_trial
from search.study.retrain import train_final
from search.study.study import list_first_choices
from tests.contracts.space import ask

OBJECTIVES = ("accuracy", "macs")


def silent(text: str, share: float) -> None:
    """Ignores progress."""


@pytest.fixture
def space(
    small_cnn: Callable[..., Any], digits: Dataset, cpu: Device, tmp_path: Path
) -> SubnetworkSpace:
    """Returns the space around a net that was trained on a little."""
    whole = small_cnn()
    train(whole, digits, TrainSettings(epochs=3, learning_rate=1e-2), device=cpu)
    save_model(whole, tmp_path / "net.keras")
    return SubnetworkSpace(f"around:{tmp_path / 'net.keras'}")


def made(path: Path, space: SubnetworkSpace, **flat: object) -> tuple[SearchPlan, SearchFolder]:
    plan = from_flat(SearchPlan, {"space": space.name, "no_train": True, **flat})
    folder = SearchFolder(path)
    folder.claim("search", plan)
    return plan, folder


def thinned(space: SubnetworkSpace, digits: Dataset) -> dict[str, Any]:
    """Returns choices that keep less than everything."""
    return {choice.name: 0.5 for choice in space.choices(digits)}


def test_judged_as_it_is_repaired(
    space: SubnetworkSpace, digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space)
    chosen = thinned(space, digits)
    candidate = evaluate_trial(ask(0, chosen), digits, plan, folder, cpu, silent)
    model = space.build(FixedTrial(chosen), digits)
    cut = predict_logits(model, digits, "val").argmax(-1)
    space.prepare(model, chosen, digits, quickly=True)
    predicted = predict_logits(model, digits, "val").argmax(-1)
    assert (candidate.state, candidate.history, candidate.best_epoch) == ("complete", (), None)
    assert candidate.choices == chosen
    assert candidate.val["accuracy"] == pytest.approx((predicted == digits.val.y).mean())
    assert candidate.val["accuracy"] > (cut == digits.val.y).mean()
    count = len(digits.val)
    assert candidate.notes == (
        f"not trained: evaluated as pruned and reconstructed, by {count} of {count} validation "
        "examples",
    )
    stored = load_model(folder.get_model_path("0000"))
    for ours, theirs in zip(stored.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_the_front_is_taught_by_the_whole(
    space: SubnetworkSpace, digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    """As `distill` teaches the same sub-network with the same seed."""
    plan, folder = made(tmp_path / "run", space, final_epochs=2, batch_size=64)
    chosen = thinned(space, digits)
    candidate = evaluate_trial(ask(0, chosen), digits, plan, folder, cpu, silent)
    (whole,) = load_teachers([space.path], digits, plan)
    record = train_final(candidate, digits, plan, folder, cpu, silent, [whole])
    assert record.epochs == 2
    student = space.build(FixedTrial(chosen), digits)
    space.prepare(student, chosen, digits)
    before = evaluate_model(student, digits, "val")["accuracy"]
    taught = distill(
        student, [load_model(space.path)], digits, plan.distill,
        finetune=TrainSettings(epochs=2, batch_size=64), device=cpu, seed=candidate.seed,
    ).training  # fmt: skip
    expected = max(taught.val["accuracy"], before)
    assert record.val["accuracy"] == pytest.approx(expected)
    assert record.best_epoch == (taught.best_epoch if taught.val["accuracy"] == expected else 0)
    assert not list(folder.final.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("teacher", "file"), [("auto", "net.keras"), ("none", None), ("m.keras", "m.keras")]
)
def test_who_teaches_comes_with_the_job(
    space: SubnetworkSpace,
    teacher: str,
    file: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = SearchFolder(tmp_path / "run")
    for given, expected in ((True, [] if file is None else [file]), (False, [])):
        plan = from_flat(
            SearchPlan,
            {"space": space.name, "no_train": given, "final_epochs": 1, "teacher": teacher},
        )
        jobs = create_final_jobs(folder, plan, ["0000"], Display(), _select_teachers(plan))
        job = jobs.take_job()
        assert job is not None
        assert [Path(name).name for name in job["teachers"]] == expected


def test_labels_alone_may_teach(
    space: SubnetworkSpace, digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space, final_epochs=1)
    chosen = thinned(space, digits)
    candidate = evaluate_trial(ask(0, chosen), digits, plan, folder, cpu, silent)
    record = train_final(candidate, digits, plan, folder, cpu, silent)
    alone = space.build(FixedTrial(chosen), digits)
    space.prepare(alone, chosen, digits)
    before = evaluate_model(alone, digits, "val")["accuracy"]
    result = train(alone, digits, TrainSettings(epochs=1), device=cpu, seed=candidate.seed)
    expected = max(result.val["accuracy"], before)
    assert record.val["accuracy"] == pytest.approx(expected)


def test_few_examples_judge_one_of_hundreds(
    space: SubnetworkSpace,
    digits: Dataset,
    cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for all candidates of a run, and each once."""
    monkeypatch.setattr(objective, "MAX_VALIDATION_EXAMPLES", 50)
    seen = []

    def judged(model: Any, data: Dataset, part: str) -> dict[str, float]:
        seen.append(data.split(part))
        return evaluate_model(model, data, part)

    monkeypatch.setattr(objective, "evaluate_model", judged)
    plan, folder = made(tmp_path / "run", space)
    for number in range(2):
        trial = ask(number, thinned(space, digits) if number else space.baseline(digits))
        candidate = evaluate_trial(trial, digits, plan, folder, cpu, silent)
        assert f"by 50 of {len(digits.val)} validation examples" in candidate.notes[0]
    np.testing.assert_array_equal(seen[0].x, seen[1].x)
    assert len(np.unique(seen[0].x.reshape(50, -1), axis=0)) == 50
    every = {row.tobytes() for row in digits.val.x}
    assert all(row.tobytes() in every for row in seen[0].x)


def test_nothing_is_asked_of_an_optimizer(space: SubnetworkSpace, digits: Dataset) -> None:
    plan = from_flat(SearchPlan, {"space": space.name, "no_train": True, "trials": 8})
    names = {choice.name for choice in space.choices(digits)}
    assert optimizers.build_baseline(plan, digits) == {}
    assert all(set(chosen) == names for chosen in list_first_choices(plan, digits))
    trial = ask(0)
    assert optimizers.sample_settings(trial, plan, digits).optimizer == plan.finetune.optimizer
    assert trial.params == {}


def test_what_goes_on_by_default(space: SubnetworkSpace) -> None:
    def plan(**flat: object) -> SearchPlan:
        return from_flat(SearchPlan, {"space": space.name, **flat})

    assert (plan().final_epochs, plan().final_models) == (0, None)
    untrained = plan(no_train=True, epochs=7)
    assert (untrained.final_epochs, untrained.final_models) == (7, 8)
    assert plan(no_train=True, final_epochs=3, final_models=2).final_epochs == 3
    assert plan(no_train=True, final_models=0).final_epochs == 0
    with pytest.raises(InputError, match="final_models must be at least 1 in paretune run"):
        run(plan=plan(final_models=0))


def test_untrained_models_of_a_new_space_are_refused() -> None:
    with pytest.raises(InputError, match="no_train must go with a space around a trained model"):
        from_flat(SearchPlan, {"space": "cnn", "no_train": True})


def member(place: int, accuracy: float, macs: int) -> Candidate:
    return Candidate(f"{place:04d}", "complete", {}, 0, macs=macs, val={"accuracy": accuracy})


def test_those_that_dominate_most_go_on() -> None:
    """Scaled: (1, 0), (0.25, 0.5), (0.2, 0.9), (0, 1), from the reference 1.1.

    The last is the best. Beside it (1, 0) adds 0.1 x 1 = 0.1, (0.25, 0.5) adds 0.85 x 0.5 and
    (0.2, 0.9) adds 0.9 x 0.1; beside both (1, 0) adds 0.1 x 0.5 and (0.2, 0.9) 0.05 x 0.1.
    """
    front = [member(0, 0.5, 10**4), member(1, 0.65, 10**5),
             member(2, 0.66, round(10**5.8)), member(3, 0.7, 10**6)]  # fmt: skip
    kept = [
        [item.id for item in select_hypervolume_subset(front, OBJECTIVES, most)]
        for most in (0, 1, 2, 3)
    ]
    assert kept == [[], ["0003"], ["0001", "0003"], ["0000", "0001", "0003"]]
    assert (
        select_hypervolume_subset(front, OBJECTIVES, None)
        == front
        == select_hypervolume_subset(front, OBJECTIVES, 4)
    )


def test_few_that_are_nearly_as_good_as_any() -> None:
    """Against all subsets with the best in them."""
    rng = np.random.default_rng(0)
    macs = np.sort(rng.integers(10**4, 10**6, 12))
    front = [member(place, accuracy, int(cost))
             for place, (accuracy, cost) in enumerate(zip(np.sort(rng.random(12)), macs,
                                                          strict=True))]  # fmt: skip
    rows = np.array([[-item.val["accuracy"], np.log10(float(item.macs or 0))] for item in front])
    rows = (rows - rows.min(0)) / np.ptp(rows, axis=0)

    def volume(places: tuple[int, ...]) -> float:
        return measure_hypervolume(rows[list(places)], (1.1, 1.1))

    kept = tuple(int(item.id) for item in select_hypervolume_subset(front, OBJECTIVES, 4))
    best = max(volume((*few, 11)) for few in combinations(range(11), 3))
    assert len(kept) == 4
    assert kept[-1] == 11
    assert (1 - 1 / np.e) * best <= volume(kept) <= best


def test_objectives_in_which_all_are_equal() -> None:
    front = [member(place, 0.5, 10) for place in range(3)]
    assert [item.id for item in select_hypervolume_subset(front, OBJECTIVES, 2)] == ["0000", "0001"]


@pytest.mark.slow
def test_a_search_without_training(space: SubnetworkSpace, digits: Dataset, tmp_path: Path) -> None:
    """Twice the same command: the second finds everything done."""
    flat: dict[str, Any] = {
        "no_train": True, "trials": 9, "epochs": 1, "final_models": 2, "workers": 1,
        "out": tmp_path / "run", "sampler": "pareto", "normalize": "standardize",
    }  # fmt: skip
    report = run_search("digits", space=space.name, **flat)
    folder = SearchFolder(tmp_path / "run")
    candidates = [item for item in folder.read_candidates() if item.is_trial]
    assert all(not item.history for item in candidates)
    assert report.summarize_trials().startswith(f"{len(candidates)} candidates evaluated, ")
    plan = from_flat(SearchPlan, {"space": space.name, "no_train": True, "final_models": 2})
    names = {item.id for item in select_final_candidates(folder.read_candidates(), plan)}
    finals = folder.read_finals()
    assert {item.model for item in finals} == names
    assert all(item.epochs == 1 for item in finals)
    assert (tmp_path / "run" / "report.html").is_file()
    again = run_search("digits", space=space.name, **flat)
    assert folder.read_finals() == finals
    assert len(again.candidates) == len(report.candidates)

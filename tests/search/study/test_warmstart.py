"""Warm starts: which fronts, in which order, refused when they do not fit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder
from search.study.objective import format_candidate_id
from search.study.study import ask_trial
from search.study.warm_start import (
    SEARCH_ATTR,
    compute_distance,
    compute_meta_features,
    describe_search,
    find_sources,
)

OBJECTIVES = ("accuracy", "macs")


def with_train(data: Dataset, x: Any, y: Any) -> Dataset:
    return replace(data, train=Split(x, y))


def test_meta_features_by_hand() -> None:
    labels = np.array([0, 0, 0, 1] * 5)
    images = np.zeros((20, 8, 8, 3), np.uint8)
    part = Split(images, labels)
    data = Dataset("made", part, part, part, ("a", "b"), Preprocessing(1 / 255))
    found = compute_meta_features(data)
    assert found["classes"] == 2
    assert found["examples"] == 20
    assert (found["size"], found["channels"]) == (64, 3)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert found["balance"] == pytest.approx(entropy)
    other = found | {"examples": 20 * math.e**4, "classes": 2 * math.e, "balance": entropy - 0.5}
    # a quarter of 4, 1, twice 0.5
    assert compute_distance(found, other) == pytest.approx(math.sqrt(3))
    assert compute_distance(found, found) == 0


def finished_run(path: Path, data: Dataset, values: list[tuple[float, int]], **flat: Any) -> None:
    """A run's folder with trials of these (accuracy, MACs); parameter `x` numbers them."""
    plan = from_flat(SearchPlan, {"sampler": "random", **flat})
    folder = SearchFolder(path)
    folder.claim("search", plan)
    study = studies.open_study(folder, plan)
    study.set_user_attr(
        SEARCH_ATTR, describe_search(plan.search.space, plan.search.resolved_objectives, data)
    )
    for number, (accuracy, macs) in enumerate(values):
        study.enqueue_trial({"x": number})
        trial = ask_trial(study, plan)
        trial.suggest_int("x", 0, 99)
        done = Candidate(format_candidate_id(number), "complete", {}, 1, macs=macs, params=2,
                         val={"accuracy": accuracy})  # fmt: skip
        studies.finish_trial(study, done, plan)


def test_fronts_are_queued_nearest_data_first(digits: Dataset, tmp_path: Path) -> None:
    far = with_train(digits, digits.train.x[:50], digits.train.y[:50])
    finished_run(tmp_path / "far", far, [(0.9, 10)])
    values = [(0.5, 10**3), (0.8, 10**5), (0.79, 10**6), (0.6, 10**4), (0.55, 2 * 10**3)]
    finished_run(tmp_path / "near", digits, values)
    names = (str(tmp_path / "far"), str(tmp_path / "near"))
    plan = from_flat(SearchPlan, {"warm_start": ",".join(names), "sampler": "random"})
    folder = SearchFolder(tmp_path / "new")
    folder.claim("search", plan)
    study = studies.open_study(folder, plan)
    studies.enqueue_first_trials(study, plan, digits)
    waiting = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    queued = [trial.system_attrs["fixed_params"]["x"] for trial in waiting]
    # 2 is dominated; ends of the front first, then the rest by how alone it is; then "far"
    assert queued[:2] in ([0, 1], [1, 0])
    assert queued[2:] == [3, 4]  # the other run's trial has the same choices as 0
    assert waiting[0].user_attrs["warm_start"].startswith(f"{tmp_path / 'near'} ")
    # queued once: the run continues
    studies.enqueue_first_trials(study, plan, digits)
    assert len(study.trials) == 4


def test_candidates_come_before_fronts(digits: Dataset, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", digits, [(0.9, 10)])
    folder = SearchFolder(tmp_path / "new")
    names = [tmp_path / "run", tmp_path / "c.json"]
    write_json(names[1], Candidate("0007", "complete", {"x": 77}, 5).to_json())
    plan = from_flat(SearchPlan, {"warm_start": names, "sampler": "random"})
    folder.claim("search", plan)
    study = studies.open_study(folder, plan)
    studies.enqueue_first_trials(study, plan, digits)
    first, second = study.trials
    assert first.system_attrs["fixed_params"] == {"x": 77}
    assert first.user_attrs == {"seed": 5, "seed_given": True}
    assert second.system_attrs["fixed_params"] == {"x": 0}


def test_a_storage_url_is_a_source(digits: Dataset, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    finished_run(tmp_path / "run", digits, [(0.9, 10)], storage=url)
    (source,) = find_sources((url,), "cnn", OBJECTIVES, digits)
    assert (source.distance, [trial.params for trial in source.trials]) == (0, [{"x": 0}])
    # the same examples in another scale and order, then other ones
    order = np.arange(len(digits.test))[::-1]
    turned = replace(digits, test=digits.test.take(order), preprocess=Preprocessing())
    assert len(find_sources((url,), "cnn", OBJECTIVES, turned)) == 1
    with pytest.raises(
        InputError, match=r"what is the test part here.* on other parts of 'digits'"
    ):
        find_sources((url,), "cnn", OBJECTIVES, load_data("digits", seed=1))
    elsewhere = replace(load_data("digits", seed=1), name="others")
    assert len(find_sources((url,), "cnn", OBJECTIVES, elsewhere)) == 1


def test_what_does_not_fit_is_refused(digits: Dataset, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", digits, [(0.9, 10)])
    run = (str(tmp_path / "run"),)
    with pytest.raises(InputError, match=r"the same space \(mlp\)\. Received: .* with cnn"):
        find_sources(run, "mlp", OBJECTIVES, digits)
    with pytest.raises(InputError, match="the same objectives"):
        find_sources(run, "cnn", ("accuracy", "params"), digits)
    with pytest.raises(InputError, match="without a study of paretune in it"):
        find_sources((str(tmp_path),), "cnn", OBJECTIVES, digits)
    with pytest.raises(InputError, match="without a study of paretune"):
        find_sources((str(tmp_path / "none"),), "cnn", OBJECTIVES, digits)
    with pytest.raises(InputError, match="warm_start must be a URL that Optuna can open"):
        find_sources(("nosql://x",), "cnn", OBJECTIVES, digits)


def test_a_study_of_another_space_is_refused(digits: Dataset, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", digits, [(0.9, 10)])
    plan = from_flat(SearchPlan, {"space": "mlp"})
    study = studies.open_study(SearchFolder(tmp_path / "run"), plan)
    with pytest.raises(InputError, match=r"of the same space \(mlp\)\. Received: cnn"):
        studies.enqueue_first_trials(study, plan, digits)

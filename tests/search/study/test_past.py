"""What a run begins with from elsewhere: refused where its data would judge what was learnt."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model, load_data
from compress.core.errors import InputError
from compress.data import Dataset
from compress.distillation.teachers import Teachers
from compress.model.io import save_model
from compress.plan import Plan, TrainSettings
from compress.plan.nesting import from_flat
from compress.run.origin import find_origin, write_data_record, write_examples
from compress.shrinking.compression_job import load_teacher
from compress.train import train
from compress.train.predict import predict_logits
from search.engines import Display
from search.engines.jobs import create_compress_jobs
from search.pipeline import run_search
from search.plan import SearchPlan
from search.study.checks import check_data_leakage
from search.study.directory import Candidate, SearchFolder
from tests.compress.run.test_origin import add_validation_training


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SearchFolder:
    """A finished run on digits, pixels in [-1, 1]: a trained candidate, and a final training."""
    import keras

    from compress.core.device import setup_device

    folder = SearchFolder(tmp_path_factory.mktemp("past") / "run")
    folder.claim("run", from_flat(SearchPlan, {"final_epochs": 1}))
    data = load_data("digits", normalize="symmetric")
    write_data_record(folder, data)
    write_examples(folder, data)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(32, activation="relu", name="hidden")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(x))
    train(
        model,
        data,
        TrainSettings(epochs=25, batch_size=64, learning_rate=3e-3),
        device=setup_device("cpu"),
    )
    save_model(model, folder.get_model_path("0000"))
    save_model(model, folder.final / "0000.keras")
    folder.write_candidate(
        Candidate("0000", "complete", {"x": 1}, 1, macs=9, params=9, val={"accuracy": 0.9})
    )
    return folder


def plan_of(**flat: Any) -> SearchPlan:
    return from_flat(SearchPlan, {"data": "digits", "trials": 1, **flat})


def test_a_run_that_trained_on_its_validation_part_is_repeated(
    run: SearchFolder, tmp_path: Path
) -> None:
    """Version 0.1 could do that; its run is refused as a model, as a teacher, and if resumed."""
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    add_validation_training(SearchFolder(old))
    final = old / "final" / "0000.keras"
    for flat in ({"teacher": str(final)}, {"out": str(old)}):
        with pytest.raises(InputError, match="not trained on the validation part.*Repeat the se"):
            run_search(plan=plan_of(**{"out": str(tmp_path / "out"), **flat}))
    plan = from_flat(Plan, {"data": "digits", "out": str(tmp_path / "out")})
    with pytest.raises(InputError, match="not trained on the validation part.*Repeat the search"):
        compress_model(final, plan=plan)
    assert not (tmp_path / "out").exists()


def test_warm_starts(run: SearchFolder, digits: Dataset) -> None:
    name = str(run.path)
    assert check_data_leakage(plan_of(warm_start=name), digits) == ()
    other = load_data("digits", seed=1)
    with pytest.raises(InputError, match=f"Warm start '{name}' must be evaluated .* --seed 0"):
        check_data_leakage(plan_of(warm_start=name, seed=1), other)
    # the same test part, but what trained it selects now
    turned = replace(digits, train=digits.val, val=digits.train.take(np.arange(len(digits.val))))
    check_data_leakage(plan_of(warm_start=name), turned)
    # URLs and folders that hold no run are for others to refuse
    check_data_leakage(plan_of(warm_start="sqlite:///x.db,nowhere"), digits)


def test_what_is_replayed(run: SearchFolder, digits: Dataset) -> None:
    """Choices that a run made by what is now the test part are not evaluated with it."""
    file = run.candidates / "0000.json"
    assert check_data_leakage(plan_of(warm_start=str(file)), digits) == ()
    other = load_data("digits", seed=1)
    with pytest.raises(InputError, match=f"Warm start '{file}' must be evaluated .* --seed 0"):
        check_data_leakage(plan_of(warm_start=str(file), seed=1), other)


def test_teachers_of_a_run(run: SearchFolder, digits: Dataset, tmp_path: Path) -> None:
    file = run.final / "0000.keras"
    assert check_data_leakage(plan_of(teacher=str(file)), digits) == ()
    with pytest.raises(InputError, match=f"Teacher '{file}' must be evaluated on .* --seed 0"):
        run_search(plan=plan_of(teacher=str(file), seed=1, out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    assert check_data_leakage(plan_of(teacher=str(run.get_model_path("0000"))), digits) == ()


def test_a_teacher_is_fed_with_its_own_scaling(
    run: SearchFolder, digits: Dataset, tmp_path: Path, cpu: Any
) -> None:
    """Student standardized, teacher in [-1, 1]: its answers are those in its own run."""
    own = load_data("digits", normalize="symmetric")
    stranger = tmp_path / "mine.keras"
    stranger.write_bytes(run.get_model_path("0000").read_bytes())
    for file in (run.get_model_path("0000"), stranger):
        plan = plan_of(teacher=str(file))
        teacher = load_teacher(file, digits, plan)
        assert teacher.preprocess == own.preprocess
        assert teacher.preprocess is not None
        made = Teachers([teacher.model], digits.task, [], [None],
                        [teacher.preprocess.from_inputs(digits.preprocess)])  # fmt: skip
        with made.prepare():
            logits = made.compute_outputs(digits.inputs("val"))["teacher_logits"].numpy()[:, 0]
        expected = predict_logits(teacher.model, own, "val")
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
        again = load_teacher(file, own, plan).preprocess
        assert again is not None
        assert again.is_equivalent(own.preprocess)
    # told by --normalize, or left to the pipeline
    assert load_teacher(stranger, digits, plan_of(normalize="standardize")).preprocess is None
    assert load_teacher(stranger, digits, plan_of()).preprocess is None
    assert find_origin(stranger) is None


def test_jobs_of_a_run_are_told(run: SearchFolder, digits: Dataset, tmp_path: Path) -> None:
    stranger = tmp_path / "mine.keras"
    stranger.write_bytes(run.get_model_path("0000").read_bytes())
    for flat, is_told in ((dict[str, Any](), False), ({"teacher": str(stranger)}, True)):
        plan = plan_of(**flat)
        past = check_data_leakage(plan, digits)
        job = create_compress_jobs(run, plan, ["0000"], [], Display(), past).take_job()
        assert job is not None
        assert bool(job["told"]) == is_told

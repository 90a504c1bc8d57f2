"""What a run refuses before it claims its folder, and how it is resumed before its first trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.shrinking.compression_job import CoupledModel, fit_plan
from search import pipeline
from search.cli import app
from search.engines import local
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import SearchFolder
from tests.compress.shrinking.test_model_names import mlp

SPACE = ["--data", "digits", "--space", "mlp"]
CASES = {
    "criterion": (
        ["--channels", "0.5x", "--channel-criterion", "nope"],
        "Unknown channel criterion 'nope'. Choices: ",
    ),
    "exclude": (
        ["--channels", "0.5x", "--channel-exclude", "nosuch"],
        "Unknown layer or pattern (no removable channels) 'nosuch'",
    ),
    "overrides": (
        ["--weight-overrides", "nosuch=0.5"],
        "Unknown layer or pattern (no weights to prune) 'nosuch'",
    ),
    "one of two overrides": (
        ["--weight-overrides", "*=0.5,nosuch=0.5"],
        "Unknown layer or pattern (no weights to prune) 'nosuch'",
    ),
    "feature pairs": (
        ["--feature-losses", "fitnets", "--feature-pairs", "here=there"],
        "Unknown layer",
    ),
    "opset": (["--opset", "-1"], "opset must be at least 1. Received: -1"),
    "opset of int8": (
        ["--formats", "onnx_int8", "--opset", "12"],
        "for onnx_int8. Received: 12. Leave it out.",
    ),
    "opset of the converter": (
        ["--formats", "onnx", "--opset", "99"],
        "for onnx. Received: 99. Leave it out.",
    ),
    "too small": (["--channels", "2"], "macs must be at least"),
    "too large": (["--channels", "100G"], "macs must be at most the model's own"),
    "no share": (["--channels", "0.0001x"], "macs must be at least"),
    "no such storage": (["--storage", "nosuch://host/x"], "storage must be a URL that Optuna can"),
    "no such folder": (
        ["--storage", "sqlite:////nosuch/folder/study.db"],
        "storage must be a URL that Optuna can open",
    ),
    "no storage": (["--storage", "study.db"], "storage must be a URL"),
}


def refused(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert done.output.startswith("paretune: error: ")
    assert message in done.output
    assert done.output.count("\n") == 1
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_folder(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = CASES[case]
    refused(["run", *SPACE, *words], message)


def test_a_search_compresses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`search` refuses what its trainings cannot use, and the storage; not the compression."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    Path("data").mkdir()
    np.savez(Path("data") / "x.npz", x_train=rng.random((60, 4), np.float32), y_train=y)
    plan = {"data": "data/x.npz", "space": "mlp", "augment": "flip", "out": "run"}
    with pytest.raises(InputError, match="augment must be used on images"):
        pipeline.run_search(plan=from_flat(SearchPlan, plan))
    assert not Path("run").exists()
    with pytest.raises(InputError, match="storage must be a URL"):
        pipeline.run_search(
            plan=from_flat(SearchPlan, {**plan, "augment": "", "storage": "nosuch://x"})
        )
    assert not Path("run").exists()


def test_a_pattern_that_fits_the_largest_alone_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The baseline of the space has two hidden layers, the largest more."""
    monkeypatch.setattr(local, "LocalPool", Stop)
    values = {"data": "digits", "space": "mlp", "out": str(tmp_path / "run")}
    name = deepest()
    values |= {"channels": "0.5x", "channel_exclude": name, "weight_overrides": f"{name}=0.3"}
    with pytest.raises(Stopped):
        pipeline.run(plan=from_flat(SearchPlan, values))


def deepest() -> str:
    """Returns the name of the last hidden layer of the largest model of the space."""
    from optuna.trial import FixedTrial

    from compress.data import load_data
    from search.spaces import resolve_space

    space, data = resolve_space("mlp"), load_data("digits")
    models = [
        space.build(FixedTrial(chosen), data)
        for chosen in (space.baseline(data), space.largest(data))
    ]
    names = [[layer.name for layer in model.layers if hasattr(layer, "kernel")] for model in models]
    (name,) = [name for name in names[1] if name not in names[0]][-1:]
    return name


class Stopped(Exception):
    """A run got as far as its workers."""


class Stop:
    """Stands for the workers."""

    def __init__(self, *_: Any) -> None:
        raise Stopped


def subject(*widths: int) -> CoupledModel:
    """A model of `mlp` as checks are given it."""
    return CoupledModel(mlp(*widths), (4,))


def test_what_a_model_cannot_do_is_left_out_and_noted(blobs: Dataset) -> None:
    values = {"channels": "0.5x", "sparsity": 0.5, "channel_exclude": "h1,h0"}
    values |= {"weight_overrides": "h1=0.2,*=0.4"}
    values |= {"feature_losses": "fitnets", "feature_pairs": "h0=h0,h1=h0"}
    plan = from_flat(SearchPlan, values)
    same, notes = fit_plan(plan, subject(32, 32, 32), mlp(32, 32, 32))
    assert same == plan
    assert notes == []
    small, notes = fit_plan(plan, subject(32), mlp(32, 32, 32))
    assert small.channels == replace(plan.channels, exclude="h0")
    assert small.distill == replace(plan.distill, feature_pairs={"h0": "h0"})
    assert small.distill.feature_losses == ("fitnets",)
    words = [note.partition(" was left out for this model: ")[0] for note in notes]
    assert words[0] == "channel exclusion 'h1'"
    assert words[-1] == "feature pair 'h1=h0'"
    none, notes = fit_plan(
        from_flat(SearchPlan, {"feature_losses": "fitnets", "feature_pairs": "h1=h0"}),
        subject(32),
        None,
    )
    assert (none.distill.feature_pairs, none.distill.feature_losses) == ((), ())
    # a target that it cannot meet is another matter
    plan = from_flat(SearchPlan, {"channels": "0.001x", "teacher": "none"})
    assert fit_plan(plan, subject(32), None) == (plan, [])


@pytest.mark.slow
def test_a_worker_compresses_with_what_fits(blobs: Dataset, cpu: Device, tmp_path: Path) -> None:
    from search.engines.run_jobs import SearchWorker

    folder = SearchFolder(tmp_path / "run")
    values = {"epochs": 1, "batch_size": 32, "teacher": "none", "formats": "float32"}
    values |= {"channels": "0.5x", "channel_exclude": "h1", "sparsity": 0.0}
    plan = from_flat(SearchPlan, values)
    folder.claim("run", plan)
    mlp(32).save(folder.get_model_path("0000"))
    worker = SearchWorker.__new__(SearchWorker)
    worker.folder, worker.plan, worker.data, worker.device = folder, plan, blobs, cpu
    worker._out = open(tmp_path / "messages", "w")  # noqa: SIM115 - closed below
    try:
        job = {"teachers": [], "told": [], "command": "as asked"}
        job |= {"file": str(folder.get_model_path("0000"))}
        done = worker._compress_model({"name": "0000", **job})
    finally:
        worker._out.close()
    assert "error" not in done, done
    (record,) = folder.read_compressed()
    assert record.notes[0].startswith("channel exclusion 'h1' was left out for this model: ")
    assert "--channels 0.5x" in record.command
    assert "--channel-exclude" not in record.command


def test_a_run_without_a_trial_is_resumed_by_the_same_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "LocalPool", Stop)
    out = tmp_path / "run"
    values = {"data": "digits", "space": "mlp", "out": str(out)}
    plan = from_flat(SearchPlan, values)
    with pytest.raises(Stopped):
        pipeline.run(plan=plan)
    claimed = (out / "plan.json").read_bytes()
    study = studies.open_study(SearchFolder(out), plan)
    study.enqueue_trial({"x": 1})
    with pytest.raises(InputError, match="belongs to another run: seed was 0, now 1"):
        pipeline.run(plan=from_flat(SearchPlan, {**values, "seed": 1}))
    assert (out / "plan.json").read_bytes() == claimed
    with pytest.raises(Stopped):
        pipeline.run(plan=plan)
    assert (out / "plan.json").read_bytes() == claimed
    # as are the trials that it has queued
    assert len(studies.open_study(SearchFolder(out), plan).trials) == 1


def test_a_compression_that_never_began_is_resumed_by_the_same_command(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "out")
    folder.claim("compress", Plan(), {"model": "a.keras"})
    with pytest.raises(InputError, match=r"model was 'a\.keras', now 'b\.keras'"):
        folder.claim("compress", Plan(), {"model": "b.keras"})
    folder.claim("compress", Plan(), {"model": "a.keras"})


@pytest.mark.slow
def test_a_worker_loads_its_teachers_once_and_a_plan_makes_its_space_once(
    blobs: Dataset, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search.spaces
    from compress.shrinking import compression_job
    from search.engines.run_jobs import SearchWorker
    from search.study.checks import check_compression, check_limits
    from search.study.study import list_first_choices

    made: list[str] = []
    space_for, load_model = search.spaces.resolve_space, compression_job.load_model
    monkeypatch.setattr(
        search.spaces, "resolve_space", lambda name: made.append(name) or space_for(name)
    )
    loaded: list[Path] = []
    monkeypatch.setattr(
        compression_job, "load_model", lambda path: loaded.append(path) or load_model(path)
    )
    folder = SearchFolder(tmp_path / "run")
    values = {"epochs": 1, "batch_size": 32, "formats": "float32", "sparsity": 0.0, "space": "mlp"}
    plan = from_flat(SearchPlan, {**values, "max_params": 10**9})
    check_limits(plan, blobs)
    check_compression(plan, blobs, [])
    assert list_first_choices(plan, blobs)
    assert made == ["mlp"]
    folder.claim("run", plan)
    for name in ("0000", "0001"):
        mlp(32).save(folder.get_model_path(name))
    worker = SearchWorker.__new__(SearchWorker)
    worker.folder, worker.plan, worker.data, worker.device = folder, plan, blobs, cpu
    worker._out = open(tmp_path / "messages", "w")  # noqa: SIM115 - closed below
    best = folder.get_model_path("0000")
    job = {"teachers": [str(best)], "told": [], "command": "as asked"}
    try:
        done = [worker._compress_model({"name": name, **job}) for name in ("0000", "0001")]
    finally:
        worker._out.close()
    assert all("error" not in item for item in done), done
    assert loaded == [best]


def test_trials_of_a_budget_fit_into_it(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.study import checks

    plan = from_flat(SearchPlan, {"space": "mlp", "epochs": 9, "budget": "24h"})
    # a day is enough for what the plan asks for, a blink of it for a few steps
    assert checks.fit_training(plan, digits, 2, 1) == plan
    monkeypatch.setattr(checks, "SEARCH_SHARE", 1e-9)
    monkeypatch.setattr(checks, "LEAST_STEPS", 3)
    fitted = checks.fit_training(plan, digits, 2, 1)
    assert fitted.search.epochs == 1
    assert fitted.finetune == replace(plan.finetune, epoch_examples=3 * plan.finetune.batch_size)
    assert fitted.rewinds_training  # candidates are trained with such epochs, too
    # trials this short have one optimizer, unless some are named
    assert fitted.search.optimizers == ("adam",)
    named = from_flat(SearchPlan, {"space": "mlp", "budget": "24h", "optimizers": ("sgd", "adam")})
    assert checks.fit_training(named, digits, 2, 1).search.optimizers == ("sgd", "adam")

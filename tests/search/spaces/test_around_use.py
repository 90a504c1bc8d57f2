"""What is refused around a model, and what a search makes of the space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial
from typer.testing import CliRunner

from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.io import save_model
from compress.plan import TrainSettings
from compress.plan.fields import from_flat
from compress.train import TrainResult, train
from compress.train.predict import predict_logits
from compress.train.records import StartingPoint
from search.cli import app
from search.pipeline import build_default_folder, run_search
from search.plan import SearchPlan
from search.spaces import SubnetworkSpace, resolve_space
from search.study import optimizers
from search.study.directory import Candidate, SearchFolder
from search.study.objective import evaluate_trial
from tests.contracts.space import ask
from tests.same import same_arrays
from tests.search.spaces.test_around import FIRST, HALF, HIDDEN, MID


def dense(path: Path, width: int = 0, trainable: bool = True) -> None:
    """Saves a hidden layer of some width (0: none) and a head."""
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(width, name="hidden")(x) if width else x
    made = keras.Model(inputs, keras.layers.Dense(10, name="head")(x))
    made.trainable = trainable
    save_model(made, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.keras", "must be around a trained model .* A model file must exist"),
        ("notes.txt", "A model file must end in .keras"),
        ("broken.keras", "Keras 3 must be able to read"),
        ("head.keras", "channels that can be removed. Received: none; not prunable: .*'head'"),
        ("narrow.keras", r"wide enough to be thinned.* Received: hidden \(4 channels\)"),
        ("frozen.keras", "trainable weights. Received: none"),
        ("nan.keras", "must be (finite|numbers)"),
    ],
)
def test_bad_models(name: str, message: str, digits: Dataset, tmp_path: Path) -> None:
    from compress import load_model

    path = tmp_path / name
    if name in ("notes.txt", "broken.keras"):
        path.write_text("no model")
    elif name != "missing.keras":
        dense(path, {"head.keras": 0, "narrow.keras": 4}.get(name, 32), name != "frozen.keras")
    if name == "nan.keras":
        bad = load_model(path)
        bad.get_layer("hidden").bias.assign(np.full(32, np.nan))
        save_model(bad, path)
    with pytest.raises(InputError, match=message) as caught:
        SubnetworkSpace(f"around:{path}").check(digits)
    assert str(caught.value).startswith(f"Space 'around:{path}' must ")


def test_other_data_are_refused(around: SubnetworkSpace, blobs: Dataset) -> None:
    with pytest.raises(InputError, match=r"that fits the data. Model 'small_cnn' must take inputs"):
        around.check(blobs)


def test_by_name(around: SubnetworkSpace) -> None:
    found = resolve_space(around.name)
    assert isinstance(found, SubnetworkSpace)
    assert (found.name, found.trained) == (around.name, True)
    plan = from_flat(SearchPlan, {"data": "digits", "space": "around:runs/a/candidates/0004.keras"})
    assert build_default_folder(plan) == "runs/digits-around-0004"
    with pytest.raises(InputError, match="must name a model's file, around:model.keras"):
        resolve_space("around:")


def test_another_model_under_the_same_name(
    around: SubnetworkSpace, file: Path, digits: Dataset, tmp_path: Path
) -> None:
    plan = from_flat(
        SearchPlan,
        {
            "data": "digits",
            "normalize": "standardize",
            "space": around.name,
            "out": str(tmp_path / "run"),
        },
    )
    folder = SearchFolder(plan.out)
    folder.claim("search", plan, {"data": digits.fingerprint(), **around.facts()})
    # where no trial has ended the run may begin anew, around another model too
    folder.write_candidate(Candidate("0000", "failed", {}, 0, "the loss is NaN"))
    dense(file, 64)
    assert [choice.name for choice in around.choices(digits)] == [HIDDEN]
    with pytest.raises(InputError, match="belongs to another run: model_sha256 was"):
        run_search(plan=plan)


def test_learning_rates_begin_lower(around: SubnetworkSpace, digits: Dataset) -> None:
    plan, new = from_flat(SearchPlan, {"space": around.name}), SearchPlan()
    for name, (low, high) in optimizers.LEARNING_RATES.items():
        assert optimizers.get_learning_rate_range(plan, name) == (0.2 * low, high)
        assert optimizers.get_learning_rate_range(new, name) == (low, high)
    rate = "learning_rate.adam"
    assert (
        optimizers.build_baseline(plan, digits)[rate] < optimizers.build_baseline(new, digits)[rate]
    )
    rates = [
        optimizers.sample_settings(ask(seed), plan, digits).learning_rate for seed in range(20)
    ]
    assert all(np.isfinite(rates))


def test_a_candidate_tells_its_quality_before_fine_tuning(
    small_cnn: Callable[..., Any], digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    big = small_cnn()
    train(big, digits, TrainSettings(epochs=3, learning_rate=1e-2), device=cpu)
    save_model(big, tmp_path / "big.keras")
    space = SubnetworkSpace(f"around:{tmp_path / 'big.keras'}")
    plan = from_flat(SearchPlan, {"space": space.name, "epochs": 2})
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", plan)
    chosen = {FIRST: 1.0, MID: 1.0, HIDDEN: 0.5}
    trial = ask(0, chosen | optimizers.build_baseline(plan, digits))
    candidate = evaluate_trial(trial, digits, plan, folder, cpu, lambda text, share: None)
    model = space.build(FixedTrial(chosen), digits)
    space.prepare(model, chosen, digits)
    logits = predict_logits(model, digits, "val")
    before = float((logits.argmax(-1) == digits.val.y).mean())
    assert before > 0.2, "weights are kept"
    assert candidate.state == "complete"
    assert candidate.notes[0] == f"validation accuracy before fine-tuning {before:.4f}"
    assert candidate.val["accuracy"] >= before
    assert candidate.choices.items() >= chosen.items()


def test_what_is_rejected_costs_no_statistics(
    around: SubnetworkSpace,
    digits: Dataset,
    cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SubnetworkSpace, "prepare", lambda *_: pytest.fail("nothing is trained"))
    plan = from_flat(SearchPlan, {"space": around.name, "max_macs": 1})
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", plan)
    trial = ask(0, HALF | optimizers.build_baseline(plan, digits))
    candidate = evaluate_trial(trial, digits, plan, folder, cpu, lambda text, share: None)
    assert (candidate.state, candidate.val) == ("rejected", {})


def test_fine_tuning_never_makes_worse(around: SubnetworkSpace, digits: Dataset) -> None:
    model = around.build(FixedTrial(HALF), digits)
    before = model.get_weights()
    start = StartingPoint(model, digits, "accuracy")
    model.set_weights([weight + 1 for weight in before])
    better = TrainResult((), 2, {"accuracy": 2.0}, 9, ("told",))
    assert start.keep_better(model, better).best_epoch == 2
    assert start.keep_better(model, better).notes[1:] == ("told",)
    worse = start.keep_better(model, TrainResult((), 2, {"accuracy": -1.0}, 9))
    assert worse.best_epoch == 0
    assert worse.notes[0].endswith(f"{worse.val['accuracy']:.4f}")
    same_arrays(model.get_weights(), before)


def test_described_on_the_command_line(around: SubnetworkSpace) -> None:
    done = CliRunner().invoke(app, ["space", "describe", around.name, "--data", "digits"])
    assert done.exit_code == 0, done.output
    for words in ("keep.hidden", "0.5, 1.0", "Architectures: 8 (complete choices, counted)"):
        assert words in done.output
    done = CliRunner().invoke(app, ["space", "describe", "around:none.keras"])
    assert done.exit_code == 2
    assert "A model file must exist" in done.stderr

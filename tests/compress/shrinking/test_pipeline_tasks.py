"""compress_model on other tasks, and its distillation options, from files to a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model, load_data
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.io import save_model
from compress.plan import Plan, TrainSettings
from compress.plan.nesting import from_flat
from compress.train import train
from tests.same import same_arrays

QUICK: dict[str, Any] = {
    "data": "digits", "finetune_epochs": 6, "batch_size": 50, "learning_rate": 5e-3,
    "latency_budget": 1.0, "sparsity": 0.5,
}  # fmt: skip


def npz(kind: str, folder: Path) -> Path:
    """Writes 900 examples of 6 features; three answers are linear in them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 6)).astype(np.float32)
    values = x @ rng.normal(size=(6, 3))
    y: Any = {
        "binary": (values[:, 0] > 0).astype(np.int64),
        "multilabel": (values > 0).astype(np.int64),
        "regression": values.astype(np.float32),
    }[kind]
    path = folder / f"{kind}.npz"
    np.savez(path, x_train=x, y_train=y, weight_train=rng.uniform(0.5, 1.5, 900))
    return path


def perceptron(data: Dataset, width: int, activation: str | None) -> Any:
    import keras

    keras.utils.set_random_seed(width)
    inputs = x = keras.Input(data.input_shape)
    for name in ("a", "b", "c"):
        x = keras.layers.Dense(width, activation="relu", name=name)(x)
    outputs = keras.layers.Dense(data.task.outputs, activation=activation, name="last")(x)
    return keras.Model(inputs, outputs, name=f"net{width}")


@pytest.mark.parametrize(
    ("kind", "activation", "main"),
    [
        ("binary", "sigmoid", "accuracy"),
        pytest.param("binary", None, "accuracy", marks=pytest.mark.matrix),
        pytest.param("multilabel", "sigmoid", "f1_macro", marks=pytest.mark.slow),
        pytest.param("regression", None, "r2", marks=pytest.mark.slow),
    ],
)
def test_other_tasks_from_file_to_report(
    kind: str, activation: str | None, main: str, cpu: Device, tmp_path: Path
) -> None:
    source = npz(kind, tmp_path)
    data = load_data(str(source), task=kind)
    assert data.train.weight is not None
    model = perceptron(data, 32, activation)
    train(model, data, TrainSettings(epochs=30, batch_size=50, learning_rate=5e-3), device=cpu)
    path = tmp_path / "net.keras"
    save_model(model, path)
    plan = from_flat(
        Plan, {**QUICK, "data": str(source), "task": kind, "out": str(tmp_path / "out")}
    )
    result = compress_model(path, plan=plan)
    assert result.report.main == main
    outputs = result.model.predict(data.inputs("test"), verbose=0)
    truth = data.test.y.reshape(outputs.shape)
    if kind == "regression":
        rest = ((outputs - truth) ** 2).mean(0) / truth.var(0)
        expected = 1 - rest.mean()
    else:
        yes = outputs > (0.5 if activation else 0.0)
        # accuracy of binary, of the labels' decisions
        expected = (yes == truth).mean()
    assert result.report.rows
    for row in result.report.rows:
        ends = result.report.interval(row, main)
        assert ends is not None
        assert ends[0] <= row.artifact.test[main] <= ends[1]
        assert row.artifact.test[main] > 0.85
        assert row.artifact.agreement > 0.95
        if row.artifact.id == "net-p50.float32":
            got = row.artifact.test["r2" if kind == "regression" else "accuracy"]
            assert got == pytest.approx(expected, abs=1e-4)
    page = (result.folder / "report.html").read_text("utf-8")
    assert {"binary": "2 classes", "multilabel": "3 labels", "regression": "3 targets"}[
        kind
    ] in page
    assert f"test {main} of net" in page
    assert f"Best validation {main}" in page
    assert (result.folder / "candidates.csv").read_text().startswith("record,id,")
    assert not (result.folder / "unfinished").exists() or not any(
        (result.folder / "unfinished").iterdir()
    )


@pytest.mark.slow
def test_hints_several_teachers_and_augmentation_reach_the_pipeline(
    cpu: Device, tmp_path: Path, digits: Dataset, small_cnn: Any
) -> None:
    model = small_cnn(0)
    train(model, digits, TrainSettings(epochs=4, batch_size=64), device=cpu)
    for name in ("mine", "one", "two"):
        save_model(model, tmp_path / f"{name}.keras")
    teachers = f"{tmp_path / 'one.keras'},{tmp_path / 'two.keras'}"
    values = {
        **QUICK, "finetune_epochs": 2, "teacher": teachers, "feature_losses": "fitnets",
        "feature_pairs": "relu=relu", "temperature": "6", "augment": "shift",
        "out": str(tmp_path / "out"), "formats": "float32",
    }  # fmt: skip
    result = compress_model(tmp_path / "mine.keras", plan=from_flat(Plan, values))
    record = json.loads((result.folder / "compressed" / "mine.json").read_text())
    assert record["teacher"].startswith("one and two (0.")
    assert "the teacher ran at every step" in record["notes"]
    assert any(
        note.startswith("feature loss fitnets, weight 1: relu (4, 4, 16)")
        for note in record["notes"]
    )
    assert "--feature-pairs relu=relu" in record["command"]
    assert "--temperature 6 " in record["command"]
    wrong = {**values, "feature_pairs": "relu=rely", "out": str(tmp_path / "wrong")}
    with pytest.raises(InputError, match="Did you mean 'relu'"):
        compress_model(tmp_path / "mine.keras", plan=from_flat(Plan, wrong))
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_an_interrupted_compression_goes_on_where_it_was(
    cpu: Device, tmp_path: Path, digits: Dataset, small_cnn: Any
) -> None:
    save_model(small_cnn(0), tmp_path / "mine.keras")
    values = {**QUICK, "finetune_epochs": 4, "formats": "float32", "normalize": "standardize"}

    def stop(text: str, share: float) -> None:
        if text.startswith("fine-tuning") and share >= 0.5:
            raise KeyboardInterrupt

    plan = from_flat(Plan, {**values, "out": str(tmp_path / "out")})
    with pytest.raises(KeyboardInterrupt):
        compress_model(tmp_path / "mine.keras", plan=plan, on_progress=stop)
    assert (tmp_path / "out/unfinished/mine/fine-tuning.npz").is_file()
    shares: list[float] = []

    def note(text: str, share: float) -> None:
        if text.startswith("fine-tuning,"):
            shares.append(share)

    again = compress_model(tmp_path / "mine.keras", plan=plan, on_progress=note)
    assert (shares[0], shares[-1]) == (0.75, 1.0)
    assert shares == sorted(shares)
    assert not (tmp_path / "out/unfinished/mine").exists()
    whole = from_flat(Plan, {**values, "out": str(tmp_path / "whole")})
    expected = compress_model(tmp_path / "mine.keras", plan=whole)
    same_arrays(again.model.get_weights(), expected.model.get_weights())


def test_tasks_need_their_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A regression task must come from an .npz file"):
        load_data("digits", task="regression")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(60) % 3)
    with pytest.raises(InputError, match="rows of 0 and 1, one column a label"):
        load_data(str(tmp_path / "a.npz"), task="multilabel")
    with pytest.raises(InputError, match="A binary task must have two class names. Received: 3"):
        load_data(str(tmp_path / "a.npz"), task="binary")
    weights = np.full(60, -1.0)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=np.arange(60) % 3, weight_train=weights)
    with pytest.raises(InputError, match="Weights of .* must be one finite number an example"):
        load_data(str(tmp_path / "b.npz"))

"""Models with two inputs and two outputs, from training to files that are fed by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from compress import bench, compress_model, count_macs, distill, prune_channels, prune_weights
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.exporting.file_checks import predict_with_file
from compress.measure.runtimes import prepare_session
from compress.model.copies import copy_model
from compress.model.heads import infer_head
from compress.plan import TrainSettings
from compress.train import train
from compress.train.dataset_loading import as_dataset
from compress.train.predict import evaluate_model

COUNT, SIZE = 1500, 12


def scenes() -> tuple[dict[str, Any], dict[str, Any]]:
    """A box on noise: its shade is the class, half of which only a table tells."""
    rng = np.random.default_rng(0)
    image = rng.normal(0.0, 0.2, (COUNT, SIZE, SIZE, 1)).astype(np.float32)
    shade, kind = rng.integers(2, size=(2, COUNT))
    box = np.zeros((COUNT, 4), np.float32)
    for one, dark, sides in zip(image, shade, box, strict=True):
        (high, wide), (top, left) = rng.integers(4, 8, 2), rng.integers(0, SIZE - 7, 2)
        one[top : top + high, left : left + wide] += 1.0 + dark
        sides[:] = np.array([top, left, high, wide]) / SIZE
    table = rng.normal(size=(COUNT, 3)).astype(np.float32)
    table[:, 0] += 3.0 * kind
    return {"picture": image, "facts": table}, {"class": shade + 2 * kind, "box": box}


def net(structure: str) -> Any:
    """A net of both, whose inputs and outputs are dictionaries or lists; lists in another order."""
    keras.utils.set_random_seed(0)
    picture = keras.Input((SIZE, SIZE, 1), name="picture")
    facts = keras.Input((3,), name="facts")
    h = picture
    for width in (12, 16):
        h = layers.Conv2D(width, 3, padding="same", use_bias=False)(h)
        h = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(h))
        h = layers.MaxPooling2D()(h)
    h = layers.Dense(32, activation="relu")(layers.Flatten()(h))
    told = layers.Dense(8, activation="relu")(facts)
    h = layers.Dense(32, activation="relu")(layers.Concatenate()([h, told]))
    kind = layers.Dense(4, activation="softmax", name="class")(h)
    box = layers.Dense(4, name="box")(h)
    if structure == "lists":
        return keras.Model([picture, facts], [kind, box], name="lists")
    return keras.Model(
        {"picture": picture, "facts": facts}, {"class": kind, "box": box}, name="dictionaries"
    )


@pytest.fixture(
    scope="module", params=["dictionaries", pytest.param("lists", marks=pytest.mark.matrix)]
)
def taught(request: pytest.FixtureRequest) -> tuple[Any, Dataset]:
    model = net(request.param)
    x, y = scenes()
    data = as_dataset((x, y), model=model, testing=True)
    settings = TrainSettings(epochs=25, batch_size=32, learning_rate=5e-3)
    from compress.core.device import as_device

    train(model, data, settings, device=as_device("cpu"))
    return model, data


def by_hand(model: Any, x: Any, y: Any) -> dict[str, float]:
    made = model.predict(x if isinstance(model.input, dict) else [x["picture"], x["facts"]],
                         verbose=0)  # fmt: skip
    kind, box = (made["class"], made["box"]) if isinstance(made, dict) else made
    rest = np.square(box - y["box"]).sum(0) / np.square(y["box"] - y["box"].mean(0)).sum(0)
    return {"class.accuracy": float((kind.argmax(-1) == y["class"]).mean()),
            "box.r2": float(1 - rest.mean())}  # fmt: skip


def test_training_teaches_both_outputs(taught: tuple[Any, Dataset]) -> None:
    model, data = taught
    assert data.kind == "several"
    assert {item.name: item.kind for item in data.outputs} == {
        "class": "multiclass", "box": "regression"
    }  # fmt: skip
    found = evaluate_model(model, data, "test")
    expected = by_hand(model, data.test.x, data.test.y)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4)
    assert found["mean_quality"] == pytest.approx(np.mean(list(expected.values())), abs=1e-4)
    assert min(expected.values()) > 0.5


@pytest.mark.slow
def test_channels_leave_and_are_repaired(taught: tuple[Any, Dataset]) -> None:
    model, data = taught
    bare = prune_channels(model, macs=0.5, data=data, repair=False, round_to=2)
    mended = prune_channels(model, macs=0.5, data=data, round_to=2)
    assert count_macs(mended.model).macs <= 0.52 * count_macs(model).macs
    lost, kept = (
        evaluate_model(item.model, data, "val")["mean_quality"] for item in (bare, mended)
    )
    assert kept > lost
    weights = prune_weights(model, data, sparsity=0.5, repair=True)
    assert evaluate_model(weights.model, data, "val")["mean_quality"] > lost
    weighed = prune_channels(
        model,
        macs=0.5,
        data=data,
        criterion="reconstruction",
        scope="output_error",
        round_to=2,
        tries=0,
    )
    assert evaluate_model(weighed.model, data, "val")["mean_quality"] > lost
    for criterion in ("taylor", "activation"):
        made = prune_channels(model, macs=0.7, data=data, criterion=criterion)
        assert count_macs(made.model).macs < count_macs(model).macs


def test_each_output_is_taught(taught: tuple[Any, Dataset]) -> None:
    model, data = taught
    student = copy_model(model)
    for variable in student.trainable_variables:
        variable.assign(variable * 0.7)
    before = evaluate_model(student, data, "val")["mean_quality"]
    result = distill(
        student, model, data, epochs=3, batch_size=32, learning_rate=3e-3, weight=1.0,
        feature_losses=["fitnets"],
    )  # fmt: skip
    assert result.training.val["mean_quality"] > before
    teacher = by_hand(model, data.val.x, data.val.y)
    assert result.teacher_val["class.accuracy"] == pytest.approx(teacher["class.accuracy"])
    # a loss of classes teaches the classes; the box has the usual one
    result = distill(copy_model(model), model, data, epochs=1, batch_size=32, loss="dkd")
    assert result.training.val["mean_quality"] > 0.4


@pytest.mark.slow
def test_from_arrays_to_files_that_are_fed_by_name(
    taught: tuple[Any, Dataset], tmp_path: Path
) -> None:
    model, data = taught
    result = compress_model(
        model, data, channels=0.6, finetune_epochs=1, batch_size=32, learning_rate=1e-3, round_to=2,
        latency_budget=0.5, formats=["float32", "int8", "onnx"], out=tmp_path / "out",
    )  # fmt: skip
    assert result.report.main == "mean_quality"
    small = by_hand(result.model, data.test.x, data.test.y)
    for row in result.report.rows:
        ends = result.report.interval(row, "mean_quality")
        assert ends is not None
        assert ends[0] <= row.artifact.test["mean_quality"] <= ends[1]
        if row.artifact.variant == "pruned" and row.artifact.format != "int8":
            for name, value in small.items():
                assert row.artifact.test[name] == pytest.approx(value, abs=1e-3)
    expected = np.concatenate([np.ravel(part) for part in _flat(result.model, data.val.x)])
    for path in result.files.values():
        made = predict_with_file(result.model, prepare_session(path), data.val.x)
        got = np.concatenate([np.ravel(made[name]) for name in ("class", "box")])
        error, scale = np.abs(got - expected), expected.std()
        if "int8" in path.name:
            # what was fed under another's name would be as far off as the answers are spread
            assert np.sqrt(np.square(error).mean()) < 0.15 * scale
        else:
            assert error.max() < 1e-4
    about = json.loads((result.folder / "exports" / f"{model.name}.json").read_text())
    names = ["picture", "facts"] if model.name == "lists" else ["facts", "picture"]
    assert about["inputs"] == names
    assert sorted(about["outputs"]) == ["box", "class"]
    assert about["input_shape"] == {"picture": [1, 12, 12, 1], "facts": [1, 3]}
    assert len(about["files"][f"{model.name}.float32.tflite"]["inputs"]) == 2
    page = (result.folder / "report.html").read_text("utf-8")
    assert "picture 12 x 12 x 1" in page


def _flat(model: Any, x: Any) -> list[Any]:
    made = model.predict(
        x if isinstance(model.input, dict) else [x["picture"], x["facts"]], verbose=0
    )
    return [made["class"], made["box"]] if isinstance(made, dict) else made


@pytest.mark.slow
def test_all_runtimes_time_it(taught: tuple[Any, Dataset]) -> None:
    model, _ = taught
    every = ["litert", "onnx", "tensorflow", "openvino", "mnn"]
    result = bench([model], runtimes=every, formats=["float32"], budget=0.4, threads=[1])
    assert not result.skipped
    assert sorted(item.runtime for item in result.timed) == sorted(every)


def test_a_file_and_a_stream_of_names(tmp_path: Path, cpu: Device) -> None:
    model = net("lists")
    x, y = scenes()
    members = {f"x_train/{name}": value for name, value in x.items()}
    members |= {f"y_train/{name}": value for name, value in y.items()}
    np.savez(tmp_path / "d.npz", **members)
    data = load_data(str(tmp_path / "d.npz"), head=infer_head(model))
    assert data.input_shapes == {"picture": (SIZE, SIZE, 1), "facts": (3,)}
    assert list(data.train.y) == ["class", "box"]
    assert data.preprocess(data.val.x)["facts"].std() == pytest.approx(1.0, abs=0.3)
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    same = as_dataset(stream, model=model)
    whole = as_dataset((x, y), model=model)
    assert same.fingerprint() == whole.fingerprint()
    listed = as_dataset(([x["picture"], x["facts"]], [y["class"], y["box"]]), model=model)
    assert listed.train.y["box"].shape == whole.train.y["box"].shape
    said = as_dataset((x, y), model=model, task="class=multiclass,box=regression")
    assert said.outputs == whole.outputs
    assert not said.notes


@pytest.mark.parametrize(
    ("x", "y", "task", "message"),
    [
        ({"picture": 0}, {"class": 0, "box": 0}, None, "x must have the names picture, facts"),
        ({"picture": 0, "facts": 0}, {"klass": 0, "box": 0}, None,
         "y must have the names class, box. Received: klass, box"),
        ({"picture": 0, "facts": 0}, {"class": 0, "box": 0}, "regression",
         "task must name an output each, like class=regression"),
        ({"picture": 0, "facts": 0}, {"class": 0, "box": 0}, "box=regressoin",
         "Did you mean 'regression'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(x: Any, y: Any, task: str | None, message: str) -> None:
    inputs, labels = scenes()
    given = {name: inputs[name] for name in x}
    told = {name: labels.get(name, labels["class"]) for name in y}
    with pytest.raises(InputError, match=message):
        as_dataset((given, told), model=net("lists"), task=task)

"""Losses and metrics of the user's own: read from the compiled model, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from compress import compress_model, distill
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data.tasks import Custom, Several
from compress.model.compile_config import load_compiled_model, read_compiled_outputs
from compress.model.copies import copy_model
from compress.plan import TrainSettings
from compress.train import train
from compress.train.dataset_loading import as_dataset
from compress.train.predict import evaluate_model, predict_logits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 8)).astype(np.float32)
BOX = np.abs(X @ RNG.normal(size=(8, 2))).astype(np.float32)
KIND = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)


@keras.saving.register_keras_serializable("tests.compiled")  # type: ignore[untyped-decorator]
def far(y: Any, p: Any) -> Any:
    """A loss that is none of Keras's: |y - p| to the power of 1.5."""
    return tf.reduce_mean(tf.abs(y - p) ** 1.5, axis=-1)


def close(y: Any, p: Any) -> Any:
    """The share of numbers that are within a half."""
    return tf.reduce_mean(tf.cast(tf.abs(tf.cast(y, p.dtype) - p) < 0.5, tf.float32), axis=-1)


def net(*, both: bool = False) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    h = layers.Dense(48, activation="relu")(x)
    h = layers.Dense(48, activation="relu")(h)
    box = layers.Dense(2, name="box")(h)
    if not both:
        return keras.Model(x, box, name="own")
    return keras.Model(x, [layers.Dense(3, activation="softmax", name="kind")(h), box], name="both")


def learnt(both: bool = False) -> Any:
    model = net(both=both)
    if both:
        model.compile("adam", loss={"kind": "sparse_categorical_crossentropy", "box": far},
                      metrics={"box": [close, "mae"]})  # fmt: skip
        model.fit(X, [KIND, BOX], epochs=20, batch_size=32, verbose=0)
    else:
        model.compile("adam", loss=far, metrics=[close])
        model.fit(X, BOX, epochs=20, batch_size=32, verbose=0)
    return model


@pytest.fixture(scope="module")
def own() -> Any:
    return learnt()


def test_loss_and_metrics_are_the_users(own: Any) -> None:
    data = as_dataset((X, BOX), model=own)
    assert data.kind == "custom"
    assert "compiled with a loss of its own" in data.notes[0]
    task = data.task
    assert isinstance(task, Custom)
    made = own.predict(data.val.x, verbose=0)
    expected = np.mean(np.abs(data.val.y - made) ** 1.5, axis=-1)
    np.testing.assert_allclose(task.loss(data.val.y, made), expected, rtol=1e-5)
    found = evaluate_model(own, data, "val")
    assert next(iter(found)) == task.qualities[0] == "compiled:close"
    within = np.abs(data.val.y - made) < 0.5
    assert found["compiled:close"] == pytest.approx(within.mean(), abs=1e-6)
    assert found["skill"] == pytest.approx(1 - expected.mean() / task.guess, rel=1e-4)
    # what is evaluated by Keras
    given = own.evaluate(data.val.x, data.val.y, verbose=0, return_dict=True)
    assert given["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert given["close"] == pytest.approx(found["compiled:close"], rel=1e-5)
    # a guess: the answers to other examples
    assert 0.0 <= task.chance(data.val.y) < found["compiled:close"]
    assert task.guess > 3 * expected.mean()


def test_metrics_of_which_less_is_better_select_by_their_negative(own: Any) -> None:
    own.compile("adam", loss=far, metrics=["mae"])
    data = as_dataset((X, BOX), model=own)
    found = evaluate_model(own, data, "val")
    error = np.abs(own.predict(data.val.x, verbose=0) - data.val.y).mean()
    assert next(iter(found)) == "compiled:neg_mean_absolute_error"
    assert found["compiled:neg_mean_absolute_error"] == pytest.approx(-error, rel=1e-5)
    own.compile("adam", loss=far, metrics=[close, "mae"])
    chosen = as_dataset((X, BOX), model=own, metric="-mean_absolute_error")
    assert next(iter(evaluate_model(own, chosen, "val"))) == "compiled:neg_mean_absolute_error"
    with pytest.raises(InputError, match="metric 'clos'.*Did you mean 'close'"):
        as_dataset((X, BOX), model=own, metric="clos")
    bare = copy_model(own)
    bare.compile("adam", loss=far)
    alone = as_dataset((X, BOX), model=bare)
    assert next(iter(evaluate_model(bare, alone, "val"))) == "skill"


def test_training_and_distillation_by_it(own: Any, cpu: Device) -> None:
    own.compile("adam", loss=far, metrics=[close])
    data = as_dataset((X, BOX), model=own)
    student = net()
    before = evaluate_model(student, data, "val")["skill"]
    settings = TrainSettings(epochs=12, batch_size=32, learning_rate=3e-3)
    result = train(student, data, settings, device=cpu)
    assert result.val["skill"] > max(before, 0.5)
    taught = distill(net(), own, data, finetune=settings, weight=1.0, device=cpu)
    assert taught.training.val["skill"] > 0.5
    assert taught.teacher_val["compiled:close"] == pytest.approx(
        evaluate_model(own, data, "val")["compiled:close"], rel=1e-4
    )


@pytest.mark.slow
def test_one_output_of_two_has_its_own(tmp_path: Path) -> None:
    model = learnt(both=True)
    data = as_dataset((X, [KIND, BOX]), model=model, testing=True)
    assert isinstance(data.task, Several)
    assert {name: part.name for name, part in data.task.parts.items()} == {
        "kind": "multiclass", "box": "custom"
    }  # fmt: skip
    result = compress_model(
        model, (X, [KIND, BOX]), channels=0.6, sparsity=0.3, finetune_epochs=4,
        batch_size=32, learning_rate=3e-3, round_to=2, latency_budget=0.3, formats=["float32"],
        out=tmp_path / "out", metric="box.compiled:close",
    )  # fmt: skip
    assert result.report.main == "box.compiled:close"
    made = result.model.predict(data.test.x, verbose=0)
    within = np.abs(made[1] - data.test.y["box"]) < 0.5
    row = next(row for row in result.report.rows if row.artifact.variant == "pruned")
    assert row.artifact.test["box.compiled:close"] == pytest.approx(within.mean(), abs=1e-4)
    assert row.artifact.test["box.skill"] > 0.5
    assert "--task kind=multiclass,box=custom" in result.report.compressed[0].command
    assert "close (box)" in (result.folder / "report.html").read_text("utf-8")


def test_loss_weights_are_those_of_compile() -> None:
    model = net(both=True)
    model.compile("adam", loss={"kind": "sparse_categorical_crossentropy", "box": "mse"},
                  loss_weights={"box": 5.0})  # fmt: skip
    data = as_dataset((X, [KIND, BOX]), model=model)
    assert data.notes[-1] == "losses are weighted as the model was compiled: kind 1, box 5"
    kind, box = model.predict(data.val.x, verbose=0)
    right = kind[np.arange(len(kind)), data.val.y["kind"]]
    expected = -np.log(right) + 5.0 * np.square(box - data.val.y["box"]).mean(-1)
    logits = predict_logits(model, data, "val")
    np.testing.assert_allclose(data.task.loss(data.val.y, logits), expected, rtol=1e-4)
    model.compile("adam", loss=["sparse_categorical_crossentropy", "mse"])
    plain = as_dataset((X, [KIND, BOX]), model=model)
    assert not plain.loss_weights


@pytest.mark.slow
def test_a_file_tells_what_it_was_compiled_with(own: Any, tmp_path: Path) -> None:
    own.compile("adam", loss=far, metrics=["mae"])
    own.save(tmp_path / "own.keras")
    found = read_compiled_outputs(load_compiled_model(tmp_path / "own.keras"))["box"]
    assert found.has_custom_loss
    assert [metric.name for metric in found.metrics] == ["mean_absolute_error"]
    np.savez(tmp_path / "d.npz", x_train=X, y_train=BOX)
    result = compress_model(
        tmp_path / "own.keras", str(tmp_path / "d.npz"), task="custom", normalize="none",
        channels=0.7, sparsity=0, finetune_epochs=1, latency_budget=0.3,
        formats=["float32"], out=tmp_path / "out",
    )  # fmt: skip
    assert result.report.main == "compiled:neg_mean_absolute_error"
    with pytest.raises(InputError, match="normalize must be given.*own loss judges"):
        compress_model(
            tmp_path / "own.keras", str(tmp_path / "d.npz"), task="custom", out=tmp_path / "other"
        )


def test_what_was_not_compiled_is_named(own: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Output 'box' must have a loss for a custom task"):
        as_dataset((X, BOX), model=net(), task="custom")
    model = net(both=True)
    model.compile("adam", loss={"box": far})
    assert read_compiled_outputs(model)["kind"].loss is None
    with pytest.raises(InputError, match="Output 'kind' must have a loss for a custom task"):
        as_dataset((X, [KIND, BOX]), model=model, task="kind=custom")
    model.compile("adam", loss={"bax": far})
    with pytest.raises(InputError, match="loss must name outputs.*kind, box. Received: 'bax'"):
        as_dataset((X, [KIND, BOX]), model=model)
    copy = copy_model(own)
    copy.compile("adam", loss=lambda y, p: tf.reduce_mean(y - p))
    assert read_compiled_outputs(copy)["box"].has_custom_loss
    own.compile("adam", loss="mse", metrics=["mae"])
    assert not read_compiled_outputs(own)["box"].has_custom_loss
    assert as_dataset((X, BOX), model=own).kind == "regression"

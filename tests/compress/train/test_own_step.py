"""A user's own train_step: found, put to work on smaller models, counted, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from compress import compress_model
from compress.core.device import Device
from compress.core.errors import InputError
from compress.model.compile_config import find_custom_train_step, load_compiled_model
from compress.model.copies import copy_model
from compress.plan import TrainSettings
from compress.train import train
from compress.train.dataset_loading import as_dataset

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 8)).astype(np.float32)
BOX = np.abs(X @ RNG.normal(size=(8, 2))).astype(np.float32)


@keras.saving.register_keras_serializable("tests.own_step")  # type: ignore[untyped-decorator]
class Counting(keras.Model):  # type: ignore[misc]
    """Counts its steps, adds a share of the outputs' squares to the loss, keeps a metric."""

    def __init__(self, *args: Any, share: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.share = share
        self.calls = tf.Variable(0, trainable=False)
        self.spread = keras.metrics.Mean(name="spread")

    def train_step(self, data: Any) -> Any:
        """Does one step as Keras's guide has it."""
        x, y, w = keras.utils.unpack_x_y_sample_weight(data)
        self.calls.assign_add(1)
        with tf.GradientTape() as tape:
            made = self(x, training=True)
            loss = self.compute_loss(x, y, made, w) + self.share * tf.reduce_mean(made**2)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.spread.update_state(tf.reduce_mean(made**2))
        return {**self.compute_metrics(x, y, made, w), "loss": loss}


def net(share: float = 0.0) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    h = layers.Dense(32, activation="relu", name="a")(x)
    h = layers.Dense(32, activation="relu", name="b")(h)
    model = Counting(x, layers.Dense(2, name="box")(h), share=share, name="counting")
    model.compile("adam", loss="mse", metrics=["mae"])
    return model


def settings(**changes: Any) -> TrainSettings:
    how: dict[str, Any] = {
        "epochs": 3, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.05,
        "learning_rate_schedule": "constant", "own_train_step": True,
    }  # fmt: skip
    return TrainSettings(**how | changes)


def test_each_step_of_training_is_the_users(cpu: Device) -> None:
    model = net()
    data = as_dataset((X, BOX), model=model, task="custom")
    trained = train(model, data, settings(), device=cpu)
    steps = 3 * (len(data.train) // 32)
    assert trained.steps == steps
    assert int(model.calls) == steps
    assert trained.history[-1].loss < trained.history[0].loss


def test_one_step_is_the_arithmetic_of_the_users_loss(cpu: Device) -> None:
    """One step of SGD on the whole training part, against the gradients written out by hand."""
    share, rate = 0.3, 0.1
    keras.utils.set_random_seed(1)
    x = keras.Input((8,))
    model = Counting(x, layers.Dense(2, name="box")(x), share=share, name="line")
    model.compile("adam", loss="mse")
    w, b = (value.astype(np.float64) for value in model.get_weights())
    data = as_dataset((X, BOX), model=model, task="custom")
    # one epoch of one batch: validation selects among one
    how = settings(epochs=1, batch_size=len(data.train), learning_rate=rate)
    train(model, data, how, device=cpu)
    given, wanted = data.train.x.astype(np.float64), data.train.y.astype(np.float64)
    made = given @ w + b
    slope = (2 * (made - wanted) + 2 * share * made) / made.size
    np.testing.assert_allclose(model.get_weights()[0], w - rate * given.T @ slope, atol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], b - rate * slope.sum(0), atol=1e-5)


def test_a_smaller_model_is_trained_by_it() -> None:
    model = net(share=0.1)
    own = find_custom_train_step(model)
    assert own is not None
    keras.utils.set_random_seed(2)
    x = keras.Input((8,))
    small = keras.Model(x, layers.Dense(2)(layers.Dense(5, activation="relu")(x)), name="small")
    worker = own.build_model(small, keras.optimizers.SGD(0.1))
    assert isinstance(worker, Counting)
    assert worker.share == 0.1
    assert worker.calls is model.calls  # shared, but no weight of the smaller model
    assert worker.spread is not model.spread
    assert [id(v) for v in worker.trainable_variables] == [id(v) for v in small.trainable_variables]
    before = small.get_weights()[0].copy()
    worker.train_step((X[:32], BOX[:32]))
    assert (small.get_weights()[0] != before).any()
    assert int(model.calls) == 1


def test_weights_of_examples_reach_it(cpu: Device) -> None:
    """Examples of weight 0 change nothing: equal to training without them, weights apart."""
    model = net()
    other = copy_model(keras.Model(model.input, model.output))
    half = np.repeat([1.0, 0.0], 320).astype(np.float32)
    val = X[:50, ::-1], BOX[:50]  # other rows than those that train
    data = as_dataset((X, BOX, half), model=model, task="custom", val=val)
    train(model, data, settings(epochs=1, batch_size=640), device=cpu)
    single = Counting(other.input, other.output)
    single.compile(keras.optimizers.SGD(0.05), loss="mse")
    single.train_on_batch(X, BOX, sample_weight=half)
    for mine, theirs in zip(model.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_compress_fine_tunes_by_it(tmp_path: Path, in_memory: bool) -> None:
    model = net(share=0.01)
    model.fit(X, BOX, epochs=8, verbose=0)
    model.calls.assign(0)
    given: Any = model
    if not in_memory:
        given = tmp_path / "counting.keras"
        model.save(given)
    result = compress_model(
        given, (X, BOX), channels=0.5, sparsity=0.5 if in_memory else 0.0, finetune_epochs=2,
        batch_size=64, own_train_step=True, formats=["float32"], round_to=2, latency_budget=0.2,
        out=tmp_path / "out",
    )  # fmt: skip
    (record,) = (item for item in result.report.compressed)
    assert not record.teacher
    assert "fine-tuned by the train_step of Counting, without a teacher" in record.notes
    if in_memory:  # two epochs of the training part, 64 at a time
        train_part = len(as_dataset((X, BOX), model=model, task="custom", testing=True).train)
        assert int(model.calls) == 2 * (train_part // 64)
        zeros = np.asarray(result.model.get_layer("b").kernel) == 0
        assert abs(zeros.mean() - 0.5) < 0.02  # masks hold where the user's step changes weights
    assert result.model.get_layer("a").units < 32


class Encoding(Counting):
    """Reaches for a layer by an attribute, which belongs to the larger model."""

    def train_step(self, data: Any) -> Any:
        """Fails on other models."""
        self.encoder(data[0])
        return super().train_step(data)


class Silent(Counting):
    """Returns nothing."""

    def train_step(self, data: Any) -> Any:
        """Does nothing."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Encoding, "AttributeError.*encoder.*get_layer"), (Silent, "numbers by name.*NoneType")],
)
def test_a_step_that_cannot_run_is_told_before_any_work(
    tmp_path: Path, kind: Any, words: str
) -> None:
    base = net()
    model = kind(base.input, base.output, name="base")
    model.encoder = base.get_layer("a")
    model.compile("adam", loss="mse")
    with pytest.raises(InputError, match=f"(?s)train_step of {kind.__name__}.*{words}"):
        compress_model(model, (X, BOX), channels=0.5, own_train_step=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_with_it_is_refused(tmp_path: Path) -> None:
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    plain.compile("adam", loss="mse")
    with pytest.raises(InputError, match="class has a train_step"):
        compress_model(plain, (X, BOX), own_train_step=True, sparsity=0.5, out=tmp_path / "a")
    with pytest.raises(InputError, match="must go with the task custom"):
        compress_model(net(), (X, BOX), own_train_step=True, sparsity=0.5, task="regression",
                       out=tmp_path / "b")  # fmt: skip
    with pytest.raises(InputError, match="teacher must be none where"):
        compress_model(net(), (X, BOX), own_train_step=True, teacher="big.keras")
    with pytest.raises(InputError, match="label_smoothing must be 0"):
        TrainSettings(own_train_step=True, label_smoothing=0.1)
    with pytest.raises(InputError, match="feature_losses must go with a teacher"):
        compress_model(net(), (X, BOX), own_train_step=True, feature_losses=["fitnets"])


def test_a_file_of_an_unknown_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.keras"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"The class of '.*none.keras' .* must be found again"):
        load_compiled_model(path)

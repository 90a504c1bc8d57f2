"""Losses of a model's own (regularizers, add_loss) against Keras's `fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress import distill
from compress.core.device import Device
from compress.data import Dataset, Preprocessing, Split
from compress.plan import DistillOptions, TrainSettings
from compress.train import steps, train

EPOCHS = 4
FULL = TrainSettings(
    epochs=EPOCHS,
    batch_size=60,
    optimizer="sgd",
    learning_rate=0.2,
    learning_rate_schedule="constant",
)
"""One step an epoch, on all examples: the order of batches does not matter."""


@pytest.fixture
def images() -> Dataset:
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        y = np.arange(count) % 3
        x = rng.normal(size=(count, 4, 4, 2)) + y[:, None, None, None]
        return Split(x.astype(np.float32), y)

    return Dataset("images", part(60), part(30), part(30), ("a", "b", "c"), Preprocessing())


def penalized(head: str = "logits", policy: str = "float32") -> Any:
    """A network whose every way to add a loss is used, some of them twice a call.

    Losses of activations are float32 under every policy: `fit` cannot add others to them.
    """
    import keras

    class Spread(keras.layers.Layer):
        """Adds two losses of its inputs, one of them only in training."""

        def call(self, x: Any, training: bool | None = None) -> Any:
            self.add_loss(0.05 * keras.ops.mean(keras.ops.square(x)))
            if training:
                self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(x), axis=0))
            return x

    keras.utils.set_random_seed(0)
    regularizers = keras.regularizers
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", kernel_regularizer=regularizers.L2(0.05),
                            dtype=policy)(inputs)  # fmt: skip
    x = keras.layers.BatchNormalization(
        gamma_regularizer=regularizers.L1(0.02), beta_regularizer=regularizers.L2(0.3), name="bn",
        dtype=policy,
    )(x)  # fmt: skip
    x = keras.layers.ReLU(activity_regularizer=regularizers.L2(0.01), dtype="float32", name="relu")(
        x
    )
    x = keras.layers.GlobalAveragePooling2D(dtype=policy)(x)
    spread = Spread(dtype="float32")
    x = spread(keras.layers.Rescaling(2.0, dtype=policy)(spread(x)))
    shared = keras.layers.Dense(4, activation="tanh", bias_regularizer=regularizers.L2(0.5),
                                activity_regularizer=regularizers.L1(0.03),
                                dtype="float32")  # fmt: skip
    x = shared(shared(x))
    inner = keras.Input((4,))
    dense = keras.layers.Dense(4, kernel_regularizer=regularizers.L1L2(0.01, 0.02), dtype=policy)
    x = keras.Model(inner, dense(inner), name="nested")(x)
    frozen = keras.layers.Dense(4, kernel_regularizer="l2", trainable=False, dtype=policy)
    x = frozen(x)
    last: dict[str, Any] = {"dtype": "float32", "activity_regularizer": regularizers.L2(0.4)}
    kernel = regularizers.L2(0.1)
    if head == "dense":
        outputs = keras.layers.Dense(3, "softmax", kernel_regularizer=kernel, **last)(x)
    elif head == "layer":
        x = keras.layers.Dense(3, kernel_regularizer=kernel, dtype="float32")(x)
        outputs = keras.layers.Activation("softmax", **last)(x)
    else:
        outputs = keras.layers.Dense(3, kernel_regularizer=kernel, **last)(x)
    return keras.Model(inputs, outputs)


def fitted(
    data: Dataset, head: str = "logits", batch: int = 60, epochs: int = EPOCHS, **how: Any
) -> tuple[Any, list[float]]:
    """Returns the model after `fit`, and its losses."""
    import keras

    policy = how.pop("policy", "float32")
    model = penalized(head, policy)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head == "logits")
    # fit compiles with XLA where it can: rounding would differ
    model.compile(keras.optimizers.SGD(0.2, **how), loss, jit_compile=False)
    history = model.fit(data.train.x, data.train.y, batch, epochs, verbose=0, shuffle=False)
    return model, history.history["loss"]


def trained(
    model: Any, run: Callable[[Any], Any], data: Dataset
) -> tuple[list[Any], list[float], Any]:
    """Returns the weights after the last epoch, the losses, and the result."""
    last: list[Any] = []
    losses: list[float] = []

    def on_epoch(epoch: int, epochs: int, record: Any) -> None:
        last[:] = model.get_weights()
        losses.append(record.loss)

    return last, losses, run(on_epoch)


def assert_same(model: Any, last: list[Any], **tolerance: float) -> None:
    for weight, got in zip(model.weights, last, strict=True):
        np.testing.assert_allclose(got, weight.numpy(), err_msg=weight.path, **tolerance)


@pytest.mark.parametrize(
    "head", [*(pytest.param(item, marks=pytest.mark.slow) for item in ("logits", "layer")), "dense"]
)
def test_training_equals_fit(images: Dataset, cpu: Device, head: str) -> None:
    """The activity of the last layer is that of its outputs, whatever the loop reads off."""
    expected, losses = fitted(images, head)
    model = penalized(head)
    first = [w.copy() for w in model.get_weights()]
    last, got, result = trained(
        model, lambda tell: train(model, images, FULL, device=cpu, on_epoch=tell), images
    )
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    assert_same(expected, last, atol=2e-5)
    moved = max(np.abs(a - b).max() for a, b in zip(first, last, strict=True))
    assert moved > 0.05
    # the validation loss is the task's alone: it judges
    logits = expected(images.val.x, training=False).numpy()
    if head == "logits":
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    else:
        logits = np.log(logits)
    plain = -logits[np.arange(30), images.val.y].mean()
    assert result.history[-1].val_loss == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("hints", [(), ("fitnets",)], ids=["logits", "features"])
def test_distillation_adds_the_students_losses_alone(
    images: Dataset, cpu: Device, hints: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of 0 for what is distilled: what is left is `fit`; teachers' losses would show."""
    expected, losses = fitted(images)
    # the teacher runs at every step, on images that augmentation does not change
    monkeypatch.setattr(steps, "augment_images", lambda images, *_: images)
    settings = replace(FULL, augment=("flip",))
    model, teacher = penalized(), penalized("dense")
    teacher.set_weights([w + 0.1 for w in teacher.get_weights()])
    options = DistillOptions(weight=0.0, feature_losses=hints, feature_weight=0.0)
    if hints:
        options = replace(options, feature_pairs=("relu=relu",))
    last, got, _ = trained(
        model,
        lambda tell: distill(
            model, teacher, images, options, finetune=settings, device=cpu, on_epoch=tell
        ),
        images,
    )
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    assert_same(expected, last, atol=2e-5)


@pytest.mark.slow
def test_compiled_training_equals_fit(images: Dataset, cpu: Device) -> None:
    expected, losses = fitted(images)
    model = penalized()
    last, got, result = trained(
        model,
        lambda tell: train(model, images, FULL, device=replace(cpu, jit=True), on_epoch=tell),
        images,
    )
    assert result.notes == ()
    np.testing.assert_allclose(got, losses, rtol=1e-4)
    assert_same(expected, last, atol=1e-4)


def test_parts_of_a_batch_hold_the_losses_once(
    images: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `fit` that accumulates over the halves of each batch, in the order of the loop."""
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(60) for _ in range(EPOCHS)])
    parts = replace(images, train=images.train.take(order))
    expected, losses = fitted(parts, batch=30, epochs=1, gradient_accumulation_steps=2)
    model = penalized()
    monkeypatch.setattr("compress.train.loop.count_batch_parts", lambda *_, **__: 2)
    last, got, _ = trained(
        model, lambda tell: train(model, images, FULL, device=cpu, on_epoch=tell), images
    )
    np.testing.assert_allclose(np.mean(got), losses, rtol=1e-5)
    assert_same(expected, last, atol=2e-5)


def test_scaled_gradients_hold_the_losses(images: Dataset, cpu: Device) -> None:
    expected, losses = fitted(images, policy="mixed_float16")
    model = penalized(policy="mixed_float16")
    mixed = replace(cpu, policy="mixed_float16")
    last, got, _ = trained(
        model, lambda tell: train(model, images, FULL, device=mixed, on_epoch=tell), images
    )
    np.testing.assert_allclose(got, losses, rtol=2e-3)
    assert_same(expected, last, atol=5e-3)


def test_nothing_of_a_step_stays_in_the_model(images: Dataset, cpu: Device) -> None:
    """Losses of a traced step are no values: read later, they would be an error."""
    import keras

    model = penalized("dense")
    regularizer = model.layers[-1].activity_regularizer
    train(model, images, replace(FULL, epochs=1), device=cpu)
    assert model.layers[-1].activity_regularizer is regularizer
    assert model.layers[-1].activation is keras.activations.softmax
    found = [float(np.sum(loss)) for loss in model.losses]
    own = [v.regularizer(v) for v in model.trainable_variables if v.regularizer is not None]
    np.testing.assert_allclose(found, [float(value) for value in own])
    assert len(found) == 6


def test_pruned_channels_keep_their_regularizers() -> None:
    import keras

    from compress import prune_channels

    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(8, 3, kernel_regularizer=keras.regularizers.L2(0.1), name="a")(inputs)
    x = keras.layers.BatchNormalization(gamma_regularizer=keras.regularizers.L1(0.2), name="b")(x)
    x = keras.layers.ReLU(activity_regularizer=keras.regularizers.L1(0.3), name="c")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    pruned = prune_channels(model, macs=0.5, scope="layer", round_to=1).model
    kernel, gamma = pruned.get_layer("a").kernel.numpy(), pruned.get_layer("b").gamma.numpy()
    assert gamma.shape == (4,)
    out = pruned.get_layer("c")
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype(np.float32)
    pruned(x)
    active = keras.Model(pruned.input, out.output)(x).numpy()
    pruned(x)
    expected = [0.3 * np.abs(active).sum() / 5, 0.1 * (kernel**2).sum(), 0.2 * np.abs(gamma).sum()]
    np.testing.assert_allclose(sorted(map(float, pruned.losses)), sorted(expected), rtol=1e-5)

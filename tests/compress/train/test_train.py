"""The training loop against arithmetic done apart from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from compress.core.device import Device
from compress.core.errors import InputError, TrainingDiverged
from compress.data import Dataset, Preprocessing, Split
from compress.data.tasks import VOID
from compress.model.layer_patches import use_fused_batch_norm
from compress.plan import TrainSettings
from compress.train import compute_class_weights, loop, train
from compress.train.dataset_loading import as_dataset
from compress.train.predict import predict_logits
from compress.train.steps import augment_images, augment_labels, check_augment
from tests.patience import PATIENCE
from tests.same import same_arrays


def linear(data: Dataset) -> Any:
    """Builds softmax regression with weights of zero."""
    import keras

    inputs = keras.Input(data.input_shape)
    outputs = keras.layers.Dense(
        data.num_classes, activation="softmax", kernel_initializer="zeros"
    )(inputs)
    return keras.Model(inputs, outputs)


SGD = TrainSettings(epochs=2, optimizer="sgd", learning_rate=0.1, learning_rate_schedule="constant")


def test_progress_is_reported_within_epochs(
    blobs: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 5)
    shares: list[float] = []
    train(linear(blobs), blobs, replace(SGD, batch_size=20), device=cpu, on_share=shares.append)
    # 12 steps an epoch, 5 a call; the validation is the last twentieth of an epoch
    expected = [0.95 * 5 / 12, 0.95 * 10 / 12, 0.95]
    np.testing.assert_allclose(
        shares, [0.0, *(np.array(expected) / 2), *(0.5 + np.array(expected) / 2)]
    )


def test_three_epochs_of_a_third_of_the_examples_are_one_of_all(
    blobs: Dataset, cpu: Device
) -> None:
    """Every example is drawn once before any is drawn again, so the same 12 steps are made."""
    settings = replace(SGD, batch_size=20)
    last: list[Any] = []
    for epochs, examples in ((1, None), (3, 80)):
        model, seen = linear(blobs), []
        result = train(
            model, blobs, replace(settings, epochs=epochs, epoch_examples=examples), device=cpu,
            seed=5, on_epoch=lambda *_, model=model, seen=seen: seen.append(model.get_weights()),
        )  # fmt: skip
        assert (result.steps, len(seen)) == (12, epochs)
        last.append(seen[-1])
    same_arrays(last[0], last[1])


def test_a_time_limit_ends_a_training_within_an_epoch(
    blobs: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over before it begins: one call of 5 steps is made, of two epochs of 12 steps."""
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 5)
    model = linear(blobs)
    result = train(model, blobs, replace(SGD, batch_size=20), device=cpu, seconds=0.0)
    assert result.steps == 5
    assert [record.share for record in result.history] == [5 / 12]
    assert result.notes == (
        "its time limit of 0 s ended the training after 5 of 24 steps",
    )  # fmt: skip
    # what stops a training otherwise is no time limit
    stopped = train(
        linear(blobs), blobs, replace(SGD, batch_size=20), device=cpu, seconds=PATIENCE,
        should_stop=lambda record: True,
    )  # fmt: skip
    assert (stopped.steps, stopped.notes) == (12, ())
    logits = predict_logits(model, blobs, "val")
    assert result.val["accuracy"] == np.mean(logits.argmax(1) == blobs.val.y)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_softmax_regression_equals_numpy(blobs: Dataset, cpu: Device, weights: str) -> None:
    """Two epochs of SGD with the same batches, written out in NumPy."""
    y = blobs.train.y.copy()
    y[:60] = 0  # unbalanced, so that class weights matter
    data = replace(
        blobs,
        train=Split(blobs.train.x, y),
        preprocess=Preprocessing(0.5, (1.0, 0.0, 0.0, 0.0), (2.0, 1.0, 1.0, 1.0)),
    )
    model = linear(data)
    settings = replace(SGD, batch_size=100, label_smoothing=0.1, class_weights=weights)
    result = train(model, data, settings, device=cpu, seed=5)

    x = (data.train.x * 0.5 - [1.0, 0, 0, 0]) / [2.0, 1, 1, 1]
    counts = np.bincount(y)
    per_class = 240 / (3 * counts) if weights == "balanced" else np.ones(3)
    order = np.random.default_rng(5)
    kernel, bias, snapshots, losses = np.zeros((4, 3)), np.zeros(3), [], []
    for _ in range(2):
        total = 0.0
        for batch in order.permutation(240)[:200].reshape(2, 100):  # 40 are left over
            target = np.eye(3)[y[batch]] * 0.9 + 0.1 / 3
            probability = softmax(x[batch] @ kernel + bias, axis=-1)
            example = per_class[y[batch]]
            total += (-(target * np.log(probability)).sum(-1) * example).mean()
            error = (probability - target) * example[:, None] / 100
            kernel, bias = kernel - 0.1 * x[batch].T @ error, bias - 0.1 * error.sum(0)
        snapshots.append((kernel, bias))
        losses.append(total / 2)
    np.testing.assert_allclose([record.loss for record in result.history], losses, rtol=1e-5)
    kernel, bias = snapshots[result.best_epoch - 1]
    np.testing.assert_allclose(model.layers[-1].kernel.numpy(), kernel, atol=1e-6)
    np.testing.assert_allclose(model.layers[-1].bias.numpy(), bias, atol=1e-6)
    assert result.steps == 4


def test_same_seed_same_weights(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    settings = TrainSettings(epochs=1)
    first, second, third = small_cnn(), small_cnn(), small_cnn()
    train(first, digits, settings, device=cpu, seed=3)
    train(second, digits, settings, device=cpu, seed=3)
    train(third, digits, settings, device=cpu, seed=4)
    same_arrays(first.get_weights(), second.get_weights(), atol=1e-6)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(first.get_weights(), third.get_weights(), strict=True)
    )


def test_best_epoch_is_restored(blobs: Dataset, cpu: Device) -> None:
    """A learning rate that wrecks the model now and then: the last epoch is not the best."""
    seen = []
    model = linear(blobs)

    def on_epoch(epoch: int, epochs: int, record: Any) -> None:
        seen.append((record.val["accuracy"], -record.val_loss, [w.copy() for w in weights()]))

    def weights() -> list[Any]:
        return list(model.get_weights())

    settings = replace(SGD, epochs=12, learning_rate=30.0, batch_size=16)
    noisy = replace(blobs, train=Split(blobs.train.x * 3, blobs.train.y))
    result = train(model, noisy, settings, device=cpu, on_epoch=on_epoch)
    best = max(range(12), key=lambda index: seen[index][:2])
    assert result.best_epoch == best + 1
    assert best != 11, "the case must have a best epoch before the last"
    same_arrays(model.get_weights(), seen[best][2])


def test_a_hook_can_forbid_epochs(blobs: Dataset, cpu: Device) -> None:
    class Late:
        def start(self, model: Any, step: Any, total_steps: int, *_: Any, **__: Any) -> None:
            self.total = total_steps

        def may_select(self, step: int) -> bool:
            return step >= self.total

        def state(self) -> dict[str, Any]:
            return {}

    result = train(linear(blobs), blobs, replace(SGD, epochs=5), device=cpu, hooks=[Late()])
    assert result.best_epoch == 5


def test_divergence_ends_with_a_reason(blobs: Dataset, cpu: Device) -> None:
    infinite = replace(SGD, learning_rate=3e38, batch_size=60)
    with pytest.raises(TrainingDiverged, match="the loss is NaN or infinite in epoch 1"):
        train(linear(blobs), blobs, infinite, device=cpu)
    exploding = replace(SGD, learning_rate=1e4)
    with pytest.raises(TrainingDiverged, match="above 10 times that of guessing"):
        train(linear(blobs), blobs, exploding, device=cpu)


def test_balanced_weights_by_hand(blobs: Dataset) -> None:
    data = replace(blobs, train=blobs.train.take(np.array([0, 3, 6, 1, 2])))  # 3, 1, 1
    np.testing.assert_allclose(compute_class_weights(data, "balanced"), [5 / 9, 5 / 3, 5 / 3])
    np.testing.assert_array_equal(compute_class_weights(data, "none"), [1, 1, 1])


def test_a_model_without_weights_is_refused(blobs: Dataset, cpu: Device) -> None:
    import keras

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.ops.take(inputs, [0, 1, 2], axis=1)))
    with pytest.raises(InputError, match="must have trainable weights"):
        train(model, blobs, SGD, device=cpu)


def test_predict_logits_pads_and_keeps_order(digits: Dataset, small_cnn: Any) -> None:
    model = small_cnn(softmax="none")
    expected = model(digits.inputs("train"), training=False).numpy()  # 1221 = 1024 + 197
    np.testing.assert_allclose(predict_logits(model, digits, "train"), expected, atol=1e-5)


def test_xla_gives_the_same(blobs: Dataset, cpu: Device) -> None:
    plain, compiled = linear(blobs), linear(blobs)
    train(plain, blobs, SGD, device=cpu)
    result = train(compiled, blobs, SGD, device=replace(cpu, jit=True))
    assert result.notes == ()
    same_arrays(plain.get_weights(), compiled.get_weights(), atol=1e-6)


def test_what_xla_cannot_compile_runs_without_it(blobs: Dataset, cpu: Device) -> None:
    import keras
    import tensorflow as tf

    class Opaque(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            same = tf.numpy_function(lambda v: v, [x], tf.float32, stateful=False)
            same.set_shape(x.shape)
            return same * 0.0 + x

    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, kernel_initializer="zeros")(Opaque()(inputs))
    model = keras.Model(inputs, outputs)
    result = train(model, blobs, SGD, device=replace(cpu, jit=True))
    assert len(result.notes) == 1
    assert result.notes[0].startswith("trained without XLA: ")
    reference = linear(blobs)
    train(reference, blobs, SGD, device=cpu)
    np.testing.assert_allclose(model.layers[-1].kernel, reference.layers[-1].kernel, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_and_saves_as_float32(
    blobs: Dataset, cpu: Device, policy: str
) -> None:
    import keras

    from compress.model.copies import convert_to_float32

    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu", dtype=policy)(inputs)
    outputs = keras.layers.Dense(3, dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    settings = TrainSettings(epochs=30, optimizer="adam", learning_rate=0.01, batch_size=32)
    result = train(model, blobs, settings, device=replace(cpu, policy=policy))
    assert result.val["accuracy"] > 0.9
    plain = convert_to_float32(model)
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    np.testing.assert_allclose(
        plain(blobs.inputs("val")).numpy(), model(blobs.inputs("val")).numpy(), atol=0.1
    )


def test_fused_normalization_is_the_same_layer(small_cnn: Callable[..., Any]) -> None:
    """Outputs, gradients and moving statistics of one training call, fused and plain."""
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(0).normal(size=(16, 8, 8, 1)), tf.float32)

    def once(model: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return loss, gradients, [v.numpy() for v in model.non_trainable_variables]

    plain, fused = small_cnn(softmax="none"), small_cnn(softmax="none")
    for model in (plain, fused):
        model.get_layer("bn").gamma.assign(np.linspace(0.5, 2, 16))
    expected = once(plain)
    with use_fused_batch_norm(fused) as count:
        assert count == 1
        got = once(fused)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
    same_arrays(got[1], expected[1], rtol=1e-3, atol=1e-4)
    same_arrays(got[2], expected[2], rtol=1e-5, atol=1e-7)
    assert "call" not in vars(fused.get_layer("bn"))


def test_frozen_normalizations_stay_frozen_and_vectors_plain() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    frozen = keras.layers.BatchNormalization(trainable=False)
    x = keras.layers.BatchNormalization(scale=False)(frozen(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(x))
    frozen.moving_mean.assign([1.0, 2.0, 3.0])
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    expected = frozen(x, training=True).numpy()
    with use_fused_batch_norm(model) as count:
        assert count == 1
        np.testing.assert_allclose(frozen(x, training=True).numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(frozen.moving_mean.numpy(), [1.0, 2.0, 3.0])


def test_fused_inference_is_the_same(small_cnn: Callable[..., Any]) -> None:
    model, rng = small_cnn(), np.random.default_rng(0)
    normalization = model.get_layer("bn")
    for variable in normalization.weights:
        variable.assign(rng.uniform(0.5, 2, 16))
    x = rng.normal(size=(16, 8, 8, 1)).astype(np.float32)
    expected = model(x, training=False).numpy()
    with use_fused_batch_norm(model):
        with use_fused_batch_norm(model) as count:
            assert count == 0  # the context around it has fused them, and restores them
        assert "call" in vars(normalization)
        np.testing.assert_allclose(model(x, training=False).numpy(), expected, atol=1e-6)
    assert "call" not in vars(normalization)


@pytest.mark.parametrize("weights", [[2.0, 1.0, 3.0], [4.0, 2.0, 6.0]])
def test_an_example_of_weight_two_counts_like_two(
    blobs: Dataset, cpu: Device, weights: list[float]
) -> None:
    """One full batch a step; the scale of the weights does not matter."""
    three = blobs.train.take(np.arange(3))
    weighted = replace(three, weight=np.array(weights, np.float32))
    repeated = three.take(np.array([0, 0, 1, 2, 2, 2]))
    models = []
    for part in (weighted, repeated):
        models.append(linear(blobs))
        data = replace(blobs, train=part)
        train(models[-1], data, replace(SGD, epochs=5), device=cpu)
    same_arrays(models[0].get_weights(), models[1].get_weights(), atol=1e-6)


@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
def test_an_interrupted_training_goes_on(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], tmp_path: Path, optimizer: str
) -> None:
    """Stopped after two of four epochs, resumed in a fresh model: the same to the last bit."""
    settings = TrainSettings(
        epochs=4, batch_size=64, optimizer=optimizer, weight_decay=0.01, augment=("shift",)
    )
    whole, first, second = small_cnn(), small_cnn(), small_cnn(3)
    expected = train(whole, digits, settings, device=cpu, seed=2)

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    file = tmp_path / "training.npz"
    with pytest.raises(KeyboardInterrupt):
        train(first, digits, settings, device=cpu, seed=2, checkpoint=file, on_epoch=stop)
    seen: list[int] = []
    result = train(
        second, digits, settings, device=cpu, seed=2, checkpoint=file,
        on_epoch=lambda epoch, *_: seen.append(epoch),
    )  # fmt: skip
    assert seen == [3, 4]
    assert [r.loss for r in result.history] == [r.loss for r in expected.history]
    assert result.best_epoch == expected.best_epoch
    same_arrays(whole.get_weights(), second.get_weights())
    with pytest.raises(InputError, match="'seed 2' instead of 'seed 3'"):
        train(small_cnn(), digits, settings, device=cpu, seed=3, checkpoint=file)
    other = replace(settings, learning_rate=0.5)
    with pytest.raises(InputError, match="learning_rate 0.001' instead of 'learning_rate 0.5'"):
        train(small_cnn(), digits, other, device=cpu, seed=2, checkpoint=file)
    file.write_bytes(b"torn")
    with pytest.raises(InputError, match="must be written by train"):
        train(small_cnn(), digits, settings, device=cpu, seed=2, checkpoint=file)


@pytest.mark.parametrize("value", [1, 2])
def test_a_training_of_a_version_with_accumulate_goes_on_where_it_was_off(
    blobs: Dataset, cpu: Device, tmp_path: Path, value: int
) -> None:
    file, model = tmp_path / "training.npz", linear(blobs)
    train(
        model, blobs, SGD, device=cpu, checkpoint=file,
        should_stop=lambda record: record.epoch == 1,
    )  # fmt: skip
    with np.load(file) as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays["about"]))
    about["identity"] += f"\naccumulate {value}"
    np.savez(file, **{**arrays, "about": np.array(json.dumps(about))})
    seen: list[int] = []

    def resume() -> None:
        train(
            model, blobs, SGD, device=cpu, checkpoint=file,
            on_epoch=lambda epoch, *_: seen.append(epoch),
        )  # fmt: skip

    if value == 1:
        resume()
        assert seen == [2]
        return
    with pytest.raises(InputError, match="A checkpoint must belong to the training"):
        resume()


def test_augmentation_flips_and_shifts_by_the_step(digits: Dataset) -> None:
    images = np.arange(1, 1 + 64 * 16 * 16, dtype=np.float32).reshape(64, 16, 16, 1)
    for names in (("flip",), ("shift",), ("flip", "shift")):
        one, again, other = (augment_images(images, names, 0, step).numpy() for step in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
    flipped = augment_images(images, ("flip",), 0, 1).numpy()
    turned = [not np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert 16 < sum(turned) < 48
    for place in range(64):
        expected = images[place, :, ::-1] if turned[place] else images[place]
        np.testing.assert_array_equal(flipped[place], expected)
    moves = set()
    for image, got in zip(images, augment_images(images, ("shift",), 0, 1).numpy(), strict=True):
        candidates = {(y, x): _shifted(image, y, x) for y in range(-2, 3) for x in range(-2, 3)}
        (found,) = [k for k, v in candidates.items() if np.array_equal(v, got)]
        moves.add(found)
    assert len(moves) > 15
    rows = as_dataset((np.zeros((20, 4)), np.arange(20) % 2))
    with pytest.raises(InputError, match=r"images .height, width, channels.* shape \(4,\)"):
        check_augment(("flip",), rows)


def by_position(y: Any, task: str) -> Dataset:
    return as_dataset((np.zeros((20, 16, 16, 1), np.float32), y), task=task)


@pytest.mark.parametrize("names", [("flip",), ("shift",), ("flip", "shift")])
def test_labels_by_position_move_with_their_images(names: tuple[str, ...]) -> None:
    labels = np.random.default_rng(0).integers(5, size=(20, 16, 16))
    data = by_position(labels, "segmentation")
    # images that show their labels; 0 comes in at the edges, where labels are void
    images = (labels[..., None] + 1).astype(np.float32)
    changed = augment_images(images, names, 3, 7).numpy()[..., 0]
    moved_labels = augment_labels(tf.constant(labels), data, names, 3, 7).numpy()
    np.testing.assert_array_equal(moved_labels, changed - 1)
    assert VOID in moved_labels or "shift" not in names
    classes = tf.constant(np.arange(4))
    digits_like = as_dataset((np.zeros((40, 4, 4, 1)), np.arange(40) % 4))
    assert augment_labels(classes, digits_like, names, 3, 7) is classes


def test_labels_that_cannot_move_are_refused() -> None:
    half = by_position(np.random.default_rng(0).integers(2, size=(20, 8, 8)), "segmentation")
    with pytest.raises(InputError, match=r"labels at \(8, 8\) positions, images of \(16, 16\)"):
        check_augment(("flip",), half)
    depth = by_position(np.zeros((20, 16, 16, 1)), "regression")
    check_augment(("flip",), depth)
    with pytest.raises(InputError, match="Use 'flip' alone"):
        check_augment(("shift",), depth)


def _shifted(image: Any, y: int, x: int) -> Any:
    moved = np.zeros_like(image)
    source = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    moved[:] = source[2 + y : 18 + y, 2 + x : 18 + x]
    return moved

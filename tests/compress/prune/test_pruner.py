"""Weight pruning against a NumPy oracle and against arithmetic on the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress import prune_weights
from compress.data import Dataset
from compress.device import Device
from compress.errors import InputError, TrainingDiverged
from compress.plan import TrainSettings, WeightOptions
from compress.prune.weights import WeightPruner, find_targets, update_times
from compress.train import train


def oracle_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Keeps the k largest magnitudes, k = round(n * (1 - s)) in float32 as tfmot rounds."""
    n = weights.size
    keep = max(int(np.round(np.float32(n) * (np.float32(1) - np.float32(sparsity)))), 1)
    threshold = np.sort(np.abs(weights), axis=None)[::-1][keep - 1]
    return (np.abs(weights) >= threshold).astype(np.float32)


def schedule(step: int, begin: int, end: int, final: float, power: float = 3.0) -> float:
    """Zhu & Gupta's equation 1, from zero."""
    share = min(1.0, max(0.0, (step - begin) / (end - begin)))
    return final - final * (1 - share) ** power


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        (WeightOptions(), 1000, (0, 500, 10)),
        (WeightOptions(), 40, (0, 20, 1)),
        # 0 to 55 in at most 50 updates: every 2 steps, so the last one is at 54
        (WeightOptions(end=0.55), 100, (0, 54, 2)),
        (WeightOptions(begin=0.2, end=1.0, updates=4), 101, (20, 100, 20)),
        (WeightOptions(), 2, (0, 1, 1)),
    ],
)
def test_update_times(options: WeightOptions, steps: int, expected: tuple[int, int, int]) -> None:
    times = update_times(options, steps)
    assert (times.begin, times.end, times.frequency) == expected
    assert (times.end - times.begin) % times.frequency == 0
    assert times.end < steps


def test_one_step_is_too_short() -> None:
    with pytest.raises(InputError, match="at least 2 to prune"):
        update_times(WeightOptions(), 1)


@pytest.mark.parametrize("rank", ["dense", "conv"])
def test_every_mask_update_equals_the_oracle(rank: str) -> None:
    """200 steps on weights that move: masks and weights follow the schedule exactly."""
    import keras
    import tensorflow as tf

    shape = (16, 24) if rank == "dense" else (3, 3, 8, 12)
    inputs = keras.Input((16,) if rank == "dense" else (5, 5, 8))
    layer = keras.layers.Dense(24) if rank == "dense" else keras.layers.Conv2D(12, 3)
    model = keras.Model(inputs, layer(inputs))
    options = WeightOptions(sparsity=0.75, ends=True, begin=0.1, end=0.6, updates=20)
    pruner = WeightPruner(options)
    step = tf.Variable(0, dtype=tf.int64)
    pruner.start(model, step, 200)
    times = update_times(options, 200)
    rng = np.random.default_rng(0)
    weights = layer.kernel.numpy()
    mask = np.ones(shape, np.float32)
    before = tf.function(pruner.before_step, autograph=False)
    for index in range(200):
        before()
        if times.begin <= index <= times.end and (index - times.begin) % times.frequency == 0:
            mask = oracle_mask(weights, schedule(index, times.begin, times.end, 0.75))
        weights = weights * mask
        np.testing.assert_array_equal(layer.kernel.numpy(), weights, err_msg=f"step {index}")
        change = rng.normal(size=shape).astype(np.float32) * 0.01
        layer.kernel.assign(layer.kernel.constraint(layer.kernel + change))
        weights = (weights + change) * mask
        step.assign_add(1)
    report = pruner.strip()
    assert report.sparsity == pytest.approx(0.75, abs=1 / weights.size)
    assert layer.kernel.constraint is None


def test_training_reaches_the_sparsity_and_holds_it(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    model = small_cnn()
    before = [w.copy() for w in model.get_weights()]
    options = WeightOptions(sparsity=0.8)
    result = prune_weights(
        model, digits, options, finetune=TrainSettings(epochs=6, batch_size=64), device=cpu
    )
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    mid, hidden = result.model.get_layer("mid").kernel, result.model.get_layer("hidden").kernel
    assert (mid.numpy() == 0).sum() == 1152 - round(1152 * 0.2)
    assert (hidden.numpy() == 0).sum() == 512 - round(512 * 0.2)
    assert [layer.layer for layer in result.report.pruned] == ["mid", "hidden"]
    kept = {item.layer: item.reason for item in result.report.kept}
    assert kept == {
        "first": "first layer (ends=True prunes it)",
        "last": "last layer (ends=True prunes it)",
        "bn": "normalization is not pruned",
    }
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    # epochs 1 to 3 end before sparsity is reached: no weights of theirs may be chosen
    assert result.training.best_epoch > 3


def test_the_users_constraint_acts_first_and_comes_back(cpu: Device, blobs: Dataset) -> None:
    import keras

    own = keras.constraints.NonNeg()
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, activation="relu", kernel_constraint=own, name="h")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    pruner = WeightPruner(WeightOptions(sparsity=0.5, ends=True))
    train(model, blobs, TrainSettings(epochs=4, batch_size=32), device=cpu, hooks=[pruner])
    pruner.strip()
    kernel = model.get_layer("h").kernel
    assert kernel.constraint is own
    assert (kernel.numpy() >= 0).all()
    assert (kernel.numpy() == 0).mean() >= 0.5


def test_a_failed_training_leaves_no_trace(cpu: Device, blobs: Dataset) -> None:
    import keras

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    pruner = WeightPruner(WeightOptions(ends=True))
    wild = TrainSettings(epochs=2, learning_rate=3e38, optimizer="sgd", schedule="constant")
    with pytest.raises(TrainingDiverged):
        train(model, blobs, replace(wild, batch_size=60), device=cpu, hooks=[pruner])
    pruner.strip()
    assert model.layers[-1].kernel.constraint is None
    with pytest.raises(InputError, match="used for one training"):
        train(model, blobs, wild, device=cpu, hooks=[pruner])


def test_targets_and_reasons() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="a")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="dw")(x)
    x = keras.layers.SeparableConv2D(4, 3, name="sep")(x)
    x = keras.layers.Conv2D(4, 1, name="frozen", trainable=False)(x)
    x = keras.layers.LayerNormalization(name="ln")(x)
    x = keras.layers.Reshape((4, 4))(x)
    x = keras.layers.LSTM(4, name="memory")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="z")(x))
    targets, kept = find_targets(model, ends=False)
    assert [target.layer for target in targets] == ["sep"]
    assert targets[0].variable is model.get_layer("sep").pointwise_kernel
    reasons = {item.layer: item.reason for item in kept}
    assert reasons["dw"].startswith("depthwise")
    assert reasons["frozen"].startswith("frozen")
    assert reasons["memory"] == "no rule for this class"
    assert {"a", "z", "ln"} <= set(reasons)
    assert [t.layer for t in find_targets(model, ends=True)[0]] == ["a", "sep", "z"]

"""The law for raw operations: entry by entry, reductions, reshapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.compress.prune.channels.law import SEEDS, check

NUMBERS = np.random.default_rng(7).normal(size=8).astype(np.float32)
HEAD = "model output 'head'"


def dense_net(function: Callable[[Any], Any], width: int = 8, time: int = 6) -> Any:
    """Dense over (time, channels) -> ReLU -> function -> dense -> tanh -> head."""
    inputs = keras.Input((time, 5))
    x = layers.ReLU()(layers.Dense(width, name="before")(inputs))
    x = layers.Dense(7, name="after")(function(x))
    x = layers.Flatten()(layers.Activation("tanh")(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def image_net(function: Callable[[Any], Any], width: int = 8, size: int = 8) -> Any:
    """Conv -> BN -> function -> conv -> pool -> head."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, 3, padding="same", name="before")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(6, 1, name="after")(function(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def reasons(model: Any, seed: int = 0, *, removes: bool = True) -> list[str]:
    """Checks the law; returns why units are frozen beside the model's output."""
    coupling, _, _ = check(model, seed=seed, removes=removes)
    assert not coupling.graph.unknown
    found = [frozen.reason for frozen in coupling.list_frozen()]
    assert HEAD in found
    return [reason for reason in found if reason != HEAD]


def instance_norm(x: Any) -> Any:
    """Statistics over positions, by hand."""
    mean = ops.mean(x, axis=(1, 2), keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=[1, 2], keepdims=True)
    return (x - mean) / ops.sqrt(variance + 1e-3) * NUMBERS + NUMBERS[::-1]


def squeeze_excite(x: Any) -> Any:
    """A gate from raw means."""
    gate = ops.mean(x, axis=(1, 2), keepdims=True)
    gate = ops.relu(layers.Conv2D(4, 1)(gate))
    return x * ops.hard_sigmoid(layers.Conv2D(8, 1)(gate))


def gated(x: Any) -> Any:
    """A gated linear unit by split."""
    value, gate = ops.split(layers.Dense(12)(x), 2, axis=-1)
    return value * ops.sigmoid(gate)


UNARY = """
abs arcsinh arctan cbrt ceil cos cosh elu erf exp exp2 expm1 floor gelu hard_sigmoid hard_silu
hard_tanh leaky_relu log1p log_sigmoid logical_not negative ones_like relu relu6 round selu
sigmoid sign silu sin sinh soft_shrink softplus softsign sparse_plus sqrt square stop_gradient
tan tanh tanh_shrink zeros_like celu squareplus hard_shrink sparse_sigmoid
"""
ENTRYWISE: dict[str, Callable[[Any], Any]] = {
    **{name: lambda x, name=name: getattr(ops, name)(x) for name in UNARY.split()},
    "hard swish by hand": lambda x: x * ops.relu6(x + 3.0) / 6.0,
    "swish by hand": lambda x: x / (1.0 + ops.exp(-x)),
    "constants of each channel": lambda x: (x * NUMBERS - NUMBERS) / (2.0 + NUMBERS**2),
    "constants as a tensor": lambda x: x + ops.convert_to_tensor(NUMBERS),
    "constants of each position": lambda x: x + np.ones((6, 1), np.float32),
    "constants of positions and channels": lambda x: x * np.outer(NUMBERS[:6], NUMBERS),
    "one constant, broadcast": lambda x: x - NUMBERS[:1],
    "constant on the left": lambda x: ops.subtract(NUMBERS, x) + ops.power(NUMBERS**2, x),
    "clip": lambda x: ops.clip(x, -0.5, 6.0),
    "clip by numpy numbers": lambda x: ops.clip(x, np.float32(0.1), np.float32(0.7)),
    "cast": lambda x: ops.cast(ops.cast(x, "float16"), "float32"),
    "power": lambda x: ops.power(x, 2.0) + x**1.5 + ops.power(2.0, x),
    "power of unknown": lambda x: (x + NUMBERS) ** 2,
    "maximum": lambda x: ops.maximum(x, ops.minimum(ops.sin(x), 0.3)),
    "where": lambda x: ops.where(x > 0.5, x, 0.0) + ops.where(ops.less(x, 0.2), NUMBERS, x),
    "where by a fixed condition": lambda x: ops.where(np.arange(8) % 2 == 0, x, -x),
    "comparisons": lambda x: ops.cast(ops.equal(x, 0.0), "float32") + ops.cast(x >= 1, "float32"),
    "log of a shifted tensor": lambda x: ops.log(x + 1.0) * ops.rsqrt(x + 0.5),
    "reciprocal of a sigmoid": lambda x: x * ops.reciprocal(ops.sigmoid(x)),
    "no nan": lambda x: ops.divide_no_nan(x, x),
    "full like": lambda x: ops.full_like(x, 2.0) * x,
    "threshold": lambda x: ops.threshold(x, 0.2, 0.7),
    "glu": lambda x: ops.glu(x),
    "softmax of channels": lambda x: ops.softmax(x),
    "log softmax of channels": lambda x: ops.log_softmax(x, axis=-1),
    "sparsemax of channels": lambda x: ops.sparsemax(x),
    "softmax of positions": lambda x: ops.softmax(x, axis=1),
    "residual": lambda x: layers.Dense(8)(x) + x,
    "gate of one position": lambda x: x * ops.sigmoid(x[:, :1]),
    "gated linear unit by split": gated,
}


@pytest.mark.parametrize("name", ENTRYWISE)
@pytest.mark.parametrize("seed", SEEDS)
def test_entry_by_entry(name: str, seed: int) -> None:
    assert reasons(dense_net(ENTRYWISE[name]), seed) == []


BARRIERS: dict[str, Callable[[Any], Any]] = {
    "log": lambda x: ops.log(x + 1e-9 * 0),
    "reciprocal": lambda x: ops.reciprocal(x + ops.sign(x)),
    "denominator": lambda x: 1.0 / (x * NUMBERS),
    "ratio": lambda x: x / x,
    "unknown root": lambda x: ops.sqrt(x + NUMBERS),
    "negative power": lambda x: (x + 0.0) ** -1.0,
}


@pytest.mark.parametrize("name", BARRIERS)
def test_no_infinities(name: str) -> None:
    model = dense_net(lambda x: ops.nan_to_num(BARRIERS[name](x), nan=0.0, posinf=1.0, neginf=1.0))
    assert "its removed entries might not be finite numbers" in reasons(model)


REDUCTIONS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "mean of positions": (lambda x: x - ops.mean(x, axis=1, keepdims=True), []),
    "several": (
        lambda x: ops.max(x, axis=[1]) + ops.min(x, axis=-2) + ops.prod(x, 1) + ops.std(x, axis=1),
        [],
    ),
    "more": (
        lambda x: ops.var(x, 1) + ops.logsumexp(x, 1) + ops.median(x, 1) + ops.norm(x, axis=1),
        [],
    ),
    "positions of extremes": (
        lambda x: ops.cast(ops.argmax(x, 1) + ops.argmin(x, 1), "float32"), [],
    ),
    "truth": (
        lambda x: ops.cast(ops.count_nonzero(x, 1), "float32")
        + ops.cast(ops.any(x > 1.0, 1), "float32") + ops.cast(ops.all(x > 0.0, 1), "float32"),
        [],
    ),
    "moments": (lambda x: sum(ops.moments(x, [1])), []),
    "average": (lambda x: ops.average(x, axis=1), []),
    "along positions": (lambda x: ops.cumsum(x, axis=1) + ops.sort(x, axis=1), []),
    "normalize": (lambda x: ops.normalize(x, axis=-1) + ops.normalize(x, axis=1, order=3), []),
    "layer norm of positions": (lambda x: ops.layer_normalization(x, axis=1), []),
    "sum of zeros": (lambda x: x + ops.sum(x, axis=-1, keepdims=True), []),
    "mean of channels": (lambda x: ops.mean(x, axis=-1, keepdims=True), ["mean reduces it"]),
    "sum of sigmoids": (
        lambda x: ops.sum(ops.sigmoid(x), axis=-1, keepdims=True), ["sum reduces it"],
    ),
    "layer norm": (lambda x: ops.layer_normalization(x), ["a normalization reduces it"]),
    "rms norm": (lambda x: ops.rms_normalization(x), ["a normalization reduces it"]),
    "cumsum of channels": (lambda x: ops.cumsum(x, axis=-1), ["cumsum runs along it"]),
    "top of channels": (lambda x: ops.top_k(x, 3)[0], ["topk runs along it"]),
    "triangle": (lambda x: ops.tril(x), ["tril runs along it"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_reductions(name: str, seed: int) -> None:
    function, expected = REDUCTIONS[name]
    assert reasons(dense_net(function), seed) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_sum_of_zeros_loses_channels(seed: int) -> None:
    model = dense_net(lambda x: ops.sum(x, axis=-1, keepdims=True))
    coupling, sliced, _ = check(model, seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == [HEAD]
    assert sliced.get_layer("before").units < 8


IMAGES: dict[str, Callable[[Any], Any]] = {
    "instance norm": instance_norm,
    "squeeze and excite": squeeze_excite,
    "max pool": lambda x: ops.max_pool(x, (2, 2), padding="same"),
    "average pool": lambda x: ops.average_pool(x, 3, strides=(1, 2), padding="same"),
    "resize": lambda x: ops.image.resize(x, (5, 6)),
    "crop and pad": lambda x: ops.image.pad_images(
        ops.image.crop_images(x, 1, 2, 1, 0), 0, 1, 2, 0
    ),
    "depth to space": lambda x: ops.depth_to_space(x, 2),
    "space to depth": lambda x: ops.space_to_depth(x, 2),
    "there and back": lambda x: x + ops.depth_to_space(ops.space_to_depth(x, 4), 4),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_images(name: str, seed: int) -> None:
    assert reasons(image_net(IMAGES[name]), seed) == []

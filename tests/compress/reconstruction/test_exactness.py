"""What was removed depends linearly on what is left: repaired nets compute what dense ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction import repair
from tests.compress.reconstruction.dependent import (
    WIDTH,
    make_dependent,
    off,
    pruned,
    smooth,
)

pytestmark = pytest.mark.usefixtures("unrounded")

# ruff: noqa: E501 - a table

L = keras.layers
IMAGE, SEQUENCE, VOLUME, VECTOR = (7, 8, 3), (12, 3), (4, 5, 6, 2), (10,)


def chain(*layers: Callable[[], Any]) -> Callable[[Any], Any]:
    def build(x: Any) -> Any:
        for make in layers:
            x = make()(x)
        return x

    return build


def conv(*args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: L.Conv2D(WIDTH, *args, **kwargs)


def residual(x: Any) -> Any:
    x = L.Conv2D(WIDTH, 3, padding="same")(x)
    for _ in range(2):
        y = L.Conv2D(WIDTH, 3, padding="same")(x)
        y = L.Conv2D(WIDTH, 3, padding="same", use_bias=False)(y)
        x = L.Add()([x, y])
    return x


def projected(x: Any) -> Any:
    x = L.Conv2D(WIDTH, 3, padding="same")(x)
    y = L.Conv2D(WIDTH, 3, strides=2, padding="same")(x)
    y = L.Conv2D(WIDTH, 3, padding="same")(y)
    return L.Add()([L.Conv2D(WIDTH, 1, strides=2, padding="same")(x), y])


def concatenated(x: Any) -> Any:
    parts = [L.Conv2D(WIDTH, size, padding="same")(x) for size in (1, 3)]
    y = L.Concatenate()(parts)
    z = L.Conv2D(WIDTH, 3)(y)
    return L.Conv2D(WIDTH, 1)(z)


def dense_growth(x: Any) -> Any:
    x = L.Conv2D(WIDTH, 3, padding="same")(x)
    for _ in range(2):
        x = L.Concatenate()([x, L.Conv2D(WIDTH, 3, padding="same")(x)])
    return L.Conv2D(WIDTH, 1)(x)


def relu_residual(x: Any) -> Any:
    x = L.ReLU()(L.Conv2D(WIDTH, 3, padding="same")(x))
    y = L.Conv2D(WIDTH, 3, padding="same", activation="relu")(x)
    y = L.Conv2D(WIDTH, 3, padding="same", use_bias=False)(y)
    return L.ReLU()(L.Add()([x, y]))


NETS: list[tuple[str, str, tuple[int, ...], Callable[[Any], Any]]] = [
    ("dense", "any", VECTOR, chain(lambda: L.Dense(WIDTH), lambda: L.Dense(WIDTH))),
    ("dense without bias", "any", VECTOR, chain(lambda: L.Dense(WIDTH, use_bias=False), lambda: L.Dense(WIDTH, use_bias=False))),
    ("dense relu", "scaled", VECTOR, chain(lambda: L.Dense(WIDTH, activation="relu"), lambda: L.Dense(WIDTH, activation="relu"))),
    ("dense on sequences", "any", SEQUENCE, chain(lambda: L.Dense(WIDTH), lambda: L.Dense(WIDTH))),
    ("einsum", "any", SEQUENCE, chain(*[lambda: L.EinsumDense("abc,cd->abd", (None, WIDTH), bias_axes="d")] * 2)),
    ("einsum dots", "any", SEQUENCE, chain(*[lambda: L.EinsumDense("...c,cd->...d", WIDTH)] * 2)),
    ("conv1d", "any", SEQUENCE, chain(lambda: L.Conv1D(WIDTH, 3, padding="same"), lambda: L.Conv1D(WIDTH, 3, padding="causal", dilation_rate=2))),
    ("conv1d strided relu", "scaled", SEQUENCE, chain(lambda: L.Conv1D(WIDTH, 3, activation="relu"), lambda: L.Conv1D(WIDTH, 2, 2, activation="relu"))),
    ("conv2d", "any", IMAGE, chain(conv(3, padding="same"), conv(3, strides=2, padding="same"), conv(3, padding="same", dilation_rate=2))),
    ("conv2d without bias", "any", IMAGE, chain(conv(3, padding="same", use_bias=False), conv(3, use_bias=False))),
    ("conv2d relu", "scaled", IMAGE, chain(conv(3, padding="same", activation="relu"), conv(3, padding="same", activation="relu"))),
    ("conv2d relu6", "scaled", IMAGE, chain(conv(3), lambda: L.Activation("relu"), conv(3), lambda: L.ReLU())),
    ("conv2d to dense", "any", IMAGE, chain(conv(3), L.Flatten, lambda: L.Dense(WIDTH))),
    ("conv2d pooled", "scaled", IMAGE, chain(conv(3, activation="relu"), lambda: L.MaxPooling2D(2), conv(2), L.GlobalAveragePooling2D)),
    ("conv3d", "any", VOLUME, chain(lambda: L.Conv3D(WIDTH, 2, padding="same"), lambda: L.Conv3D(WIDTH, (1, 2, 2), (1, 2, 1)))),
    ("grouped", "any", IMAGE, chain(lambda: L.Conv2D(2 * WIDTH, 3, padding="same"), lambda: L.Conv2D(2 * WIDTH, 3, padding="same", groups=2), conv(1))),
    ("transposed", "any", (4, 5, 3), chain(conv(1), lambda: L.Conv2DTranspose(WIDTH, 3, 2, padding="same"), lambda: L.Conv2DTranspose(WIDTH, 2, 1))),
    ("transposed 1d", "any", SEQUENCE, chain(lambda: L.Conv1DTranspose(WIDTH, 3, 2), lambda: L.Conv1DTranspose(WIDTH, 2, 2, padding="same"))),
    ("depthwise", "any", IMAGE, chain(conv(1), lambda: L.DepthwiseConv2D(3, padding="same"), conv(1))),
    ("depthwise relu", "scaled", IMAGE, chain(conv(1, activation="relu"), lambda: L.DepthwiseConv2D(3, padding="same", activation="relu"), conv(1))),
    ("depthwise without bias", "any", IMAGE, chain(conv(1, use_bias=False), lambda: L.DepthwiseConv2D(3, 2, padding="same", use_bias=False), conv(1, use_bias=False))),
    ("separable", "any", IMAGE, chain(conv(1), lambda: L.SeparableConv2D(WIDTH, 3, padding="same"), lambda: L.SeparableConv2D(WIDTH, 3))),
    ("normalized behind", "any", IMAGE, chain(conv(3), L.BatchNormalization, conv(3, use_bias=False), L.BatchNormalization, conv(1))),
    ("normalized elsewhere", "any", IMAGE, chain(L.BatchNormalization, conv(3), lambda: L.AveragePooling2D(2), L.BatchNormalization, conv(2))),
    ("normalized without scale", "any", IMAGE, chain(conv(3, use_bias=False), lambda: L.BatchNormalization(scale=False), conv(2, use_bias=False), lambda: L.BatchNormalization(center=False), conv(1))),
    ("residual", "any", IMAGE, residual),
    ("residual projected", "any", IMAGE, projected),
    ("residual relu", "scaled", IMAGE, relu_residual),
    ("concatenated", "any", IMAGE, concatenated),
    ("concatenated growth", "any", IMAGE, dense_growth),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "shape", "build"), NETS, ids=[net[0] for net in NETS])
def test_outputs_are_those_of_the_dense_model(
    name: str, kind: str, shape: tuple[int, ...], build: Callable[[Any], Any]
) -> None:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, L.Dense(3, name="head")(build(inputs)))
    make_dependent(model, kind, keep=("head",))
    small = pruned(model)
    assert small.model.count_params() < model.count_params()
    fresh = smooth(shape, 50, seed=2)
    assert off(small.model, model, fresh) > 0.02  # pruning breaks it
    report = repair(small.model, model, smooth(shape), kept=small.kept)
    assert off(small.model, model, fresh) < 1e-4
    assert report.repaired > 0
    for weight in small.model.weights:
        assert np.isfinite(weight.numpy()).all()
        # what is restored is restored by weights of a reasonable size
        assert np.abs(weight.numpy()).max() < 1e3

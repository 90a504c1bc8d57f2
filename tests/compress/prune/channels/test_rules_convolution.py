"""The law for convolutions, one rule at a time."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from tests.compress.prune.channels.law import SEEDS, check


def between(layer: Any, shape: tuple[int, ...] = (8, 8, 3), width: int = 8) -> Any:
    """Conv -> BN -> layer -> ReLU -> conv -> pool -> dense."""
    rank = len(shape) - 1
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    pool = {
        1: layers.GlobalAveragePooling1D,
        2: layers.GlobalAveragePooling2D,
        3: layers.GlobalAveragePooling3D,
    }[rank]
    inputs = keras.Input(shape)
    x = conv(width, 3, padding="same", name="before")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layer(x)
    x = layers.ReLU()(x)
    x = conv(width, 1, name="after")(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="head")(pool()(x)))


CASES = {
    "conv1d": (layers.Conv1D(12, 3), (9, 3)),
    "conv2d": (layers.Conv2D(12, 3, strides=2, activation="sigmoid"), (8, 8, 3)),
    "conv3d": (layers.Conv3D(6, 2), (5, 5, 5, 2)),
    "conv2d grouped by position": (layers.Conv2D(8, 3, groups=2), (8, 8, 3)),
    "conv2d grouped by group": (layers.Conv2D(16, 3, groups=4), (8, 8, 3)),
    "conv2d depthwise by groups": (layers.Conv2D(8, 3, groups=8), (8, 8, 3)),
    "conv2d depthwise by groups, two filters": (layers.Conv2D(16, 3, groups=8), (8, 8, 3)),
    "conv1dtranspose": (layers.Conv1DTranspose(6, 3, strides=2), (9, 3)),
    "conv2dtranspose": (layers.Conv2DTranspose(6, 3, strides=2), (6, 6, 3)),
    "conv3dtranspose": (layers.Conv3DTranspose(4, 2), (4, 4, 4, 2)),
    "depthwise1d": (layers.DepthwiseConv1D(3), (9, 3)),
    "depthwise2d": (layers.DepthwiseConv2D(3, activation="tanh"), (8, 8, 3)),
    "depthwise2d multiplier 3": (layers.DepthwiseConv2D(3, depth_multiplier=3), (8, 8, 3)),
    "separable1d": (layers.SeparableConv1D(10, 3, depth_multiplier=2), (9, 3)),
    "separable2d": (layers.SeparableConv2D(10, 3, depth_multiplier=2), (8, 8, 3)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_law(name: str, seed: int) -> None:
    layer, shape = CASES[name]
    layer = type(layer).from_config(layer.get_config())
    coupling, _, _ = check(between(layer, shape), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == ["model output 'head'"]
    assert len(coupling.groups) >= 2

"""Single calls of a net: their keys, and what runs as one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.measure.counting import ShapePropagation
from compress.measure.latency_table import (
    CallKey,
    build_call_key,
)
from compress.measure.latency_table.fusion import find_removed_calls, fuse_calls
from compress.model.recording import record_program


def conv_key(name: str = "a", **changes: Any) -> CallKey:
    shapes = {"inputs": [(1, 8, 8, 4)], "outputs": [(1, 8, 8, 6)]}
    given = {key: changes.pop(key, value) for key, value in shapes.items()}
    layer = layers.Conv2D(6, 3, padding="same", name=name, **changes)
    return build_call_key([("Conv2D", layer.get_config())], **given)


def test_keys_of_equal_calls_are_equal() -> None:
    same = conv_key("b", kernel_initializer="zeros", kernel_regularizer="l2", trainable=False)
    assert conv_key() == same
    assert hash(conv_key()) == hash(same)
    assert str(same) == "Conv2D 8x8x4 -> 8x8x6"
    assert CallKey.from_json(same.to_json()) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"activation": "relu"},
        {"use_bias": False},
        {"data_format": "channels_first"},
        {"inputs": [(1, 8, 8, 8)]},
        {"outputs": [(1, 8, 8, 12)]},
        {"inputs": [(1, 9, 8, 4)]},
    ],
)
def test_keys_differ_where_time_may(changes: dict[str, Any]) -> None:
    assert conv_key(**changes) != conv_key()


def test_keys_of_functions_and_arrays_do_not_depend_on_the_object() -> None:
    def key(function: Any) -> CallKey:
        return build_call_key(
            [("F", {"f": function, "at": slice(0, 3), "x": np.ones((2, 3))})], [], []
        )

    assert key(np.tanh) == key(np.tanh)
    assert key(lambda x: x) == key(lambda x: x)
    assert key(np.ones(3)) != key(np.ones(4))


def units(model: Any) -> list[str]:
    program = record_program(model)
    steps = ShapePropagation(program, None).steps
    return [
        "+".join(step.name for step in unit.steps) for unit in fuse_calls(steps, program.outputs)
    ]


def residual() -> Any:
    inputs = keras.Input((8, 8, 4), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(inputs)
    x = layers.Conv2D(4, 3, name="c0")(x)
    x = layers.BatchNormalization(name="b0")(x)
    x = skip = layers.ReLU(6.0, name="r0")(x)
    x = layers.Conv2D(6, 3, padding="same", name="c1")(x)
    x = layers.BatchNormalization(name="b1")(x)
    x = layers.Activation("gelu", name="g1")(x)
    x = layers.Dropout(0.5, name="d1")(x)
    x = layers.Conv2D(4, 3, padding="same", name="c2")(x)
    x = layers.BatchNormalization(name="b2")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.ReLU(name="r2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.5, name="d2")(x)
    x = layers.Dense(3, activation="relu", name="last")(x)
    x = layers.ReLU(name="r3")(x)
    return keras.Model(inputs, layers.Softmax(name="softmax")(x))


def test_what_runtimes_fuse_is_one_unit() -> None:
    """A GELU does not fuse, nor does a ReLU behind another; dropout computes nothing."""
    assert units(residual()) == [
        "pad+c0+b0+r0", "c1+b1", "g1+d1", "c2+b2", "add+r2", "pool+d2", "last", "r3", "softmax"
    ]  # fmt: skip


def test_what_others_take_is_not_fused() -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="d")(inputs)
    y = layers.ReLU(name="r")(x)
    model = keras.Model(inputs, [layers.Add(name="s")([x, y]), y])
    assert units(model) == ["d", "r", "s"]
    leaky = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="d"), layers.ReLU(negative_slope=0.1, name="r")]
    )
    assert units(leaky) == ["d", "r"]


def test_what_leaves_with_a_branch() -> None:
    """The branch's own layers are named; what lies between them and the sum goes with them."""
    program = record_program(residual())
    steps = ShapePropagation(program, None).steps
    gone = find_removed_calls(steps, ("c1", "b1", "c2", "b2"), program.outputs)
    assert [step.name for step in steps if id(step) in gone] == [
        "c1", "b1", "g1", "d1", "c2", "b2", "add"
    ]  # fmt: skip

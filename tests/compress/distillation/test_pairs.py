"""Layer pairs by resolution and depth."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.resnet20 import build
from compress.core.errors import InputError
from compress.data import Dataset
from compress.distillation.hints import choose_pair, resolve_named_pairs
from tests.compress.distillation.test_trainer import mlp


def find_pair(student: Any, teacher: Any) -> tuple[str, str]:
    pair = choose_pair(student, teacher, "fitnets")
    return pair.student, pair.teacher


def last_relus(model: Any) -> list[str]:
    """The last layer's name at each of 28 x 28, 14 x 14, 7 x 7, read off Keras's own graph."""
    last: dict[int, str] = {}
    for layer in model.layers[1:]:
        if len(layer.output.shape) == 4:
            last[layer.output.shape[1]] = layer.name
    return [last[size] for size in (28, 14, 7)]


def test_middle_stage_of_a_resnet() -> None:
    student, teacher = build(widths=(8, 16, 32)), build()
    ours, theirs = last_relus(student)[1], last_relus(teacher)[1]
    pair = choose_pair(student, teacher, "fitnets")
    assert str(pair) == f"{ours} (14, 14, 16) = {theirs} (14, 14, 32)"


def test_hidden_layers_of_perceptrons(blobs: Dataset) -> None:
    student, teacher = mlp(blobs), mlp(blobs, 1, 20)
    assert find_pair(student, teacher) == ("hidden", "hidden")


def test_no_pair_asks_for_names() -> None:
    import keras

    linear = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="linear")
    with pytest.raises(InputError, match="hint 'fitnets'.*none in models 'linear'.*feature_pairs"):
        choose_pair(linear, linear, "fitnets")


def test_other_resolutions_pair_by_depth() -> None:
    import keras

    def model(size: int, widths: tuple[int, ...]) -> Any:
        inputs = x = keras.Input((size, size, 1))
        for place, width in enumerate(widths):
            x = keras.layers.Conv2D(width, 3, 2, "same", name=f"c{place}")(x)
        x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, x)

    # 24: 12, 6, 3; 20: 10, 5, 3 -> one resolution in common
    assert find_pair(model(24, (4, 4, 4)), model(20, (8, 8, 8))) == ("c2", "c2")
    # 24: 12, 6, 3; 28: 14, 7, 4 -> none in common: by depth
    assert find_pair(model(24, (4, 4, 4)), model(28, (8, 8, 8))) == ("c1", "c1")


def test_named_pairs(blobs: Dataset) -> None:
    student, teacher = mlp(blobs), mlp(blobs, 1, 20)
    (pair,) = resolve_named_pairs(student, teacher, [("hidden", "last")])
    assert (pair.student_shape, pair.teacher_shape) == ((None, 12), (None, 3))
    with pytest.raises(InputError, match="Unknown layer of model 'mlp20' 'lost'.*'last'"):
        resolve_named_pairs(student, teacher, [("hidden", "lost")])

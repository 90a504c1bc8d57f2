"""Layer pairs by resolution and depth."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.resnet20 import build
from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import MultiClass
from compress.distillation.hints import choose_pairs, resolve_named_pairs
from compress.plugins import HINTS
from tests.compress.distillation.own_losses import Spread
from tests.compress.distillation.test_trainer import mlp

TASK = MultiClass(10)


def pairs_of(where: str, student: Any, teacher: Any) -> list[tuple[str, str]]:
    found = choose_pairs(student, teacher, Spread(where), TASK)
    return [(pair.student, pair.teacher) for pair in found]


def last_relus(model: Any) -> list[str]:
    """The last layer's name at each of 28 x 28, 14 x 14, 7 x 7, read off Keras's own graph."""
    last: dict[int, str] = {}
    for layer in model.layers[1:]:
        if len(layer.output.shape) == 4:
            last[layer.output.shape[1]] = layer.name
    return [last[size] for size in (28, 14, 7)]


def test_stages_of_a_resnet() -> None:
    student, teacher = build(widths=(8, 16, 32)), build()
    stages = list(zip(last_relus(student), last_relus(teacher), strict=True))
    assert pairs_of("stages", student, teacher) == stages
    assert pairs_of("middle", student, teacher) == [stages[1]]
    ((ours, theirs),) = pairs_of("embedding", student, teacher)
    for model, name in ((student, ours), (teacher, theirs)):
        assert model.get_layer("logits").input is model.get_layer(name).output
    (pair,) = choose_pairs(student, teacher, HINTS["fitnets"](), TASK)
    assert str(pair) == f"{stages[1][0]} (14, 14, 16) = {stages[1][1]} (14, 14, 32)"


def test_hidden_layers_of_perceptrons(blobs: Dataset) -> None:
    student, teacher = mlp(blobs), mlp(blobs, 1, 20)
    for where in ("stages", "middle", "embedding"):
        assert pairs_of(where, student, teacher) == [("hidden", "hidden")]


def test_other_resolutions_pair_by_depth() -> None:
    import keras

    def model(size: int, widths: tuple[int, ...]) -> Any:
        inputs = x = keras.Input((size, size, 1))
        for place, width in enumerate(widths):
            x = keras.layers.Conv2D(width, 3, 2, "same", name=f"c{place}")(x)
        x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, x)

    # 24: 12, 6, 3; 20: 10, 5, 3 -> one resolution in common
    assert pairs_of("stages", model(24, (4, 4, 4)), model(20, (8, 8, 8))) == [("c2", "c2")]
    # 24: 12, 6; 20: 10, 5 -> none in common: by depth
    both = [("c0", "c0"), ("c1", "c1")]
    assert pairs_of("stages", model(24, (4, 4)), model(20, (8, 8))) == both


def test_named_pairs(blobs: Dataset) -> None:
    student, teacher = mlp(blobs), mlp(blobs, 1, 20)
    (pair,) = resolve_named_pairs(student, teacher, [("hidden", "last")])
    assert (pair.student_shape, pair.teacher_shape) == ((None, 12), (None, 3))
    with pytest.raises(InputError, match="Unknown layer of model 'mlp20' 'lost'.*'last'"):
        resolve_named_pairs(student, teacher, [("hidden", "lost")])

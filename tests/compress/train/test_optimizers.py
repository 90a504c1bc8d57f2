"""Optimizers and schedules against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compress.plan import OPTIMIZERS, TrainSettings
from compress.train.objective import build_learning_rate, build_optimizer


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("cosine", lambda share: 0.5 * (1 + math.cos(math.pi * share))),
        ("exponential", lambda share: 0.01**share),
    ],
)
def test_schedules(schedule: str, formula: object) -> None:
    rate = build_learning_rate(
        TrainSettings(learning_rate=0.2, learning_rate_schedule=schedule), 100
    )
    for step in (0, 25, 50, 100):
        assert float(rate(step)) == pytest.approx(0.2 * formula(step / 100), rel=1e-5)  # type: ignore[operator]


def test_constant_schedule() -> None:
    assert (
        build_learning_rate(
            TrainSettings(learning_rate=0.2, learning_rate_schedule="constant"), 100
        )
        == 0.2
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name: str) -> None:
    import keras

    variable = keras.Variable(np.array([[1.0]], np.float32))
    optimizer = build_optimizer(TrainSettings(optimizer=name, learning_rate=0.05), 10, [variable])
    for _ in range(10):
        optimizer.apply([2.0 * variable.value], [variable])
    assert abs(float(variable.value[0, 0])) < 1.0


def test_one_step_of_momentum_and_nesterov_by_hand() -> None:
    import keras

    for name, expected in (("momentum", 1.0 - 0.1 - 0.19), ("nesterov", 1.0 - 0.19 - 0.271)):
        variable = keras.Variable(np.array([[1.0]], np.float32))
        settings = TrainSettings(
            optimizer=name, learning_rate=0.1, learning_rate_schedule="constant"
        )
        optimizer = build_optimizer(settings, 10, [variable])
        for _ in range(2):
            optimizer.apply([np.array([[1.0]], np.float32)], [variable])
        assert float(variable.value[0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_is_decoupled_and_spares_vectors(name: str) -> None:
    import keras

    kernel = keras.Variable(np.ones((1, 1), np.float32))
    bias = keras.Variable(np.ones((1,), np.float32))
    settings = TrainSettings(
        optimizer=name, learning_rate=0.1, learning_rate_schedule="constant", weight_decay=0.5
    )
    optimizer = build_optimizer(settings, 10, [kernel, bias])
    optimizer.apply([np.zeros((1, 1), np.float32), np.zeros((1,), np.float32)], [kernel, bias])
    assert float(kernel.value[0, 0]) == pytest.approx(1 - 0.1 * 0.5)
    assert float(bias.value[0]) == 1.0

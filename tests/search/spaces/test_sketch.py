"""What a candidate costs is known before it is built: as `count_macs` counts the built one."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from compress.data import Dataset
from compress.measure import count_macs
from search.spaces import resolve_space
from tests.contracts.space import few, with_shape

SHAPES = {"small": (8, 8, 1), "odd": (29, 35, 3), "large": (64, 64, 3)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["cnn", "mlp", "mobilenet", "resnet"])
def test_counts_are_those_of_the_built_model(name: str, shape: str, digits: Dataset) -> None:
    space, data = resolve_space(name), with_shape(few(digits), SHAPES[shape])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    given: list[dict[str, Any]] = [
        space.baseline(data), space.smallest(data) or {}, space.largest(data) or {}, {},
    ]  # fmt: skip
    for choices in given:
        study.enqueue_trial(choices)
        trial = study.ask()
        built = count_macs(space.build(trial, data))
        assert space.count(trial.params, data) == (built.macs, built.params)


def test_a_network_by_hand(digits: Dataset) -> None:
    """Eight numbers in, one layer of 16 without normalization, 10 classes out."""
    data = with_shape(few(digits), (2, 2, 2))
    chosen = {"layers": 1, "activation": "relu", "normalization": "none", "layer1.width": 16,
              "dropout": 0.0}  # fmt: skip
    inside, outside = math.prod((8, 16)), math.prod((16, 10))
    assert resolve_space("mlp").count(chosen, data) == (
        inside + outside,
        inside + 16 + outside + 10,
    )

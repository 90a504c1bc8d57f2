"""The space of multilayer perceptrons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset, Split
from compress.measure import count_macs
from search.spaces.mlp import MLP
from tests.contracts.space import SpaceContract, ask, few, with_shape

DEEP = {
    "layers": 4,
    "activation": "gelu",
    "normalization": "none",
    "residual": True,
    "layer1.width": 32,
    "layer2.width": 32,
    "layer3.width": 16,
    "layer4.width": 16,
    "dropout": 0.2,
}


class TestMLP(SpaceContract):
    name = "mlp"

    @pytest.fixture
    def data(self, blobs: Dataset) -> Dataset:
        return blobs


class TestMLPOnImages(SpaceContract):
    name = "mlp"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (28, 28, 3))


def build(data: Dataset, chosen: dict[str, Any]) -> Any:
    return MLP().build(ask(0, chosen), data)


def test_baseline_macs_by_hand(digits: Dataset) -> None:
    model = build(digits, MLP().baseline(digits))
    assert count_macs(model).macs == 64 * 128 + 128 * 128 + 128 * 10


def test_residual_where_widths_agree(blobs: Dataset) -> None:
    model = build(blobs, DEEP)
    adds = [layer.name for layer in model.layers if layer.name.endswith("_add")]
    assert adds == ["layer2_add", "layer4_add"]
    assert sum(layer.name.endswith("_dropout") for layer in model.layers) == 4
    costs = count_macs(model)
    assert costs.macs == 4 * 32 + 32 * 32 + 32 * 16 + 16 * 16 + 16 * 3
    assert costs.params == costs.macs + 32 + 32 + 16 + 16 + 3


def test_one_layer_is_not_asked_for_shortcuts(blobs: Dataset) -> None:
    trial = ask(0, {"layers": 1})
    MLP().build(trial, blobs)
    assert set(trial.params) == {
        "layers", "activation", "normalization", "layer1.width", "dropout",
    }  # fmt: skip


def test_numbers_are_predicted_without_softmax(blobs: Dataset) -> None:
    def part(split: Split) -> Split:
        return Split(split.x, np.zeros((len(split), 2), np.float32))

    parts = {name: part(blobs.split(name)) for name in ("train", "val", "test")}
    data = replace(blobs, kind="regression", class_names=("u", "v"), **parts)
    model = build(data, MLP().baseline(data))
    assert model.output_shape == (None, 2)
    assert model.layers[-1].name == "logits"


def test_examples_without_numbers_are_refused(blobs: Dataset) -> None:
    parts = {
        name: Split(blobs.split(name).x[:, :0], blobs.split(name).y)
        for name in ("train", "val", "test")
    }
    with pytest.raises(InputError, match=r"Space 'mlp' must have .* Received: .* shape \(0,\)"):
        MLP().check(replace(blobs, **parts))

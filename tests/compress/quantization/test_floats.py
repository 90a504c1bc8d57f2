"""What stays in floats computes as in the model; products of activations, and all between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.exporting.mixed.units import read_graph
from compress.quantization.call import FASTER, READS_ONE
from tests.compress.quantization.equal import Compared, compared, made_twin
from tests.compress.quantization.graphs import scatter

L = keras.layers
ops = keras.ops
ROWS = (8, 6)


def examined(make: Callable[[Any], Any], folder: Path) -> tuple[dict[str, str], Compared, Counter]:
    """Returns why calls are in floats, file beside model, and the file's operations by type.

    Operations are named with what they read first: "MEAN float32".
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input(ROWS)
    model = keras.Model(inputs, make(L.Dense(8, name="given")(inputs)))
    scatter(model, np.random.default_rng(1))
    twin, given = made_twin(model)
    found = compared(twin, given, folder, reference=False)["default"]
    reasons = {call.layer: call.reason for call in twin.placed if call.reason}
    graph = read_graph(folder / "model.tflite")
    kinds = Counter(f"{op.kind} {op.inputs[0].dtype}" for op in graph.operators)
    return reasons, found, kinds


@pytest.mark.parametrize(
    "kind", ["LayerNormalization", pytest.param("GroupNormalization", marks=pytest.mark.slow)]
)
def test_statistics_of_an_example_are_not_rounded(kind: str, tmp_path: Path) -> None:
    settings = {"groups": 2} if kind == "GroupNormalization" else {}

    def make(x: Any) -> Any:
        # a mean that the grid of such large values could hardly tell
        return L.Dense(4)(getattr(L, kind)(name="norm", **settings)(x * 3.0 + 0.7))

    reasons, found, kinds = examined(make, tmp_path)
    assert set(reasons) == {"norm"}
    assert kinds["MEAN int8"] == 0
    assert kinds["MEAN float32"] == 2  # of the values and of their squares
    assert found.within_one == 1.0
    # where the mean is a whole step the file differs from the model at one output in three
    assert (found.steps != 0).mean() < 0.02


def by_hand(x: Any) -> Any:
    """Attention of raw operations: scaled, with a bias by position, a softmax and a dropout."""
    query, key, value = (L.Dense(8, name=name)(x) for name in ("query", "key", "value"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / math.sqrt(8.0)
    shares = L.Dropout(0.2)(L.Softmax()(scores + np.linspace(-1, 1, 8, dtype=np.float32)))
    return L.Dense(4, name="out")(ops.matmul(shares, value))


ATTENTION: dict[str, Callable[[Any], Any]] = {
    "by hand": by_hand,
    "of Keras": lambda x: L.MultiHeadAttention(2, 4)(x, x),
    "with dropout": lambda x: L.MultiHeadAttention(2, 4, dropout=0.1)(x, x),
    "of keys and values that are shared": lambda x: L.GroupQueryAttention(4, 4, 2)(x, x),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_products_of_activations(name: str, tmp_path: Path) -> None:
    reasons, found, kinds = examined(ATTENTION[name], tmp_path)
    assert any(reason == FASTER for reason in reasons.values()) or name == "with dropout"
    assert kinds["BATCH_MATMUL float32"] == 2
    assert kinds["SOFTMAX float32"] == 1
    # floats begin at queries, keys and values, and end at the kernel behind: nowhere between
    assert kinds["DEQUANTIZE int8"] == 3
    assert kinds["QUANTIZE float32"] == 1
    assert kinds["FULLY_CONNECTED float32"] + kinds["CONV_2D float32"] == 0
    assert found.within_one == 1.0
    assert (found.steps != 0).mean() < 0.02


def test_why_what_lies_between_is_in_floats(tmp_path: Path) -> None:
    reasons, _, _ = examined(by_hand, tmp_path)
    products = [layer for layer, reason in reasons.items() if reason == FASTER]
    between = [layer for layer, reason in reasons.items() if reason == READS_ONE]
    assert len(products) == 2
    assert len(between) >= 2  # the sum and the softmax; of the quotient no rule says anything
    assert {"query", "key", "value", "out"}.isdisjoint(reasons)


def test_what_follows_a_kernel_is_whole_again(tmp_path: Path) -> None:
    def make(x: Any) -> Any:
        y = ops.matmul(L.Dense(8)(x), ops.transpose(L.Dense(8)(x), (0, 2, 1)))
        return L.Softmax(name="shares")(L.Add(name="sum")([L.Dense(8)(y), x]))

    reasons, found, kinds = examined(make, tmp_path)
    assert {"sum", "shares"}.isdisjoint(reasons)
    assert (kinds["ADD int8"], kinds["SOFTMAX int8"]) == (1, 1)
    assert found.within_one == 1.0

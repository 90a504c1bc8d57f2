"""Outputs that are computed once, recorded or of common calls; the number of positions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest

from compress.prune.channels import prune_channels
from compress.reconstruction.linear_paths import Graph
from compress.reconstruction.repairing import reconstruct
from compress.reconstruction.sampling import RecordedOutputs, count_samples
from compress.reconstruction.tensor_store import call_in_chunks

L = keras.layers
HOW: dict[str, Any] = {"examples": 60, "samples": 500, "joint": False, "seed": 0}


def residual() -> Any:
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(x)))
    y = L.Conv2D(16, 3, padding="same")(L.Conv2D(24, 3, padding="same", activation="relu")(x))
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, y])))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(x))


def test_reconstructions_with_recorded_outputs_give_the_same_weights() -> None:
    model = residual()
    x = np.random.default_rng(1).normal(size=(80, 8, 8, 3)).astype(np.float32)
    recorded = RecordedOutputs()
    known: dict[int, Any] = {}
    for share in (0.7, 0.4):
        pair = [prune_channels(model, macs=share, round_to=4) for _ in range(2)]
        plain = reconstruct(pair[0].model, model, x, kept=pair[0].kept, **HOW)
        quick = reconstruct(pair[1].model, model, x, kept=pair[1].kept, recorded=recorded, **HOW)
        for one, other in zip(*(item.model.get_weights() for item in pair), strict=True):
            np.testing.assert_array_equal(one, other)
        assert plain.repaired == quick.repaired > 0
        assert plain.output_error
        assert not quick.output_error
        # the second reconstruction runs no call of the original again
        assert recorded.chunks
        assert all(recorded.chunks[index] is chunks for index, chunks in known.items())
        known = dict(recorded.chunks)


def test_outputs_of_other_chunks_are_forgotten() -> None:
    recorded = RecordedOutputs({0: [[]]}, ((0, 10),))
    recorded.require_bounds(((0, 10),))
    assert recorded.chunks
    recorded.require_bounds(((0, 5), (5, 10)))
    assert not recorded.chunks


@pytest.mark.parametrize(
    ("systems", "columns", "samples"),
    # 16 positions a column, between 8,000 (depthwise: 2,000) and 20,000
    [(1, 27, 8_000), (1, 576, 9_216), (1, 4_608, 20_000), (240, 9, 2_000), (4, 200, 3_200)],
)
def test_positions_of_a_layer_by_hand(systems: int, columns: int, samples: int) -> None:
    assert count_samples(systems, columns) == samples


@pytest.mark.parametrize("joint", [False, True])
def test_first_calls_that_are_alike_run_once_for_both_models(
    joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolution, normalization and ReLU before the thinner layer, and what is solved is equal."""
    inputs = x = keras.Input((8, 8, 3))
    keras.utils.set_random_seed(0)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", name="first")(x)))
    y = L.Conv2D(16, 3, padding="same", name="last")(L.Conv2D(24, 3, padding="same")(x))
    x = L.GlobalAveragePooling2D()(L.Add()([x, y]))
    model = keras.Model(inputs, L.Dense(5)(x))
    data = np.random.default_rng(1).normal(size=(80, 8, 8, 3)).astype(np.float32)
    names: list[str] = []

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(node.operation.name)
        return call_in_chunks(node, *args, **kwargs)

    monkeypatch.setattr("compress.reconstruction.reconstructor.call_in_chunks", call)
    weights, counts = [], []
    for is_shared in (True, False):
        names.clear()
        if not is_shared:
            monkeypatch.setattr(Graph, "count_common_calls", lambda *_: 0)
        pruned = prune_channels(model, macs=0.7, exclude=("first", "last"), repair=False)
        report = reconstruct(pruned.model, model, data, kept=pruned.kept, **HOW | {"joint": joint})
        assert report.repaired
        weights.append(pruned.model.get_weights())
        counts.append(Counter(names))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sum((counts[1] - counts[0]).values()) == 3
    assert counts[0]["first"] == 1
    assert counts[1]["first"] == counts[0]["last"] == 2

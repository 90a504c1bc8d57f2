"""Outputs of the original model that are recorded once; the number of sampled positions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.prune.channels import prune_channels
from compress.reconstruction.repairing import reconstruct
from compress.reconstruction.sampling import RecordedOutputs, count_samples

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

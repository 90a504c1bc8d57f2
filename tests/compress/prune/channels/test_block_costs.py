"""What nets cost without some of their residual branches, and what people are told of these."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import compress
from compress.measure import count_macs
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import (
    build_pruned_model,
)
from tests.compress.prune.channels.law import whole
from tests.compress.prune.channels.residual import NETS, classifier


def test_costs_by_hand() -> None:
    """Dense layers at six positions, some in a block that is in a block."""
    coupling = analyze_coupling(NETS["within each other"]())
    costs, kept = CostModel.from_coupling(coupling), coupling.removable_counts
    trunk, outer, inner = 6 * 5 * 8 + 8 * 3, 6 * (8 * 6 + 6 * 8), 6 * 6 * 6
    present = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    macs = [trunk + outer + count * inner for count in (2, 1, 0)] + [trunk] * 3
    np.testing.assert_array_equal(costs.macs(kept, present), macs)
    trunk, outer, inner = 5 * 8 + 8 + 8 * 3 + 3, 8 * 6 + 6 + 6 * 8 + 8, 6 * 6 + 6
    params = [trunk + outer + count * inner for count in (2, 1, 0)] + [trunk] * 3
    np.testing.assert_array_equal(costs.params(kept, present), params)
    by_layer = costs.macs.compute_by_layer(kept, present)
    np.testing.assert_array_equal(by_layer["b_dense"], 216 * np.array([1, 1, 0, 0, 0, 0]))
    np.testing.assert_array_equal(by_layer["stem"], [240] * 6)
    assert costs.params.compute_by_layer(kept)["down"] == 8 * 6 + 6


def test_costs_broadcast_kept_and_present() -> None:
    coupling = analyze_coupling(NETS["parallel transformer"]())
    costs, rng = CostModel.from_coupling(coupling), np.random.default_rng(0)
    kept = rng.integers(1, coupling.removable_counts + 1, size=(5, 1, len(coupling.groups)))
    present = rng.integers(0, 2, size=(7, len(list_blocks(coupling))))
    for cost in (costs.macs, costs.params):
        table = cost(kept, present)
        assert table.shape == (5, 7)
        for row in range(5):
            for column in range(7):
                assert table[row, column] == cost(kept[row, 0], present[column])
    with pytest.raises(ValueError, match="4 blocks"):
        costs.macs(coupling.removable_counts, np.ones(3))


def test_a_normalization_that_two_blocks_share_costs_until_both_leave() -> None:
    coupling = analyze_coupling(NETS["parallel transformer"]())
    costs = CostModel.from_coupling(coupling)
    present = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1]])
    by_layer = costs.params.compute_by_layer(coupling.removable_counts, present)
    assert by_layer["a_norm"].tolist() == [16, 16, 0]
    assert by_layer["b_norm"].tolist() == [16, 16, 16]


def test_costs_at_an_open_size() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", activation="relu")(x)])
    model = classifier(inputs, x)
    shape = (10, 6, 3)
    coupling = analyze_coupling(model, shape)
    sliced = build_pruned_model(coupling, whole(coupling), list_blocks(coupling))
    macs = CostModel.from_coupling(coupling).macs(coupling.removable_counts, np.zeros(1))
    assert macs == count_macs(sliced, shape).macs == 60 * 9 * 3 * 8 + 8 * 3
    unsized = analyze_coupling(model)
    params = CostModel.from_coupling(unsized).params(unsized.removable_counts, np.zeros(1))
    assert params == sliced.count_params()


def test_coupled_groups_show_blocks() -> None:
    coupled = compress.coupled_groups(NETS["within each other"]())
    total, outer = 6 * (5 * 8 + 8 * 6 + 6 * 8 + 2 * 6 * 6) + 8 * 3, 6 * (8 * 6 + 6 * 8 + 72)
    rows = {row.name: row for row in coupled.blocks}
    assert list(rows) == ["a_add", "b_add", "outer"]
    assert rows["outer"].inner == ("a_add", "b_add")
    assert rows["outer"].macs_share == pytest.approx(outer / total)
    assert rows["a_add"].params_share == pytest.approx(42 / coupled.params)
    assert coupled.held_blocks == ()
    held_ones = compress.coupled_groups(NETS["preactivated"]()).held_blocks
    assert [(row.name, row.layers) for row in held_ones] == [("b_add", ("b_projection",))]


def test_shares_of_macs_are_not_known_at_an_open_size() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    model = classifier(inputs, x + layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    (row,) = compress.coupled_groups(model).blocks
    assert row.macs_share is None
    assert row.params_share == pytest.approx(584 / model.count_params())

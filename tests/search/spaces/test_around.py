"""Sub-networks of a trained model as a search space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

from compress.data import Dataset
from compress.measure import count_macs
from compress.model.io import save_model
from search.spaces import Space, SubnetworkSpace, around
from tests.contracts.space import SpaceContract
from tests.same import same_arrays

FIRST, MID, HIDDEN = "keep.first", "keep.mid", "keep.hidden"
HALF = {FIRST: 0.5, MID: 0.5, HIDDEN: 0.5}  # 4 of 8, 8 of 16 and 16 of 32 channels


class TestAround(SpaceContract):
    @pytest.fixture
    def space(self, around: SubnetworkSpace) -> Space:
        return around

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return digits


def test_choices_are_shares_that_rounding_tells_apart(
    around: SubnetworkSpace, digits: Dataset
) -> None:
    values = {choice.name: choice.values for choice in around.choices(digits)}
    # kept numbers: 4 or 8; 8 or 16; 16 or 32
    assert values == {FIRST: (0.5, 1.0), MID: (0.5, 1.0), HIDDEN: (0.5, 1.0)}
    assert around.baseline(digits) == around.largest(digits) == dict.fromkeys(values, 1.0)
    assert around.smallest(digits) == HALF


def test_of_equal_numbers_the_nearest_share_stands(digits: Dataset, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(24, 3, activation="relu", name="odd")(inputs)
    x = keras.layers.Conv2D(128, 3, activation="relu", name="wide")(x)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    save_model(keras.Model(inputs, outputs), tmp_path / "net.keras")
    space = SubnetworkSpace(f"around:{tmp_path / 'net.keras'}")
    values = {choice.name: choice.values for choice in space.choices(digits)}
    # 8, 16 or 24 of 24; multiples of 16 of 128
    assert values == {"keep.odd": (0.375, 0.625, 1.0), "keep.wide": around.SHARES}
    built = space.build(FixedTrial({"keep.odd": 0.375, "keep.wide": 0.875}), digits)
    assert built.get_layer("odd").kernel.shape == (3, 3, 1, 8)
    assert built.get_layer("wide").kernel.shape == (3, 3, 8, 112)


def test_weights_are_exact_slices(around: SubnetworkSpace, model: Any, digits: Dataset) -> None:
    cut = around.build(FixedTrial(HALF), digits)
    large = {"first": np.arange(1, 8, 2), "mid": np.arange(1, 16, 2), "hidden": np.arange(1, 32, 2)}
    every = np.arange(10)
    for name, before, kept in (
        ("mid", large["first"], large["mid"]),
        ("hidden", large["mid"], large["hidden"]),
        ("last", large["hidden"], every),
    ):
        expected = np.take(np.take(model.get_layer(name).kernel, before, -2), kept, -1)
        np.testing.assert_array_equal(cut.get_layer(name).kernel, expected)
    first, whole = cut.get_layer("first"), model.get_layer("first")
    np.testing.assert_array_equal(first.kernel, whole.kernel.numpy()[..., large["first"]])
    np.testing.assert_array_equal(first.bias, whole.bias.numpy()[large["first"]])
    gamma = model.get_layer("bn").gamma.numpy()
    np.testing.assert_array_equal(cut.get_layer("bn").gamma, gamma[large["mid"]])


def test_everything_kept_is_the_model_itself(
    around: SubnetworkSpace, model: Any, digits: Dataset
) -> None:
    built = around.build(FixedTrial(around.baseline(digits)), digits)
    around.prepare(built, around.baseline(digits) | {"learning_rate.adam": 1e-3}, digits)
    same_arrays(built.weights, model.weights)  # the statistics too
    x = digits.inputs("val")
    np.testing.assert_array_equal(built(x, training=False), model(x, training=False))
    # and a model of its own: training it leaves the next candidate alone
    built.get_layer("last").bias.assign(np.ones(10))
    again = around.build(FixedTrial(around.baseline(digits)), digits)
    np.testing.assert_array_equal(again.get_layer("last").bias, model.get_layer("last").bias)


def test_macs_by_hand(around: SubnetworkSpace, digits: Dataset) -> None:
    first, mid = 64 * 9 * 4, 16 * 9 * 4 * 16
    hidden, last = 16 * 32, 32 * 10
    model = around.build(FixedTrial({FIRST: 0.5, MID: 1.0, HIDDEN: 1.0}), digits)
    assert count_macs(model).macs == first + mid + hidden + last
    half = around.build(FixedTrial(HALF), digits)
    assert count_macs(half).macs == first + mid // 2 + 8 * 16 + 16 * 10


def test_statistics_are_those_of_the_sub_network(
    around: SubnetworkSpace, model: Any, digits: Dataset
) -> None:
    cut = around.build(FixedTrial(HALF), digits)
    around.prepare(cut, HALF, digits)
    x = cut.get_layer("mid")(cut.get_layer("first")(digits.inputs("train"))).numpy()
    bn = cut.get_layer("bn")
    for moving, true, name in (
        (bn.moving_mean, x.mean((0, 1, 2)), "moving_mean"),
        (bn.moving_variance, x.var((0, 1, 2)), "moving_variance"),
    ):
        # the mean over batches, of which the last is smaller
        error = np.abs(moving.numpy() - true).max() / np.abs(true).max()
        before = getattr(model.get_layer("bn"), name).numpy()[1::2]
        assert error < 0.02 < 0.2 < np.abs(before - true).max() / np.abs(true).max()


def save_chain(path: Path) -> None:
    """Saves 13 convolutions of 8 channels, then 12 of 16 and 1 of 24 at half the resolution."""
    import keras

    inputs = x = keras.Input((8, 8, 1))
    widths = [8] * 13 + [16] * 12 + [24]
    for index, width in enumerate(widths):
        stride = 2 if index == 13 else 1
        x = keras.layers.Conv2D(width, 1, stride, activation="relu", name=f"c{index}")(x)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    save_model(keras.Model(inputs, outputs), path)


@pytest.mark.parametrize(
    ("most", "names"),
    [
        (26, [f"c{index}" for index in range(26)]),
        (24, ["c0+12", "c13+11", "c25"]),
        (2, ["c0+12", "c13+12"]),
    ],
)
def test_many_groups_are_tied_by_stage(
    most: int, names: list[str], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around, "MAX_KEEP_RATIOS", most)
    save_chain(tmp_path / "chain.keras")
    space = SubnetworkSpace(f"around:{tmp_path / 'chain.keras'}")
    choices = space.choices(digits)
    assert [choice.name for choice in choices] == [f"keep.{name}" for name in names]
    chosen = {choice.name: choice.most for choice in choices} | {f"keep.{names[0]}": 0.5}
    model = space.build(FixedTrial(chosen), digits)
    thin = [model.get_layer(f"c{index}").filters for index in range(13)]
    assert thin == [4] + [8 if most == 26 else 4] * 12
    assert model.get_layer("c13").filters == 16

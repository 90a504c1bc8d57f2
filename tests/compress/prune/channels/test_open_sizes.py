"""Models whose input sizes are open: MACs are counted at the size that is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.core.errors import InputError
from compress.measure import count_macs
from compress.prune.channels import coupled_groups, prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import build_pruned_model
from tests.compress.prune.channels.law import randomize


def backbone(height: int | None, width: int | None) -> Any:
    """Early layers that cost MACs and late ones that cost parameters, and a nested stage."""
    inner = layers.Input((None if height is None else height // 2, width and width // 2, 16))
    stage = keras.Model(
        inner, layers.Conv2D(32, 3, strides=2, padding="same", name="third")(inner), name="stage"
    )
    inputs = keras.Input((height, width, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="second")(x)
    x = layers.Conv2D(32, 3, strides=2, padding="same", name="fourth")(stage(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def reader(steps: int | None, unused: int | None = None) -> Any:
    """Attention over open steps: scores grow with their square, the rest with their number."""
    inputs = keras.Input((steps, 16))
    x = layers.Dense(32, name="embed")(inputs)
    y = layers.MultiHeadAttention(4, 16, name="attention")(x, x)
    x = layers.Add()([x, y])
    y = layers.Dense(16, name="down")(layers.Dense(64, activation="relu", name="up")(x))
    x = layers.Conv1D(24, 3, padding="same", name="conv")(y)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.GlobalMaxPooling1D()(x)))


CASES: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (backbone, (64, 32, 3)),
    (reader, (48, 16)),
]


def twins(build: Callable[..., Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The same weights in a model of known sizes and in one of open sizes."""
    known, open_ = build(*shape[:2]), build(None, None)
    randomize(known, np.random.default_rng(0))
    open_.set_weights(known.get_weights())
    return known, open_


@pytest.mark.parametrize(("build", "shape"), CASES)
def test_targets_in_macs_are_those_of_a_model_of_that_size(
    build: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    known, open_ = twins(build, shape)
    wanted = prune_channels(known, macs=0.4)
    result = prune_channels(open_, macs=0.4, input_shape=shape)
    assert result.report.macs == wanted.report.macs
    assert [row.kept for row in result.report.groups] == [
        row.kept for row in wanted.report.groups
    ]  # fmt: skip
    for one, two in zip(result.model.weights, wanted.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    # the smaller model is as open as the original, and what was asked for is what it costs
    assert result.model.input_shape == open_.input_shape
    full = count_macs(open_, shape).macs
    assert count_macs(result.model, shape).macs == pytest.approx(0.4 * full, rel=0.02)
    # a batch axis in front does no harm
    again = prune_channels(open_, macs=0.4, input_shape=(None, *shape))
    assert count_macs(again.model, shape).macs == pytest.approx(0.4 * full, rel=0.02)


@pytest.mark.parametrize(("build", "shape"), CASES)
def test_any_kept_set_costs_what_the_smaller_model_costs(
    build: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    """Not only the whole: terms of one layer may grow differently with the size."""
    _, open_ = twins(build, shape)
    coupling = analyze_coupling(open_, shape)
    rng = np.random.default_rng(1)
    for _ in range(3):
        mask = np.ones(coupling.unit_count, bool)
        counts = []
        for group in coupling.groups:
            gone = rng.permutation(group.units)[: rng.integers(0, len(group.units))]
            mask[gone] = False
            counts.append(len(group.units) - len(gone))
        small = count_macs(build_pruned_model(coupling, mask), shape)
        assert small.unsupported == ()
        assert float(CostModel.from_coupling(coupling).macs(np.array(counts))) == pytest.approx(
            small.macs
        )


def test_macs_of_an_open_size_are_refused_with_the_remedy() -> None:
    model = backbone(None, None)
    message = r"known input size. Received: model '.*' for inputs of \(None, None, 3\). Give input_"
    for arguments in ({"macs": 0.5}, {"macs": 1000}):
        with pytest.raises(InputError, match=message) as refused:
            prune_channels(model, **arguments)
        assert "\n" not in str(refused.value)
        assert "--input-shape" in str(refused.value)
    with pytest.raises(InputError, match=r"agree with model '.*', which takes \(None, None, 3\)"):
        prune_channels(model, macs=0.5, input_shape=(64, 64, 1))


def test_parameters_need_no_size() -> None:
    model = backbone(None, None)
    by_params = prune_channels(model, params=0.5)
    assert by_params.report.macs is None
    assert by_params.report.macs_ratio is None
    assert by_params.model.count_params() == pytest.approx(0.5 * model.count_params(), rel=0.02)


def test_a_subclassed_model_of_open_sizes() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one = layers.Conv2D(32, 3, padding="same", name="one")
            self.two = layers.Conv2D(32, 3, strides=2, padding="same", name="two")
            self.pool = layers.GlobalAveragePooling2D()
            self.head = layers.Dense(4, name="head")

        def call(self, x: Any) -> Any:
            return self.head(self.pool(self.two(self.one(x))))

    model = Own()
    with pytest.raises(InputError, match="must be built before it can be read"):
        prune_channels(model, macs=0.5)
    model(keras.Input((None, None, 3)))
    with pytest.raises(InputError, match="known input size"):
        prune_channels(model, macs=0.5)
    # 1024 * 27 * 32, 256 * 288 * 32 and 32 * 4 MACs at 32 x 32
    report = prune_channels(model, macs=0.5, input_shape=(32, 32, 3)).report
    assert report.macs is not None
    assert report.macs[0] == 1024 * 27 * 32 + 256 * 288 * 32 + 128
    assert report.macs[1] == pytest.approx(0.5 * report.macs[0], rel=0.02)


def test_coupled_groups_say_what_is_not_known() -> None:
    model = backbone(None, None)
    unknown, known = coupled_groups(model), coupled_groups(model, input_shape=(64, 32, 3))
    assert unknown.groups == known.groups
    assert (unknown.macs, unknown.least, unknown.shares) == (None, None, ())
    assert known.macs == count_macs(model, (64, 32, 3)).macs
    assert sum(macs for _, macs, _ in known.layers) == known.macs


def test_inspect_takes_the_size(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from search.cli import app

    backbone(None, None).save(tmp_path / "m.keras")
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.keras")])
    assert shown.exit_code == 0
    assert "MACs are not known: an input size is open. Give --input-shape." in shown.stdout
    words = ["inspect", str(tmp_path / "m.keras"), "--input-shape", "64,32,3"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "MACs are not known" not in shown.stdout
    assert "Channels can be thinned to 0." in shown.stdout

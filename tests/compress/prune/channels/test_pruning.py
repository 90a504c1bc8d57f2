"""`prune_channels` as users call it: targets, slices, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import compress
from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure import count_macs
from compress.plan import ChannelOptions
from compress.prune.channels import (
    LayerCall,
    Slots,
    prune_channels,
    register_rule,
)
from compress.prune.channels.coupling.groups import Group
from tests.compress.prune.channels.law import compare, outputs_of, randomize, zeroed


def cnn(width: int = 64) -> Any:
    """Two convolutions in a residual, a wide hidden layer, a classifier for digits."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(name="bn0")(x)
    y = layers.Conv2D(width, 3, padding="same", activation="relu", name="inner")(x)
    y = layers.Conv2D(width, 3, padding="same", name="back")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    x = layers.Dense(2 * width, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", name="last")(x))
    randomize(model, np.random.default_rng(0))
    return model


def first_kept(group: Group, context: Any) -> np.ndarray:
    """A constant criterion: the first units score highest."""
    return np.arange(len(group.units), 0, -1, dtype=float)


def test_the_law_in_five_lines() -> None:
    model = cnn()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    result = prune_channels(model, macs=0.4)
    small = outputs_of(result.model, x)
    for weight in model.weights:
        weight.assign(zeroed(weight.numpy(), result.kept[weight.path]))
    compare(outputs_of(model, x), small)


def test_a_constant_criterion_gives_exact_slices() -> None:
    model = cnn()
    result = prune_channels(
        model, cost=lambda kept, _: kept.sum(-1), share=0.5, scope="layer", criterion=first_kept
    )
    new = {weight.path: weight.numpy() for weight in result.model.weights}
    for weight in model.weights:
        shape = new[weight.path].shape
        np.testing.assert_array_equal(
            new[weight.path], weight.numpy()[tuple(slice(size) for size in shape)]
        )
    assert result.model.get_layer("stem").filters == 32
    assert result.model.get_layer("hidden").units == 64
    assert result.report.criterion == "first_kept"


@pytest.mark.parametrize("share", [0.7, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("of", ["macs", "params"])
def test_targets_are_met(share: float, of: str) -> None:
    model = cnn()
    result = prune_channels(model, **{of: share})
    before, after = count_macs(model), count_macs(result.model)
    assert getattr(after, of) / getattr(before, of) == pytest.approx(share, rel=0.02)
    assert result.report.macs == (before.macs, after.macs)
    assert result.report.params == (before.params, after.params)
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]


def test_absolute_targets() -> None:
    model = cnn()
    result = prune_channels(model, macs=1_000_000)
    assert count_macs(result.model).macs == pytest.approx(1_000_000, rel=0.02)
    small = prune_channels(model, ChannelOptions(target=0.5), params="60k")
    assert count_macs(small.model).params == pytest.approx(60e3, rel=0.02)
    assert small.report.target == "params 60k"


def test_kept_numbers_are_what_runtimes_like() -> None:
    channels = {"cost": lambda kept, _: kept.sum(-1), "share": 0.625}
    kept = [row.kept for row in prune_channels(cnn(), scope="layer", **channels).report.groups]
    assert kept
    assert [count % 16 for count in kept] == [0] * len(kept)
    kept = [row.kept for row in prune_channels(cnn(24), macs=0.5).report.groups]
    assert kept
    assert [count % 4 for count in kept] == [0] * len(kept)
    odd = prune_channels(cnn(), macs=0.3, round_to=1)
    assert any(row.kept % 4 for row in odd.report.groups)


def test_coarse_steps_give_way_to_finer_ones_and_the_report_says_so() -> None:
    report = prune_channels(cnn(16), macs=0.09).report
    assert report.round_to in ("8", "4")
    assert any("coarser steps miss the target" in note for note in report.notes)


def test_exclusions() -> None:
    result = prune_channels(cnn(), macs=0.5, exclude=("inner", "hidd*"))
    rows = {row.name: row for row in result.report.groups}
    assert rows["inner"].kept == 64
    assert rows["hidden"].kept == 128
    assert rows["stem"].kept < 64


def test_min_kept_holds_for_every_layer() -> None:
    wide = prune_channels(cnn(64), macs=0.35, min_kept=0.5, round_to=1)
    assert min(row.kept / row.total for row in wide.report.groups) >= 0.5


def test_layer_scope_thins_all_layers_alike() -> None:
    rows = prune_channels(cnn(), macs=0.25, scope="layer", round_to=1).report.groups
    shares = [row.kept / row.total for row in rows]
    assert max(shares) - min(shares) < 0.1


def test_the_model_saves_loads_and_trains(tmp_path: Path, digits: Dataset) -> None:
    result = prune_channels(cnn(), macs=0.25)
    path = tmp_path / "small.keras"
    result.model.save(path)
    again = keras.saving.load_model(path)
    x = digits.inputs("val")[:8]
    np.testing.assert_array_equal(outputs_of(result.model, x)[0], outputs_of(again, x)[0])
    result.model.compile("adam", "sparse_categorical_crossentropy")
    result.model.fit(x, digits.val.y[:8], verbose=0)


def test_adapted_constants_are_carried_over() -> None:
    """Normalization computes with constants that it derives from its weights."""
    from compress.model.copies import copy_model

    rng = np.random.default_rng(0)
    x = (3.0 + 2.0 * rng.normal(size=(64, 6))).astype(np.float32)
    inputs = keras.Input((6,))
    normalization = layers.Normalization(name="adapted")
    hidden = layers.Dense(8, activation="relu", name="a")(normalization(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="b")(hidden))
    normalization.adapt(x)
    result = prune_channels(model, macs=0.5, scope="layer", round_to=1)
    small = outputs_of(result.model, x)
    copied = outputs_of(copy_model(model), x)
    np.testing.assert_allclose(copied[0], outputs_of(model, x)[0], rtol=1e-6)
    for weight in model.weights:
        if weight.path in result.kept and "adapted" not in weight.path:
            weight.assign(zeroed(weight.numpy(), result.kept[weight.path]))
    compare(outputs_of(model, x), small)


def test_recalibration_sets_statistics_of_the_batches(digits: Dataset) -> None:
    result = prune_channels(cnn(), macs=0.5, scope="global", data=digits)
    compress.recalibrate(result.model, digits, 1)
    stem = keras.Model(result.model.input, result.model.get_layer("stem").output)
    order = np.random.default_rng(0).permutation(len(digits.train))[:256]
    values = outputs_of(stem, digits.preprocess(digits.train.x[order]))[0]
    bn = result.model.get_layer("bn0")
    np.testing.assert_allclose(bn.moving_mean.numpy(), values.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bn.moving_variance.numpy(), values.var((0, 1, 2)), rtol=2e-3)
    assert bn.momentum == 0.99


class Scaled(layers.Layer):
    """A custom layer with one factor a channel."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor", initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.factor


def with_scaled(layer: Any) -> Any:
    inputs = keras.Input((6,))
    x = layer(layers.Dense(8, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(8, name="after")(x)))


def test_a_layer_without_a_rule_keeps_its_channels_and_is_reported() -> None:
    report = prune_channels(with_scaled(Scaled(name="own")), macs=0.7).report
    assert [row.name for row in report.groups] == ["after"]
    ((name, kind, reason),) = report.unknown
    assert (name, kind) == ("own", "Scaled")
    assert "it owns weights itself" in reason
    held = {frozen.layer: frozen for frozen in report.frozen}
    assert held["own"].units == 8
    assert held["own"].made_by == ("before",)


class Taught(Scaled):
    """The same, with a rule."""


@register_rule(Taught)
def taught(call: LayerCall) -> Slots:
    x = call.inputs[0]
    call.bind(call.layer.factor, 0, x.axes[-1])
    return call.passed(x, zero=True)


def test_a_rule_teaches_a_custom_layer() -> None:
    model = with_scaled(Taught(name="own"))
    result = prune_channels(model, macs=0.5, scope="layer")
    assert not result.report.unknown
    assert [row.name for row in result.report.groups] == ["before", "after"]
    kept = result.kept["own/factor"][0]
    np.testing.assert_array_equal(
        result.model.get_layer("own").factor.numpy(),
        model.get_layer("own").factor.numpy()[kept],
    )


ERRORS = [
    ({}, "must be one of macs=, params= or share= of a cost=. Received: none"),
    ({"macs": 0.5, "params": 0.5}, "Received: macs, params"),
    ({"macs": 0.0}, r"must keep a share in \(0, 1\]"),
    ({"macs": 1e12}, "must be at most the model's own"),
    ({"amount": 0.5}, "^Argument 'amount' was removed. A target says what is kept. Give macs="),
    ({"macs": 0.5, "finetune": print}, "^Argument 'finetune' was removed. .* train in turn.$"),
    ({"macs": 0.5, "steps": 2}, "^Option 'steps' was removed. .* train in turn.$"),
    ({"macs": 0.001}, r"macs must be at least [\d,]+ \(0\.\d+x .* not prunable: 10 units by model"),
    ({"macs": 0.5, "criterion": "l3"}, "Unknown channel criterion 'l3'.*l2"),
    ({"macs": 0.5, "criterion": "taylor"}, "'taylor' must have data"),
    ({"macs": 0.5, "exclude": ("stemm",)}, "'stemm'. Did you mean 'stem'. Choices: "),
    ({"macs": 0.5, "colour": 1}, r"Unknown option of prune_channels\(\) 'colour'"),
    ({"macs": 0.5, "criterion": lambda group, context: [1.0]}, "must return 64 finite numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_channels(cnn(), **arguments)


def test_nan_weights() -> None:
    model = cnn()
    kernel = model.get_layer("inner").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(InputError, match="NaN or infinity in 'inner/kernel'"):
        prune_channels(model, macs=0.5)


def test_nothing_removable() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="only")(inputs))
    with pytest.raises(
        InputError, match=r"Received: none; not prunable: 3 units by model output 'only'"
    ):
        prune_channels(model, macs=0.5)


def test_a_model_without_a_kernel_has_nothing_to_remove() -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.ReLU()(layers.MaxPooling2D()(inputs)))
    coupled = compress.coupled_groups(model)
    assert (coupled.groups, coupled.frozen, coupled.macs) == ((), (), 0)
    with pytest.raises(InputError, match="Received: none; not prunable: no units"):
        prune_channels(model, macs=0.5)


def test_kernels_with_lora_have_no_rule_but_the_users_own() -> None:
    class Own(layers.Dense):
        pass

    inputs = keras.Input((6,))
    x = layers.Dense(8, name="plain")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(Own(8, name="own")(x)))
    for name in ("plain", "own"):
        model.get_layer(name).enable_lora(2)
    reason = "LoRA and quantized kernels have no rule"
    unknown = [("plain", "Dense", reason), ("own", "Own", reason)]
    assert list(compress.coupled_groups(model).unknown) == unknown
    register_rule(Own, lambda call: call.report_unknown("in its own words")[0])
    assert compress.coupled_groups(model).unknown[1] == ("own", "Own", "in its own words")


def test_public_names() -> None:
    coupled = compress.coupled_groups(cnn())
    assert [row.makers for row in coupled.groups] == [("stem", "back"), ("inner",), ("hidden",)]
    assert coupled.macs == count_macs(cnn()).macs
    assert coupled.groups[0].layers == ("stem", "bn0", "inner", "back", "hidden")
    assert 0 < coupled.least < coupled.macs
    assert compress.prune_channels is prune_channels


def test_the_rule_that_is_shown_works() -> None:
    """The worked example of docs/howto/extend.md, as it stands there."""
    import re

    from tests.compress.prune.channels.law import check

    page = Path(__file__).parents[4] / "docs" / "howto" / "extend.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    (block,) = (text for text in blocks if "@register_rule(Mix)" in text)
    names: dict[str, Any] = {}
    exec(compile(block, str(page), "exec"), names)
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="before")(inputs)
    x = names["Mix"](10, name="mix")(x)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    assert [group.name for group in coupling.groups] == ["before", "mix"]


def test_layers_that_are_built_after_a_pruning_draw_their_weights() -> None:
    """Random values are skipped only while the smaller model is built, whose weights are set."""
    prune_channels(cnn(), macs=0.5)
    fresh = keras.layers.Dense(4)
    fresh.build((None, 5))
    assert np.count_nonzero(fresh.kernel) == 20

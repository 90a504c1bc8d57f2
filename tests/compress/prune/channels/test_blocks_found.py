"""Which residual branches may leave as a whole, and which are held."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling import branches
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import (
    build_pruned_model,
)
from tests.compress.prune.channels import residual
from tests.compress.prune.channels.law import check, whole
from tests.compress.prune.channels.residual import NETS, classifier


def found(model: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Names and layers of the blocks."""
    return [(block.name, block.layers) for block in list_blocks(analyze_coupling(model))]


def held(model: Any) -> list[tuple[str, str]]:
    """Names and reasons of what stays."""
    return [(row.name, row.reason) for row in analyze_coupling(model).block_dependencies.protected]


def test_blocks_by_name() -> None:
    assert found(NETS["inverted residuals"]()) == [
        (f"{name}_add", tuple(f"{name}_{part}" for part in
                              ("expand", "bn1", "dw", "bn2", "project", "bn3")))
        for name in "ac"
    ]  # fmt: skip
    assert [names for _, names in found(NETS["convnext"]())] == [
        tuple(f"{name}_{part}" for part in ("dw", "norm", "up", "down")) for name in "ab"
    ]
    assert found(NETS["transformer"]())[:2] == [
        ("a_attended", ("a_norm", "a_heads")),
        ("a_mlp", ("a_norm2", "a_up", "a_down")),
    ]
    assert found(NETS["three operands"]()) == [("sum:0", ("one",)), ("sum:2", ("inside", "two"))]


def test_a_projection_stays() -> None:
    model = NETS["preactivated"]()
    # what the projection reads too is not the branch's alone
    assert ("b_add", ("b_conv1", "b_bn2", "b_conv2")) in found(model)
    assert held(model) == [("b_add", branches.SHORTCUT)]


def test_blocks_within_blocks() -> None:
    blocks = list_blocks(analyze_coupling(NETS["within each other"]()))
    assert [(block.name, block.inner) for block in blocks] == [
        ("a_add", ()), ("b_add", ()), ("outer", (0, 1)),
    ]  # fmt: skip
    nested = list_blocks(analyze_coupling(NETS["nested"]()))
    assert [(block.name, block.inner) for block in nested] == [
        ("twice/sum", ()), ("once/sum", ()), ("outer", (1,)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["within each other", "nested"])
def test_an_outer_block_takes_the_inner_ones_along(name: str) -> None:
    model = NETS[name]()
    coupling, sliced, _ = check(model, dropped=[2])
    outer = list_blocks(coupling)[2]
    assert len(list_blocks(analyze_coupling(sliced))) == 3 - 1 - len(outer.inner)
    costs, kept = CostModel.from_coupling(coupling), coupling.removable_counts
    inner = np.ones((2, 3))
    inner[:, 2], inner[0, outer.inner] = 0, 0
    np.testing.assert_array_equal(*costs.macs(kept, inner))  # they are gone either way
    np.testing.assert_array_equal(*costs.params(kept, inner))


def test_what_a_split_serves_leaves_with_the_last_of_them() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    halves = ops.split(layers.Dense(12, activation="relu", name="both")(x), 2, axis=-1)
    one, two = (layers.Dense(8, name=f"of_{at}")(half) for at, half in enumerate(halves))
    model = classifier(inputs, layers.Add(name="sum")([x, one, two]))
    assert found(model) == [("sum:1", ("of_0",)), ("sum:2", ("of_1",))]
    for dropped, stays in (([0], True), ([1], True), ([0, 1], False)):
        _, sliced, _ = check(model, dropped=dropped)
        assert ("both" in [layer.name for layer in sliced.layers]) == stays


def test_what_a_normalization_serves_leaves_with_the_last_of_them() -> None:
    model = NETS["parallel transformer"]()
    coupling = analyze_coupling(model)
    first, second = list_blocks(coupling)[:2]
    assert (first.layers, second.layers) == (("a_heads",), ("a_up", "a_down"))
    for dropped, stays in (([first], True), ([second], True), ([first, second], False)):
        sliced = build_pruned_model(coupling, whole(coupling), dropped)
        assert ("a_norm" in [layer.name for layer in sliced.layers]) == stays


def test_the_trunk_stays_where_a_sum_is_a_chain() -> None:
    """(x + one) + two: the first sum has a layer of its own, and x passes through it."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    one = layers.Dense(8, activation="relu", name="one")(x)
    two = layers.Dense(8, name="two")(layers.Dense(4, activation="relu", name="in")(x))
    model = classifier(inputs, (x + one) + two)
    assert [names for _, names in found(model)] == [("one",), ("in", "two")]
    check(model, dropped=[0, 1])


def test_of_equal_branches_one_stays() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    small, large = (
        layers.Dense(8, name=f"{name}_out")(layers.Dense(width, "relu", name=f"{name}_in")(x))
        for name, width in (("small", 3), ("large", 9))
    )
    model = classifier(inputs, layers.Add(name="sum")([small, large]))
    assert found(model) == [("sum", ("small_in", "small_out"))]
    assert held(model) == [("sum", branches.ONE_STAYS)]
    check(model, dropped=[0])


def plain() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    return classifier(inputs, layers.Conv2D(4, 3, activation="relu")(x))


def unet() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(6, 3, 2, "same", activation="relu")(x)
    y = layers.Conv2DTranspose(4, 2, 2)(y)
    return classifier(inputs, layers.Concatenate()([x, y]))


def dense_connections() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    for _ in range(3):
        x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same", activation="relu")(x)])
    return classifier(inputs, x)


@pytest.mark.parametrize("make", [plain, unet, dense_connections])
def test_nets_without_sums_have_no_blocks(make: Any) -> None:
    coupling = analyze_coupling(make())
    assert list_blocks(coupling) == () == coupling.block_dependencies.protected
    costs = CostModel.from_coupling(coupling)
    assert costs.macs(coupling.removable_counts, np.ones(0)) == costs.macs(
        coupling.removable_counts
    )


def two_towers() -> Any:
    one, two = keras.Input((6, 5)), keras.Input((6, 5))
    towers = [layers.Dense(8, activation="relu")(x) for x in (one, two)]
    return classifier([one, two], layers.Add(name="sum")(towers))


def pyramid() -> Any:
    """A lateral layer is added to what comes from deeper layers."""
    inputs = keras.Input((8, 8, 3))
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    coarse = layers.Conv2D(6, 3, 2, "same", activation="relu")(fine)
    top = layers.Conv2D(5, 1, name="top")(coarse)
    lateral = layers.Conv2D(5, 1, name="lateral")(fine)
    x = layers.Add(name="sum")([layers.UpSampling2D(2)(top), lateral])
    ends = [layers.GlobalAveragePooling2D()(y) for y in (x, top)]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(ends)))


def shared_layer() -> Any:
    inputs = keras.Input((6, 8))
    both = layers.Dense(8, activation="relu", name="both")
    return classifier(inputs, layers.Add(name="sum")([inputs, both(both(inputs))]) + both(inputs))


def positions() -> Any:
    tokens = keras.Input((6,), dtype="int32")
    places = keras.Input((6,), dtype="int32")
    x = layers.Add(name="sum")([layers.Embedding(9, 8)(tokens), layers.Embedding(6, 8)(places)])
    return classifier([tokens, places], x)


@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (two_towers, {branches.NOT_RESIDUAL}),
        (pyramid, {branches.NOT_RESIDUAL}),
        (positions, {branches.NO_KERNEL}),
    ],
)
def test_sums_of_other_things_are_held(make: Any, reasons: set[str]) -> None:
    model = make()
    assert found(model) == []
    assert {reason for _, reason in held(model)} == reasons
    assert {name for name, _ in held(model)} == {"sum"}


def test_the_operand_that_has_the_shape_of_the_sum_stays() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="one")(ops.mean(inputs, axis=1, keepdims=True))
    y = layers.Dense(8, activation="relu", name="six")(inputs)
    model = classifier(inputs, layers.Add(name="sum")([x, y]))
    assert found(model) == [("sum", ("one",))]
    assert held(model) == [("sum", branches.SHAPE)]
    check(model, dropped=[0])


def test_a_layer_that_is_used_outside_holds_its_branch() -> None:
    model = shared_layer()
    assert found(model) == []
    assert ("sum", "layer 'both' is in it, and its weights are used outside of it too") in held(
        model
    )
    opened = held(NETS["opened"]())
    assert len(opened) == 2  # the layer that is opened is called twice
    assert all("layer 'twice_down' is in it" in reason for _, reason in opened)


def masked(raw: bool) -> Any:
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(tokens)
    y = layers.Dense(8, activation="tanh", name="branch")(x)
    x = x + y if raw else layers.Add(name="sum")([x, y])
    return keras.Model(tokens, layers.Dense(3, name="head")(layers.LSTM(5, name="lstm")(x)))


def test_beside_a_branch_that_is_held_the_projection_does_not_leave() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    twice = layers.Dense(8, activation="relu", name="twice")
    y = layers.Dense(6, name="end")(twice(twice(x)))
    extra = twice(layers.Dense(8, name="extra")(x))
    y = layers.Add(name="sum")([layers.Dense(6, name="projection")(x), y])
    model = classifier(inputs, layers.Concatenate()([y, extra]))
    assert found(model) == []
    shared = "layer 'twice' is in it, and its weights are used outside of it too"
    assert held(model) == [("sum", branches.NOT_RESIDUAL), ("sum", shared)]


def test_masks_pass_as_before() -> None:
    """A raw addition ends Keras's mask: without it the mask would reach the LSTM."""
    tokens = np.array([[3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0], [5, 0, 1, 1, 0, 2]])
    assert found(masked(raw=False)) == [("sum", ("branch",))]
    check(masked(raw=False), dropped=[0], inputs=tokens)
    assert found(masked(raw=True)) == []
    assert [reason for _, reason in held(masked(raw=True))] == [branches.MASK]


def test_a_branch_whose_removed_channels_hold_a_number_stays() -> None:
    """Half of 0.5 + 0.5 is a sigmoid's: a sum over channels counts on their zeros behind it."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, name="stem")(inputs)
    branch = ops.sigmoid(layers.Dense(8, name="branch")(x))
    y = ops.sum(ops.add(x, branch) - 0.5, axis=-1, keepdims=True)
    model = classifier(inputs, layers.Concatenate()([x, y]))
    assert found(model) == []
    ((_, reason),) = held(model)
    assert reason == "its removed channels would hold 0.5, and what follows relies on it"


def test_blocks_of_a_model_inside_a_layer_are_held() -> None:
    inputs = keras.Input((3, 6, 5))
    x = layers.TimeDistributed(residual.body("inside", 5), name="frames")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    assert found(model) == []
    assert held(model) == [("frames/sum", "it is in a model that layer 'frames' holds")]
    check(model)

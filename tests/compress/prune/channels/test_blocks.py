"""Residual branches that leave as a whole: what is left equals the original with zeros for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import compress
from benchmarks.resnet20 import build
from compress.measure import count_macs
from compress.model import walk
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling import branches
from compress.prune.channels.coupling.blocks import blocks_of, depth_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.pruning import _mask_of
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import (
    indices_by_weight,
    kept_indices,
    sliced_model,
    sliced_with_weights,
    variable_paths,
)
from tests.compress.prune.channels import residual
from tests.compress.prune.channels.law import (
    check,
    compare,
    outputs_of,
    random_inputs,
    random_mask,
    randomize,
    reference,
)
from tests.compress.prune.channels.residual import NETS, classifier, random_blocks
from tests.compress.prune.channels.test_applications import build as application
from tests.compress.prune.channels.test_applications import images

FEW = 4
GRAPHS = 40
ONE_ENTRY = pytest.mark.filterwarnings("ignore:(.|\n)*softmax over axis")


def found(model: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Names and layers of the blocks."""
    return [(block.name, block.layers) for block in blocks_of(coupling_of(model))]


def held(model: Any) -> list[tuple[str, str]]:
    """Names and reasons of what stays."""
    return [(row.name, row.reason) for row in depth_of(coupling_of(model)).held]


def whole(coupling: Coupling) -> Any:
    """A mask that keeps all units."""
    return np.ones(coupling.units, bool)


# -- the law ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_law(name: str) -> None:
    """For each net a random part of its blocks with random channels, then all blocks."""
    model = NETS[name]()
    count = len(blocks_of(coupling_of(model)))
    assert count
    some = np.flatnonzero(np.random.default_rng(len(name)).random(count) < 0.5)
    for seed, dropped in enumerate((some[: count - 1], range(count))):
        coupling, sliced, _ = check(model, seed=seed, dropped=list(dropped))
        gone = {layer for index in dropped for layer in blocks_of(coupling)[index].layers}
        left = {layer for layer, _ in walk.named_layers(sliced)}
        assert not gone & left
        again = blocks_of(coupling_of(sliced))
        inner = {at for index in dropped for at in blocks_of(coupling)[index].inner}
        assert len(again) == count - len({*dropped, *inner})


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_law_of_each_block(name: str) -> None:
    model = NETS[name]()
    for index in range(len(blocks_of(coupling_of(model)))):
        check(model, seed=index, dropped=[index])


def test_resnet20_is_itself_with_zeroed_normalizations(tmp_path: Path) -> None:
    """The reference is Keras's own model: scale and shift of the branches' last layers are 0."""
    model = build(widths=(8, 12, 16), input_shape=(12, 12, 1))
    rng = np.random.default_rng(0)
    randomize(model, rng)
    coupling = coupling_of(model)
    blocks = blocks_of(coupling)
    assert [block.name for block in blocks] == [
        f"s{stage}b{block}_add" for stage in (1, 2, 3) for block in (1, 2, 3)
    ]
    dropped = [blocks[at] for at in (1, 2, 3, 8)]  # several in a row, and one with a projection
    mask = random_mask(coupling, rng)
    sliced = sliced_model(coupling, mask, dropped)
    file = tmp_path / "model.keras"
    sliced.save(file)
    x = rng.normal(size=(3, 12, 12, 1)).astype(np.float32)
    received = outputs_of(sliced, x)
    compare(received, outputs_of(keras.models.load_model(file, compile=False), x), 1e-6)
    for path, weight in variable_paths(model):
        value = weight.numpy()
        for axis, kept in enumerate(kept_indices(coupling, mask)[path]):
            if kept is not None:
                flags = np.isin(np.arange(value.shape[axis]), kept)
                value *= flags.reshape([-1 if at == axis else 1 for at in range(value.ndim)])
        weight.assign(value)
    for block in dropped:
        last = model.get_layer(block.name.replace("add", "bn2"))
        last.gamma.assign(np.zeros(last.gamma.shape))
        last.beta.assign(np.zeros(last.beta.shape))
    compare(outputs_of(model, x), received)


@ONE_ENTRY
@pytest.mark.parametrize("seed", range(FEW))
def test_random_blocks(seed: int) -> None:
    obeys(seed)


@ONE_ENTRY
@pytest.mark.slow
def test_many_random_blocks() -> None:
    blocks = [obeys(seed) for seed in range(FEW, FEW + GRAPHS)]
    assert sum(count for count, _ in blocks) >= 5 * GRAPHS
    assert sum(inner for _, inner in blocks) >= GRAPHS


def obeys(seed: int) -> tuple[int, int]:
    """Checks the law for random blocks of a random net; returns how many and how many inside."""
    model = random_blocks(seed)
    blocks = blocks_of(coupling_of(model))
    dropped = np.flatnonzero(np.random.default_rng(seed).random(len(blocks)) < 0.6).tolist()
    check(model, seed=seed, dropped=dropped, removes=False)
    return len(blocks), sum(len(block.inner) for block in blocks)


def test_step_by_step_is_at_once() -> None:
    model = build(widths=(8, 12, 16), input_shape=(8, 8, 1))
    randomize(model, np.random.default_rng(0))
    coupling = coupling_of(model)
    blocks = blocks_of(coupling)
    at_once = sliced_model(coupling, whole(coupling), [blocks[1], blocks[4]])
    first = coupling_of(sliced_model(coupling, whole(coupling), [blocks[1]]))
    (later,) = [block for block in blocks_of(first) if block.name == blocks[4].name]
    second = sliced_model(first, whole(first), [later])
    assert [layer.name for layer in second.layers] == [layer.name for layer in at_once.layers]
    for one, two in zip(at_once.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, two)


# -- what may leave --------------------------------------------------------------------------


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
    blocks = blocks_of(coupling_of(NETS["within each other"]()))
    assert [(block.name, block.inner) for block in blocks] == [
        ("a_add", ()), ("b_add", ()), ("outer", (0, 1)),
    ]  # fmt: skip
    nested = blocks_of(coupling_of(NETS["nested"]()))
    assert [(block.name, block.inner) for block in nested] == [
        ("twice/sum", ()), ("once/sum", ()), ("outer", (1,)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["within each other", "nested"])
def test_an_outer_block_takes_the_inner_ones_along(name: str) -> None:
    model = NETS[name]()
    coupling, sliced, _ = check(model, dropped=[2])
    outer = blocks_of(coupling)[2]
    assert len(blocks_of(coupling_of(sliced))) == 3 - 1 - len(outer.inner)
    costs, kept = CostModel.of(coupling), coupling.whole
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
    coupling = coupling_of(model)
    first, second = blocks_of(coupling)[:2]
    assert (first.layers, second.layers) == (("a_heads",), ("a_up", "a_down"))
    for dropped, stays in (([first], True), ([second], True), ([first, second], False)):
        sliced = sliced_model(coupling, whole(coupling), dropped)
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
    coupling = coupling_of(make())
    assert blocks_of(coupling) == () == depth_of(coupling).held
    costs = CostModel.of(coupling)
    assert costs.macs(coupling.whole, np.ones(0)) == costs.macs(coupling.whole)


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


# -- what is built ---------------------------------------------------------------------------


def test_an_output_keeps_its_name() -> None:
    inputs = keras.Input((6,), name="x")
    first = layers.Dense(6, name="trunk")(inputs)
    y = layers.Add(name="sum")([first, layers.Dense(6, "relu", name="branch")(first)])
    model = keras.Model(inputs, [y, layers.Dense(2, name="end")(y)])
    _, sliced, _ = check(model, dropped=[0], removes=False)
    assert sliced.output_names == model.output_names == ["sum", "end"]


def test_an_input_of_a_branch_alone_stays_an_input(tmp_path: Path) -> None:
    one, two = keras.Input((6, 5), name="one"), keras.Input((6, 5), name="two")
    x = layers.Dense(8, activation="relu", name="stem")(one)
    y = layers.Dense(8, activation="relu", name="branch")(layers.Concatenate()([x, two]))
    model = classifier([one, two], layers.Add(name="sum")([x, y]))
    _, sliced, _ = check(model, dropped=[0])
    assert [tensor.name for tensor in sliced.inputs] == ["one", "two"]
    sliced.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    x = random_inputs(coupling_of(model).program, np.random.default_rng(0))
    compare(outputs_of(sliced, x), outputs_of(again, x), 1e-6)


def test_a_subclassed_model() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.stem = layers.Dense(8, activation="relu", name="stem")
            self.down, self.up = layers.Dense(5, activation="relu"), layers.Dense(8)
            self.head = layers.Dense(3, name="head")

        def call(self, x: Any) -> Any:
            x = self.stem(x)
            return self.head(x + self.up(self.down(x)))

    net = Net()
    net(np.zeros((1, 6), np.float32))
    assert len(found(net)) == 1
    _, sliced, _ = check(net, dropped=[0])
    assert len(sliced.weights) == 4


def test_weights_of_dropped_layers_have_empty_indices() -> None:
    coupling = coupling_of(NETS["within each other"]())
    outer = blocks_of(coupling)[2]
    mask = random_mask(coupling, np.random.default_rng(0), 0.5)
    indices = kept_indices(coupling, mask, [outer])
    _, new = sliced_with_weights(coupling, mask, [outer])
    without = kept_indices(coupling, mask)
    for path, weight in variable_paths(coupling.program.model):
        layer = path.split("/")[0]
        assert (id(weight) in new) == (layer not in outer.layers)
        if layer in outer.layers:
            assert [len(kept) for kept in indices[path]] == [0] * len(weight.shape)
        else:
            for one, two in zip(indices[path], without[path], strict=True):
                np.testing.assert_array_equal(one, two)
    assert indices_by_weight(coupling, mask, [outer]).keys() == {
        id(weight) for weight in coupling.program.model.weights
    }


def test_kept_units_are_read_from_the_weights_that_stay() -> None:
    coupling = coupling_of(NETS["within each other"]())
    mask = random_mask(coupling, np.random.default_rng(0), 0.5)
    read = _mask_of(coupling, kept_indices(coupling, mask, blocks_of(coupling)[2:]))
    by_name = {group.name: group.units for group in coupling.groups}
    np.testing.assert_array_equal(read[by_name["stem"]], mask[by_name["stem"]])
    assert read[by_name["down"]].all()  # in the block alone: nothing says what of it was kept


def test_blocks_of_another_coupling_are_refused() -> None:
    one, two = (coupling_of(NETS["three operands"]()) for _ in range(2))
    with pytest.raises(ValueError, match="must be of this coupling"):
        sliced_model(one, whole(one), blocks_of(two)[:1])


# -- costs -----------------------------------------------------------------------------------


def test_costs_by_hand() -> None:
    """Dense layers at six positions, some in a block that is in a block."""
    coupling = coupling_of(NETS["within each other"]())
    costs, kept = CostModel.of(coupling), coupling.whole
    trunk, outer, inner = 6 * 5 * 8 + 8 * 3, 6 * (8 * 6 + 6 * 8), 6 * 6 * 6
    present = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    macs = [trunk + outer + count * inner for count in (2, 1, 0)] + [trunk] * 3
    np.testing.assert_array_equal(costs.macs(kept, present), macs)
    trunk, outer, inner = 5 * 8 + 8 + 8 * 3 + 3, 8 * 6 + 6 + 6 * 8 + 8, 6 * 6 + 6
    params = [trunk + outer + count * inner for count in (2, 1, 0)] + [trunk] * 3
    np.testing.assert_array_equal(costs.params(kept, present), params)
    by_layer = costs.macs_by_layer(kept, present)
    np.testing.assert_array_equal(by_layer["b_dense"], 216 * np.array([1, 1, 0, 0, 0, 0]))
    np.testing.assert_array_equal(by_layer["stem"], [240] * 6)
    assert costs.params_by_layer(kept)["down"] == 8 * 6 + 6


def test_costs_broadcast_kept_and_present() -> None:
    coupling = coupling_of(NETS["parallel transformer"]())
    costs, rng = CostModel.of(coupling), np.random.default_rng(0)
    kept = rng.integers(1, coupling.whole + 1, size=(5, 1, len(coupling.groups)))
    present = rng.integers(0, 2, size=(7, len(blocks_of(coupling))))
    for cost in (costs.macs, costs.params):
        table = cost(kept, present)
        assert table.shape == (5, 7)
        for row in range(5):
            for column in range(7):
                assert table[row, column] == cost(kept[row, 0], present[column])
    with pytest.raises(ValueError, match="4 blocks"):
        costs.macs(coupling.whole, np.ones(3))


def test_a_normalization_that_two_blocks_share_costs_until_both_leave() -> None:
    coupling = coupling_of(NETS["parallel transformer"]())
    costs = CostModel.of(coupling)
    present = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1]])
    by_layer = costs.params_by_layer(coupling.whole, present)
    assert by_layer["a_norm"].tolist() == [16, 16, 0]
    assert by_layer["b_norm"].tolist() == [16, 16, 16]


def test_costs_at_an_open_size() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", activation="relu")(x)])
    model = classifier(inputs, x)
    shape = (10, 6, 3)
    coupling = coupling_of(model, shape)
    sliced = sliced_model(coupling, whole(coupling), blocks_of(coupling))
    macs = CostModel.of(coupling).macs(coupling.whole, np.zeros(1))
    assert macs == count_macs(sliced, shape).macs == 60 * 9 * 3 * 8 + 8 * 3
    unsized = coupling_of(model)
    params = CostModel.of(unsized).params(unsized.whole, np.zeros(1))
    assert params == sliced.count_params()


# -- for people ------------------------------------------------------------------------------


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


# -- whole networks --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("ResNet50V2", 16),
        ("MobileNetV2", 10),
        ("MobileNetV3Small", 6),
        ("EfficientNetB0", 9),
        ("ConvNeXtTiny", 18),
        pytest.param("InceptionResNetV2", 40, marks=pytest.mark.matrix),
        pytest.param("NASNetMobile", 28, marks=pytest.mark.matrix),
    ],
)
def test_applications(name: str, blocks: int, tmp_path: Path) -> None:
    """One block leaves; two with half of all channels."""
    model = application(name)
    coupling = coupling_of(model)
    found, costs, rng = blocks_of(coupling), CostModel.of(coupling), np.random.default_rng(1)
    assert len(found) == blocks
    x = images(rng, model, 2)
    for dropped, keep in ((found[:1], 1.0), ((found[0], found[-1]), 0.5)):
        mask = random_mask(coupling, rng, keep)
        sliced = sliced_model(coupling, mask, dropped)
        received = outputs_of(sliced, x)
        assert float(np.abs(received[0][0] - received[0][1]).max()) > 0
        compare(reference(coupling, mask, x, dropped), received)
        present = np.ones(blocks)
        present[[block.index for block in dropped]] = 0
        kept = np.array([mask[group.units].sum() for group in coupling.groups])
        assert costs.macs(kept, present) == count_macs(sliced).macs
        assert costs.params(kept, present) == sliced.count_params()
    sliced.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    compare(received, outputs_of(again, x), 1e-6)

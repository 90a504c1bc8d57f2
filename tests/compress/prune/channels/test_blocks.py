"""Residual branches that leave as a whole: what is left equals the original with zeros for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from benchmarks.resnet20 import build
from compress.measure import count_macs
from compress.model.keras_internals import walk_named_layers
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.report import _build_mask
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import (
    PrunedModelBuilder,
    build_pruned_model,
    compute_kept_indices,
    list_named_weights,
)
from tests.compress.prune.channels.law import (
    check,
    compare,
    outputs_of,
    random_inputs,
    random_mask,
    randomize,
    reference,
    whole,
)
from tests.compress.prune.channels.residual import NETS, classifier, random_blocks
from tests.compress.prune.channels.test_applications import build as application
from tests.compress.prune.channels.test_applications import images

FEW = 4
SOME, MANY = 8, 20
ONE_ENTRY = pytest.mark.filterwarnings("ignore:(.|\n)*softmax over axis")


def found(model: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Names and layers of the blocks."""
    return [(block.name, block.layers) for block in list_blocks(analyze_coupling(model))]


def held(model: Any) -> list[tuple[str, str]]:
    """Names and reasons of what stays."""
    return [(row.name, row.reason) for row in analyze_coupling(model).block_dependencies.protected]


# -- the law --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_law(name: str) -> None:
    """For each net a random part of its blocks with random channels, then all blocks."""
    model = NETS[name]()
    count = len(list_blocks(analyze_coupling(model)))
    assert count
    some = np.flatnonzero(np.random.default_rng(len(name)).random(count) < 0.5)
    for seed, dropped in enumerate((some[: count - 1], range(count))):
        coupling, sliced, _ = check(model, seed=seed, dropped=list(dropped))
        gone = {layer for index in dropped for layer in list_blocks(coupling)[index].layers}
        left = {layer for layer, _ in walk_named_layers(sliced)}
        assert not gone & left
        again = list_blocks(analyze_coupling(sliced))
        inner = {at for index in dropped for at in list_blocks(coupling)[index].inner}
        assert len(again) == count - len({*dropped, *inner})


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_law_of_each_block(name: str) -> None:
    model = NETS[name]()
    for index in range(len(list_blocks(analyze_coupling(model)))):
        check(model, seed=index, dropped=[index])


def test_resnet20_is_itself_with_zeroed_normalizations(tmp_path: Path) -> None:
    """The reference is Keras's own model: scale and shift of the branches' last layers are 0."""
    model = build(widths=(8, 12, 16), input_shape=(12, 12, 1))
    rng = np.random.default_rng(0)
    randomize(model, rng)
    coupling = analyze_coupling(model)
    blocks = list_blocks(coupling)
    assert [block.name for block in blocks] == [
        f"s{stage}b{block}_add" for stage in (1, 2, 3) for block in (1, 2, 3)
    ]
    dropped = [blocks[at] for at in (1, 2, 3, 8)]  # several in a row, and one with a projection
    mask = random_mask(coupling, rng)
    sliced = build_pruned_model(coupling, mask, dropped)
    file = tmp_path / "model.keras"
    sliced.save(file)
    x = rng.normal(size=(3, 12, 12, 1)).astype(np.float32)
    received = outputs_of(sliced, x)
    compare(received, outputs_of(keras.models.load_model(file, compile=False), x), 1e-6)
    for path, weight in list_named_weights(model):
        value = weight.numpy()
        for axis, kept in enumerate(compute_kept_indices(coupling, mask)[path]):
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
@pytest.mark.parametrize("number", [SOME, pytest.param(MANY, marks=pytest.mark.matrix)])
def test_many_random_blocks(number: int) -> None:
    blocks = [obeys(seed) for seed in range(FEW, FEW + number)]
    assert sum(count for count, _ in blocks) >= 5 * number
    assert sum(inner for _, inner in blocks) >= number


def obeys(seed: int) -> tuple[int, int]:
    """Checks the law for random blocks of a random net; returns how many and how many inside."""
    model = random_blocks(seed)
    blocks = list_blocks(analyze_coupling(model))
    dropped = np.flatnonzero(np.random.default_rng(seed).random(len(blocks)) < 0.6).tolist()
    check(model, seed=seed, dropped=dropped, removes=False)
    return len(blocks), sum(len(block.inner) for block in blocks)


def test_step_by_step_is_at_once() -> None:
    model = build(widths=(8, 12, 16), input_shape=(8, 8, 1))
    randomize(model, np.random.default_rng(0))
    coupling = analyze_coupling(model)
    blocks = list_blocks(coupling)
    at_once = build_pruned_model(coupling, whole(coupling), [blocks[1], blocks[4]])
    first = analyze_coupling(build_pruned_model(coupling, whole(coupling), [blocks[1]]))
    (later,) = [block for block in list_blocks(first) if block.name == blocks[4].name]
    second = build_pruned_model(first, whole(first), [later])
    assert [layer.name for layer in second.layers] == [layer.name for layer in at_once.layers]
    for one, two in zip(at_once.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, two)


# -- what is built --------------------------------------------------------------------------


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
    x = random_inputs(analyze_coupling(model).program, np.random.default_rng(0))
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
    coupling = analyze_coupling(NETS["within each other"]())
    outer = list_blocks(coupling)[2]
    mask = random_mask(coupling, np.random.default_rng(0), 0.5)
    indices = compute_kept_indices(coupling, mask, [outer])
    surgeon = PrunedModelBuilder(coupling, mask, [outer])
    surgeon.build(coupling.program)
    without = compute_kept_indices(coupling, mask)
    for path, weight in list_named_weights(coupling.program.model):
        layer = path.split("/")[0]
        assert (id(weight) in surgeon.new_weights) == (layer not in outer.layers)
        if layer in outer.layers:
            assert [len(kept) for kept in indices[path]] == [0] * len(weight.shape)
        else:
            for one, two in zip(indices[path], without[path], strict=True):
                np.testing.assert_array_equal(one, two)
    weights = {id(weight) for weight in coupling.program.model.weights}
    assert surgeon.list_kept_indices().keys() == weights


def test_kept_units_are_read_from_the_weights_that_stay() -> None:
    coupling = analyze_coupling(NETS["within each other"]())
    mask = random_mask(coupling, np.random.default_rng(0), 0.5)
    read = _build_mask(coupling, compute_kept_indices(coupling, mask, list_blocks(coupling)[2:]))
    by_name = {group.name: group.units for group in coupling.groups}
    np.testing.assert_array_equal(read[by_name["stem"]], mask[by_name["stem"]])
    assert read[by_name["down"]].all()  # in the block alone: nothing says what of it was kept


def test_blocks_of_another_coupling_are_refused() -> None:
    one, two = (analyze_coupling(NETS["three operands"]()) for _ in range(2))
    with pytest.raises(ValueError, match="must be of this coupling"):
        build_pruned_model(one, whole(one), list_blocks(two)[:1])


# -- whole networks -------------------------------------------------------------------------


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
    coupling = analyze_coupling(model)
    found, costs, rng = (
        list_blocks(coupling),
        CostModel.from_coupling(coupling),
        np.random.default_rng(1),
    )
    assert len(found) == blocks
    x = images(rng, model, 2)
    for dropped, keep in ((found[:1], 1.0), ((found[0], found[-1]), 0.5)):
        mask = random_mask(coupling, rng, keep)
        sliced = build_pruned_model(coupling, mask, dropped)
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

"""What a repair takes, and what it refuses with one clear sentence before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.errors import InputError
from compress.model.copies import copy_model
from compress.reconstruction import repair
from tests.compress.reconstruction.dependent import make_dependent, off, pruned, smooth

L = keras.layers


@pytest.fixture(scope="module")
def model() -> Any:
    inputs = keras.Input((6, 6, 3))
    y = L.Conv2D(8, 3, activation="relu", name="first")(inputs)
    y = L.Flatten()(L.Conv2D(8, 3, name="second")(y))
    y = L.Dense(8, activation="relu", name="hidden")(y)
    model = keras.Model(inputs, L.Dense(2, name="head")(y))
    make_dependent(model, "scaled", keep=("head",))
    return model


@pytest.fixture
def small(model: Any) -> Any:
    return pruned(model)


@pytest.fixture(scope="module")
def x() -> Any:
    return smooth((6, 6, 3), 60)


def nan(x: Any) -> Any:
    x = x.copy()
    x[7, 1, 2, 0] = np.nan
    return x


def infinite(x: Any) -> Any:
    x = x.copy()
    x[0] = np.inf
    return x


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:19], r"at least 20 examples.*Received: 19\."),
        (lambda x: x[:0], r"at least 20 examples.*Received: 0\."),
        (nan, r"Examples must be finite\. Received: NaN or infinity"),
        (infinite, r"Examples must be finite\. Received: NaN or infinity"),
        (lambda x: x[:, :5], r"input shape \(6, 6, 3\)\. Received: \(5, 6, 3\)\."),
        (lambda x: x[..., 0], r"input shape \(6, 6, 3\)\. Received: \(6, 6\)\."),
        (lambda x: [x, x], r"one array for each of the model's 1 inputs\. Received: 2\."),
        (lambda x: [], r"one array for each of the model's 1 inputs\. Received: 0\."),
        (lambda x: x.astype(str), r"Examples must be numbers\. Received: <U"),
        (lambda x: np.full(x.shape, None), r"Examples must be numbers\. Received: object"),
    ],
    ids=["few", "none", "NaN", "infinity", "size", "rank", "inputs", "no array", "text", "objects"],
)
def test_examples(model: Any, small: Any, x: Any, change: Callable[[Any], Any], said: str) -> None:
    before = small.model.get_weights()
    with pytest.raises(InputError, match=said):
        repair(small.model, model, change(x), kept=small.kept)
    for old, new in zip(before, small.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_inputs_of_other_names_are_not_taken_in_alphabetical_order() -> None:
    right, left = keras.Input((4,), name="right"), keras.Input((4,), name="left")
    hidden = L.Dense(8, activation="relu", name="hidden")(L.Subtract()([right, left]))
    model = keras.Model([right, left], L.Dense(2, name="head")(hidden))
    pair = pruned(model)
    rows = np.random.default_rng(0).normal(size=(2, 60, 4)).astype(np.float32)
    with pytest.raises(InputError, match=r"by the names of its inputs: right, left\. Received: a"):
        repair(pair.model, model, {"a": rows[0], "b": rows[1]}, kept=pair.kept)
    assert repair(pair.model, model, {"left": rows[1], "right": rows[0]}, kept=pair.kept).layers


def test_fewer_examples_than_a_repair_can_bear_are_asked_for(
    model: Any, small: Any, x: Any
) -> None:
    with pytest.raises(InputError, match=r"at least 20 examples.*Received: 60 \(examples=5\)\."):
        repair(small.model, model, x, kept=small.kept, examples=5)


@pytest.mark.parametrize("setting", [{"samples": 0}, {"seed": -1}], ids=["samples", "seed"])
def test_settings(model: Any, small: Any, x: Any, setting: dict[str, int]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(InputError, match=rf"{name} must be at least .*\. Received: {value}\."):
        repair(small.model, model, x, kept=small.kept, **setting)


def test_examples_of_other_types_are_those_of_the_model(model: Any, x: Any) -> None:
    """Pixels as bytes, and float64: what the model makes of them after it cast them."""
    pixels = (40 * np.abs(x)).astype(np.uint8)
    kernels = []
    for given in (pixels, pixels.astype(np.float64), pixels.astype(np.float32)):
        small = pruned(model)
        repair(small.model, model, given, kept=small.kept)
        kernels.append(small.model.get_layer("head").kernel.numpy())
    np.testing.assert_array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[0], kernels[2])


class TestPairs:
    def test_without_kept_shapes_do_not_fit(self, model: Any, small: Any, x: Any) -> None:
        said = (
            r"Layer 'first' must have the kept part of the dense layer's kernel, "
            r"\(3, 3, 3, 8\)\. Received: \(3, 3, 3, 6\)\. Give kept="
        )
        with pytest.raises(InputError, match=said):
            repair(small.model, model, x)

    def test_kept_of_another_model(self, model: Any, small: Any, x: Any) -> None:
        inputs = keras.Input((6, 6, 3))
        y = L.Flatten()(L.Conv2D(8, 3, name="other")(inputs))
        other = keras.Model(inputs, L.Dense(2, name="head")(y))
        kept = pruned(other).kept
        with pytest.raises(InputError, match=r"kept must name weights of the dense model.*other/"):
            repair(small.model, model, x, kept=kept)

    def test_kept_of_a_wider_model(self, model: Any, small: Any, x: Any) -> None:
        kept = dict(small.kept)
        kept["first/kernel"] = (None, None, None, np.array([0, 1, 2, 3, 4, 12]))
        said = r"kept .*'first/kernel' must be in .0, 8.*Received: 12"
        with pytest.raises(InputError, match=said):
            repair(small.model, model, x, kept=kept)

    def test_kept_of_other_axes(self, model: Any, small: Any, x: Any) -> None:
        kept = dict(small.kept)
        kept["first/kernel"] = (None, np.arange(6))
        with pytest.raises(InputError, match=r"kept .*'first/kernel'.* 4 axes.*Received: 2"):
            repair(small.model, model, x, kept=kept)

    def test_an_all_removed_layer(self, model: Any, small: Any, x: Any) -> None:
        kept = dict(small.kept)
        kept["second/kernel"] = (None, None, np.arange(6), np.arange(0))
        with pytest.raises(InputError, match=r"'second.* must keep at least one channel"):
            repair(small.model, model, x, kept=kept)

    def test_no_layer_in_common(self, model: Any, x: Any) -> None:
        inputs = keras.Input((6, 6, 3))
        stranger = keras.Model(inputs, L.Dense(2, name="d")(L.Flatten()(inputs)))
        said = r"must have layers with kernels that bear the names.*Received: d\. Give the model"
        with pytest.raises(InputError, match=said):
            repair(stranger, model, x)

    def test_other_inputs(self, model: Any) -> None:
        inputs = keras.Input((8, 8, 3))
        y = L.Conv2D(8, 3, activation="relu", name="first")(inputs)
        other = keras.Model(inputs, L.Dense(2, name="top")(L.GlobalAveragePooling2D()(y)))
        with pytest.raises(InputError, match=r"inputs of the dense.*\(6, 6, 3\).*Received: .*8, 8"):
            repair(other, model, smooth((6, 6, 3), 30))

    def test_the_same_model_twice(self, model: Any, x: Any) -> None:
        with pytest.raises(InputError, match=r"another model than the dense one"):
            repair(model, model, x)


class TestMasks:
    @pytest.mark.parametrize(
        ("path", "shape", "said"),
        [
            ("nothing/kernel", (3, 3), r"name a weight of the pruned model.*'nothing/kernel'"),
            ("head/kernel", (8, 3), r"have its shape.*'head/kernel', \(8, 3\)"),
        ],
    )
    def test_of_something_else(
        self, model: Any, x: Any, path: str, shape: tuple[int, ...], said: str
    ) -> None:
        with pytest.raises(InputError, match=said):
            repair(copy_model(model), model, x, masks={path: np.ones(shape, bool)})

    def test_without_any_weight(self, model: Any, x: Any) -> None:
        mask = np.zeros((8, 2), bool)
        said = r"A mask must leave at least one weight\. Received: none for 'head/kernel'"
        with pytest.raises(InputError, match=said):
            repair(copy_model(model), model, x, masks={"head/kernel": mask})


def test_a_model_that_is_not_broken_stays_as_it_is(model: Any, x: Any) -> None:
    same = copy_model(model)
    report = repair(same, model, x)
    assert report.repaired == 0
    assert {row.reason for row in report.layers} == {"nothing is broken in front of it"}
    assert off(same, model, x) == 0
    assert report.output_error == ((0.0, 0.0),)
    assert (report.examples, report.held_back) == (60, 12)


def test_the_same_seed_the_same_model(model: Any, x: Any) -> None:
    made = []
    for _ in range(2):
        small = pruned(model)
        repair(small.model, model, x, kept=small.kept, seed=3, samples=200)
        made.append(small.model.get_weights())
    for one, two in zip(*made, strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_many_examples_some_are_drawn(model: Any, small: Any, x: Any) -> None:
    report = repair(small.model, model, x, kept=small.kept, examples=40)
    assert (report.examples, report.held_back) == (40, 8)

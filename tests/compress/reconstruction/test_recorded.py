"""Outputs that are computed once, recorded or of common calls; the number of positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from compress.model.copies import copy_model
from compress.model.program import flatten_program
from compress.model.recording import record_program
from compress.prune.channels import prune_channels
from compress.reconstruction.linear_paths import Graph
from compress.reconstruction.matching import should_open
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


class Doubled(L.Layer):
    """A user's layer, with a setting that its configuration does not show."""

    factor = 2.0

    def call(self, x: Any) -> Any:
        return x * self.factor

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def double(x: Any) -> Any:
    return x * 2.0


def chained(layer: Any = None, order: int = 1) -> Any:
    """Dense a, a ReLU or another layer, dense b, and a difference in one order or the other."""
    x = inputs = keras.Input((4, 6))
    y = (layer or L.ReLU(name="n"))(L.Dense(6, name="a")(x))
    z = L.Dense(6, name="b")(y)
    return keras.Model(inputs, L.Subtract(name="less")([y, z][::order]))


@pytest.mark.parametrize(
    ("make", "changed", "count"),
    [
        (chained, "", 4),
        (chained, "a", 0),
        (chained, "b", 2),
        (lambda: chained(order=-1), "", 3),
        (lambda: chained(L.ReLU(max_value=6.0, name="n")), "", 1),
        (lambda: chained(L.LeakyReLU(name="n")), "", 1),
    ],
    ids=["equal", "first weights", "later weights", "inputs in another order", "settings", "class"],
)
def test_common_calls_by_hand(make: Callable[[], Any], changed: str, count: int) -> None:
    model, other = chained(), make()
    other.set_weights(model.get_weights())
    if changed:
        other.get_layer(changed).bias.assign(np.ones(6))
    assert graph_of(model).count_common_calls(graph_of(other)) == count


@pytest.mark.parametrize(
    "make",
    [lambda: Doubled(name="n"), lambda: L.Lambda(double, name="n"),
     lambda: L.TimeDistributed(Doubled(name="inner"), name="n")],
    ids=["layer", "function", "inner layer"],
)  # fmt: skip
def test_what_a_user_wrote_ends_the_common_calls(make: Callable[[], Any]) -> None:
    model, other = chained(make()), chained(make())
    other.set_weights(model.get_weights())
    assert graph_of(model).count_common_calls(graph_of(other)) == 1


def graph_of(model: Any) -> Graph:
    return Graph(flatten_program(record_program(model, should_open)))


def reconstruct_twice(
    model: Any, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, x: Any = None, **how: Any
) -> list[Counter[str]]:
    """Reconstruct with and without common calls, compare weights, and return the calls."""
    if x is None:
        x = np.random.default_rng(1).normal(size=(80, *model.input_shape[1:])).astype(np.float32)
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
        pruned, given = make()
        report = reconstruct(pruned, model, x, **{"kept": None, **HOW, **given, **how})
        assert report.repaired
        weights.append([report.output_error, *pruned.get_weights()])
        counts.append(Counter(names))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    return counts


@pytest.mark.parametrize("joint", [False, True])
def test_common_calls_run_once_for_both_models(
    joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolution, normalization and ReLU before the thinner layer."""
    inputs = x = keras.Input((8, 8, 3))
    keras.utils.set_random_seed(0)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", name="first")(x)))
    y = L.Conv2D(16, 3, padding="same", name="last")(L.Conv2D(24, 3, padding="same")(x))
    x = L.GlobalAveragePooling2D()(L.Add()([x, y]))
    model = keras.Model(inputs, L.Dense(5)(x))

    def make() -> Any:
        pruned = prune_channels(model, macs=0.7, exclude=("first", "last"), repair=False)
        return pruned.model, {"kept": pruned.kept}

    shared, alone = reconstruct_twice(model, make, monkeypatch, joint=joint)
    assert sum((alone - shared).values()) == 3
    assert shared["first"] == 1
    assert alone["first"] == shared["last"] == 2


def test_a_layer_that_takes_a_shortcuts_error_ends_the_common_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has equal inputs and weights at first, and what follows must see its new outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    taking = L.Dense(6, name="taking")(inputs)
    x = L.Add()([taking, L.Dense(6, name="shortcut")(inputs)])
    model = keras.Model(inputs, L.Dense(4, name="later")(L.ReLU()(x)))

    def make() -> Any:
        changed = copy_model(model)
        for name in ("shortcut", "later"):
            kernel = changed.get_layer(name).kernel
            kernel.assign(kernel.numpy() * [[0.5]])
        return changed, {}

    assert graph_of(model).count_common_calls(graph_of(make()[0])) == 1
    reconstruct_twice(model, make, monkeypatch)


def test_a_kernel_that_is_only_rounded_ends_the_common_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Inputs that tell nothing of each other leave the nearest integers, and the kernel is kept."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = L.Activation("tanh")(L.Dense(6, use_bias=False, name="rounded")(inputs))
    x = L.Dense(6, activation="relu", name="solved")(x)
    model = keras.Model(inputs, L.Dense(4, name="last")(x))
    x = np.eye(6, dtype=np.float32)[np.random.default_rng(1).integers(6, size=80)]

    def make() -> Any:
        copied = copy_model(model)
        return copied, {"grids": {w.path: 7 for w in copied.weights if w.name == "kernel"}}

    pruned, given = make()
    report = reconstruct(pruned, model, x, kept=None, **HOW, **given)
    assert report.layers[0].state == "kept"
    reconstruct_twice(model, make, monkeypatch, x)

"""Layers of several calls, nested models and models of several inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction import repair
from tests.compress.reconstruction.broken import Break, normal, pair
from tests.compress.reconstruction.dependent import make_dependent, off, pruned

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers


def halves(x: Any) -> tuple[Any, Any]:
    return x[:, :4], x[:, 4:]


def siamese(times: float) -> Any:
    def body(x: Any, broken: Break) -> Any:
        one, two = halves(x)
        shared = L.Dense(5, name="shared")
        parts = [shared(broken("a")(one)), shared(broken("b", times)(two))]
        return L.Concatenate(name="join")([L.Activation("tanh", name=f"t{i}")(part)
                                           for i, part in enumerate(parts)])  # fmt: skip

    return body


def test_the_calls_of_one_layer_are_solved_jointly() -> None:
    """Both branches are broken differently: the least squares of the rows of both."""
    small, dense = pair((8,), siamese(0.7), offset=0.5)
    x = normal((8,), 300)
    report = repair(small, dense, x)
    (row,) = report.layers
    assert (row.state, row.rows, row.target) == ("repaired", 600, "own")
    kernel, bias = (
        weight.numpy().astype(np.float64) for weight in dense.get_layer("shared").weights
    )
    one, two = halves(x.astype(np.float64))
    p = np.concatenate([0.6 * one + 0.5, 0.72 * two + 0.35])
    t = np.concatenate([one, two]) @ kernel + bias
    centred, wanted = p - p.mean(0), t - t.mean(0)
    a = centred.T @ centred
    ridge = row.ridge * np.diag(np.diag(a))
    w = np.linalg.solve(a + ridge, centred.T @ wanted + ridge @ kernel)
    shared = small.get_layer("shared")
    np.testing.assert_allclose(shared.kernel.numpy(), w, atol=1e-4)
    np.testing.assert_allclose(shared.bias.numpy(), t.mean(0) - p.mean(0) @ w, atol=1e-4)


def test_where_a_call_would_become_worse_weights_stay() -> None:
    small, dense = pair((8,), siamese(0.0))  # the second branch is whole
    report = repair(small, dense, normal((8,)))
    (row,) = report.layers
    assert row.state == "kept"
    assert "on examples held back" in row.reason
    for mine, theirs in zip(small.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_call_that_depends_on_another_is_left() -> None:
    def body(x: Any, broken: Break) -> Any:
        again = L.Dense(6, name="again")
        y = again(L.Activation("tanh", name="t")(again(broken()(x))))
        return L.Dense(3, name="head")(y)

    small, dense = pair((6,), body)
    report = repair(small, dense, normal((6,)))
    rows = {row.name: row for row in report.layers}
    assert rows["again"].state == "left"
    assert rows["again"].reason == "a later call of it depends on an earlier one"
    assert rows["head"].state == "repaired"
    np.testing.assert_array_equal(
        small.get_layer("again").kernel.numpy(), dense.get_layer("again").kernel.numpy()
    )


def test_of_two_crossing_layers_one_is_left() -> None:
    """a -> one -> two and b -> two -> one: their calls cannot both be brought together."""

    def body(x: Any, broken: Break) -> Any:
        a, b = halves(broken()(x))
        one, two = L.Dense(4, name="one"), L.Dense(4, name="two")
        act = L.Activation("tanh", name="t")
        return L.Concatenate(name="join")([two(act(one(a))), one(act(two(b)))])

    small, dense = pair((8,), body)
    report = repair(small, dense, normal((8,)))
    states = {row.name: row.state for row in report.layers}
    assert set(states) == {"one", "two"}
    assert sorted(states.values()) in (["left", "repaired"], ["kept", "left"])
    assert report.output_error[0][1] <= report.output_error[0][0]


def test_calls_far_from_each_other_are_brought_together() -> None:
    """Between them lie layers that only one of them needs."""

    def body(x: Any, broken: Break) -> Any:
        a, b = halves(x)
        shared = L.Dense(4, name="shared")
        y = shared(broken("a")(a))
        y = L.Dense(4, name="deeper")(L.Activation("relu", name="r")(y))
        return [L.Dense(2, name="head")(y), shared(broken("b")(b))]

    small, dense = pair((8,), body, offset=0.2)
    report = repair(small, dense, normal((8,)))
    assert [row.name for row in report.layers] == ["shared", "deeper", "head"]
    assert off(small, dense, normal((8,), 50, seed=4)) < 1e-4
    assert len(report.output_error) == 2


def backbone(nested: bool, calls: int) -> Any:
    inputs = [keras.Input((5, 5, 2), name=f"in{index}") for index in range(calls)]
    inner = keras.Input((5, 5, 2))
    layers = [
        L.Conv2D(8, 2, name="first"), L.ReLU(name="relu"),
        L.Conv2D(8, 2, use_bias=False, name="second"), L.BatchNormalization(name="norm"),
        L.GlobalAveragePooling2D(name="pool"),
    ]  # fmt: skip

    def through(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    body = keras.Model(inner, through(inner), name="backbone") if nested else through
    parts = [body(x) for x in inputs]
    y = parts[0] if calls == 1 else L.Concatenate(name="join")(parts)
    model = keras.Model(inputs, L.Dense(3, name="head")(L.Dense(8, name="hidden")(y)))
    make_dependent(model, "scaled", keep=("head",))
    return model


def test_nested_models_are_repaired_as_flat_ones() -> None:
    for calls in (1, 2):
        x = [normal((5, 5, 2), 150, seed=seed) for seed in range(calls)]
        fresh = [normal((5, 5, 2), 50, seed=9 + seed) for seed in range(calls)]
        made, reports = [], []
        weights: dict[str, Any] = {}
        for nested in (True, False):
            model = backbone(nested, calls)
            for layer in model._flatten_layers(include_self=False):
                if layer.weights and not isinstance(layer, keras.Model):
                    layer.set_weights(weights.setdefault(layer.name, layer.get_weights()))
            small = pruned(model)
            assert off(small.model, model, fresh) > 0.01
            reports.append(repair(small.model, model, x, kept=small.kept))
            assert off(small.model, model, fresh) < 1e-4
            layers = small.model._flatten_layers(include_self=False)
            made.append({layer.name: layer.get_weights() for layer in layers if layer.weights})
        for name in ("first", "second", "norm", "hidden", "head"):
            for mine, theirs in zip(made[0][name], made[1][name], strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-5)
        names = [[row.name for row in report.layers] for report in reports]
        assert names[0] == ["backbone/first", "backbone/second", "hidden", "head"]
        assert [name.removeprefix("backbone/") for name in names[0]] == names[1]


def test_inputs_by_name() -> None:
    inputs = {"right": keras.Input((4,), name="right"), "left": keras.Input((3,), name="left")}
    parts = [L.Dense(8, activation="relu", name=f"d_{name}")(inputs[name]) for name in inputs]
    y = L.Dense(8, name="mixed")(L.Concatenate(name="join")(parts))
    outputs = {"b": L.Dense(2, name="two")(y), "a": L.Dense(3, name="one")(y)}
    model = keras.Model(inputs, outputs)
    make_dependent(model, "scaled", keep=("one", "two"))

    def examples(seed: int) -> Any:
        return {"left": normal((3,), 100, seed), "right": normal((4,), 100, seed + 1)}

    small = pruned(model)
    assert off(small.model, model, examples(5)) > 0.01
    report = repair(small.model, model, examples(0), kept=small.kept)
    assert len(report.output_error) == 2
    assert off(small.model, model, examples(5)) < 1e-4

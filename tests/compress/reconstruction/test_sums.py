"""Errors of shortcuts: who takes them, in which coordinates, and what normalizations become."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction import RepairReport, repair
from tests.compress.reconstruction.broken import Break, normal, pair
from tests.compress.reconstruction.dependent import off

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers
X = normal((6,))
FRESH = normal((6,), 100, seed=2)


@keras.saving.register_keras_serializable("repair")
class LayerScale(keras.layers.Layer):
    """A scale by channel, named as that of ConvNeXt."""

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")

    def call(self, x: Any) -> Any:
        return x * self.gamma


def target(report: RepairReport, name: str) -> str:
    (row,) = [row for row in report.layers if row.name == name]
    return row.target if row.state == "repaired" else row.state


def plain(x: Any, broken: Break) -> Any:
    return L.Add(name="sum")([broken()(x), L.Dense(6, name="d")(x)])


def test_only_the_sum_can_be_exact() -> None:
    """The layer's own output is whole; what the shortcut lost is a matrix more of its kernel."""
    small, dense = pair((6,), plain)
    report = repair(small, dense, X)
    assert target(report, "d") == "sum"
    expected = dense.get_layer("d").kernel.numpy() + 0.4 * np.eye(6)
    np.testing.assert_allclose(small.get_layer("d").kernel.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(
        small.get_layer("d").bias.numpy(), dense.get_layer("d").bias.numpy(), atol=1e-4
    )
    assert off(small, dense, FRESH) < 1e-4


def test_constants_of_the_shortcut_go_into_the_bias() -> None:
    small, dense = pair((6,), plain, offset=0.7)
    repair(small, dense, X)
    np.testing.assert_allclose(
        small.get_layer("d").bias.numpy(), dense.get_layer("d").bias.numpy() - 0.7, atol=1e-4
    )
    assert off(small, dense, FRESH) < 1e-4


def operators(x: Any, broken: Break) -> Any:
    return broken()(x) + L.Dense(6, name="d")(x)


def three(x: Any, broken: Break) -> Any:
    parts = [L.Dense(6, name="d")(x), broken("one")(x), broken("two", -0.5)(x)]
    return L.Add(name="sum")(parts)


def later(x: Any, broken: Break) -> Any:
    """The shortcut's side is made behind the layer, of longer a way."""
    y = L.Dense(6, name="d")(x)
    other = x
    for index in range(3):
        other = broken(f"step{index}", 0.5)(other)
    return L.Add(name="sum")([y, other])


def twice(x: Any, broken: Break) -> Any:
    """Two additions in a row, a normalization between them."""
    y = L.Add(name="one")([L.Dense(6, name="d")(x), broken("a")(x)])
    y = L.BatchNormalization(name="norm")(y)
    return L.Add(name="two")([y, broken("b", 0.5)(x)])


def joined(x: Any, broken: Break) -> Any:
    """The sum is one part of a concatenation that is scaled."""
    y = L.Add(name="sum")([L.Dense(6, name="d")(x), broken("a")(x)])
    return L.BatchNormalization(name="norm")(L.Concatenate(name="join")([broken("b", 0.0)(x), y]))


def scaled(x: Any, broken: Break) -> Any:
    y = LayerScale(name="scale")(L.Dense(6, name="d")(x))
    return L.Add(name="sum")([broken()(x), y])


def normalized(x: Any, broken: Break) -> Any:
    y = L.BatchNormalization(name="norm")(L.Dense(6, use_bias=False, name="d")(x))
    return L.Add(name="sum")([broken()(x), y])


def normalized_biased(x: Any, broken: Break) -> Any:
    y = L.BatchNormalization(name="norm")(L.Dense(6, name="d")(x))
    return L.Add(name="sum")([broken()(x), L.Rescaling(-0.3, 2.0, name="more")(y)])


def unscaled(x: Any, broken: Break) -> Any:
    y = L.BatchNormalization(scale=False, name="norm")(L.Dense(6, use_bias=False, name="d")(x))
    return L.Add(name="sum")([broken()(x), y])


@pytest.mark.parametrize(
    "build",
    [
        operators, three, later, twice, joined, scaled, normalized, normalized_biased, unscaled,
    ],
    ids=lambda build: build.__name__,
)  # fmt: skip
def test_a_layer_takes_over_what_shortcuts_lost(build: Any) -> None:
    small, dense = pair((6,), build, offset=0.4)
    assert off(small, dense, FRESH) > 0.05
    report = repair(small, dense, X)
    assert target(report, "d") == "sum"
    assert off(small, dense, FRESH) < 2e-4
    assert all(np.abs(weight.numpy()).max() < 100 for weight in small.weights)


@pytest.mark.parametrize("build", [normalized, scaled], ids=lambda build: build.__name__)
@pytest.mark.parametrize("gamma", [1e-5, 0.0, -0.8, -1e-7])
def test_gains_near_zero_are_never_divided_by(build: Any, gamma: float) -> None:
    small, dense = pair((6,), build)
    name = "norm" if build is normalized else "scale"
    for model in (small, dense):
        values = model.get_layer(name).gamma.numpy()
        values[[1, 4]] = gamma
        model.get_layer(name).gamma.assign(values)
    repair(small, dense, X)
    assert off(small, dense, FRESH) < 2e-4
    for weight in small.weights:
        assert np.isfinite(weight.numpy()).all()
    # kernels (with biases, where these are scaled, too) keep their norms, column by column
    norms = []
    for model in (small, dense):
        weights = [weight.numpy().reshape(-1, 6) for weight in model.get_layer("d").weights]
        norms.append(np.linalg.norm(np.concatenate(weights), axis=0))
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-3)
    # and scales their signs
    signs = [np.sign(model.get_layer(name).gamma.numpy()) for model in (small, dense)]
    np.testing.assert_array_equal(signs[0][signs[1] != 0], signs[1][signs[1] != 0])


@pytest.mark.parametrize("build", [normalized, scaled], ids=lambda build: build.__name__)
@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_a_branch_that_says_nothing(build: Any, offset: float) -> None:
    """Scale 0 in a channel whose shortcut is whole, or lacks a constant: no input is needed."""

    def partly(x: Any, broken: Break) -> Any:
        # channel 0 of the shortcut is a constant and stays so
        return build(L.Concatenate(name="cat")([0.0 * x[:, :1], x[:, 1:]]), broken)

    small, dense = pair((6,), partly, offset=offset)
    name = "norm" if build is normalized else "scale"
    for model in (small, dense):
        values = model.get_layer(name).gamma.numpy()
        values[0] = 0.0
        model.get_layer(name).gamma.assign(values)
    repair(small, dense, X)
    for weight in small.weights:
        assert np.isfinite(weight.numpy()).all(), weight.path
        assert np.abs(weight.numpy()).max() < 100, weight.path
    assert off(small, dense, FRESH) < 2e-4


def test_one_of_two_layers_takes_the_error_of_both() -> None:
    def both(x: Any, broken: Break) -> Any:
        wide = L.Concatenate(name="wide")([x, L.Activation("tanh", name="tanh")(x)])
        parts = [L.Dense(6, name="small")(x), L.Dense(6, name="large")(wide), broken()(x)]
        return L.Add(name="sum")(parts)

    small, dense = pair((6,), both)
    report = repair(small, dense, X)
    assert target(report, "large") == "sum"  # it has more to do it with
    assert target(report, "small") == "kept"  # nothing is broken in front of it
    assert off(small, dense, FRESH) < 2e-4
    # the other one is called first
    assert [row.name for row in report.layers] == ["small", "large"]


def test_a_nonlinearity_ends_the_way() -> None:
    def behind(x: Any, broken: Break) -> Any:
        y = L.Activation("tanh", name="tanh")(L.Dense(6, name="d")(x))
        return L.Add(name="sum")([y, broken()(x)])

    small, dense = pair((6,), behind)
    report = repair(small, dense, X)
    assert target(report, "d") == "kept"
    np.testing.assert_array_equal(
        small.get_layer("d").kernel.numpy(), dense.get_layer("d").kernel.numpy()
    )


@pytest.mark.parametrize(
    "activation", ["hard_sigmoid", "hard_tanh", "relu", "hard_shrink", "soft_shrink", "leaky_relu"]
)
def test_what_is_linear_in_pieces_is_not_linear(activation: str) -> None:
    """A way through these would want sums that the layer cannot make."""
    from compress.model.program import flatten_program
    from compress.model.recording import record_program
    from compress.reconstruction.linear_paths import Graph, trace_linear_path

    inputs = keras.Input((1,))
    y = L.Dense(1, name="d")(inputs)
    y = L.Activation(activation, name="act")(y)
    model = keras.Model(inputs, L.Add(name="sum")([y, inputs]))
    graph = Graph(flatten_program(record_program(model)))
    node = next(node for node in graph.program.nodes if node.name == "d")
    way = trace_linear_path((graph, graph), (node, node), np.arange(1), lambda y: y, lambda _: True)
    assert not way.addends


def test_another_user_of_the_output_wants_the_output() -> None:
    def used(x: Any, broken: Break) -> Any:
        y = L.Dense(6, name="d")(x)
        return [L.Add(name="sum")([y, broken()(x)]), L.Activation("tanh", name="t")(y)]

    small, dense = pair((6,), used)
    report = repair(small, dense, X)
    assert target(report, "d") == "kept"


def test_a_model_that_returns_the_output_wants_the_output() -> None:
    def returned(x: Any, broken: Break) -> Any:
        y = L.Dense(6, name="d")(x)
        return [L.Add(name="sum")([y, broken()(x)]), y]

    small, dense = pair((6,), returned)
    report = repair(small, dense, X)
    assert target(report, "d") == "kept"


class TestNormalizations:
    def test_statistics_are_those_of_the_new_outputs(self) -> None:
        def body(x: Any, broken: Break) -> Any:
            y = L.Conv2D(4, 2, use_bias=False, name="c")(broken()(x))
            y = L.ReLU(name="r")(L.BatchNormalization(name="norm")(y))
            return L.Dense(2, name="head")(L.Flatten(name="f")(y))

        shape = (5, 5, 3)
        small, dense = pair(shape, body, offset=0.5)
        x = normal(shape, 150)
        report = repair(small, dense, x)
        assert report.layers[0].rows == 150 * 16
        before = keras.Model(small.inputs[0], small.get_layer("c").output)
        z = before(x).numpy().astype(np.float64).reshape(-1, 4)
        norm = small.get_layer("norm")
        np.testing.assert_allclose(norm.moving_mean.numpy(), z.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance.numpy(), z.var(0), rtol=1e-3)
        # so that training continues where inference is
        whole = keras.Model(small.inputs[0], norm.output)
        made = [np.asarray(whole(x, training=training)) for training in (False, True)]
        assert np.abs(made[0] - made[1]).max() < 0.02 * made[0].std()
        assert off(small, dense, normal(shape, 50, seed=3)) < 2e-4

    @pytest.mark.parametrize("kind", ["direct", "pooled", "joined", "two", "dropped"])
    def test_a_shift_without_a_bias_goes_into_means(self, kind: str) -> None:
        """A constant in front of a layer without bias: means move, at its channels alone."""

        def body(x: Any, broken: Break) -> Any:
            y = L.Conv2D(4, 2, use_bias=False, name="c")(broken()(x))
            plain = {"scale": False, "center": False}
            if kind == "pooled":
                y = L.MaxPooling2D(2, name="p")(y)
            if kind == "joined":
                y = L.Concatenate(name="join")([x[:, 1:, 1:], y])
            if kind == "dropped":
                y = L.Dropout(0.5, name="drop")(y)
            made = L.BatchNormalization(name="norm", **plain)(y)
            if kind == "two":
                other = L.BatchNormalization(name="other")(y)
                return [L.ReLU(name="r")(made), L.Activation("tanh", name="t")(other)]
            return L.Activation("tanh", name="t")(made)

        shape = (5, 5, 3)
        small, dense = pair(shape, body, offset=0.5)
        x = normal(shape, 150)
        assert off(small, dense, x) > 0.05
        repair(small, dense, x)
        assert off(small, dense, normal(shape, 50, seed=3)) < 2e-4
        kernel = dense.get_layer("c").kernel.numpy() / 0.6
        np.testing.assert_allclose(
            small.get_layer("c").kernel.numpy(), kernel, rtol=1e-3, atol=1e-4
        )
        if kind == "joined":
            means = [model.get_layer("norm").moving_mean.numpy()[:3] for model in (small, dense)]
            np.testing.assert_array_equal(means[0], means[1])

    def test_a_shift_that_nothing_takes_up_is_not_solved_for(self) -> None:
        def body(x: Any, broken: Break) -> Any:
            y = L.Dense(6, use_bias=False, name="d")(broken()(x))
            return L.Activation("tanh", name="t")(y)

        small, dense = pair((6,), body, offset=0.5)
        before = off(small, dense, FRESH)
        report = repair(small, dense, X)
        assert off(small, dense, FRESH) < before
        # the normal equations without a constant, of explicit rows
        kernel = dense.get_layer("d").kernel.numpy().astype(np.float64)
        p = 0.6 * X.astype(np.float64) + 0.5
        a = p.T @ p
        ridge = report.layers[0].ridge * np.diag(np.diag(a))
        best = np.linalg.solve(a + ridge, p.T @ (X @ kernel) + ridge @ kernel)
        np.testing.assert_allclose(small.get_layer("d").kernel.numpy(), best, atol=1e-4)

    def test_one_normalization_of_two_layers_stays(self) -> None:
        def body(x: Any, broken: Break) -> Any:
            norm = L.BatchNormalization(name="norm")
            first = norm(L.Dense(6, name="one")(broken("a")(x)))
            second = norm(L.Dense(6, name="two")(broken("b", 0.5)(x)))
            return L.Concatenate(name="join")([first, second])

        small, dense = pair((6,), body, offset=0.3)
        old = [weight.numpy() for weight in dense.get_layer("norm").weights]
        report = repair(small, dense, X)
        assert report.repaired == 2
        for weight, value in zip(small.get_layer("norm").weights, old, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)
        assert off(small, dense, FRESH) < 2e-4

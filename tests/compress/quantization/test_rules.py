"""Each rule alone: the file answers as the fake-quantized model does, and holds no floats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.errors import RunFailed
from compress.quantization.fake_quantization import build_fake_quantized
from compress.quantization.rules import arithmetic, find_rule, kernels
from compress.quantization.rules._base import TABLE, register_quantization
from compress.quantization.rules.kernels import count_summed_axes
from compress.quantization.rules.shaping import skip_training_only
from tests.compress.quantization.equal import compared, made_twin
from tests.compress.quantization.graphs import scatter

L = keras.layers
ops = keras.ops
Made = Callable[[Any], Any]
IMAGE, ROWS, ROW = (6, 6, 4), (8, 5), (7,)


def both(merge: Callable[[list[Any]], Any]) -> Made:
    """Two values of one input."""
    return lambda x: merge([L.Dense(6)(x), L.Dense(6)(x)])


# layers are made when a model is: names given at import may be given again after `clear_session`
RULES: dict[str, tuple[tuple[int, ...], Made]] = {
    "Activation": (IMAGE, lambda x: L.Activation("silu")(x)),
    "ActivityRegularization": (ROW, lambda x: L.Dense(3)(L.ActivityRegularization(l2=0.1)(x))),
    "Add": (IMAGE, lambda x: L.ReLU()(both(L.Add())(x))),
    "AveragePooling1D": (ROWS, lambda x: L.AveragePooling1D(2)(x)),
    "AveragePooling2D": (IMAGE, lambda x: L.AveragePooling2D(2)(x)),
    "BatchNormalization": (IMAGE, lambda x: L.BatchNormalization()(L.ReLU()(x))),
    "Concatenate": (IMAGE, lambda x: both(L.Concatenate())(x)),
    "Conv1D": (ROWS, lambda x: L.Conv1D(
        6, 3, padding="causal", dilation_rate=2, activation="relu")(x)),
    "Conv2D": (IMAGE, lambda x: L.Conv2D(6, 3, strides=2, padding="same", activation="relu6")(x)),
    "Conv2DTranspose": (IMAGE, lambda x: L.Conv2DTranspose(5, 3, strides=2, padding="same")(x)),
    "Cropping1D": (ROWS, lambda x: L.Conv1D(3, 1)(L.Cropping1D(1)(x))),
    "Cropping2D": (IMAGE, lambda x: L.Conv2D(3, 1)(L.Cropping2D(((1, 0), (0, 2)))(x))),
    "Dense": (ROW, lambda x: L.Dense(5, activation="softmax")(x)),
    "DepthwiseConv1D": (ROWS, lambda x: L.DepthwiseConv1D(3, padding="same")(x)),
    "DepthwiseConv2D": (IMAGE, lambda x: L.DepthwiseConv2D(
        3, depth_multiplier=2, activation="tanh")(x)),
    "Dropout": (ROW, lambda x: L.Dense(5)(L.Dropout(0.5)(x))),
    "EinsumDense": (ROWS, lambda x: L.EinsumDense("abc,cde->abde", (8, 3, 4), bias_axes="de")(x)),
    "Flatten": (IMAGE, lambda x: L.Dense(3)(L.Flatten()(x))),
    "GlobalAveragePooling1D": (ROWS, lambda x: L.GlobalAveragePooling1D()(x)),
    "GlobalAveragePooling2D": (IMAGE, lambda x: L.GlobalAveragePooling2D(keepdims=True)(x)),
    "GlobalMaxPooling1D": (ROWS, lambda x: L.GlobalMaxPooling1D()(x)),
    "GlobalMaxPooling2D": (IMAGE, lambda x: L.GlobalMaxPooling2D()(x)),
    "Identity": (ROW, lambda x: L.Dense(3)(L.Identity()(x))),
    "LeakyReLU": (IMAGE, lambda x: L.LeakyReLU(0.3)(x)),
    "MaxPooling1D": (ROWS, lambda x: L.MaxPooling1D(2)(x)),
    "MaxPooling2D": (IMAGE, lambda x: L.MaxPooling2D(2)(x)),
    "Multiply": (IMAGE, lambda x: both(L.Multiply())(x)),
    "Normalization": (IMAGE, lambda x: L.Normalization(
        mean=[0.1, 0.2, 0.3, 0.4], variance=[1, 2, 3, 4])(x)),
    "Permute": (ROWS, lambda x: L.Dense(3)(L.Permute((2, 1))(x))),
    "ReLU": (IMAGE, lambda x: L.ReLU(max_value=1.5)(L.Dense(5)(x))),
    "Rescaling": (IMAGE, lambda x: L.Rescaling(1.7, -0.2)(x)),
    "Reshape": (ROWS, lambda x: L.Dense(3)(L.Reshape((4, 10))(x))),
    "SeparableConv1D": (ROWS, lambda x: L.SeparableConv1D(6, 3, padding="same")(x)),
    "SeparableConv2D": (IMAGE, lambda x: L.SeparableConv2D(6, 3, activation="relu")(x)),
    "Softmax": (ROWS, lambda x: L.Softmax()(x)),
    "Subtract": (IMAGE, lambda x: both(L.Subtract())(x)),
    "UpSampling1D": (ROWS, lambda x: L.UpSampling1D(3)(x)),
    "UpSampling2D": (IMAGE, lambda x: L.UpSampling2D((2, 3))(x)),
    "ZeroPadding1D": (ROWS, lambda x: L.Conv1D(3, 3)(L.ZeroPadding1D(1)(x))),
    "ZeroPadding2D": (IMAGE, lambda x: L.ZeroPadding2D(((1, 0), (2, 1)))(x)),
    "ops.Add": (IMAGE, lambda x: ops.add(both(lambda xs: xs[0] + xs[1])(x), np.arange(6.0))),
    "ops.Concatenate": (IMAGE, lambda x: both(lambda xs: ops.concatenate(xs, axis=-1))(x)),
    "ops.ExpandDims": (ROW, lambda x: L.Conv1D(3, 3)(ops.expand_dims(x, -1))),
    "ops.Gelu": (ROWS, ops.gelu),
    "ops.GetItem": (ROWS, lambda x: L.Dense(3)(x[:, 1:5])),
    "ops.LeakyRelu": (ROWS, lambda x: ops.leaky_relu(x, 0.1)),
    "ops.Mean": (IMAGE, lambda x: ops.mean(x, axis=(1, 2))),
    "ops.Moveaxis": (ROWS, lambda x: L.Dense(3)(ops.moveaxis(x, 1, 2))),
    "ops.Multiply": (IMAGE, lambda x: 0.7 * both(lambda xs: xs[0] * xs[1])(x)),
    "ops.Relu": (IMAGE, lambda x: ops.relu(L.Dense(4)(x))),
    "ops.Relu6": (IMAGE, lambda x: ops.relu6(L.Dense(4)(x))),
    "ops.Reshape": (ROWS, lambda x: L.Dense(3)(ops.reshape(x, (-1, 4, 10)))),
    "ops.Sigmoid": (ROWS, ops.sigmoid),
    "ops.Silu": (ROWS, ops.silu),
    "ops.Softmax": (ROWS, ops.softmax),
    "ops.Squeeze": (ROW, lambda x: ops.squeeze(L.Conv1D(1, 3)(L.Reshape((7, 1))(x)), -1)),
    "ops.Subtract": (IMAGE, lambda x: ops.subtract(np.ones(6), both(lambda xs: xs[0] - xs[1])(x))),
    "ops.Swapaxes": (ROWS, lambda x: L.Dense(3)(ops.swapaxes(x, 1, 2))),
    "ops.Tanh": (ROWS, ops.tanh),
    "ops.Transpose": (ROWS, lambda x: L.Dense(3)(ops.transpose(x, (0, 2, 1)))),
    "ops.TrueDivide": (ROWS, lambda x: L.Dense(6)(x) / 127.5),
    "ops.Divide": (ROW, lambda x: ops.divide(L.Dense(6)(x), np.arange(1.0, 7.0))),
}  # fmt: skip
INDICES: dict[str, tuple[tuple[int, ...], Made]] = {
    "Embedding": (ROW, lambda x: L.Dense(3)(L.Embedding(10, 6)(x))),
}
NO_REFERENCE: dict[str, tuple[tuple[int, ...], Made]] = {
    "RepeatVector": (ROW, lambda x: L.Dense(3)(L.RepeatVector(3)(x))),
}
"""LiteRT's reference kernels lack these; the default ones do not."""
MORE: dict[str, tuple[tuple[int, ...], Made]] = {
    "bilinear": (IMAGE, lambda x: L.UpSampling2D(2, interpolation="bilinear")(x)),
    "folded": (IMAGE, lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3)(x)))),
    "grouped": (IMAGE, lambda x: L.Conv2D(8, 3, groups=2)(x)),
    "leaky ReLU": (IMAGE, lambda x: L.ReLU(negative_slope=0.2)(x)),
    "rescaled by an array of rank 3": (IMAGE, lambda x: L.Rescaling(
        np.array([0.5, 1.0, 1.5, 2.0]).reshape(1, 1, 4), -0.2)(x)),
    "of rows": (ROWS, lambda x: L.Dense(6, activation="gelu")(x)),
    "prescribed and tied": (IMAGE, lambda x: L.Concatenate()(
        [L.Dense(4)(x), L.Dense(4, activation="tanh")(x), L.Dense(4, activation="sigmoid")(x)])),
    "prescribed twice": (IMAGE, lambda x: (lambda t: L.Add()(
        [L.Concatenate()([L.Dense(6)(x), t]), L.Concatenate()([t, t])]))(
        L.Dense(6, activation="tanh")(x))),
    "read twice before its ReLU": (IMAGE, lambda x: (lambda y: L.Add()([y, L.ReLU()(y)]))(
        L.Conv2D(4, 1)(x))),
}  # fmt: skip

FLOATS = (
    kernels.keep_recurrent_in_float,
    arithmetic.keep_normalization_in_float,
    arithmetic.keep_in_float,
)
TIES = {"bilinear": 0.04}
"""Share of outputs that may be a step away, where the runtime rounds in a way of its own."""


def built(rules: dict[str, tuple[tuple[int, ...], Made]]) -> Any:
    """A model of one input, and an output for each rule."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(next(iter(rules.values()))[0])
    model = keras.Model(inputs, [make(inputs) for _, make in rules.values()], name="rules")
    scatter(model, np.random.default_rng(1))
    return model


def checked(
    rules: dict[str, tuple[tuple[int, ...], Made]], folder: Path, *, reference: bool = True
) -> None:
    twin, inputs = made_twin(built(rules))
    assert [call.reason for call in twin.placed if call.reason] == []
    found = compared(twin, inputs, folder, reference=reference)
    for engine, result in found.items():
        assert result.floats == [], engine
        assert len(result.parts) == len(rules)
        for name, steps in zip(rules, result.parts, strict=True):
            # default kernels: to the bit, but for sums that lie on a tie
            most = 1 if name in RULES else 2
            if engine == "default":
                assert np.abs(steps).max() <= most, name
                # which sums lie on one depends on the order in which threads add
                most = max(2.0, TIES.get(name, 5e-4) * steps.size)
                assert np.count_nonzero(steps) <= most, name
            else:  # these round twice
                assert (np.abs(steps) <= 1).mean() > 0.995, name


@pytest.mark.parametrize(
    "shape",
    [pytest.param(IMAGE, marks=pytest.mark.slow), pytest.param(ROWS, marks=pytest.mark.slow), ROW],
)
def test_one_rule_at_a_time(shape: tuple[int, ...], tmp_path: Path) -> None:
    checked({name: rule for name, rule in RULES.items() if rule[0] == shape}, tmp_path)


def test_rules_of_indices(tmp_path: Path) -> None:
    checked(INDICES, tmp_path)


def test_rules_that_reference_kernels_lack(tmp_path: Path) -> None:
    checked(NO_REFERENCE, tmp_path, reference=False)


@pytest.mark.parametrize("shape", [IMAGE, ROWS])
def test_what_rules_do_together(shape: tuple[int, ...], tmp_path: Path) -> None:
    checked({name: rule for name, rule in MORE.items() if rule[0] == shape}, tmp_path)


@pytest.mark.parametrize(
    ("equation", "axes"),
    [
        ("ab,bc->ac", 1),
        ("abc,cd->abd", 1),
        ("abc,cde->abde", 1),
        ("abcd,cde->abe", 2),
        ("...x,xy->...y", 1),
        ("ab,bc->ca", 0),
        ("abc,abd->acd", 0),
        ("abc,bd->adc", 0),
        ("ab,ab->a", 0),
    ],
)
def test_which_equations_are_products_of_the_last_axes(equation: str, axes: int) -> None:
    assert count_summed_axes(equation) == axes
    if axes and "." not in equation:
        x, kernel = (
            np.random.default_rng(place).normal(size=[2 + "abcdexy".index(c) for c in part])
            for place, part in enumerate(equation.partition("->")[0].split(","))
        )
        rows = int(np.prod(kernel.shape[:axes]))
        made = x.reshape(-1, rows) @ kernel.reshape(rows, -1)
        wanted = np.einsum(equation, x, kernel)
        np.testing.assert_allclose(made.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("merge", [L.Add(), lambda xs: xs[0] + xs[1]])
def test_a_value_with_itself(merge: Any, tmp_path: Path) -> None:
    inputs = keras.Input(ROW)
    x = L.Dense(4)(inputs)
    twin, given = made_twin(keras.Model(inputs, merge([x, x])))
    found = compared(twin, given, tmp_path, reference=False)["default"]
    assert (found.floats, found.worst) == ([], 0)


def test_what_the_converter_cannot_do_is_said(tmp_path: Path) -> None:
    inputs = keras.Input(ROW)
    x = L.Dense(4)(inputs)
    twin, given = made_twin(keras.Model(inputs, L.Multiply()([x, x])))
    with pytest.raises(RunFailed, match="same scale constraint"):
        compared(twin, given, tmp_path, reference=False)


def test_a_rule_of_the_users_own(tmp_path: Path) -> None:
    class Clipped(L.Layer):
        def call(self, inputs: Any) -> Any:
            return ops.relu6(inputs)

    class Own(Clipped):
        def call(self, inputs: Any) -> Any:
            return 3.0 * inputs

    @register_quantization(Clipped)
    def clipped(call: Any) -> Any:
        return call.rectified(call.inputs[0], call.itself)

    inputs = keras.Input(ROW)
    model = keras.Model(inputs, Own(name="own")(Clipped()(L.Dense(4)(inputs))))
    twin, given = made_twin(model)
    assert [call.layer for call in twin.placed if call.reason] == ["own"]
    plain = keras.Model(inputs, model.layers[-2].output)
    twin, given = made_twin(plain)
    found = compared(twin, given, tmp_path, reference=False)["default"]
    assert found.floats == []
    assert found.worst == 0


def test_every_rule_is_tried() -> None:
    names = {*TABLE._layers, *(f"ops.{name}" for name in TABLE._operations)}
    left = names - {*RULES} - {*NO_REFERENCE} - {*INDICES}
    alone = {name for name in left if rule_of(name) is skip_training_only}
    floating = {
        name for name in left
        if rule_of(name) in FLOATS
    }  # fmt: skip
    assert left - alone - floating == {
        "LayerScale", "ops.Cast", "ops.DotProductAttention", "ops.Flip", "ops.Matmul"
    }  # fmt: skip


def rule_of(name: str) -> Any:
    kind = getattr(keras.layers, name, None)
    return None if kind is None else find_rule(kind.__new__(kind))


def test_the_variables_of_a_table_keep_their_order() -> None:
    """Checkpoints of a training are read by it: the table first, then its range."""
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, L.Embedding(9, 3, name="rows")(inputs))
    paths = [variable.path for variable in build_fake_quantized(model).model.variables]
    assert paths == ["rows/embeddings", "rows_table_range/low", "rows_table_range/high"]

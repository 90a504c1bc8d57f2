"""Padding leaves the sums: what is solved is what unpadded rows alone say."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from compress.reconstruction import repair
from tests.compress.reconstruction.broken import pair

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers
STEPS = 9


def padded(seed: int = 0, count: int = 200) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Sequences of other lengths, padded with zeros, and where they are none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, STEPS + 1, count)
    inside = np.arange(STEPS) < lengths[:, None]
    return (rng.normal(size=(count, STEPS, 4)) * inside[..., None]).astype(np.float32), inside


def solution(p: Any, t: Any, kernel: Any, ridge: float) -> tuple[Any, Any]:
    """Kernel and bias of rows and targets, float64."""
    centred, wanted = p - p.mean(0), t - t.mean(0)
    a = centred.T @ centred
    extra = ridge * np.diag(np.diag(a))
    w = np.linalg.solve(a + extra, centred.T @ wanted + extra @ kernel)
    return w, t.mean(0) - p.mean(0) @ w


def test_masked_positions_are_no_rows() -> None:
    """What is broken is broken at padding in another way: the target there must not matter."""

    def body(x: Any, broken: Any) -> Any:
        y = L.Masking(name="mask")(x)
        y = broken()(y)
        y = L.Activation("softplus", name="bent")(y)
        y = L.Dense(5, name="d")(y)
        return L.GlobalAveragePooling1D(name="pool")(y)

    small, dense = pair((STEPS, 4), body, scale=0.5, offset=2.0)
    x, inside = padded()
    kernel, bias = (weight.numpy().astype(np.float64) for weight in dense.get_layer("d").weights)
    (row,) = repair(small, dense, x).layers
    assert row.state == "repaired"
    assert row.rows == inside.sum()
    wide = x.astype(np.float64)[inside]
    p, t = np.logaddexp(0, 0.5 * wide + 2.0), np.logaddexp(0, wide) @ kernel + bias
    w, c = solution(p, t, kernel, row.ridge)
    np.testing.assert_allclose(small.get_layer("d").kernel.numpy(), w, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(small.get_layer("d").bias.numpy(), c, rtol=1e-4, atol=3e-4)
    # rows of padding would have said something else
    flat = x.astype(np.float64).reshape(-1, 4)
    other, _ = solution(
        np.logaddexp(0, 0.5 * flat + 2.0), np.logaddexp(0, flat) @ kernel + bias, kernel, row.ridge
    )
    assert np.abs(other - w).max() > 0.005


def test_masks_of_embeddings_reach_layers_behind() -> None:
    """Token 0 is padding; dense layers behind see as many rows as there are other tokens."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = L.Embedding(7, 6, mask_zero=True, name="embed")(inputs)
    first = L.Dense(6, activation="relu", name="first")(x)
    y = L.GlobalAveragePooling1D(name="pool")(L.Dense(5, name="second")(first))
    dense = keras.Model(inputs, L.Dense(3, name="head")(y))
    small = keras.models.clone_model(dense)
    rng = np.random.default_rng(0)
    for weight in dense.weights:
        weight.assign(rng.normal(size=weight.shape))
    small.set_weights(dense.get_weights())
    kernel = small.get_layer("first").kernel
    kernel.assign(kernel.numpy() * np.array([0.7] * 6))
    _, inside = padded()
    tokens = rng.integers(1, 7, (200, STEPS)) * inside
    report = repair(small, dense, tokens)
    rows = {row.name: row for row in report.layers}
    assert rows["embed"].state == "left"
    assert "Embedding" in rows["embed"].reason
    assert rows["first"].rows == rows["second"].rows == inside.sum()
    assert rows["head"].rows == 200
    assert report.output_error[0][1] < 1e-6 < report.output_error[0][0]


def test_examples_that_are_all_padding_say_nothing() -> None:
    def body(x: Any, broken: Any) -> Any:
        y = L.Dense(5, name="d")(broken()(L.Masking(name="mask")(x)))
        return L.Activation("tanh", name="t")(y)

    small, dense = pair((STEPS, 4), body)
    report = repair(small, dense, np.zeros((40, STEPS, 4), np.float32))
    (row,) = report.layers
    assert row.state == "left"
    assert row.reason == "a mask leaves out all of its positions"
    for mine, theirs in zip(small.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)

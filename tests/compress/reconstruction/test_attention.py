"""Attention: opened into its projections; narrower heads are reconstructed by their scores."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from compress.reconstruction import repair
from compress.reconstruction.report import RepairReport

L = keras.layers
Numbers = npt.NDArray[np.float64]
STEPS, INPUTS = 6, 8


def filled(model: Any, seed: int, scale: float = 0.4) -> None:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, scale, weight.shape))


def net(attention: Any, cross: bool = False) -> Any:
    x = keras.Input((STEPS, INPUTS))
    other = keras.Input((STEPS + 3, INPUTS)) if cross else x
    y = L.Add(name="add")([x, attention(x, other)])
    return keras.Model([x, other] if cross else x, L.Dense(2, name="head")(y))


def multi(heads: int, width: int, value: int = 4, **others: Any) -> Any:
    return L.MultiHeadAttention(heads, width, value, name="attend", **others)


def grouped(heads: int, width: int) -> Any:
    return L.GroupQueryAttention(width, heads, 2, name="attend")


def sliced(dense: Any, small: Any, kept: dict[str, Any], factor: float) -> None:
    """Gives a smaller net the kept weights; queries times a factor, as slicing does it."""
    for own, theirs in zip(small.weights, dense.weights, strict=True):
        value = theirs.numpy()
        for axis, indices in enumerate(kept.get(theirs.path, ())):
            if indices is not None:
                value = np.take(value, indices, axis)
        own.assign(value * (factor if "/query/" in theirs.path else 1.0))


def narrowed(
    dense: Any, small: Any, width: int, heads: npt.NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Keeps the first columns of every head's queries and keys, and some heads."""
    attention = dense.get_layer("attend")
    columns, full = np.arange(width), attention._query_dense.kernel.shape[2]
    kept: dict[str, Any] = {}
    for part in (attention._query_dense, attention._key_dense):
        kept[part.kernel.path] = (None, heads, columns)
        kept[part.bias.path] = (heads, columns)
    if heads is not None:
        value, output = attention._value_dense, attention._output_dense
        kept[value.kernel.path], kept[value.bias.path] = (None, heads, None), (heads, None)
        kept[output.kernel.path] = (heads, None, None)
    sliced(dense, small, kept, math.sqrt(width / full))
    return kept


def scores(model: Any, x: Numbers, y: Numbers) -> Numbers:
    """What a softmax is taken of, in float64, less what all scores of a query share."""
    layer = model.get_layer("attend")
    made = []
    for part, given in ((layer._query_dense, x), (layer._key_dense, y)):
        kernel, bias = (weight.numpy().astype(float) for weight in (part.kernel, part.bias))
        made.append(np.einsum("bti,ihd->bhtd", given, kernel) + bias[:, None])
    queries, keys = made
    keys = np.repeat(keys, queries.shape[1] // keys.shape[1], 1)
    found = np.einsum("bhtd,bhsd->bhts", queries, keys) / math.sqrt(queries.shape[3])
    return np.asarray(found - found.mean(-1, keepdims=True))


def error(small: Any, dense: Any, x: Numbers, y: Numbers, heads: Any = None) -> float:
    wanted = scores(dense, x, y)
    wanted = wanted if heads is None else wanted[:, heads]
    return float(((scores(small, x, y) - wanted) ** 2).sum() / (wanted**2).sum())


def row(report: RepairReport, name: str) -> Any:
    return next(layer for layer in report.layers if layer.name == name)


def data(count: int = 200, steps: int = STEPS, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, steps, INPUTS)).astype(np.float32)


def repeated(dense: Any, width: int) -> None:
    """Makes the other half of every head's columns combinations of the first half."""
    layer = dense.get_layer("attend")
    rng = np.random.default_rng(9)
    for part in (layer._query_dense, layer._key_dense):
        mixed = rng.normal(size=(part.kernel.shape[1], width, width))
        kernel, bias = part.kernel.numpy(), part.bias.numpy()
        kernel[:, :, width:] = np.einsum("ihd,hde->ihe", kernel[:, :, :width], mixed)
        bias[:, width:] = np.einsum("hd,hde->he", bias[:, :width], mixed)
        part.kernel.assign(kernel)
        part.bias.assign(bias)


CASES: list[tuple[str, Any, bool]] = [
    ("multi", multi, False), ("cross", multi, True), ("grouped", grouped, False),
]  # fmt: skip


@pytest.mark.parametrize(("make", "cross"), [row[1:] for row in CASES], ids=[r[0] for r in CASES])
def test_scores_of_few_dimensions_are_made_good(make: Any, cross: bool) -> None:
    """Half of every head's columns are combinations of the others: nothing need be lost."""
    dense, small = net(make(4, 6), cross), net(make(4, 3), cross)
    filled(dense, 1)
    repeated(dense, 3)
    kept = narrowed(dense, small, 3) if make is multi else narrowed_grouped(dense, small, 3)
    x = data()
    y = data(steps=STEPS + 3, seed=1) if cross else x
    before = error(small, dense, x, y)
    report = repair(small, dense, [x, y] if cross else x, kept=kept)
    found = row(report, "attend_query")
    assert before > 0.1
    assert (found.state, found.target) == ("repaired", "scores")
    assert error(small, dense, x, y) < 1e-8
    assert not any(layer.name == "attend_key" for layer in report.layers)
    if make is multi:
        given = [x, y] if cross else x
        wanted = dense.predict(given, verbose=0)
        np.testing.assert_allclose(small.predict(given, verbose=0), wanted, atol=1e-3)


def narrowed_grouped(dense: Any, small: Any, width: int) -> dict[str, Any]:
    """As `narrowed`; values have the same width as keys there."""
    attention = dense.get_layer("attend")
    columns, kept = np.arange(width), {}
    for name in ("query", "key", "value"):
        part = getattr(attention, f"_{name}_dense")
        kept[part.kernel.path], kept[part.bias.path] = (None, None, columns), (None, columns)
    kept[attention._output_dense.kernel.path] = (None, columns, None)
    sliced(dense, small, kept, math.sqrt(width / 6))
    return kept


def test_the_rank_that_is_left_is_the_best_one() -> None:
    """The error is the sum of the singular values' squares that NumPy cuts off.

    Inputs are white, and those of keys others than those of queries: all pairs count alike.
    """
    dense, small = net(multi(1, 5), True), net(multi(1, 2), True)
    filled(dense, 3)
    layer = dense.get_layer("attend")
    layer._query_dense.bias.assign(np.zeros((1, 5)))
    kept = narrowed(dense, small, 2)
    x, y = data(4000, seed=5), data(4000, STEPS + 3, seed=6)
    before = error(small, dense, x, y)
    report = repair(small, dense, [x, y], kept=kept, examples=4000)
    after = error(small, dense, x, y)
    parts = layer._query_dense, layer._key_dense
    kernels = [part.kernel.numpy()[:, 0].astype(float) for part in parts]
    sizes = np.linalg.svd(kernels[0] @ kernels[1].T, compute_uv=False)
    least = (sizes[2:] ** 2).sum() / (sizes**2).sum()
    assert after == pytest.approx(least, rel=0.05)
    assert after < 0.7 * before
    found = row(report, "attend_query")
    assert found.before == pytest.approx(before, rel=0.05)
    assert found.after == pytest.approx(after, rel=0.05)


def test_removed_heads_and_channels() -> None:
    """Heads leave, others become narrower, and the inputs are fewer: never worse."""
    dense = net(multi(4, 6))
    small = net(multi(2, 4))
    filled(dense, 4)
    heads = np.array([0, 2])
    kept = narrowed(dense, small, 4, heads)
    x = data()
    before = error(small, dense, x, x, heads)
    report = repair(small, dense, x, kept=kept)
    states = {layer.name: (layer.state, layer.target) for layer in report.layers}
    assert error(small, dense, x, x, heads) < before
    assert states["attend_query"] == ("repaired", "scores")
    assert states["attend_attention_output"] == ("repaired", "sum")
    assert report.output_error[0][1] < report.output_error[0][0]


def test_whole_heads_are_solved_one_by_one() -> None:
    """Where no head became narrower, projections are kernels like any other."""
    dense, small = net(multi(4, 5)), net(multi(2, 5))
    filled(dense, 4)
    kept = narrowed(dense, small, 5, np.array([1, 3]))
    for part in ("query", "key"):
        layer = getattr(dense.get_layer("attend"), f"_{part}_dense")
        kept[layer.kernel.path] = (None, np.array([1, 3]), None)
        kept[layer.bias.path] = (np.array([1, 3]), None)
    report = repair(small, dense, data(), kept=kept)
    assert row(report, "attend_query").target == "own"
    assert row(report, "attend_key").state == "kept"
    assert row(report, "attend_attention_output").state == "repaired"


def test_masked_attention_is_left_and_named() -> None:
    x = keras.Input((STEPS,))
    y = L.Embedding(7, INPUTS, mask_zero=True, name="embed")(x)
    model = keras.Model(x, L.Dense(2)(multi(2, 4)(y, y)))
    tokens = np.random.default_rng(0).integers(0, 7, (40, STEPS))
    report = repair(keras.models.clone_model(model), model, tokens)
    wanted = "it is made of layers and given a mask that its call does not take"
    assert row(report, "attend").reason == wanted

"""Heads, losses and metrics against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from compress.errors import InputError
from compress.task import CrossEntropy, check_head, cross_entropy, logits_view, quality


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_its_definition(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(7, 5)) * 10).astype(np.float32)
    labels = rng.integers(5, size=7)
    target = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
    expected = -(target * log_softmax(logits.astype(np.float64), axis=-1)).sum(axis=-1)
    got = CrossEntropy(5, smoothing).loss(labels, logits, {})
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)
    if not smoothing:
        assert cross_entropy(labels, logits) == pytest.approx(expected.mean(), rel=1e-6)


def test_quality_by_hand() -> None:
    # class 0: 2 of 3 right, 1 false alarm; class 1: 1 of 1 right; class 2: never predicted
    labels = np.array([0, 0, 0, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 0]].astype(np.float32)
    got = quality(labels, scores)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert got["recall_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert got["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("head", ["layer", "dense", "none"])
def test_logits_are_found_behind_every_head(head: str, small_cnn: Callable[..., Any]) -> None:
    import keras

    model, plain = small_cnn(softmax=head), small_cnn(softmax="none")
    x = np.random.default_rng(1).normal(size=(6, 8, 8, 1)).astype(np.float32)
    expected = plain(x, training=False).numpy()
    before = model(x, training=False).numpy()
    with logits_view(model) as view:
        np.testing.assert_allclose(view(x, training=False).numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(model(x, training=False).numpy(), before)
    if head == "dense":
        assert model.get_layer("last").activation is keras.activations.softmax


def test_probabilities_of_an_unknown_head_give_logits_up_to_a_constant() -> None:
    import keras

    inputs = keras.Input((4,))
    logits = keras.layers.Dense(3, name="d")(inputs)
    model = keras.Model(inputs, keras.ops.softmax(logits))
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    expected = keras.Model(inputs, logits)(x).numpy()
    with logits_view(model) as view:
        got = view(x, training=False).numpy()
    np.testing.assert_allclose(
        got - got.mean(-1, keepdims=True), expected - expected.mean(-1, keepdims=True), atol=1e-5
    )


def test_check_head_names_what_is_wrong(small_cnn: Callable[..., Any]) -> None:
    import keras

    model = small_cnn()
    check_head(model, 10, (8, 8, 1))
    with pytest.raises(InputError, match=r"output \(batch, 3\) for the data's 3 classes"):
        check_head(model, 3, (8, 8, 1))
    with pytest.raises(InputError, match=r"the data's shape \(28, 28, 1\)"):
        check_head(model, 10, (28, 28, 1))
    two = keras.Model(model.inputs, [model.output, model.get_layer("last").output])
    with pytest.raises(InputError, match="one input and one output"):
        check_head(two, 10, (8, 8, 1))

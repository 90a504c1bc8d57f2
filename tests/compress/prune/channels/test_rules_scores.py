"""The law for attention without heads and for embeddings that project back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers

from tests.compress.prune.channels.law import SEEDS, check
from tests.compress.prune.channels.nets import HEAD, check_macs, headed, macs_of

Make = Callable[[], Any]


SCORED: dict[str, Make] = {
    "dot": lambda: layers.Attention(),
    "dot scaled": lambda: layers.Attention(use_scale=True, dropout=0.1),
    "concat": lambda: layers.Attention(score_mode="concat"),
    "concat scaled": lambda: layers.Attention(score_mode="concat", use_scale=True),
    "additive": lambda: layers.AdditiveAttention(),
    "additive, no scale": lambda: layers.AdditiveAttention(use_scale=False),
}


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("seed", SEEDS)
def test_scored(name: str, seed: int) -> None:
    target, source = keras.Input((4, 3)), keras.Input((6, 2))
    query, key = layers.Dense(5, name="q")(target), layers.Dense(5, name="k")(source)
    value = layers.Dense(7, name="v")(source)
    for call in ({}, {"use_causal_mask": True}):
        x = SCORED[name]()([query, value, key], **call)
        coupling, sliced, mask = check(headed([target, source], x), seed=seed)
        assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
        assert [len(group.units) for group in coupling.groups] == [5, 7]
        check_macs(coupling, sliced, mask)


@pytest.mark.parametrize("name", SCORED)
def test_scored_where_silence_is_not_zero(name: str) -> None:
    target, source = keras.Input((4, 3)), keras.Input((6, 2))
    query = layers.Dense(5, activation="sigmoid", name="q")(target)
    key = layers.Dense(5, activation="sigmoid", name="k")(source)
    x, scores = SCORED[name]()([query, key], return_attention_scores=True)
    removes = name == "additive"
    coupling, _, _ = check(headed([target, source], [x, scores]), removes=removes)
    assert len(coupling.groups) == int(removes)
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert any("sums over it" in reason for reason in reasons) is not removes


@pytest.mark.parametrize("seed", SEEDS)
def test_scored_against_a_fixed_query(seed: int) -> None:
    target, source = keras.Input((4, 5), name="target"), keras.Input((6, 2))
    key, value = layers.Dense(5, name="k")(source), layers.Dense(7, name="v")(source)
    x = layers.Attention(name="attend")([target, value, key])
    coupling, _, _ = check(headed([target, source], x), seed=seed)
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert reasons == ["a product sums over it (model input 'target')", *HEAD]
    assert [group.name for group in coupling.groups] == ["v"]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_sums_are_silent_where_values_are(activation: str, seed: int) -> None:
    inputs = keras.Input((4, 3))
    value = layers.Dense(5, activation=activation, name="value")(inputs)
    x = layers.Attention(name="first")([inputs, value, inputs])
    x = layers.Attention(name="second")([x, x])
    coupling, _, _ = check(headed(inputs, x), seed=seed, removes=activation == "tanh")
    assert len(coupling.groups) == int(activation == "tanh")


@pytest.mark.parametrize("seed", SEEDS)
def test_recurrent_attention(seed: int) -> None:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 7, mask_zero=True, name="table")(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.Attention(name="attend")([x, x])
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    coupling, sliced, mask = check(model, seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert [group.name for group in coupling.groups] == ["table", "both"]
    check_macs(coupling, sliced, mask)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_reversible_embedding(tie: bool, cap: float | None, seed: int) -> None:
    inputs = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(9, 8, tie_weights=tie, logit_soft_cap=cap, name="table")
    x = table(inputs)
    x = layers.Add()([x, layers.Dense(8, name="inner")(x)])
    model = keras.Model(inputs, table(x, reverse=True))
    coupling, sliced, mask = check(model, seed=seed)
    assert coupling.list_frozen() == ()
    assert [group.name for group in coupling.groups] == ["table"]
    assert macs_of(model, "table") == 6 * 8 * 9
    check_macs(coupling, sliced, mask)


def test_reversible_embedding_back_from_a_fixed_width() -> None:
    inputs, tokens = keras.Input((4, 8)), keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(9, 8, name="table")
    x = [table(inputs, reverse=True), layers.Dense(5, name="inner")(table(tokens))]
    coupling, _, _ = check(headed([inputs, tokens], x))
    assert [group.name for group in coupling.groups] == ["inner"]

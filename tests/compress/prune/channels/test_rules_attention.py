"""The law for attention layers with heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.compress.prune.channels.law import SEEDS, check
from tests.compress.prune.channels.nets import HEAD, check_macs, headed, macs_of

Make = Callable[[], Any]


def attended(layer: Any, **call: Any) -> Any:
    """Self attention between dense layers."""
    inputs = keras.Input((4, 3))
    x = layers.Dense(6, name="before")(inputs)
    return headed(inputs, layer(x, x, **call))


MULTI_HEAD: dict[str, Make] = {
    "plain": lambda: layers.MultiHeadAttention(4, 5),
    "other value width": lambda: layers.MultiHeadAttention(4, 5, value_dim=3),
    "no bias": lambda: layers.MultiHeadAttention(4, 5, use_bias=False),
    "gate": lambda: layers.MultiHeadAttention(4, 5, value_dim=3, use_gate=True),
    "output": lambda: layers.MultiHeadAttention(4, 5, output_shape=8),
    "dropout": lambda: layers.MultiHeadAttention(4, 5, dropout=0.3),
    "window": lambda: layers.MultiHeadAttention(4, 5, sliding_window=2),
    "one head": lambda: layers.MultiHeadAttention(1, 5),
}


@pytest.mark.parametrize("name", MULTI_HEAD)
@pytest.mark.parametrize("seed", SEEDS)
def test_multi_head_attention(name: str, seed: int) -> None:
    for call in ({}, {"use_causal_mask": True}):
        coupling, sliced, mask = check(attended(MULTI_HEAD[name](), **call), seed=seed)
        assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
        assert not coupling.graph.unknown
        kinds = [group.kind for group in coupling.groups]
        assert kinds.count("heads") == 1
        assert len(kinds) == 5
        check_macs(coupling, sliced, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_output_of_two_axes(seed: int) -> None:
    inputs = keras.Input((4, 3))
    x = layers.Dense(6, name="before")(inputs)
    x = layers.MultiHeadAttention(4, 5, output_shape=(3, 4), name="heads")(x, x)
    x = layers.EinsumDense("btxy,xyo->bto", output_shape=(None, 2), name="head")(x)
    coupling, sliced, mask = check(keras.Model(inputs, x), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 6
    check_macs(coupling, sliced, mask)


def test_the_query_kernel_keeps_the_scores() -> None:
    model = attended(layers.MultiHeadAttention(4, 8, value_dim=6, name="heads"))
    coupling, sliced, mask = check(model, keep=0.5)
    old, new = model.get_layer("heads"), sliced.get_layer("heads")
    assert (new.num_heads, new.key_dim, new.value_dim) == (2, 4, 3)

    def kept(variable: Any) -> Any:
        found = [b for b in coupling.bindings if b.variable is variable]
        axes = {b.axis: np.flatnonzero(mask[coupling.unit_of_slot[b.ids]]) for b in found}
        return variable.numpy()[np.ix_(*[axes[axis] for axis in range(len(variable.shape))])]

    for part in ("key", "value", "output"):
        one, two = getattr(old, f"_{part}_dense"), getattr(new, f"_{part}_dense")
        assert np.array_equal(two.kernel.numpy(), kept(one.kernel))
        assert np.array_equal(two.bias.numpy(), kept(one.bias))
    factor = np.float32(np.sqrt(4 / 8))
    one, two = old._query_dense, new._query_dense
    assert np.array_equal(two.kernel.numpy(), kept(one.kernel) * factor)
    assert np.array_equal(two.bias.numpy(), kept(one.bias) * factor)


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_attention_of_other_widths(seed: int) -> None:
    target, source, third = keras.Input((4, 3)), keras.Input((6, 2)), keras.Input((6, 5))
    mask = keras.Input((4, 6), dtype="bool", name="mask")
    query = layers.Dense(5, name="q")(target)
    value = layers.Dense(7, name="v")(source)
    key = layers.Dense(6, name="k")(third)
    heads = layers.MultiHeadAttention(3, 4, value_dim=5, name="heads")
    x = heads(query, key=key, value=value, attention_mask=mask)
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(2, *shape)).astype("float32") for shape in [(4, 3), (6, 2), (6, 5)]]
    allowed = rng.random((2, 4, 6)) < 0.7
    allowed[..., 0] = True
    model = headed([target, source, third, mask], x)
    coupling, sliced, chosen = check(model, seed=seed, inputs=[*inputs, allowed])
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 7
    check_macs(coupling, sliced, chosen)


@pytest.mark.parametrize("axes", [None, (1,), (2,), (1, 2)])
@pytest.mark.parametrize("seed", SEEDS)
def test_more_axes(axes: Any, seed: int) -> None:
    inputs = keras.Input((3, 4, 2))
    x = layers.Dense(6, name="before")(inputs)
    x = layers.MultiHeadAttention(3, 5, attention_axes=axes, name="heads")(x, x)
    coupling, sliced, mask = check(headed(inputs, x), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 5
    check_macs(coupling, sliced, mask)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.MultiHeadAttention(3, 5, name="heads"),
        lambda: layers.GroupQueryAttention(5, 3, 3, name="heads"),
    ],
)
def test_scores_that_leave_the_model_fix_heads(make: Make) -> None:
    inputs = keras.Input((4, 3))
    x = layers.Dense(6, name="before")(inputs)
    x, scores = make()(x, x, return_attention_scores=True)
    x = layers.Dense(3, name="head")(x)
    coupling, _, _ = check(keras.Model(inputs, [x, scores]))
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert reasons == [*HEAD, "model output 'heads'"]
    assert {group.kind for group in coupling.groups} == {"channels"}


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_used_inside(seed: int) -> None:
    inputs = keras.Input((4, 3))
    x = layers.Dense(6, name="before")(inputs)
    x, scores = layers.MultiHeadAttention(3, 5, name="heads")(x, x, return_attention_scores=True)
    coupling, sliced, mask = check(headed(inputs, [x, scores]), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert [group.kind for group in coupling.groups].count("heads") == 1
    check_macs(coupling, sliced, mask)


GROUPED: dict[str, tuple[Make, int]] = {
    "two to one": (lambda: layers.GroupQueryAttention(5, 6, 3), 3),
    "one to one": (lambda: layers.GroupQueryAttention(5, 4, 4), 4),
    "one for all": (lambda: layers.GroupQueryAttention(5, 4, 1), 4),
    "gate, no bias": (
        lambda: layers.GroupQueryAttention(5, 6, 3, use_gate=True, use_bias=False),
        3,
    ),
    "dropout": (lambda: layers.GroupQueryAttention(5, 4, 2, dropout=0.2), 2),
}


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("seed", SEEDS)
def test_grouped_query_attention(name: str, seed: int) -> None:
    make, heads = GROUPED[name]
    coupling, sliced, mask = check(attended(make(), use_causal_mask=True), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert not coupling.graph.unknown
    assert [len(group.units) for group in coupling.groups if group.kind == "heads"] == [heads]
    assert sorted(len(group.units) for group in coupling.groups) == sorted([heads, 5, 6])
    check_macs(coupling, sliced, mask)


def test_grouped_queries_keep_a_fixed_width() -> None:
    inputs = keras.Input((4, 3))
    x = layers.GroupQueryAttention(5, 4, 2, name="heads")(inputs, inputs)
    coupling, _, _ = check(headed(inputs, x))
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert sorted(len(group.units) for group in coupling.groups) == [2, 5]
    target, source = keras.Input((4, 6)), keras.Input((5, 3))
    source_six = layers.Dense(6, name="before")(source)
    x = layers.GroupQueryAttention(5, 4, 2, name="heads")(target, source_six)
    coupling, _, _ = check(headed([target, source], x))
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert reasons == ["query and value have one width", *HEAD]


@pytest.mark.parametrize("seed", SEEDS)
def test_transformer_encoder(seed: int) -> None:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True, name="table")(inputs)
    for block in range(2):
        attended = layers.MultiHeadAttention(4, 3, name=f"heads{block}")(x, x)
        x = layers.LayerNormalization(name=f"ln{block}a")(layers.Add()([x, attended]))
        wide = layers.Dense(12, activation="gelu", name=f"wide{block}")(x)
        x = layers.Add()([x, layers.Dense(8, name=f"narrow{block}")(wide)])
        x = layers.LayerNormalization(name=f"ln{block}b")(x)
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x))
    coupling, sliced, mask = check(keras.Model(inputs, x), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    # one width; heads, keys, values and the wide layer of each block
    assert len(coupling.groups) == 1 + 2 * 4
    check_macs(coupling, sliced, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_attention(seed: int) -> None:
    first, second = keras.Input((4, 3)), keras.Input((5, 3))
    dense = layers.Dense(6, name="before")
    heads = layers.MultiHeadAttention(3, 4, name="heads")
    one, two = dense(first), dense(second)
    x = [heads(one, one), heads(two, one, key=one)]
    coupling, sliced, mask = check(headed([first, second], x), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 5
    check_macs(coupling, sliced, mask)


class Own(layers.MultiHeadAttention):
    def _compute_attention(self, *args: Any, **kwargs: Any) -> Any:
        output, scores = super()._compute_attention(*args, **kwargs)
        return keras.ops.flip(output, -1), scores


def test_own_attention_has_no_rule() -> None:
    with keras.saving.custom_object_scope({"Own": Own}):
        coupling, _, _ = check(attended(Own(4, 5, name="own")), removes=False)
    reason = "its class computes attention in its own way"
    assert coupling.graph.unknown == {"own": ("Own", reason)}


def test_macs() -> None:
    def costs(layer: Any) -> float:
        target, source = keras.Input((4, 6)), keras.Input((7, 6))
        return macs_of(headed([target, source], layer(target, source)), layer.name)

    def scored(layer: Any) -> float:
        target, source = keras.Input((4, 6)), keras.Input((7, 6))
        return macs_of(headed([target, source], layer([target, source])), layer.name)

    pairs, project = 4 * 7, 4 * 6 * 3 * 5 + 7 * 6 * 3 * 5
    assert costs(layers.MultiHeadAttention(3, 5)) == 2 * project + 2 * pairs * 3 * 5
    shared = 2 * 7 * 6 * 2 * 5
    assert costs(layers.GroupQueryAttention(5, 4, 2)) == (
        2 * 4 * 6 * 4 * 5 + shared + 2 * pairs * 4 * 5
    )
    assert scored(layers.Attention()) == 2 * pairs * 6
    # its scores are sums of tanh, elementwise work
    assert scored(layers.AdditiveAttention()) == pairs * 6

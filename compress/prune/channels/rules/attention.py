"""Attention layers: with projections of heads, and without, by dot products or sums of tanh."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.model.internals import attends_as, attention_part
from compress.prune.channels.coupling.slots import HEADS, Ids, Kept, LayerCall, Slots, sizes
from compress.prune.channels.rules._base import (
    ADAPTED,
    channels_only,
    is_adapted,
    layer_rule,
    tensors,
)
from compress.prune.channels.rules.joining import contracted


@layer_rule("MultiHeadAttention")
def multi_head_attention(call: LayerCall) -> list[Slots]:
    """Heads, key widths, value widths and output channels are slots of their own.

    Kernels are (in, heads, width), the output's is (heads, value width, *output). The layer
    divides scores by the root of its key width: the sliced query kernel and bias are
    multiplied by sqrt(new / old width), so that the scores stay what they were.
    """
    layer = call.layer
    reason = _opaque(layer, "MultiHeadAttention")
    if reason:
        return call.unknown(reason)
    query, value, key = _inputs(call)
    heads = call.new(layer.num_heads, HEADS)
    keys, values = call.new(layer.key_dim), call.new(layer.value_dim)
    _project(call, "query", query, query.axes[-1:], (heads, keys))
    _project(call, "key", key, key.axes[-1:], (heads, keys))
    _project(call, "value", value, value.axes[-1:], (heads, values))
    _project(call, "gate", query, query.axes[-1:], (heads, values))
    out = [call.new(size) for size in attention_part(layer, "output").kernel.shape[2:]]
    _project(call, "output", query, (heads, values), out)
    _attend(call, query, key, layer.attention_axes, heads, keys, values)
    call.config("num_heads", heads)
    call.config("key_dim", keys)
    call.config("value_dim", values)

    def name_width(config: dict[str, Any], kept: Kept) -> None:
        # Keras's default is the query's width
        shape = tuple(kept.count(axis) for axis in out)
        ids, width = query.axes[-1], query.shape[-1]
        if config["output_shape"] or shape != (width if ids is None else kept.count(ids),):
            config["output_shape"] = shape

    call.edit(name_width)
    return _results(call, dict(enumerate(out, start=len(query.shape) - 1)), heads)


@layer_rule("GroupedQueryAttention", "GroupQueryAttention")
def grouped_query_attention(call: LayerCall) -> list[Slots]:
    """A key/value head leaves with its query heads; one width serves all projections.

    A single key/value head stays, and its query heads are slots. Keras has no setting for
    the output's width: it is the query's, channel by channel, and the value's.
    """
    layer = call.layer
    reason = _opaque(layer, "GroupQueryAttention")
    if reason:
        return call.unknown(reason)
    query, value, key = _inputs(call)
    shared = None
    if layer.num_key_value_heads == 1:
        heads = call.new(layer.num_query_heads, HEADS)
    else:
        shared = call.new(layer.num_key_value_heads, HEADS)
        heads = np.repeat(shared, layer.num_repeats)
    width = call.new(layer.head_dim)
    _project(call, "query", query, query.axes[-1:], (heads, width))
    _project(call, "key", key, key.axes[-1:], (shared, width))
    _project(call, "value", value, value.axes[-1:], (shared, width))
    _project(call, "gate", query, query.axes[-1:], (heads, width))
    out = call.link(query.axes[-1], value.axes[-1], "query and value have one width")
    _project(call, "output", query, (heads, width), [out])
    _attend(call, query, key, (1,), heads, width, width)
    call.config("num_query_heads", heads)
    call.config("num_key_value_heads", shared)
    call.config("head_dim", width)
    return _results(call, {len(query.shape) - 1: out}, heads)


def _opaque(layer: Any, kind: str) -> str:
    """Return the reason why a layer cannot be followed, or ""."""
    if not attends_as(layer, kind):
        return "its class computes attention in its own way"
    parts = (attention_part(layer, name) for name in ("query", "key", "value", "gate", "output"))
    return ADAPTED if any(map(is_adapted, parts)) else ""


def _inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    """Return query, value and key; only their last axes may be tracked."""
    call.follows_weights()
    given = tensors(call, "query", "value")
    query, value = given["query"][0], given["value"][0]
    return _hold_other_axes(call, query, value, (given.get("key") or [value])[0])


def _hold_other_axes(call: LayerCall, *given: Slots) -> tuple[Slots, Slots, Slots]:
    for slots in given:
        channels_only(call, slots, len(slots.shape) - 1, "an attention")
    query, value, key = given
    return query, value, key


def _project(
    call: LayerCall,
    name: str,
    x: Slots,
    read: Sequence[Ids | None],
    made: Sequence[Ids | None],
) -> None:
    """Binds a kernel of the axes (*read, *made) and a bias of the axes `made`."""
    part, axes = attention_part(call.layer, name), (*read, *made)
    if part is None:
        return
    for axis, ids in enumerate(axes):
        call.bind(part.kernel, axis, ids)
    for axis, ids in enumerate(made):
        call.bind(part.bias, axis, ids)
    sized = zip(part.kernel.shape, axes, strict=True)
    call.macs(sizes(x.shape[1:-1]), *(size if ids is None else ids for size, ids in sized))


def _attend(
    call: LayerCall, query: Slots, key: Slots, over: Any, heads: Ids, keys: Ids, values: Ids
) -> None:
    """Score, which stay what they were, and weighted sums.

    Axes that attention does not run over are batch axes.
    """
    pairs = sizes(query.shape[1:-1]) * sizes(tuple(key.shape[axis] for axis in over))
    call.macs(pairs, heads, keys)
    call.macs(pairs, heads, values)
    part = attention_part(call.layer, "query")
    for weight in (part.kernel, part.bias):
        call.scale(weight, lambda kept: math.sqrt(kept.count(keys) / len(keys)))


def _results(call: LayerCall, axes: Mapping[int, Ids | None], heads: Ids) -> list[Slots]:
    result = call.out(dict(axes), zero=True)
    if len(call.shapes) == 1:
        return [result]
    if len(call.inputs[0].shape) <= 3:
        return [result, call.out({1: heads}, index=1)]
    # Keras announces scores of rank 4 whatever their rank is
    call.freeze(heads, "attention scores of more than one axis are returned")
    return [result, call.out({}, index=1)]


@layer_rule("Attention")
def attention(call: LayerCall) -> list[Slots]:
    """Score are sums over the width of query and key: products, or tanh of sums."""
    query, value, key = _read_inputs(call)
    if call.layer.score_mode == "dot":
        contracted(call, query, len(query.shape) - 1, key, len(key.shape) - 1)
        ids = query.axes[-1] if key.axes[-1] is not None else None
        call.macs(_pairs(query, key), int(query.shape[-1] or 1) if ids is None else ids)
    else:
        _summed(call, query, key, exact=query.zero and key.zero)
    return _weigh_values(call, query, value, key)


@layer_rule("AdditiveAttention")
def additive_attention(call: LayerCall) -> list[Slots]:
    """Score are sums of scale x tanh(query + key); the scale has one entry a channel."""
    query, value, key = _read_inputs(call)
    scale = call.layer.scale
    ids = _summed(call, query, key, exact=scale is not None or (query.zero and key.zero))
    call.bind(scale, 0, ids)
    return _weigh_values(call, query, value, key)


def _read_inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    query, value, *rest = tensors(call, "inputs")["inputs"]
    return _hold_other_axes(call, query, value, rest[0] if rest else value)


def _summed(call: LayerCall, query: Slots, key: Slots, *, exact: bool) -> Ids | None:
    """Tie query and key; freezes them where removed entries would add to the sum."""
    ids = call.link(query.axes[-1], key.axes[-1], "query and key have one width")
    if not exact:
        call.freeze(ids, "attention sums over it and its entries are not zero")
    return ids


def _pairs(query: Slots, key: Slots) -> int:
    return sizes(query.shape[1:-1]) * int(key.shape[-2] or 1)


def _weigh_values(call: LayerCall, query: Slots, value: Slots, key: Slots) -> list[Slots]:
    """Weighted sums of values; sums of tanh are elementwise work, not counted in MACs."""
    call.macs(_pairs(query, key), value.get_factor(-1))
    axes = {len(call.shapes[0]) - 1: value.axes[-1]}
    out = call.out(axes, zero=value.zero, origin=value.origin)
    return [out, *(call.out({}, index=index) for index in range(1, len(call.shapes)))]

"""Attention layers with heads: projections to queries, keys and values, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.model.internals import attends_as, attention_part
from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import HEADS, Ids, Slots, sizes
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import layer_rule

_PARTS = ("query", "key", "value", "gate", "output")


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
    call.follows_weights()
    query, value, key = _inputs(call)
    heads = call.new(layer.num_heads, HEADS)
    keys, values = call.new(layer.key_dim), call.new(layer.value_dim)
    _project(call, "query", query, heads, keys)
    _project(call, "key", key, heads, keys)
    _project(call, "value", value, heads, values)
    _project(call, "gate", query, heads, values)
    out = [call.new(size) for size in attention_part(layer, "output").kernel.shape[2:]]
    _project_back(call, query, heads, values, out)
    _attend(call, query, key, layer.attention_axes, heads, keys, values)
    _keep_scores(call, attention_part(layer, "query"), keys)
    call.config("num_heads", heads)
    call.config("key_dim", keys)
    call.config("value_dim", values)
    call.edit(lambda config, kept: _output_shape(config, kept, query, out))
    first = len(query.shape) - 1
    return _results(call, dict(enumerate(out, start=first)), heads)


def _output_shape(config: dict[str, Any], kept: Any, query: Slots, out: list[Ids]) -> None:
    """Names the output's width unless it is that of the query, Keras's default."""
    ids, width = query.axes[-1], query.shape[-1]
    shape = tuple(kept.count(axis) for axis in out)
    if config["output_shape"] or shape != (width if ids is None else kept.count(ids),):
        config["output_shape"] = shape


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
    call.follows_weights()
    query, value, key = _inputs(call)
    shared = None
    if layer.num_key_value_heads == 1:
        heads = call.new(layer.num_query_heads, HEADS)
    else:
        shared = call.new(layer.num_key_value_heads, HEADS)
        heads = np.repeat(shared, layer.num_repeats)
    width = call.new(layer.head_dim)
    _project(call, "query", query, heads, width)
    _project(call, "key", key, shared, width)
    _project(call, "value", value, shared, width)
    _project(call, "gate", query, heads, width)
    out = call.link(query.axes[-1], value.axes[-1], "query and value have one width")
    _project_back(call, query, heads, width, [out])
    _attend(call, query, key, (1,), heads, width, width)
    _keep_scores(call, attention_part(layer, "query"), width)
    call.config("num_query_heads", heads)
    call.config("num_key_value_heads", shared)
    call.config("head_dim", width)
    return _results(call, {len(query.shape) - 1: out}, heads)


def _opaque(layer: Any, kind: str) -> str:
    """Says why a layer cannot be followed; empty: it can."""
    if not attends_as(layer, kind):
        return "its class computes attention in its own way"
    for name in _PARTS:
        part = attention_part(layer, name)
        if getattr(part, "lora_enabled", False) or getattr(part, "quantization_mode", None):
            return "LoRA and quantized kernels have no rule"
    return ""


def _inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    """Returns query, value and key; only their last axes may be tracked."""
    given = tensors(call, "query", "value")
    masks_fixed(call, given)
    query, value = given["query"][0], given["value"][0]
    key = (given.get("key") or [value])[0]
    for slots in (query, value, key):
        others = [axis for axis in slots.tracked if axis != len(slots.shape) - 1]
        call.barrier(slots, "an attention runs along it", others)
    return query, value, key


def _project(call: LayerCall, name: str, x: Slots, heads: Ids | None, width: Ids) -> None:
    """A kernel (in, heads, width) and a bias (heads, width)."""
    part = attention_part(call.layer, name)
    if part is None:
        return
    for axis, ids in enumerate((x.axes[-1], heads, width)):
        call.bind(part.kernel, axis, ids)
    for axis, ids in enumerate((heads, width)):
        call.bind(part.bias, axis, ids)
    call.macs(sizes(x.shape[1:-1]), *_sized(part.kernel.shape, (x.axes[-1], heads, width)))


def _project_back(
    call: LayerCall, query: Slots, heads: Ids, width: Ids, out: list[Ids] | list[Ids | None]
) -> None:
    """A kernel (heads, width, *out) and a bias of the output's shape."""
    part = attention_part(call.layer, "output")
    for axis, ids in enumerate((heads, width, *out)):
        call.bind(part.kernel, axis, ids)
    for axis, ids in enumerate(out):
        call.bind(part.bias, axis, ids)
    call.macs(sizes(query.shape[1:-1]), *_sized(part.kernel.shape, (heads, width, *out)))


def _attend(
    call: LayerCall, query: Slots, key: Slots, over: Any, heads: Ids, keys: Ids, values: Ids
) -> None:
    """Scores and weighted sums; axes that attention does not run over are batch axes."""
    pairs = sizes(query.shape[1:-1]) * sizes(tuple(key.shape[axis] for axis in over))
    call.macs(pairs, heads, keys)
    call.macs(pairs, heads, values)


def _keep_scores(call: LayerCall, query_dense: Any, width: Ids) -> None:
    def factor(kept: Any) -> float:
        return math.sqrt(kept.count(width) / len(width))

    call.scale(query_dense.kernel, factor)
    call.scale(query_dense.bias, factor)


def _results(
    call: LayerCall, axes: dict[int, Ids | None] | dict[int, Ids], heads: Ids
) -> list[Slots]:
    results = [call.out(dict(axes), zero=True)]
    if len(call.shapes) > 1:
        if len(call.inputs[0].shape) > 3:
            # Keras announces scores of rank 4 whatever their rank is
            call.freeze(heads, "attention scores of more than one axis are returned")
            return [*results, call.out({}, index=1)]
        results.append(call.out({1: heads}, index=1))
    return results


def _sized(shape: Any, axes: tuple[Ids | None, ...]) -> list[Ids | int]:
    return [size if ids is None else ids for size, ids in zip(shape, axes, strict=True)]

"""Rules of attention layers, with head projections or without (dot-product, additive)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.model.keras_internals import find_attention_projection, has_attention_of
from compress.prune.channels.coupling.slots import HEADS, Ids, Kept, LayerCall, Slots, count_entries
from compress.prune.channels.rules._base import (
    ADAPTED,
    collect_tensors,
    freeze_other_axes,
    is_adapted,
    layer_rule,
)
from compress.prune.channels.rules.joining import link_contracted


@layer_rule("MultiHeadAttention")
def propagate_multi_head_attention(call: LayerCall) -> list[Slots]:
    """Bind projections to separate slots of heads, keys, values and output channels.

    Kernels are (in, heads, key or value size); that of the output is (heads, value size, *output).
    The layer divides scores by the root of its key size. The sliced query kernel and bias are
    multiplied by sqrt(new / old key size), so that the scores do not change.
    """
    layer = call.layer
    reason = _find_obstacle(layer, "MultiHeadAttention")
    if reason:
        return call.report_unknown(reason)
    query, value, key = _collect_inputs(call)
    heads = call.new(layer.num_heads, HEADS)
    keys, values = call.new(layer.key_dim), call.new(layer.value_dim)
    _bind_projection(call, "query", query, query.axes[-1:], (heads, keys))
    _bind_projection(call, "key", key, key.axes[-1:], (heads, keys))
    _bind_projection(call, "value", value, value.axes[-1:], (heads, values))
    _bind_projection(call, "gate", query, query.axes[-1:], (heads, values))
    out = [call.new(size) for size in find_attention_projection(layer, "output").kernel.shape[2:]]
    _bind_projection(call, "output", query, (heads, values), out)
    _add_attention_macs(call, query, key, layer.attention_axes, heads, keys, values)
    call.config("num_heads", heads)
    call.config("key_dim", keys)
    call.config("value_dim", values)

    def update_output_shape(config: dict[str, Any], kept: Kept) -> None:
        # None means the size of the query in Keras
        shape = tuple(kept.count(axis) for axis in out)
        ids, width = query.axes[-1], query.shape[-1]
        if config["output_shape"] or shape != (width if ids is None else kept.count(ids),):
            config["output_shape"] = shape

    call.add_config_edit(update_output_shape)
    return _create_outputs(call, dict(enumerate(out, start=len(query.shape) - 1)), heads)


@layer_rule("GroupedQueryAttention", "GroupQueryAttention")
def propagate_grouped_query_attention(call: LayerCall) -> list[Slots]:
    """Bind projections such that a key/value head is removed together with its query heads.

    All projections share one head size. If there is a single key/value head, it is fixed, and its
    query heads have slots. The output size cannot be configured in Keras: it is that of the query,
    channel by channel, and that of the value.
    """
    layer = call.layer
    reason = _find_obstacle(layer, "GroupQueryAttention")
    if reason:
        return call.report_unknown(reason)
    query, value, key = _collect_inputs(call)
    shared = None
    if layer.num_key_value_heads == 1:
        heads = call.new(layer.num_query_heads, HEADS)
    else:
        shared = call.new(layer.num_key_value_heads, HEADS)
        heads = np.repeat(shared, layer.num_repeats)
    width = call.new(layer.head_dim)
    _bind_projection(call, "query", query, query.axes[-1:], (heads, width))
    _bind_projection(call, "key", key, key.axes[-1:], (shared, width))
    _bind_projection(call, "value", value, value.axes[-1:], (shared, width))
    _bind_projection(call, "gate", query, query.axes[-1:], (heads, width))
    out = call.link(query.axes[-1], value.axes[-1], "query and value have one width")
    _bind_projection(call, "output", query, (heads, width), [out])
    _add_attention_macs(call, query, key, (1,), heads, width, width)
    call.config("num_query_heads", heads)
    call.config("num_key_value_heads", shared)
    call.config("head_dim", width)
    return _create_outputs(call, {len(query.shape) - 1: out}, heads)


def _find_obstacle(layer: Any, kind: str) -> str:
    """Return the reason why a layer has no rule, or ""."""
    if not has_attention_of(layer, kind):
        return "its class computes attention in its own way"
    parts = (
        find_attention_projection(layer, name)
        for name in ("query", "key", "value", "gate", "output")
    )
    return ADAPTED if any(map(is_adapted, parts)) else ""


def _collect_inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    """Return query, value and key; all axes except their last ones are frozen."""
    call.link_by_weights()
    slots_by_argument = collect_tensors(call, "query", "value")
    query, value = slots_by_argument["query"][0], slots_by_argument["value"][0]
    return _freeze_positions(call, query, value, (slots_by_argument.get("key") or [value])[0])


def _freeze_positions(
    call: LayerCall, query: Slots, value: Slots, key: Slots
) -> tuple[Slots, Slots, Slots]:
    """Freeze all axes of query, value and key except the last ones, and return the inputs."""
    for slots in (query, value, key):
        freeze_other_axes(call, slots, len(slots.shape) - 1, "an attention")
    return query, value, key


def _bind_projection(
    call: LayerCall,
    name: str,
    x: Slots,
    input_axes: Sequence[Ids | None],
    output_axes: Sequence[Ids | None],
) -> None:
    """Bind a kernel with the axes (*input_axes, *output_axes) and a bias with `output_axes`."""
    part, axes = find_attention_projection(call.layer, name), (*input_axes, *output_axes)
    if part is None:
        return
    for axis, ids in enumerate(axes):
        call.bind(part.kernel, axis, ids)
    for axis, ids in enumerate(output_axes):
        call.bind(part.bias, axis, ids)
    sized = zip(part.kernel.shape, axes, strict=True)
    call.macs(count_entries(x.shape[1:-1]), *(size if ids is None else ids for size, ids in sized))


def _add_attention_macs(
    call: LayerCall, query: Slots, key: Slots, over: Any, heads: Ids, keys: Ids, values: Ids
) -> None:
    """Add the MACs of scores and weighted sums, and rescale the query to preserve the scores.

    Axes that attention is not computed over are batch axes.
    """
    pairs = count_entries(query.shape[1:-1]) * count_entries(
        tuple(key.shape[axis] for axis in over)
    )
    call.macs(pairs, heads, keys)
    call.macs(pairs, heads, values)
    part = find_attention_projection(call.layer, "query")
    for weight in (part.kernel, part.bias):
        call.scale(weight, lambda kept: math.sqrt(kept.count(keys) / len(keys)))


def _create_outputs(call: LayerCall, axes: Mapping[int, Ids | None], heads: Ids) -> list[Slots]:
    result = call.out(dict(axes), zero=True)
    if len(call.shapes) == 1:
        return [result]
    if len(call.inputs[0].shape) <= 3:
        return [result, call.out({1: heads}, index=1)]
    # Keras reports scores of rank 4 for every input rank
    call.freeze(heads, "attention scores of more than one axis are returned")
    return [result, call.out({}, index=1)]


@layer_rule("Attention")
def propagate_attention(call: LayerCall) -> list[Slots]:
    """Link query and key, over which scores are sums of products or of tanh."""
    query, value, key = _read_inputs(call)
    if call.layer.score_mode == "dot":
        exact = query.zero or key.zero
        link_contracted(call, query, len(query.shape) - 1, key, len(key.shape) - 1, exact=exact)
        ids = query.axes[-1] if key.axes[-1] is not None else None
        call.macs(_count_pairs(query, key), int(query.shape[-1] or 1) if ids is None else ids)
    else:
        _link_summed(call, query, key, exact=query.zero and key.zero)
    return _propagate_values(call, query, value, key)


@layer_rule("AdditiveAttention")
def propagate_additive_attention(call: LayerCall) -> list[Slots]:
    """Link query and key, and bind the scale: scores are sums of scale x tanh(query + key)."""
    query, value, key = _read_inputs(call)
    scale = call.layer.scale
    ids = _link_summed(call, query, key, exact=scale is not None or (query.zero and key.zero))
    call.bind(scale, 0, ids)
    return _propagate_values(call, query, value, key)


def _read_inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    query, value, *rest = collect_tensors(call, "inputs")["inputs"]
    return _freeze_positions(call, query, value, rest[0] if rest else value)


def _link_summed(call: LayerCall, query: Slots, key: Slots, *, exact: bool) -> Ids | None:
    """Link query and key; freeze them if removed entries would contribute to the sum."""
    ids = call.link(query.axes[-1], key.axes[-1], "query and key have one width")
    if not exact:
        call.freeze(ids, "attention sums over it and its entries are not zero")
    return ids


def _count_pairs(query: Slots, key: Slots) -> int:
    return count_entries(query.shape[1:-1]) * int(key.shape[-2] or 1)


def _propagate_values(call: LayerCall, query: Slots, value: Slots, key: Slots) -> list[Slots]:
    """Return the slots of weighted sums of values, and add their MACs.

    Sums of tanh are elementwise operations, which are not counted in MACs.
    """
    call.macs(_count_pairs(query, key), value.get_factor(-1))
    axes = {len(call.shapes[0]) - 1: value.axes[-1]}
    out = call.out(axes, zero=value.zero, origin=value.origin)
    return [out, *(call.out({}, index=index) for index in range(1, len(call.shapes)))]

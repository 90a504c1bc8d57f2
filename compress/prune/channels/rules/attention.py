"""Attention layers with heads: projections to queries, keys and values, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import HEADS, Ids, Slots, sizes
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import layer_rule

_PARTS = ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")


@layer_rule("MultiHeadAttention")
def multi_head_attention(site: Site) -> list[Slots]:
    """Heads, key widths, value widths and output channels are slots of their own.

    Kernels are (in, heads, width), the output's is (heads, value width, *output). The layer
    divides scores by the root of its key width: the sliced query kernel and bias are
    multiplied by sqrt(new / old width), so that the scores stay what they were.
    """
    layer = site.layer
    reason = _opaque(layer, "MultiHeadAttention")
    if reason:
        return site.unknown(reason)
    site.follows_weights()
    query, value, key = _inputs(site)
    heads = site.new(layer.num_heads, HEADS)
    keys, values = site.new(layer.key_dim), site.new(layer.value_dim)
    _project(site, "_query_dense", query, heads, keys)
    _project(site, "_key_dense", key, heads, keys)
    _project(site, "_value_dense", value, heads, values)
    _project(site, "_gate_dense", query, heads, values)
    out = [site.new(size) for size in layer._output_dense._kernel.shape[2:]]
    _project_back(site, query, heads, values, out)
    _attend(site, query, key, layer._attention_axes, heads, keys, values)
    _keep_scores(site, layer._query_dense, keys)
    site.config("num_heads", heads)
    site.config("key_dim", keys)
    site.config("value_dim", values)
    site.edit(lambda config, kept: _output_shape(config, kept, query, out))
    first = len(query.shape) - 1
    return _results(site, dict(enumerate(out, start=first)), heads)


def _output_shape(config: dict[str, Any], kept: Any, query: Slots, out: list[Ids]) -> None:
    """Names the output's width unless it is that of the query, Keras's default."""
    ids, width = query.axes[-1], query.shape[-1]
    shape = tuple(kept.count(axis) for axis in out)
    if config["output_shape"] or shape != (width if ids is None else kept.count(ids),):
        config["output_shape"] = shape


@layer_rule("GroupedQueryAttention", "GroupQueryAttention")
def grouped_query_attention(site: Site) -> list[Slots]:
    """A key/value head leaves with its query heads; one width serves all projections.

    A single key/value head stays, and its query heads are slots. Keras has no setting for
    the output's width: it is the query's, channel by channel, and the value's.
    """
    layer = site.layer
    reason = _opaque(layer, "GroupQueryAttention")
    if reason:
        return site.unknown(reason)
    site.follows_weights()
    query, value, key = _inputs(site)
    shared = None
    if layer.num_key_value_heads == 1:
        heads = site.new(layer.num_query_heads, HEADS)
    else:
        shared = site.new(layer.num_key_value_heads, HEADS)
        heads = np.repeat(shared, layer.num_repeats)
    width = site.new(layer.head_dim)
    _project(site, "_query_dense", query, heads, width)
    _project(site, "_key_dense", key, shared, width)
    _project(site, "_value_dense", value, shared, width)
    _project(site, "_gate_dense", query, heads, width)
    out = site.link(query.axes[-1], value.axes[-1], "query and value have one width")
    _project_back(site, query, heads, width, [out])
    _attend(site, query, key, (1,), heads, width, width)
    _keep_scores(site, layer._query_dense, width)
    site.config("num_query_heads", heads)
    site.config("num_key_value_heads", shared)
    site.config("head_dim", width)
    return _results(site, {len(query.shape) - 1: out}, heads)


def _opaque(layer: Any, kind: str) -> str:
    """Says why a layer cannot be followed; empty: it can."""
    import keras

    computes = getattr(type(layer), "_compute_attention", None)
    if computes is not getattr(keras.layers, kind)._compute_attention:
        return "its class computes attention in its own way"
    for name in _PARTS:
        part = getattr(layer, name, None)
        if getattr(part, "lora_enabled", False) or getattr(part, "quantization_mode", None):
            return "LoRA and quantized kernels have no rule"
    return ""


def _inputs(site: Site) -> tuple[Slots, Slots, Slots]:
    """Returns query, value and key; only their last axes may be tracked."""
    given = tensors(site, "query", "value")
    masks_fixed(site, given)
    query, value = given["query"][0], given["value"][0]
    key = (given.get("key") or [value])[0]
    for slots in (query, value, key):
        others = [axis for axis in slots.tracked if axis != len(slots.shape) - 1]
        site.barrier(slots, "an attention runs along it", others)
    return query, value, key


def _project(site: Site, name: str, x: Slots, heads: Ids | None, width: Ids) -> None:
    """A kernel (in, heads, width) and a bias (heads, width)."""
    part = getattr(site.layer, name, None)
    if part is None:
        return
    for axis, ids in enumerate((x.axes[-1], heads, width)):
        site.bind(part._kernel, axis, ids)
    for axis, ids in enumerate((heads, width)):
        site.bind(part.bias, axis, ids)
    site.macs(sizes(x.shape[1:-1]), *_sized(part._kernel.shape, (x.axes[-1], heads, width)))


def _project_back(
    site: Site, query: Slots, heads: Ids, width: Ids, out: list[Ids] | list[Ids | None]
) -> None:
    """A kernel (heads, width, *out) and a bias of the output's shape."""
    part = site.layer._output_dense
    for axis, ids in enumerate((heads, width, *out)):
        site.bind(part._kernel, axis, ids)
    for axis, ids in enumerate(out):
        site.bind(part.bias, axis, ids)
    site.macs(sizes(query.shape[1:-1]), *_sized(part._kernel.shape, (heads, width, *out)))


def _attend(
    site: Site, query: Slots, key: Slots, over: Any, heads: Ids, keys: Ids, values: Ids
) -> None:
    """Scores and weighted sums; axes that attention does not run over are batch axes."""
    pairs = sizes(query.shape[1:-1]) * sizes(tuple(key.shape[axis] for axis in over))
    site.macs(pairs, heads, keys)
    site.macs(pairs, heads, values)


def _keep_scores(site: Site, query_dense: Any, width: Ids) -> None:
    def factor(kept: Any) -> float:
        return math.sqrt(kept.count(width) / len(width))

    site.scale(query_dense._kernel, factor)
    site.scale(query_dense.bias, factor)


def _results(site: Site, axes: dict[int, Ids | None] | dict[int, Ids], heads: Ids) -> list[Slots]:
    results = [site.out(dict(axes), zero=True)]
    if len(site.shapes) > 1:
        if len(site.inputs[0].shape) > 3:
            # Keras announces scores of rank 4 whatever their rank is
            site.freeze(heads, "attention scores of more than one axis are returned")
            return [*results, site.out({}, index=1)]
        results.append(site.out({1: heads}, index=1))
    return results


def _sized(shape: Any, axes: tuple[Ids | None, ...]) -> list[Ids | int]:
    return [size if ids is None else ids for size, ids in zip(shape, axes, strict=True)]

"""Attention layers without projections: dot products and sums of tanh as scores."""

from __future__ import annotations

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots, sizes
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules.merging import contracted


@layer_rule("Attention")
def attention(call: LayerCall) -> list[Slots]:
    """Scores are sums over the width of query and key: products, or tanh of sums."""
    query, value, key = _inputs(call)
    last = len(query.shape) - 1
    if call.layer.score_mode == "dot":
        contracted(call, query, last, key, len(key.shape) - 1)
        ids = query.axes[-1] if key.axes[-1] is not None else None
    else:
        ids = _summed(call, query, key, exact=query.zero and key.zero)
    if call.layer.score_mode == "dot":
        call.macs(_pairs(query, key), int(query.shape[-1] or 1) if ids is None else ids)
    return _results(call, query, value, key)


@layer_rule("AdditiveAttention")
def additive_attention(call: LayerCall) -> list[Slots]:
    """Scores are sums of scale x tanh(query + key); the scale has one entry a channel."""
    query, value, key = _inputs(call)
    scale = call.layer.scale
    exact = scale is not None or (query.zero and key.zero)
    ids = _summed(call, query, key, exact=exact)
    call.bind(scale, 0, ids)
    return _results(call, query, value, key)


def _summed(call: LayerCall, query: Slots, key: Slots, *, exact: bool) -> Ids | None:
    """Ties query and key; freezes them where removed entries would add to the sum."""
    ids = call.link(query.axes[-1], key.axes[-1], "query and key have one width")
    if not exact:
        call.freeze(ids, "attention sums over it and its entries are not zero")
    return ids


def _inputs(call: LayerCall) -> tuple[Slots, Slots, Slots]:
    given = tensors(call, "inputs")
    masks_fixed(call, given)
    query, value, *rest = given["inputs"]
    key = rest[0] if rest else value
    for slots in (query, value, key):
        others = [axis for axis in slots.tracked if axis != len(slots.shape) - 1]
        call.barrier(slots, "an attention runs along it", others)
    return query, value, key


def _pairs(query: Slots, key: Slots) -> int:
    return sizes(query.shape[1:-1]) * int(key.shape[-2] or 1)


def _results(call: LayerCall, query: Slots, value: Slots, key: Slots) -> list[Slots]:
    """Weighted sums of values; sums of tanh are elementwise work, not counted in MACs."""
    own = value.axes[-1]
    call.macs(_pairs(query, key), int(value.shape[-1] or 1) if own is None else own)
    out = call.out({len(call.shapes[0]) - 1: own}, zero=value.zero, origin=value.origin)
    return [out, *(call.out({}, index=index) for index in range(1, len(call.shapes)))]

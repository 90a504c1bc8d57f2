"""Embeddings that also project back to the vocabulary."""

from __future__ import annotations

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Slots, sizes
from compress.prune.channels.rules._arguments import values
from compress.prune.channels.rules._base import layer_rule


@layer_rule("ReversibleEmbedding")
def reversible_embedding(site: Site) -> Slots:
    """A table (vocabulary, width), and (width, vocabulary) for the way back if untied.

    Both directions share one width, so a channel leaves in both; the vocabulary stays.
    """
    layer, x = site.layer, site.inputs[0]
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return site.unknown("LoRA and quantized tables have no rule")[0]
    site.follows_weights()
    back = bool(values(site).get("reverse", False))
    if not back:
        site.barrier(x, "it is an index into an embedding")
    ids = x.axes[-1] if back else site.new(layer.output_dim)
    site.bind(layer._embeddings, 1, ids)
    if not layer.tie_weights:
        site.bind(layer.reverse_embeddings, 0, ids)
    site.config("output_dim", ids)
    last = len(site.shapes[0]) - 1
    if not back:
        return site.out({last: ids}, zero=True)
    others = {axis: x.axes[axis] for axis in x.tracked if axis != last}
    positions = sizes(tuple(x.shape[axis] for axis in range(1, last) if axis not in others))
    width = layer.output_dim if ids is None else ids
    site.macs(positions, *others.values(), width, layer.input_dim)
    origin = f"the vocabulary of layer '{site.name}'"
    return site.out(others, zero=x.zero, origin=origin)

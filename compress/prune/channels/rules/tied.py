"""Embeddings that also project back to the vocabulary."""

from __future__ import annotations

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Slots, sizes
from compress.prune.channels.rules._arguments import values
from compress.prune.channels.rules._base import layer_rule


@layer_rule("ReversibleEmbedding")
def reversible_embedding(call: LayerCall) -> Slots:
    """A table (vocabulary, width), and (width, vocabulary) for the way back if untied.

    Both directions share one width, so a channel leaves in both; the vocabulary stays.
    """
    layer, x = call.layer, call.inputs[0]
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return call.unknown("LoRA and quantized tables have no rule")[0]
    call.follows_weights()
    back = bool(values(call).get("reverse", False))
    if not back:
        call.barrier(x, "it is an index into an embedding")
    ids = x.axes[-1] if back else call.new(layer.output_dim)
    call.bind(layer.embeddings, 1, ids)
    if not layer.tie_weights:
        call.bind(layer.reverse_embeddings, 0, ids)
    call.config("output_dim", ids)
    last = len(call.shapes[0]) - 1
    if not back:
        return call.out({last: ids}, zero=True)
    others = {axis: x.axes[axis] for axis in x.tracked if axis != last}
    positions = sizes(tuple(x.shape[axis] for axis in range(1, last) if axis not in others))
    width = layer.output_dim if ids is None else ids
    call.macs(positions, *others.values(), width, layer.input_dim)
    origin = f"the vocabulary of layer '{call.name}'"
    return call.out(others, zero=x.zero, origin=origin)

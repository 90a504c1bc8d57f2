"""Layers around layers: Bidirectional and TimeDistributed."""

from __future__ import annotations

import numpy as np

from compress.model.internals import is_graph
from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import inner, layer_rule


@layer_rule("Bidirectional")
def bidirectional(call: LayerCall) -> list[Slots]:
    """Both directions keep the same units: Keras takes their widths to be equal."""
    layer = call.layer
    if layer.stateful:
        return call.unknown("it carries its state from batch to batch")
    call.follows_weights()
    given = tensors(call, "sequences", "initial_state")
    masks_fixed(call, given)
    x, states = given["sequences"][0], given.get("initial_state", [])
    shape = list(call.shapes[0])
    if layer.merge_mode == "concat":
        shape[-1] = int(shape[-1] or 0) // 2
    made = call.shapes[2 if layer.merge_mode is None else 1 :]
    half, given_half = len(made) // 2, len(states) // 2
    shapes = [tuple(shape), *made[:half]]
    forward = inner(
        call, layer.forward_layer, [x, *states[:given_half]], shapes, ("layer", "config")
    )
    backward = inner(
        call, layer.backward_layer, [x, *states[given_half:]], shapes, ("backward_layer", "config")
    )
    if not _tied(call, forward, backward):
        return call.unknown("its two layers have different widths")
    return [*_merged(call, forward[0], backward[0]), *forward[1:], *backward[1:]]


def _tied(call: LayerCall, forward: list[Slots], backward: list[Slots]) -> bool:
    for one, two in zip(forward, backward, strict=True):
        for first, second in zip(one.axes, two.axes, strict=True):
            if first is not None and second is not None and len(first) != len(second):
                return False
            call.link(first, second, "the other direction is fixed")
    return True


def _merged(call: LayerCall, one: Slots, two: Slots) -> list[Slots]:
    mode = call.layer.merge_mode
    if mode is None:
        return [one, two]
    axes: dict[int, Ids | None] = {axis: one.axes[axis] for axis in one.tracked}
    last = len(one.shape) - 1
    first, second = one.axes[last], two.axes[last]
    if mode == "concat" and first is not None and second is not None:
        axes[last] = np.concatenate([first, second])
    zero = one.zero or two.zero if mode == "mul" else one.zero and two.zero
    return [call.out(axes, zero=zero, origin=one.origin)]


@layer_rule("TimeDistributed")
def time_distributed(call: LayerCall) -> list[Slots]:
    """The rule of the layer, or of every layer of the model, inside at every step.

    What is also called outside of its wrapper becomes a copy there, as it does by saving.
    """
    layer = call.layer
    given = tensors(call, "inputs")
    masks_fixed(call, given)
    x, shape = given["inputs"][0], call.shapes[0]
    call.freeze(x.axes[1], "a layer is distributed over it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    steps = x.shape[1] or 1
    if is_graph(layer.layer):
        result = call.model(layer.layer, [step], "layer", steps)[0]
    else:
        inside = (shape[0], *shape[2:])
        result = inner(call, layer.layer, [step], [inside], ("layer", "config"), steps)[0]
    axes = {axis + 1: result.axes[axis] for axis in result.tracked}
    return [call.out(axes, zero=result.zero, origin=result.origin)]

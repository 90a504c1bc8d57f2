"""Activation layers, with and without weights."""

from __future__ import annotations

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import activated, over_axes


@layer_rule("Activation")
def activation(call: LayerCall) -> Slots:
    """Any activation function as a layer."""
    return activated(call, call.inputs[0], call.layer.activation)


@layer_rule("ELU", "LeakyReLU")
def elementwise(call: LayerCall) -> Slots:
    """Entry by entry, zero stays zero."""
    return call.passed(call.inputs[0])


@layer_rule("ReLU")
def relu(call: LayerCall) -> Slots:
    """Entry by entry; a positive threshold with a slope does not map 0 to 0."""
    x, layer = call.inputs[0], call.layer
    zero = x.zero and not (layer.threshold and layer.negative_slope)
    return call.passed(x, zero=zero)


@layer_rule("PReLU")
def prelu(call: LayerCall) -> Slots:
    """Slopes alpha of the input's shape without batch; shared axes have size 1."""
    layer, x = call.layer, call.inputs[0]
    shared = set(layer.shared_axes or ())
    for axis in range(1, len(x.shape)):
        call.bind(layer.alpha, axis - 1, None if axis in shared else x.axes[axis])
    return call.passed(x)


@layer_rule("Softmax")
def softmax(call: LayerCall) -> Slots:
    """Over the kept entries of its axes."""
    x, axis = call.inputs[0], call.layer.axis
    axes = [axis] if isinstance(axis, int) else list(axis)
    if len(call.inputs) > 1:
        call.barrier(call.inputs[1], "it is the mask of a softmax")
    axes = [index % len(x.shape) for index in axes]
    tracked = set(x.tracked)
    return over_axes(call, x, axes, exact=bool(tracked) and tracked <= set(axes))

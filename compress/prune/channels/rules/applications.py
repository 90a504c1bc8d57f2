"""Layers that Keras keeps inside `keras.applications`."""

from __future__ import annotations

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import layer_rule


@layer_rule("LayerScale")
def layer_scale(call: LayerCall) -> Slots:
    """ConvNeXt's scale: one factor a channel, on the last axis."""
    x = call.inputs[0]
    call.bind(call.layer.gamma, 0, x.axes[-1])
    call.config("projection_dim", x.axes[-1])
    only = x.tracked == (len(x.shape) - 1,)
    return call.passed(x, zero=x.zero or only)

"""Layers that Keras keeps inside `keras.applications`."""

from __future__ import annotations

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import layer_rule


@layer_rule("LayerScale")
def layer_scale(site: Site) -> Slots:
    """ConvNeXt's scale: one factor a channel, on the last axis."""
    x = site.inputs[0]
    site.bind(site.layer.gamma, 0, x.axes[-1])
    site.config("projection_dim", x.axes[-1])
    only = x.tracked == (len(x.shape) - 1,)
    return site.passed(x, zero=x.zero or only)

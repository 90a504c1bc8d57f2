"""Activation layers, with and without weights."""

from __future__ import annotations

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import activated, over_axes


@layer_rule("Activation")
def activation(site: Site) -> Slots:
    """Any activation function as a layer."""
    return activated(site, site.inputs[0], site.layer.activation)


@layer_rule("ELU", "LeakyReLU")
def elementwise(site: Site) -> Slots:
    """Entry by entry, zero stays zero."""
    return site.passed(site.inputs[0])


@layer_rule("ReLU")
def relu(site: Site) -> Slots:
    """Entry by entry; a positive threshold with a slope does not map 0 to 0."""
    x, layer = site.inputs[0], site.layer
    zero = x.zero and not (layer.threshold and layer.negative_slope)
    return site.passed(x, zero=zero)


@layer_rule("PReLU")
def prelu(site: Site) -> Slots:
    """Slopes alpha of the input's shape without batch; shared axes have size 1."""
    layer, x = site.layer, site.inputs[0]
    shared = set(layer.shared_axes or ())
    for axis in range(1, len(x.shape)):
        site.bind(layer.alpha, axis - 1, None if axis in shared else x.axes[axis])
    return site.passed(x)


@layer_rule("Softmax")
def softmax(site: Site) -> Slots:
    """Over the kept entries of its axes."""
    x, axis = site.inputs[0], site.layer.axis
    axes = [axis] if isinstance(axis, int) else list(axis)
    if len(site.inputs) > 1:
        site.barrier(site.inputs[1], "it is the mask of a softmax")
    axes = [index % len(x.shape) for index in axes]
    tracked = set(x.tracked)
    return over_axes(site, x, axes, exact=bool(tracked) and tracked <= set(axes))

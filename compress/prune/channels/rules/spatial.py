"""Layers that move or reduce positions and leave channels alone; dropout; noise."""

from __future__ import annotations

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import channel_axis, channels_only


@layer_rule(
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D",
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D",
    "ZeroPadding2D", "ZeroPadding3D", "Cropping2D", "Cropping3D",
    "UpSampling2D", "UpSampling3D", "Resizing", "CenterCrop",
)  # fmt: skip
def window(site: Site) -> Slots:
    """Channels in the layer's data format stay; positions change."""
    x = site.inputs[0]
    axis = channel_axis(site.layer, len(x.shape))
    return site.passed(channels_only(site, x, axis, "a window"))


@layer_rule("ZeroPadding1D", "Cropping1D", "UpSampling1D")
def sequence(site: Site) -> Slots:
    """(batch, steps, channels) without a data format (ZeroPadding1D has one)."""
    x = site.inputs[0]
    axis = channel_axis(site.layer, len(x.shape))
    return site.passed(channels_only(site, x, axis, "a window"))


@layer_rule(
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
)  # fmt: skip
def global_pooling(site: Site) -> Slots:
    """Channels stay; positions are reduced to one or dropped (keepdims)."""
    layer = site.layer
    axis = channel_axis(layer, len(site.inputs[0].shape))
    x = channels_only(site, site.inputs[0], axis, "a pooling")
    return site.out({axis if layer.keepdims else 1: x.axes[axis]}, zero=x.zero)


@layer_rule(
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout",
    "GaussianNoise", "AlphaDropout", "ActivityRegularization", "Identity", "Masking",
    "StochasticDepth",
)  # fmt: skip
def unchanged(site: Site) -> Slots:
    """The same entries in inference."""
    x = site.inputs[0]
    if type(site.layer).__name__ == "Masking":
        site.barrier(x, "a Masking layer compares all channels", [len(x.shape) - 1])
    return site.passed(x)


@layer_rule("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop")
def augmentation(site: Site) -> Slots:
    """Geometric augmentation moves pixels; channels stay."""
    return window(site)

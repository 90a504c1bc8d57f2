"""Rules of layers and operations that move or reduce positions but not channels; dropout; noise."""

from __future__ import annotations

from compress.model.layers import select_classes
from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.rules._base import (
    find_channel_axis,
    freeze_other_axes,
    layer_rule,
    operation_rule,
)


@layer_rule("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop")
@layer_rule("ZeroPadding1D", "Cropping1D", "UpSampling1D")
@layer_rule(
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D",
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D",
    "ZeroPadding2D", "ZeroPadding3D", "Cropping2D", "Cropping3D",
    "UpSampling2D", "UpSampling3D", "Resizing", "CenterCrop",
)  # fmt: skip
@operation_rule("MaxPool", "AveragePool", "CropImages", "GaussianBlur", "PadImages", "Resize")
def propagate_window(call: LayerCall) -> Slots:
    """Propagate channels; bars at the border with a nonzero value make entries nonzero."""
    layer, rank = call.layer, len(call.inputs[0].shape)
    axis = find_channel_axis(layer, rank)
    if (axis, rank) == (1, 3) and type(layer).__name__ in ("CropImages", "PadImages", "Resize"):
        axis = 0  # one image, not a batch
    x = freeze_other_axes(call, call.inputs[0], axis, "a window")
    is_filled = getattr(layer, "pad_to_aspect_ratio", False) and layer.fill_value
    return call.passed(x, zero=x.zero and not is_filled)


@layer_rule(
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
)  # fmt: skip
def propagate_global_pooling(call: LayerCall) -> Slots:
    """Propagate channels through a global pooling; positions are reduced to one or dropped."""
    layer = call.layer
    axis = find_channel_axis(layer, len(call.inputs[0].shape))
    x = freeze_other_axes(call, call.inputs[0], axis, "a pooling")
    return call.out({axis if layer.keepdims else 1: x.axes[axis]}, zero=x.zero)


@layer_rule(
    *sorted(select_classes("inert") - select_classes("left_out", "entrywise")),
    "GaussianNoise", "Masking", "StochasticDepth",
)  # fmt: skip
def propagate_unchanged(call: LayerCall) -> Slots:
    """Propagate slots through a layer that is the identity in inference."""
    x = call.inputs[0]
    if type(call.layer).__name__ == "Masking":
        call.freeze_axes(x, "a Masking layer compares all channels", [len(x.shape) - 1])
    return call.passed(x)

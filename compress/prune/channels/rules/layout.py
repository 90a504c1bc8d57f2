"""Raw operations that reorder entries: reshapes, transposes, blocks of pixels, windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Kept, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._common import channel_axis, channels_only
from compress.prune.channels.rules._operands import arranged, axes_of
from compress.prune.channels.rules.shaping import new_shape, permuted, reshaped


@operation_rule("Reshape")
def reshape(call: LayerCall) -> Slots:
    """Splits and folds axes; the config's shape follows the kept numbers."""
    x = call.inputs[0]
    out = replace(reshaped(call, x, call.shapes[0]), value=x.value)

    def change(config: dict[str, Any], kept: Kept) -> None:
        target = config["newshape"]
        target = [target] if isinstance(target, int) else target
        config["newshape"] = new_shape(target, out.axes, kept)

    if out.tracked:
        call.edit(change)
    return out


@operation_rule("Ravel")
def ravel(call: LayerCall) -> Slots:
    """Folds all axes, the batch among them."""
    return reshaped(call, call.inputs[0], call.shapes[0])


@operation_rule("Transpose")
def transpose(call: LayerCall) -> Slots:
    """Moves axes; by default it reverses them."""
    rank = len(call.inputs[0].shape)
    axes = call.layer.axes
    return _moved(call, range(rank)[::-1] if axes is None else axes_of(axes, rank))


@operation_rule("Swapaxes")
def swapaxes(call: LayerCall) -> Slots:
    """Exchanges two axes."""
    order = list(range(len(call.inputs[0].shape)))
    one, two = call.layer.axis1, call.layer.axis2
    order[one], order[two] = order[two], order[one]
    return _moved(call, order)


@operation_rule("Moveaxis")
def moveaxis(call: LayerCall) -> Slots:
    """Moves some axes to other places."""
    rank = len(call.inputs[0].shape)
    sources = axes_of(list(call.layer.source), rank)
    targets = axes_of(list(call.layer.destination), rank)
    order = [axis for axis in range(rank) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return _moved(call, order)


def _moved(call: LayerCall, order: Sequence[int]) -> Slots:
    x = call.inputs[0]
    return replace(permuted(x, order), value=x.value)


@operation_rule("Squeeze")
def squeeze(call: LayerCall) -> Slots:
    """Drops axes of size 1; without an axis, those that were of size 1 before."""
    x, axis = call.inputs[0], call.layer.axis
    ones = [place for place, size in enumerate(x.shape) if size == 1]
    dropped = ones if axis is None else axes_of(axis, len(x.shape))
    for place in dropped:
        call.freeze(x.axes[place], "it is dropped as an axis of size 1")
    if axis is None and x.tracked:
        call.edit(lambda config, _: config.__setitem__("axis", tuple(dropped)))
    return arranged(call, x, [place for place in range(len(x.shape)) if place not in dropped])


@operation_rule("ExpandDims")
def expand_dims(call: LayerCall) -> Slots:
    """Adds axes of size 1."""
    x = call.inputs[0]
    rank = len(call.shapes[0])
    added = axes_of(call.layer.axis, rank)
    rest = iter(range(len(x.shape)))
    return arranged(call, x, [None if place in added else next(rest) for place in range(rank)])


@operation_rule("DepthToSpace")
def depth_to_space(call: LayerCall) -> Slots:
    """Channel (row, column, c) of a block becomes channel c of a pixel."""
    x, axis = _image(call, "depth to space")
    ids = x.axes[axis]
    columns = None if ids is None else call.columns(ids, call.layer.block_size**2)
    return _with_channels(call, x, axis, columns)


@operation_rule("SpaceToDepth")
def space_to_depth(call: LayerCall) -> Slots:
    """Channel c of a pixel becomes channel (row, column, c) of a block."""
    x, axis = _image(call, "space to depth")
    ids = x.axes[axis]
    tiled = None if ids is None else np.tile(ids, call.layer.block_size**2)
    return _with_channels(call, x, axis, tiled)


@operation_rule("MaxPool", "AveragePool", "CropImages", "GaussianBlur")
def window(call: LayerCall) -> Slots:
    """Channels in the operation's data format stay; positions change."""
    x, axis = _image(call, "a window")
    return _with_channels(call, x, axis, x.axes[axis])


@operation_rule("Resize", "PadImages")
def resize(call: LayerCall) -> Slots:
    """Channels stay; borders that are filled with other numbers than zero are not zero."""
    x, axis = _image(call, "an image operation")
    filled = getattr(call.layer, "pad_to_aspect_ratio", False) and call.layer.fill_value
    return replace(_with_channels(call, x, axis, x.axes[axis]), zero=x.zero and not filled)


def _image(call: LayerCall, what: str) -> tuple[Slots, int]:
    rank = len(call.inputs[0].shape)
    axis = channel_axis(call.layer, rank)
    if rank == 3 and type(call.layer).__name__ in ("Resize", "PadImages", "CropImages"):
        axis = axis - 1 if axis == 1 else axis  # one image, not a batch
    return channels_only(call, call.inputs[0], axis, what), axis


def _with_channels(call: LayerCall, x: Slots, axis: int, ids: Ids | None) -> Slots:
    return call.out({axis: ids}, zero=x.zero)

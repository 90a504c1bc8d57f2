"""Layers and raw operations that split, fold and move axes, or blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Shape, Slots
from compress.prune.channels.rules._base import (
    arranged,
    axes_of,
    channel_axis,
    channels_only,
    layer_rule,
    operation_rule,
)


@layer_rule("Flatten")
def flatten(call: LayerCall) -> Slots:
    """Folds all axes into one; channels_first data is moved to channels_last before."""
    x = call.inputs[0]
    if call.layer.data_format == "channels_first" and len(x.shape) > 2:
        x = permuted(x, (0, *range(2, len(x.shape)), 1))
    return reshaped(call, x, call.shapes[0])


@layer_rule("Reshape")
@operation_rule("Reshape")
def reshape(call: LayerCall) -> Slots:
    """Splits and folds axes; the config's shape, a layer's without batch, follows the kept ones."""
    x, layer = call.inputs[0], hasattr(call.layer, "target_shape")
    out = reshaped(call, x, call.shapes[0])
    key, axes = ("target_shape", out.axes[1:]) if layer else ("newshape", out.axes)

    def change(config: dict[str, Any], kept: Kept) -> None:
        target = config[key]
        target = [target] if isinstance(target, int) else target
        config[key] = tuple(
            size if ids is None or size == -1 else kept.count(ids)
            for size, ids in zip(target, axes, strict=True)
        )

    if out.tracked:
        call.edit(change)
    return out if layer else replace(out, value=x.value)


@layer_rule("Permute")
def permute(call: LayerCall) -> Slots:
    """Move axes."""
    return permuted(call.inputs[0], (0, *call.layer.dims))


@layer_rule("RepeatVector")
def repeat_vector(call: LayerCall) -> Slots:
    """(batch, features) -> (batch, n, features)."""
    x = call.inputs[0]
    return call.out({2: x.axes[1]}, zero=x.zero)


def permuted(x: Slots, order: Sequence[int]) -> Slots:
    """Return the slots with the axes in another order."""
    return Slots(
        tuple(x.shape[axis] for axis in order),
        tuple(x.axes[axis] for axis in order),
        x.zero,
        x.origin,
    )


def reshaped(call: LayerCall, x: Slots, shape: Shape) -> Slots:
    """Follow slots through a row-major reshape.

    The axes fall into blocks of equal size on both sides. Within a block that folds or
    splits axes, one axis is followed: its ids are laid out over the block; on the side of
    the result the axis is chosen along which they are constant, else the last one, whose
    entries at equal positions are then tied (a shape must stay a product of axes).
    """
    axes: list[Ids | None] = [None] * len(shape)
    for sources, targets in _blocks(x.shape, shape):
        tracked = {
            axis: ids for axis, ids in enumerate(x.axes) if axis in sources and ids is not None
        }
        if not tracked:
            continue
        if len(sources) == len(targets) == 1:
            axes[targets[0]] = x.axes[sources[0]]
            continue
        sizes = [x.shape[axis] for axis in sources] + [shape[axis] for axis in targets]
        if not targets or any(size is None for size in sizes):
            call.barrier(x, "a reshape folds it with an axis of unknown size", list(tracked))
            continue
        chosen = max(tracked, key=lambda axis: (len(np.unique(tracked[axis])), axis))
        call.barrier(x, "a reshape folds it with other channels", sorted(set(tracked) - {chosen}))
        block = [int(x.shape[axis] or 0) for axis in sources]
        view = [-1 if axis == chosen else 1 for axis in sources]
        table = np.broadcast_to(tracked[chosen].reshape(view), block)
        place, ids = _laid_out(call, table, [int(shape[axis] or 0) for axis in targets])
        axes[targets[place]] = ids
    return Slots(tuple(shape), tuple(axes), x.zero, x.origin)


def _laid_out(call: LayerCall, block: Ids, sizes: list[int]) -> tuple[int, Ids]:
    """Return the axis of a block that ids go along, and its ids."""
    table = block.reshape(sizes)
    candidates = [place for place, size in enumerate(sizes) if size > 1] or [0]
    for place in candidates:
        rows = np.moveaxis(table, place, 0).reshape(sizes[place], -1)
        if np.all(rows == rows[:, :1]):
            return place, np.ascontiguousarray(rows[:, 0])
    call.graph.link(np.broadcast_to(rows[:, :1], rows.shape), rows)
    return place, np.ascontiguousarray(rows[:, 0])


def _blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair the smallest runs of axes with equal products, from the last axis on."""
    blocks: list[tuple[list[int], list[int]]] = []
    i, j = len(source) - 1, len(target) - 1
    while i >= 0 and j >= 0:
        if source[i] == 1 and target[j] != 1:
            blocks.append(([i], []))
            i -= 1
            continue
        if target[j] == 1 and source[i] != 1:
            j -= 1
            continue
        left, right = [i], [j]
        a, b = source[i], target[j]
        while a != b:
            if a is None or b is None or (a < b and i == 0) or (b < a and j == 0):
                blocks.append((list(range(i + 1)) + left[1:], list(range(j + 1)) + right[1:]))
                return blocks
            if a < b:
                i -= 1
                left.insert(0, i)
                size = source[i]
                a = None if size is None else a * size
            else:
                j -= 1
                right.insert(0, j)
                size = target[j]
                b = None if size is None else b * size
        blocks.append((left, right))
        i, j = i - 1, j - 1
    if i >= 0:
        blocks.append((list(range(i + 1)), []))
    return blocks


@operation_rule("Ravel")
def ravel(call: LayerCall) -> Slots:
    """Folds all axes, the batch among them."""
    return reshaped(call, call.inputs[0], call.shapes[0])


@operation_rule("Transpose", "Swapaxes", "Moveaxis")
def move_axes(call: LayerCall) -> Slots:
    """Move axes; a transpose reverses them by default."""
    op, x = call.layer, call.inputs[0]
    # an empty array whose sizes are the places of its axes
    places = np.empty(range(len(x.shape)))
    if type(op).__name__ == "Transpose":
        moved = np.transpose(places, op.axes)
    elif type(op).__name__ == "Swapaxes":
        moved = np.swapaxes(places, op.axis1, op.axis2)
    else:
        moved = np.moveaxis(places, op.source, op.destination)
    return replace(permuted(x, moved.shape), value=x.value)


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
    """Add axes of size 1."""
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
    return call.out({axis: columns}, zero=x.zero)


@operation_rule("SpaceToDepth")
def space_to_depth(call: LayerCall) -> Slots:
    """Channel c of a pixel becomes channel (row, column, c) of a block."""
    x, axis = _image(call, "space to depth")
    ids = x.axes[axis]
    tiled = None if ids is None else np.tile(ids, call.layer.block_size**2)
    return call.out({axis: tiled}, zero=x.zero)


@operation_rule("MaxPool", "AveragePool", "CropImages", "GaussianBlur")
def window(call: LayerCall) -> Slots:
    """Channels in the operation's data format stay; positions change."""
    x, axis = _image(call, "a window")
    return call.out({axis: x.axes[axis]}, zero=x.zero)


@operation_rule("Resize", "PadImages")
def resize(call: LayerCall) -> Slots:
    """Channels stay; borders that are filled with other numbers than zero are not zero."""
    x, axis = _image(call, "an image operation")
    filled = getattr(call.layer, "pad_to_aspect_ratio", False) and call.layer.fill_value
    return call.out({axis: x.axes[axis]}, zero=x.zero and not filled)


def _image(call: LayerCall, what: str) -> tuple[Slots, int]:
    rank = len(call.inputs[0].shape)
    axis = channel_axis(call.layer, rank)
    if rank == 3 and type(call.layer).__name__ in ("Resize", "PadImages", "CropImages"):
        axis = axis - 1 if axis == 1 else axis  # one image, not a batch
    return channels_only(call, call.inputs[0], axis, what), axis

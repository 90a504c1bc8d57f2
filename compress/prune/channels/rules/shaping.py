"""Rules of layers and raw operations that split, merge or move axes, or blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Shape, Slots
from compress.prune.channels.rules._base import (
    find_channel_axis,
    freeze_other_axes,
    layer_rule,
    map_axes,
    normalize_axes,
    operation_rule,
)


@layer_rule("Flatten")
@operation_rule("Ravel")
def propagate_flatten(call: LayerCall) -> Slots:
    """Merge all axes (of a layer: except the batch); channels are moved to the last axis first."""
    x = call.inputs[0]
    if getattr(call.layer, "data_format", None) == "channels_first" and len(x.shape) > 2:
        x = transpose_slots(x, (0, *range(2, len(x.shape)), 1))
    return reshape_slots(call, x)


@layer_rule("Reshape")
@operation_rule("Reshape")
def propagate_reshape(call: LayerCall) -> Slots:
    """Split and merge axes, and update the config's shape with the kept counts.

    The shape of a layer has no batch axis, that of an operation does.
    """
    x, layer = call.inputs[0], hasattr(call.layer, "target_shape")
    out = reshape_slots(call, x)
    key, axes = ("target_shape", out.axes[1:]) if layer else ("newshape", out.axes)

    def update_target_shape(config: dict[str, Any], kept: Kept) -> None:
        target = config[key]
        target = [target] if isinstance(target, int) else target
        config[key] = tuple(
            size if ids is None or size == -1 else kept.count(ids)
            for size, ids in zip(target, axes, strict=True)
        )

    if out.tracked:
        call.add_config_edit(update_target_shape)
    return out if layer else replace(out, value=x.value)


@layer_rule("Permute")
def propagate_permute(call: LayerCall) -> Slots:
    """Permute axes."""
    return transpose_slots(call.inputs[0], (0, *call.layer.dims))


@layer_rule("RepeatVector")
def propagate_repeat_vector(call: LayerCall) -> Slots:
    """Propagate features: (batch, features) -> (batch, n, features)."""
    x = call.inputs[0]
    return call.out({2: x.axes[1]}, zero=x.zero)


def transpose_slots(x: Slots, order: Sequence[int]) -> Slots:
    """Return the slots with the axes in another order."""
    return Slots(
        tuple(x.shape[axis] for axis in order),
        tuple(x.axes[axis] for axis in order),
        x.zero,
        x.origin,
    )


def reshape_slots(call: LayerCall, x: Slots) -> Slots:
    """Propagate slots through a row-major reshape to the shape of the first output.

    The axes are split into blocks of equal size on both sides. Within a block that merges or splits
    axes, one axis is followed, and its ids are laid out over the block. The tracked axis of the
    result is one along which the other entries have equal ids. If there is none, it is the last
    axis, whose entries at equal positions are linked, because a shape must remain a product of
    axes.

    Args:
        call: The call.
        x: Slots of the input.
    """
    shape = call.shapes[0]
    axes: list[Ids | None] = [None] * len(shape)
    for sources, targets in _match_blocks(x.shape, shape):
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
            call.freeze_axes(x, "a reshape folds it with an axis of unknown size", list(tracked))
            continue
        chosen = max(tracked, key=lambda axis: (len(np.unique(tracked[axis])), axis))
        call.freeze_axes(
            x, "a reshape folds it with other channels", sorted(set(tracked) - {chosen})
        )
        block = [int(x.shape[axis] or 0) for axis in sources]
        view = [-1 if axis == chosen else 1 for axis in sources]
        table = np.broadcast_to(tracked[chosen].reshape(view), block)
        block_axis, ids = _find_block_axis(call, table, [int(shape[axis] or 0) for axis in targets])
        axes[targets[block_axis]] = ids
    return Slots(tuple(shape), tuple(axes), x.zero, x.origin)


def _find_block_axis(call: LayerCall, block: Ids, sizes: list[int]) -> tuple[int, Ids]:
    """Return the axis of a block that its ids vary along, and the ids."""
    table = block.reshape(sizes)
    candidates = [axis for axis, size in enumerate(sizes) if size > 1] or [0]
    for axis in candidates:
        rows = np.moveaxis(table, axis, 0).reshape(sizes[axis], -1)
        if np.all(rows == rows[:, :1]):
            return axis, np.ascontiguousarray(rows[:, 0])
    call.graph.link(np.broadcast_to(rows[:, :1], rows.shape), rows)
    return axis, np.ascontiguousarray(rows[:, 0])


def _match_blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
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


@operation_rule("Transpose", "Swapaxes", "Moveaxis")
def propagate_transpose(call: LayerCall) -> Slots:
    """Permute axes; a transpose reverses them by default."""
    op, x = call.layer, call.inputs[0]
    # an empty array whose axis i has size i, so that numpy shows the permutation
    axis_indices = np.empty(range(len(x.shape)))
    if type(op).__name__ == "Transpose":
        moved = np.transpose(axis_indices, op.axes)
    elif type(op).__name__ == "Swapaxes":
        moved = np.swapaxes(axis_indices, op.axis1, op.axis2)
    else:
        moved = np.moveaxis(axis_indices, op.source, op.destination)
    return replace(transpose_slots(x, moved.shape), value=x.value)


@operation_rule("Squeeze")
def propagate_squeeze(call: LayerCall) -> Slots:
    """Drop axes of size 1; without an axis, those of size 1 in the original model."""
    x, axis = call.inputs[0], call.layer.axis
    ones = [index for index, size in enumerate(x.shape) if size == 1]
    squeezed_axes = ones if axis is None else normalize_axes(axis, len(x.shape))
    for index in squeezed_axes:
        call.freeze(x.axes[index], "it is dropped as an axis of size 1")
    if axis is None and x.tracked:
        call.add_config_edit(lambda config, _: config.__setitem__("axis", tuple(squeezed_axes)))
    return map_axes(call, x, [index for index in range(len(x.shape)) if index not in squeezed_axes])


@operation_rule("ExpandDims")
def propagate_expand_dims(call: LayerCall) -> Slots:
    """Add axes of size 1."""
    x = call.inputs[0]
    rank = len(call.shapes[0])
    added = normalize_axes(call.layer.axis, rank)
    rest = iter(range(len(x.shape)))
    return map_axes(call, x, [None if index in added else next(rest) for index in range(rank)])


@operation_rule("DepthToSpace", "SpaceToDepth")
def propagate_pixel_blocks(call: LayerCall) -> Slots:
    """Move channel (row, column, c) of a block to channel c of a pixel, or back."""
    axis = find_channel_axis(call.layer, len(call.inputs[0].shape))
    x = freeze_other_axes(call, call.inputs[0], axis, "a rearrangement of pixels")
    ids, size = x.axes[axis], call.layer.block_size**2
    if ids is not None:
        is_split = type(call.layer).__name__ == "DepthToSpace"
        ids = call.link_columns(ids, size) if is_split else np.tile(ids, size)
    return call.out({axis: ids}, zero=x.zero)

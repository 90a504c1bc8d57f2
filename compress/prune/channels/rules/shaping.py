"""Flatten, Reshape, Permute, RepeatVector: axes are split, folded and moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Shape, Slots
from compress.prune.channels.rules._base import layer_rule


@layer_rule("Flatten")
def flatten(call: LayerCall) -> Slots:
    """Folds all axes into one; channels_first data is moved to channels_last before."""
    x = call.inputs[0]
    if call.layer.data_format == "channels_first" and len(x.shape) > 2:
        order = (0, *range(2, len(x.shape)), 1)
        x = permuted(x, order)
    return reshaped(call, x, call.shapes[0])


@layer_rule("Reshape")
def reshape(call: LayerCall) -> Slots:
    """Splits and folds axes; the config's target shape follows the kept numbers."""
    out = reshaped(call, call.inputs[0], call.shapes[0])

    def change(config: dict[str, Any], kept: Any) -> None:
        config["target_shape"] = new_shape(config["target_shape"], out.axes[1:], kept)

    call.edit(change)
    return out


@layer_rule("Permute")
def permute(call: LayerCall) -> Slots:
    """Moves axes."""
    return permuted(call.inputs[0], (0, *call.layer.dims))


@layer_rule("RepeatVector")
def repeat_vector(call: LayerCall) -> Slots:
    """(batch, features) -> (batch, n, features)."""
    x = call.inputs[0]
    return call.out({2: x.axes[1]}, zero=x.zero)


def permuted(x: Slots, order: Sequence[int]) -> Slots:
    """Returns the slots with the axes in another order."""
    return Slots(
        tuple(x.shape[axis] for axis in order),
        tuple(x.axes[axis] for axis in order),
        x.zero,
        x.origin,
    )


def new_shape(target: Sequence[int], axes: Sequence[Ids | None], kept: Any) -> tuple[int, ...]:
    """Returns a reshape's target with the kept numbers on tracked axes; -1 stays."""
    return tuple(
        size if ids is None or size == -1 else kept.count(ids)
        for size, ids in zip(target, axes, strict=True)
    )


def reshaped(call: LayerCall, x: Slots, shape: Shape) -> Slots:
    """Follows slots through a row-major reshape.

    The axes fall into blocks of equal size on both sides. Within a block that folds or
    splits axes, one axis is followed: its ids are laid out over the block; on the side of
    the result the axis is chosen along which they are constant, else the last one, whose
    entries at equal positions are then tied (a shape must stay a product of axes).
    """
    axes: list[Ids | None] = [None] * len(shape)
    for sources, targets in _blocks(x.shape, shape):
        tracked = [axis for axis in sources if x.axes[axis] is not None]
        if not tracked:
            continue
        if len(sources) == len(targets) == 1:
            axes[targets[0]] = x.axes[sources[0]]
            continue
        sizes = [x.shape[axis] for axis in sources] + [shape[axis] for axis in targets]
        if not targets or any(size is None for size in sizes):
            call.barrier(x, "a reshape folds it with an axis of unknown size", tracked)
            continue
        chosen = max(tracked, key=lambda axis: (len(np.unique(_ids(x, axis))), axis))
        call.barrier(x, "a reshape folds it with other channels", sorted(set(tracked) - {chosen}))
        place, ids = _laid_out(
            call, x, sources, chosen, [int(shape[axis] or 0) for axis in targets]
        )
        axes[targets[place]] = ids
    zero = x.zero
    return Slots(tuple(shape), tuple(axes), zero, x.origin)


def _ids(x: Slots, axis: int) -> Ids:
    ids = x.axes[axis]
    assert ids is not None
    return ids


def _laid_out(
    call: LayerCall, x: Slots, sources: Sequence[int], chosen: int, sizes: list[int]
) -> tuple[int, Ids]:
    block = [int(x.shape[axis] or 0) for axis in sources]
    view = [1] * len(block)
    view[sources.index(chosen)] = -1
    table = np.broadcast_to(_ids(x, chosen).reshape(view), block).reshape(sizes)
    candidates = [place for place, size in enumerate(sizes) if size > 1] or [0]
    for place in candidates:
        rows = np.moveaxis(table, place, 0).reshape(sizes[place], -1)
        if np.all(rows == rows[:, :1]):
            return place, np.ascontiguousarray(rows[:, 0])
    place = candidates[-1]
    rows = np.moveaxis(table, place, 0).reshape(sizes[place], -1)
    call.graph.link(np.broadcast_to(rows[:, :1], rows.shape), rows)
    return place, np.ascontiguousarray(rows[:, 0])


def _blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Pairs the smallest runs of axes with equal products, from the last axis on."""
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

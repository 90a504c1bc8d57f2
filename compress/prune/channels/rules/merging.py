"""Layers that merge several tensors."""

from __future__ import annotations

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._broadcast import elementwise


@layer_rule("Add", "Subtract", "Average", "Maximum", "Minimum", "CustomScaleLayer")
def merged(call: LayerCall) -> Slots:
    """Entry by entry; zero where all inputs are."""
    return elementwise(call, call.inputs, zero="all")


@layer_rule("Multiply")
def multiplied(call: LayerCall) -> Slots:
    """Entry by entry; zero where any input is."""
    return elementwise(call, call.inputs, zero="any")


@layer_rule("Concatenate")
def concatenate(call: LayerCall) -> Slots:
    """Joins one axis; all other axes are tied."""
    return joined(call, call.inputs, call.layer.axis)


def joined(call: LayerCall, inputs: list[Slots], axis: int) -> Slots:
    """Slots of tensors concatenated along an axis."""
    rank = len(call.shapes[0])
    axis = axis % rank
    axes: dict[int, Ids | None] = {}
    for other in range(rank):
        if other == axis:
            continue
        ids = inputs[0].axes[other]
        for slots in inputs[1:]:
            ids = call.link(ids, slots.axes[other], slots.origin or inputs[0].origin)
        axes[other] = ids
    if any(slots.axes[axis] is not None for slots in inputs):
        parts = []
        for slots in inputs:
            own, size = slots.axes[axis], slots.shape[axis]
            if own is None and size is None:
                for each in inputs:
                    call.freeze(each.axes[axis], "it is joined to an axis of unknown size")
                return call.out(axes)
            reason = slots.origin or "a fixed part of a concatenation"
            parts.append(call.fixed(int(size or 0), reason) if own is None else own)
        axes[axis] = np.concatenate(parts)
    return call.out(axes, zero=all(slots.zero or not slots.tracked for slots in inputs))


@layer_rule("Dot")
def dot(call: LayerCall) -> Slots:
    """Sums over one axis of each of two tensors."""
    first, second = call.inputs
    layer = call.layer
    pair = (layer.axes,) * 2 if isinstance(layer.axes, int) else tuple(layer.axes)
    one, two = pair[0] % len(first.shape), pair[1] % len(second.shape)
    contracted(call, first, one, second, two)
    call.macs(
        1,
        *[_factor(first, axis) for axis in range(1, len(first.shape))],
        *[_factor(second, axis) for axis in range(1, len(second.shape)) if axis != two],
    )
    left = [first.axes[axis] for axis in range(1, len(first.shape)) if axis != one]
    right = [second.axes[axis] for axis in range(1, len(second.shape)) if axis != two]
    axes = dict(enumerate([*left, *right], start=1))
    axes = {axis: ids for axis, ids in axes.items() if axis < len(call.shapes[0])}
    return call.out(axes, zero=first.zero and second.zero)


def contracted(call: LayerCall, first: Slots, one: int, second: Slots, two: int) -> None:
    """Ties two axes that are multiplied and summed, or freezes them.

    Removed entries add nothing to the sum where one factor is zero there.
    """
    a, b = first.axes[one], second.axes[two]
    if a is None and b is None:
        return
    if a is not None and b is not None and (first.zero or second.zero):
        call.link(a, b)
        return
    reason = "a product sums over it"
    for ids, other in ((a, second), (b, first)):
        call.freeze(ids, f"{reason} ({other.origin})" if other.origin else reason)


def _factor(slots: Slots, axis: int) -> Ids | int:
    ids, size = slots.axes[axis], slots.shape[axis]
    return int(size or 1) if ids is None else ids

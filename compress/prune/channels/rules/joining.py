"""Layers and raw operations that merge, join and part tensors, and take or repeat their entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Slots
from compress.prune.channels.rules._base import (
    alike,
    arguments,
    arranged,
    axes_of,
    edit_argument,
    layer_rule,
    operands,
    operation_rule,
    symbolic,
    tied,
    vanishes,
)


@layer_rule("Add", "Subtract", "Average", "Maximum", "Minimum", "CustomScaleLayer")
def merged(call: LayerCall) -> Slots:
    """Entry by entry; zero where all inputs are."""
    result = call.out(tied(call, call.inputs))
    silent = (slots.zero and vanishes(call, [slots], result.tracked) for slots in call.inputs)
    return replace(result, zero=all(silent))


@layer_rule("Multiply")
def multiplied(call: LayerCall) -> Slots:
    """Entry by entry; zero where any input is."""
    result = call.out(tied(call, call.inputs))
    return replace(result, zero=vanishes(call, call.inputs, result.tracked))


@layer_rule("Concatenate")
def concatenate(call: LayerCall) -> Slots:
    """Joins one axis; all other axes are tied."""
    return joined(call, call.inputs, call.layer.axis)


def joined(call: LayerCall, inputs: list[Slots], axis: int) -> Slots:
    """Slots of tensors concatenated along an axis."""
    rank = len(call.shapes[0])
    axis = axis % rank
    axes = {other: _link_axis(call, inputs, other) for other in range(rank) if other != axis}
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


def _link_axis(call: LayerCall, inputs: list[Slots], axis: int) -> Ids | None:
    ids = inputs[0].axes[axis]
    for slots in inputs[1:]:
        ids = call.link(ids, slots.axes[axis], slots.origin or inputs[0].origin)
    return ids


@layer_rule("Dot")
def dot(call: LayerCall) -> Slots:
    """Sums over one axis of each of two tensors."""
    (first, second), axes = call.inputs, call.layer.axes
    pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
    one, two = pair[0] % len(first.shape), pair[1] % len(second.shape)
    contracted(call, first, one, second, two)
    call.macs(
        1,
        *[first.get_factor(axis) for axis in range(1, len(first.shape))],
        *[second.get_factor(axis) for axis in range(1, len(second.shape)) if axis != two],
    )
    left = [first.axes[axis] for axis in range(1, len(first.shape)) if axis != one]
    right = [second.axes[axis] for axis in range(1, len(second.shape)) if axis != two]
    ids = [None, *left, *right][: len(call.shapes[0])]
    return call.out(dict(enumerate(ids)), zero=first.zero and second.zero)


def contracted(call: LayerCall, first: Slots, one: int, second: Slots, two: int) -> None:
    """Tie two axes that are multiplied and summed, or freezes them.

    Removed entries add nothing to the sum where one factor is zero there.
    """
    a, b = first.axes[one], second.axes[two]
    if a is not None and b is not None and (first.zero or second.zero):
        call.link(a, b)
        return
    reason = "a product sums over it"
    for ids, other in ((a, second), (b, first)):
        call.freeze(ids, f"{reason} ({other.origin})" if other.origin else reason)


@operation_rule("Concatenate")
def concatenate_operation(call: LayerCall) -> Slots:
    """Joins one axis; all other axes are tied."""
    return joined(call, operands(call, arguments(call)["xs"]), call.layer.axis)


@operation_rule("Append")
def append(call: LayerCall) -> Slots:
    """Joins two tensors along an axis."""
    if call.layer.axis is None:
        return call.unknown("append without an axis folds all axes")[0]
    return joined(call, operands(call, arguments(call).values()), call.layer.axis)


@operation_rule("Stack")
def stack(call: LayerCall) -> Slots:
    """Add an axis; all other axes are tied."""
    inputs = operands(call, arguments(call)["x"])
    axes = [_link_axis(call, inputs, axis) for axis in range(len(inputs[0].shape))]
    axes.insert(call.layer.axis % len(call.shapes[0]), None)
    return call.out(dict(enumerate(axes)), zero=all(slots.zero for slots in inputs))


@operation_rule("Unstack")
def unstack(call: LayerCall) -> list[Slots]:
    """Make every entry of an axis a tensor."""
    x = call.inputs[0]
    place = call.layer.axis % len(x.shape)
    call.freeze(x.axes[place], "its entries become tensors")
    sources: list[int | None] = [axis for axis in range(len(x.shape)) if axis != place]
    return [arranged(call, x, sources)] * len(call.shapes)


@operation_rule("Split", "ArraySplit")
def split(call: LayerCall) -> list[Slots]:
    """Parts an axis; the config's positions, if it has any, follow the kept numbers."""
    x = call.inputs[0]
    place = call.layer.axis % len(x.shape)
    ids = x.axes[place]
    if type(call.layer).__name__ == "ArraySplit":
        call.freeze(ids, "it is split into pieces of fixed sizes")
    if ids is None or len(call.shapes) == 1:
        return [replace(x, shape=shape) for shape in call.shapes]
    stops = np.cumsum([shape[place] for shape in call.shapes])[:-1]
    if type(call.layer).__name__ == "Split":
        call.edit(
            lambda config, kept: config.__setitem__(
                "indices_or_sections", [kept.count(ids[:stop]) for stop in stops]
            )
        )
    return [
        replace(x, shape=shape, axes=(*x.axes[:place], part, *x.axes[place + 1 :]))
        for shape, part in zip(call.shapes, np.split(ids, stops), strict=True)
    ]


@operation_rule("Pad")
def pad(call: LayerCall) -> Slots:
    """Padded channels are slots of their own; the config's widths follow the kept ones."""
    op, x = call.layer, call.inputs[0]
    number = arguments(call).get("constant_values")
    if symbolic(number):
        return call.unknown("a pad of tensors has no rule")[0]
    number = 0.0 if number is None else float(number)
    widths = [tuple(pair) for pair in op.pad_width]
    widths = widths * len(x.shape) if len(widths) == 1 else widths
    axes: list[Ids | None] = []
    added: dict[int, tuple[Ids, Ids]] = {}
    for axis, (ids, (before, after)) in enumerate(zip(x.axes, widths, strict=True)):
        if ids is None or not before + after:
            axes.append(ids)
        elif op.mode != "constant":
            call.freeze(ids, f"{op.mode} padding repeats it")
            axes.append(None)
        else:
            added[axis] = call.new(before), call.new(after)
            axes.append(np.concatenate([added[axis][0], ids, added[axis][1]]))
    if added:
        call.edit(lambda config, kept: _pad_config(config, widths, added, kept))
    same = op.mode != "constant" or number == (0.0 if x.zero else x.value)
    value = x.value if same else None
    return Slots(call.shapes[0], tuple(axes), x.zero and same, x.origin, value)


def _pad_config(
    config: dict[str, Any],
    widths: list[tuple[int, int]],
    added: dict[int, tuple[Ids, Ids]],
    kept: Kept,
) -> None:
    counts = {
        axis: (kept.count(before), kept.count(after)) for axis, (before, after) in added.items()
    }
    config["pad_width"] = [list(counts.get(axis, pair)) for axis, pair in enumerate(widths)]


@operation_rule("GetItem")
def get_item(call: LayerCall) -> Slots:
    """Basic indexing: slices, integers, new axes, an ellipsis."""
    x, key = call.inputs[0], arguments(call)["key"]
    parts = _parts(key, len(x.shape))
    if parts is None:
        return call.unknown("only slices and integers as indices have a rule")[0]
    axes: list[Ids | None] = []
    for axis, part in parts:
        ids = None if axis is None else x.axes[axis]
        if axis is None or isinstance(part, slice):
            axes.append(_slice(call, ids, part))
        elif ids is not None:
            call.freeze(ids[[part]], "it is read by its index")
    if x.tracked:
        edit_argument(call, "key", lambda _, kept: tuple(_new_key(x, parts, kept)))
    return replace(x, shape=call.shapes[0], axes=tuple(axes))


def _parts(key: Any, rank: int) -> list[tuple[int | None, Any]] | None:
    """Pair every part of a key with the axis that it reads; a new axis with None."""
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    numbers = [
        number
        for part in parts
        for number in ((part.start, part.stop, part.step) if isinstance(part, slice) else (part,))
    ]
    if not all(n is None or n is Ellipsis or isinstance(n, (int, np.integer)) for n in numbers):
        return None
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    place = parts.index(Ellipsis)
    missing = rank - sum(part is not None and part is not Ellipsis for part in parts)
    parts[place : place + 1] = [slice(None)] * missing
    axes = iter(range(rank))
    return [(None if part is None else next(axes), part) for part in parts]


def _slice(call: LayerCall, ids: Ids | None, part: slice) -> Ids | None:
    if ids is None:
        return None
    if part.indices(len(ids)) == (0, len(ids), 1):
        return ids
    step = abs(part.step or 1)
    if step > 1 and len(ids) % step == 0 and (part.step or 1) > 0:
        call.rows(ids, len(ids) // step)  # runs of `step` entries leave together
    elif step > 1:
        call.freeze(ids, "slices with a step read it")
    return ids[part]


def _new_key(x: Slots, parts: list[tuple[int | None, Any]], kept: Kept) -> Iterator[Any]:
    for axis, part in parts:
        ids = None if axis is None else x.axes[axis]
        if ids is None:
            yield part
        elif isinstance(part, slice):
            yield _new_slice(ids, part, kept)
        else:
            yield kept.count(ids[: part % len(ids)])


def _new_slice(ids: Ids, part: slice, kept: Kept) -> slice:
    start, stop, step = part.indices(len(ids))
    if (start, stop, step) == (0, len(ids), 1):
        return slice(None)
    count = kept.count(ids[part])
    if step < 0:
        first = kept.count(ids[: start + 1]) - 1
        last = first + count * step
        return slice(first, None if last < 0 else last, step) if count else slice(0, 0)
    run = start - start % step
    first = kept.count(ids[:run]) + start % step
    return slice(first, first + (count - 1) * step + 1 if count else first, step)


@operation_rule("Take")
def take(call: LayerCall) -> Slots:
    """Entries at constant positions; positions that are tensors read a fixed axis."""
    values = arguments(call)
    x, indices = operands(call, [values["x"], values["indices"]])
    if call.layer.axis is None or not symbolic(values["x"]):
        return call.unknown("it takes entries of a constant or of all axes")[0]
    axis = call.layer.axis % len(x.shape)
    ids, rank = x.axes[axis], len(indices.shape)
    taken: list[Ids | None] = [None] * rank
    call.barrier(indices, "it is an index")
    if ids is not None and not symbolic(values["indices"]) and rank == 1:
        places = np.asarray(values["indices"]) % len(ids)
        taken = [ids[places]]
        edit_argument(call, "indices", lambda value, kept: _new_indices(value, ids, places, kept))
    else:
        call.freeze(ids, "entries are looked up in it")
    return replace(x, shape=call.shapes[0], axes=(*x.axes[:axis], *taken, *x.axes[axis + 1 :]))


def _new_indices(value: Any, ids: Ids, places: Ids, kept: Kept) -> Any:
    flags = kept.flags(ids)
    moved = (np.cumsum(flags) - 1)[places[flags[places]]]
    dtype = np.asarray(value).dtype
    return alike(value, moved.astype(dtype)) if len(moved) < len(places) else value


@operation_rule("Repeat")
def repeat(call: LayerCall) -> Slots:
    """Repeat every entry of an axis."""
    op, x = call.layer, call.inputs[0]
    times = op.repeats if isinstance(op.repeats, (list, tuple)) else [op.repeats]
    if op.axis is None:
        return call.unknown("repeat without an axis folds all axes")[0]
    axis = op.axis % len(x.shape)
    ids = x.axes[axis]
    if len(times) > 1:
        call.freeze(ids, "its entries are repeated unequally")
    repeated = None if ids is None else np.repeat(ids, times)
    axes = (*x.axes[:axis], repeated, *x.axes[axis + 1 :])
    return replace(x, shape=call.shapes[0], axes=axes)


@operation_rule("Tile")
def tile(call: LayerCall) -> Slots:
    """Repeat whole axes; missing ones are added in front."""
    x, repeats = call.inputs[0], call.layer.repeats
    times = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = len(call.shapes[0])
    times = [1] * (rank - len(times)) + times
    axes = [None] * (rank - len(x.shape)) + list(x.axes)
    tiled = tuple(
        ids if ids is None or time == 1 else np.tile(ids, time)
        for ids, time in zip(axes, times, strict=True)
    )
    return replace(x, shape=call.shapes[0], axes=tiled)


@operation_rule("BroadcastTo")
def broadcast_to(call: LayerCall) -> Slots:
    """Repeat axes of size 1; the config's shape follows the kept numbers."""
    x = call.inputs[0]
    axes = tied(call, [x])

    def change(config: dict[str, Any], kept: Kept) -> None:
        config["shape"] = tuple(
            size if (ids := axes[axis]) is None else kept.count(ids)
            for axis, size in enumerate(config["shape"])
        )

    call.edit(change)
    return replace(call.out(axes), zero=x.zero, value=x.value)


@operation_rule("Flip")
def flip(call: LayerCall) -> Slots:
    """Reverses axes."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    flipped = tuple(
        ids[::-1] if ids is not None and axis in axes else ids for axis, ids in enumerate(x.axes)
    )
    return replace(x, axes=flipped)


@operation_rule("Roll")
def roll(call: LayerCall) -> Slots:
    """Shifts positions; shifted axes stay whole."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    call.barrier(x, "roll shifts it", axes)
    return arranged(call, x, [None if axis in axes else axis for axis in range(len(x.shape))])

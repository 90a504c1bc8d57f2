"""Raw operations that take parts of axes or repeat them: slices, gathers, tiles, flips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Kept, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._broadcast import alike, tied
from compress.prune.channels.rules._operands import (
    arguments,
    arranged,
    axes_of,
    edit_argument,
    operands,
    symbolic,
)


@operation_rule("GetItem")
def get_item(call: LayerCall) -> Slots:
    """Basic indexing: slices, integers, new axes, an ellipsis."""
    x, key = call.inputs[0], arguments(call)["key"]
    parts = _parts(key, len(x.shape))
    if parts is None:
        return call.unknown("only slices and integers as indices have a rule")[0]
    axes: list[Ids | None] = []
    for axis, part in parts:
        if axis is None:
            axes.append(None)
        elif isinstance(part, slice):
            axes.append(_slice(call, x.axes[axis], part))
        else:
            _entry(call, x.axes[axis], part)
    sources = [axis for axis, _ in parts if axis is not None and x.axes[axis] is not None]
    if sources:
        edit_argument(call, "key", lambda _, kept: tuple(_new_key(x, parts, kept)))
    return replace(x, shape=call.shapes[0], axes=tuple(axes))


def _parts(key: Any, rank: int) -> list[tuple[int | None, Any]] | None:
    """Pairs every part of a key with the axis that it reads; a new axis with None."""
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    if not all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in parts
    ):
        return None
    if any(isinstance(part, slice) and not _plain(part) for part in parts):
        return None
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    place = parts.index(Ellipsis)
    missing = rank - sum(part is not None and part is not Ellipsis for part in parts)
    parts[place : place + 1] = [slice(None)] * missing
    found: list[tuple[int | None, Any]] = []
    axis = 0
    for part in parts:
        found.append((None if part is None else axis, part))
        axis += part is not None
    return found


def _plain(part: slice) -> bool:
    bounds = (part.start, part.stop, part.step)
    return all(bound is None or isinstance(bound, (int, np.integer)) for bound in bounds)


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


def _entry(call: LayerCall, ids: Ids | None, index: int) -> None:
    if ids is not None:
        call.freeze(ids[[index]], "it is read by its index")


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
    axes = (*x.axes[:axis], *taken, *x.axes[axis + 1 :])
    return replace(x, shape=call.shapes[0], axes=axes)


def _new_indices(value: Any, ids: Ids, places: Ids, kept: Kept) -> Any:
    flags = kept.flags(ids)
    moved = (np.cumsum(flags) - 1)[places[flags[places]]]
    dtype = np.asarray(value).dtype
    return alike(value, moved.astype(dtype)) if len(moved) < len(places) else value


@operation_rule("Repeat")
def repeat(call: LayerCall) -> Slots:
    """Repeats every entry of an axis."""
    op, x = call.layer, call.inputs[0]
    times = op.repeats if isinstance(op.repeats, (list, tuple)) else [op.repeats]
    if op.axis is None:
        return call.unknown("repeat without an axis folds all axes")[0]
    axis = op.axis % len(x.shape)
    out = replace(x, shape=call.shapes[0])
    ids = x.axes[axis]
    if ids is None:
        return out
    repeated = np.repeat(ids, times)
    if len(times) > 1:
        call.freeze(ids, "its entries are repeated unequally")
    return replace(out, axes=(*x.axes[:axis], repeated, *x.axes[axis + 1 :]))


@operation_rule("Tile")
def tile(call: LayerCall) -> Slots:
    """Repeats whole axes; missing ones are added in front."""
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
    """Repeats axes of size 1; the config's shape follows the kept numbers."""
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
    call.barrier(x, "roll shifts it", [axis for axis in axes if axis in x.tracked])
    return arranged(call, x, [None if axis in axes else axis for axis in range(len(x.shape))])

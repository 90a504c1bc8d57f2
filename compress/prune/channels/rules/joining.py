"""Rules of layers and raw operations that merge, join, split, take or repeat entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.lazy_modules import keras
from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Slots
from compress.prune.channels.rules._base import (
    convert_like,
    get_arguments,
    is_product_zero,
    is_symbolic,
    layer_rule,
    link_broadcast_axes,
    list_operands,
    map_axes,
    normalize_axes,
    operation_rule,
    replace_argument,
)


@layer_rule("Add", "Subtract", "Average", "Maximum", "Minimum", "CustomScaleLayer")
def propagate_merge(call: LayerCall) -> Slots:
    """Link broadcast inputs elementwise; the result is zero if all inputs are."""
    result = call.out(link_broadcast_axes(call, call.inputs))
    silent = (
        slots.zero and is_product_zero(call, [slots], result.tracked) for slots in call.inputs
    )
    return replace(result, zero=all(silent))


@layer_rule("Multiply")
def propagate_multiply(call: LayerCall) -> Slots:
    """Link broadcast inputs elementwise; the result is zero if any input is."""
    result = call.out(link_broadcast_axes(call, call.inputs))
    return replace(result, zero=is_product_zero(call, call.inputs, result.tracked))


@layer_rule("Concatenate")
@operation_rule("Concatenate", "Append")
def propagate_concatenate(call: LayerCall) -> Slots:
    """Join one axis, and link all other axes."""
    if call.layer.axis is None:
        return call.report_unknown("append without an axis folds all axes")[0]
    inputs = call.inputs
    if not isinstance(call.layer, keras.layers.Layer):
        values = list(get_arguments(call).values())  # a list of tensors, or two
        inputs = list_operands(call, values if len(values) > 1 else values[0])
    rank = len(call.shapes[0])
    axis = call.layer.axis % rank
    axes = {other: _link_axis(call, inputs, other) for other in range(rank) if other != axis}
    if any(slots.axes[axis] is not None for slots in inputs):
        parts = []
        for slots in inputs:
            ids, size = slots.axes[axis], slots.shape[axis]
            if ids is None and size is None:
                for joined_input in inputs:
                    call.freeze(joined_input.axes[axis], "it is joined to an axis of unknown size")
                return call.out(axes)
            if ids is None:
                ids = call.new(int(size or 0))
                call.freeze(ids, slots.origin or "a fixed part of a concatenation")
            parts.append(ids)
        axes[axis] = np.concatenate(parts)
    return call.out(axes, zero=all(slots.zero or not slots.tracked for slots in inputs))


def _link_axis(call: LayerCall, inputs: list[Slots], axis: int) -> Ids | None:
    ids = inputs[0].axes[axis]
    for slots in inputs[1:]:
        ids = call.link(ids, slots.axes[axis], slots.origin or inputs[0].origin)
    return ids


@layer_rule("Dot")
def propagate_dot(call: LayerCall) -> Slots:
    """Link the two axes that a product sums over."""
    (first, second), axes = call.inputs, call.layer.axes
    pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
    first_axis, second_axis = pair[0] % len(first.shape), pair[1] % len(second.shape)
    # the length of a normalized tensor is that of its kept entries
    exact = first.zero and second.zero if call.layer.normalize else first.zero or second.zero
    link_contracted(call, first, first_axis, second, second_axis, exact=exact)
    call.macs(
        1,
        *[first.get_factor(axis) for axis in range(1, len(first.shape))],
        *[second.get_factor(axis) for axis in range(1, len(second.shape)) if axis != second_axis],
    )
    left = [first.axes[axis] for axis in range(1, len(first.shape)) if axis != first_axis]
    right = [second.axes[axis] for axis in range(1, len(second.shape)) if axis != second_axis]
    ids = [None, *left, *right][: len(call.shapes[0])]
    return call.out(dict(enumerate(ids)), zero=first.zero and second.zero)


def link_contracted(
    call: LayerCall,
    first: Slots,
    first_axis: int,
    second: Slots,
    second_axis: int,
    *,
    exact: bool,
) -> None:
    """Link two axes that are multiplied and summed, or freeze them.

    They are linked if both are tracked and removed entries add nothing to the sum.

    Args:
        call: The call.
        first: Slots of one tensor.
        first_axis: Its axis.
        second: Slots of the other tensor.
        second_axis: Its axis.
        exact: Whether removed entries add nothing to the sum, because one factor is zero.
    """
    a, b = first.axes[first_axis], second.axes[second_axis]
    if a is not None and b is not None and exact:
        call.link(a, b)
        return
    reason = "a product sums over it"
    for ids, other in ((a, second), (b, first)):
        call.freeze(ids, f"{reason} ({other.origin})" if other.origin else reason)


@operation_rule("Stack")
def propagate_stack(call: LayerCall) -> Slots:
    """Add an axis, and link all other axes."""
    inputs = list_operands(call, get_arguments(call)["x"])
    axes = [_link_axis(call, inputs, axis) for axis in range(len(inputs[0].shape))]
    axes.insert(call.layer.axis % len(call.shapes[0]), None)
    return call.out(dict(enumerate(axes)), zero=all(slots.zero for slots in inputs))


@operation_rule("Unstack")
def propagate_unstack(call: LayerCall) -> list[Slots]:
    """Freeze the unstacked axis, and propagate the others to each output."""
    x = call.inputs[0]
    unstacked_axis = call.layer.axis % len(x.shape)
    call.freeze(x.axes[unstacked_axis], "its entries become tensors")
    sources: list[int | None] = [axis for axis in range(len(x.shape)) if axis != unstacked_axis]
    return [map_axes(call, x, sources)] * len(call.shapes)


@operation_rule("Split", "ArraySplit")
def propagate_split(call: LayerCall) -> list[Slots]:
    """Split an axis, and update split positions in the config with the kept counts."""
    x = call.inputs[0]
    axis = call.layer.axis % len(x.shape)
    ids = x.axes[axis]
    if type(call.layer).__name__ == "ArraySplit":
        call.freeze(ids, "it is split into pieces of fixed sizes")
    if ids is None or len(call.shapes) == 1:
        return [replace(x, shape=shape) for shape in call.shapes]
    stops = np.cumsum([shape[axis] for shape in call.shapes])[:-1]
    if type(call.layer).__name__ == "Split":
        call.add_config_edit(
            lambda config, kept: config.__setitem__(
                "indices_or_sections", [kept.count(ids[:stop]) for stop in stops]
            )
        )
    return [
        replace(x, shape=shape, axes=(*x.axes[:axis], part, *x.axes[axis + 1 :]))
        for shape, part in zip(call.shapes, np.split(ids, stops), strict=True)
    ]


@operation_rule("Pad")
def propagate_pad(call: LayerCall) -> Slots:
    """Create slots for padded channels, and update the config's padding with the kept counts."""
    op, x = call.layer, call.inputs[0]
    number = get_arguments(call).get("constant_values")
    if is_symbolic(number):
        return call.report_unknown("a pad of tensors has no rule")[0]
    number = 0.0 if number is None else float(number)
    pad_widths = [tuple(pair) for pair in op.pad_width]
    pad_widths = pad_widths * len(x.shape) if len(pad_widths) == 1 else pad_widths
    axes: list[Ids | None] = []
    added: dict[int, tuple[Ids, Ids]] = {}
    for axis, (ids, (before, after)) in enumerate(zip(x.axes, pad_widths, strict=True)):
        if ids is None or not before + after:
            axes.append(ids)
        elif op.mode != "constant":
            call.freeze(ids, f"{op.mode} padding repeats it")
            axes.append(None)
        else:
            added[axis] = call.new(before), call.new(after)
            axes.append(np.concatenate([added[axis][0], ids, added[axis][1]]))
    if added:
        call.add_config_edit(
            lambda config, kept: _update_pad_config(config, pad_widths, added, kept)
        )
    same = op.mode != "constant" or number == (0.0 if x.zero else x.value)
    value = x.value if same else None
    return Slots(call.shapes[0], tuple(axes), x.zero and same, x.origin, value)


def _update_pad_config(
    config: dict[str, Any],
    pad_widths: list[tuple[int, int]],
    added: dict[int, tuple[Ids, Ids]],
    kept: Kept,
) -> None:
    counts = {
        axis: (kept.count(before), kept.count(after)) for axis, (before, after) in added.items()
    }
    config["pad_width"] = [list(counts.get(axis, pair)) for axis, pair in enumerate(pad_widths)]


@operation_rule("GetItem")
def propagate_get_item(call: LayerCall) -> Slots:
    """Propagate slots through basic indexing: slices, integers, new axes, an ellipsis."""
    x, key = call.inputs[0], get_arguments(call)["key"]
    parts = _match_key_parts(key, len(x.shape))
    if parts is None:
        return call.report_unknown("only slices and integers as indices have a rule")[0]
    axes: list[Ids | None] = []
    for axis, part in parts:
        ids = None if axis is None else x.axes[axis]
        if axis is None or isinstance(part, slice):
            axes.append(_propagate_slice(call, ids, part))
        elif ids is not None:
            call.freeze(ids[[part]], "it is read by its index")
    if x.tracked:
        replace_argument(call, "key", lambda _, kept: tuple(_build_key(x, parts, kept)))
    return replace(x, shape=call.shapes[0], axes=tuple(axes))


def _match_key_parts(key: Any, rank: int) -> list[tuple[int | None, Any]] | None:
    """Pair every part of a key with the axis that it indexes; a new axis with None."""
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
    ellipsis_index = parts.index(Ellipsis)
    missing = rank - sum(part is not None and part is not Ellipsis for part in parts)
    parts[ellipsis_index : ellipsis_index + 1] = [slice(None)] * missing
    axes = iter(range(rank))
    return [(None if part is None else next(axes), part) for part in parts]


def _propagate_slice(call: LayerCall, ids: Ids | None, part: slice) -> Ids | None:
    """Return the channel ids that a slice keeps; link or freeze those it reads with a step."""
    if ids is None:
        return None
    if part.indices(len(ids)) == (0, len(ids), 1):
        return ids
    step = abs(part.step or 1)
    if step > 1 and len(ids) % step == 0 and (part.step or 1) > 0:
        call.link_rows(ids, len(ids) // step)  # runs of `step` entries are removed together
    elif step > 1:
        call.freeze(ids, "slices with a step read it")
    return ids[part]


def _build_key(x: Slots, parts: list[tuple[int | None, Any]], kept: Kept) -> Iterator[Any]:
    for axis, part in parts:
        ids = None if axis is None else x.axes[axis]
        if ids is None:
            yield part
        elif isinstance(part, slice):
            yield _build_slice(ids, part, kept)
        else:
            yield kept.count(ids[: part % len(ids)])


def _build_slice(ids: Ids, part: slice, kept: Kept) -> slice:
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
def propagate_take(call: LayerCall) -> Slots:
    """Take entries at constant positions; positions given as tensors fix the axis."""
    values = get_arguments(call)
    x, indices = list_operands(call, [values["x"], values["indices"]])
    if call.layer.axis is None or not is_symbolic(values["x"]):
        return call.report_unknown("it takes entries of a constant or of all axes")[0]
    axis = call.layer.axis % len(x.shape)
    ids, rank = x.axes[axis], len(indices.shape)
    taken_axes: list[Ids | None] = [None] * rank
    call.freeze_axes(indices, "it is an index")
    if ids is not None and not is_symbolic(values["indices"]) and rank == 1:
        positions = np.asarray(values["indices"]) % len(ids)
        taken_axes = [ids[positions]]
        replace_argument(
            call, "indices", lambda value, kept: _build_indices(value, ids, positions, kept)
        )
    else:
        call.freeze(ids, "entries are looked up in it")
    return replace(x, shape=call.shapes[0], axes=(*x.axes[:axis], *taken_axes, *x.axes[axis + 1 :]))


def _build_indices(value: Any, ids: Ids, positions: Ids, kept: Kept) -> Any:
    flags = kept.get_flags(ids)
    updated = (np.cumsum(flags) - 1)[positions[flags[positions]]]
    dtype = np.asarray(value).dtype
    return convert_like(value, updated.astype(dtype)) if len(updated) < len(positions) else value


@operation_rule("Repeat")
def propagate_repeat(call: LayerCall) -> Slots:
    """Repeat every entry of an axis."""
    op, x = call.layer, call.inputs[0]
    times = op.repeats if isinstance(op.repeats, (list, tuple)) else [op.repeats]
    if op.axis is None:
        return call.report_unknown("repeat without an axis folds all axes")[0]
    axis = op.axis % len(x.shape)
    ids = x.axes[axis]
    if len(times) > 1:
        call.freeze(ids, "its entries are repeated unequally")
    repeated = None if ids is None else np.repeat(ids, times)
    axes = (*x.axes[:axis], repeated, *x.axes[axis + 1 :])
    return replace(x, shape=call.shapes[0], axes=axes)


@operation_rule("Tile")
def propagate_tile(call: LayerCall) -> Slots:
    """Repeat whole axes; missing axes are added in front."""
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
def propagate_broadcast_to(call: LayerCall) -> Slots:
    """Repeat axes of size 1, and update the config's shape with the kept counts."""
    x = call.inputs[0]
    axes = link_broadcast_axes(call, [x])

    def update_shape(config: dict[str, Any], kept: Kept) -> None:
        config["shape"] = tuple(
            size if (ids := axes[axis]) is None else kept.count(ids)
            for axis, size in enumerate(config["shape"])
        )

    call.add_config_edit(update_shape)
    return replace(call.out(axes), zero=x.zero, value=x.value)


@operation_rule("Flip")
def propagate_flip(call: LayerCall) -> Slots:
    """Reverse axes."""
    x = call.inputs[0]
    axes = normalize_axes(call.layer.axis, len(x.shape))
    flipped = tuple(
        ids[::-1] if ids is not None and axis in axes else ids for axis, ids in enumerate(x.axes)
    )
    return replace(x, axes=flipped)

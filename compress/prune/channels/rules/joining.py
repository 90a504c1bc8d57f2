"""Raw operations that join and part tensors along an axis: concatenate, split, stack, pad."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Kept, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._operands import arguments, arranged, operands, symbolic
from compress.prune.channels.rules.merging import joined


@operation_rule("Concatenate")
def concatenate(call: LayerCall) -> Slots:
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
    """Adds an axis; all other axes are tied."""
    inputs = operands(call, arguments(call)["x"])
    place = call.layer.axis % len(call.shapes[0])
    axes: list[Ids | None] = []
    for axis in range(len(inputs[0].shape)):
        ids = inputs[0].axes[axis]
        for slots in inputs[1:]:
            ids = call.link(ids, slots.axes[axis], slots.origin or inputs[0].origin)
        axes.append(ids)
    axes.insert(place, None)
    return call.out(dict(enumerate(axes)), zero=all(slots.zero for slots in inputs))


@operation_rule("Unstack")
def unstack(call: LayerCall) -> list[Slots]:
    """Makes every entry of an axis a tensor."""
    x = call.inputs[0]
    place = call.layer.axis % len(x.shape)
    call.freeze(x.axes[place], "its entries become tensors")
    sources: list[int | None] = [axis for axis in range(len(x.shape)) if axis != place]
    return [arranged(call, x, sources)] * len(call.shapes)


@operation_rule("Split")
def split(call: LayerCall) -> list[Slots]:
    """Parts an axis; the config's positions follow the kept numbers."""
    op, x = call.layer, call.inputs[0]
    place = op.axis % len(x.shape)
    ids = x.axes[place]
    if ids is None or len(call.shapes) == 1:
        return [replace(x, shape=shape) for shape in call.shapes]
    stops = np.cumsum([shape[place] for shape in call.shapes])
    call.edit(
        lambda config, kept: config.__setitem__(
            "indices_or_sections", [kept.count(ids[:stop]) for stop in stops[:-1]]
        )
    )
    return _split(call, x, place, stops)


@operation_rule("ArraySplit")
def array_split(call: LayerCall) -> list[Slots]:
    """Parts an axis into about equal pieces, which only a whole axis keeps."""
    x = call.inputs[0]
    place = call.layer.axis % len(x.shape)
    if x.axes[place] is None:
        return [replace(x, shape=shape) for shape in call.shapes]
    call.freeze(x.axes[place], "it is split into pieces of fixed sizes")
    return _split(call, x, place, np.cumsum([shape[place] for shape in call.shapes]))


def _split(call: LayerCall, x: Slots, place: int, stops: Ids) -> list[Slots]:
    ids = x.axes[place]
    assert ids is not None
    return [
        replace(x, shape=shape, axes=(*x.axes[:place], part, *x.axes[place + 1 :]))
        for shape, part in zip(call.shapes, np.split(ids, stops[:-1]), strict=True)
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

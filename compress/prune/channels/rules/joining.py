"""Raw operations that join and part tensors along an axis: concatenate, split, stack, pad."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Ids, Kept, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._operands import arguments, arranged, operands, symbolic
from compress.prune.channels.rules.merging import joined


@operation_rule("Concatenate")
def concatenate(site: Site) -> Slots:
    """Joins one axis; all other axes are tied."""
    return joined(site, operands(site, arguments(site)["xs"]), site.layer.axis)


@operation_rule("Append")
def append(site: Site) -> Slots:
    """Joins two tensors along an axis."""
    if site.layer.axis is None:
        return site.unknown("append without an axis folds all axes")[0]
    return joined(site, operands(site, arguments(site).values()), site.layer.axis)


@operation_rule("Stack")
def stack(site: Site) -> Slots:
    """Adds an axis; all other axes are tied."""
    inputs = operands(site, arguments(site)["x"])
    place = site.layer.axis % len(site.shapes[0])
    axes: list[Ids | None] = []
    for axis in range(len(inputs[0].shape)):
        ids = inputs[0].axes[axis]
        for slots in inputs[1:]:
            ids = site.link(ids, slots.axes[axis], slots.origin or inputs[0].origin)
        axes.append(ids)
    axes.insert(place, None)
    return site.out(dict(enumerate(axes)), zero=all(slots.zero for slots in inputs))


@operation_rule("Unstack")
def unstack(site: Site) -> list[Slots]:
    """Makes every entry of an axis a tensor."""
    x = site.inputs[0]
    place = site.layer.axis % len(x.shape)
    site.freeze(x.axes[place], "its entries become tensors")
    sources: list[int | None] = [axis for axis in range(len(x.shape)) if axis != place]
    return [arranged(site, x, sources)] * len(site.shapes)


@operation_rule("Split")
def split(site: Site) -> list[Slots]:
    """Parts an axis; the config's positions follow the kept numbers."""
    op, x = site.layer, site.inputs[0]
    place = op.axis % len(x.shape)
    ids = x.axes[place]
    if ids is None or len(site.shapes) == 1:
        return [replace(x, shape=shape) for shape in site.shapes]
    stops = np.cumsum([shape[place] for shape in site.shapes])
    site.edit(
        lambda config, kept: config.__setitem__(
            "indices_or_sections", [kept.count(ids[:stop]) for stop in stops[:-1]]
        )
    )
    return _split(site, x, place, stops)


@operation_rule("ArraySplit")
def array_split(site: Site) -> list[Slots]:
    """Parts an axis into about equal pieces, which only a whole axis keeps."""
    x = site.inputs[0]
    place = site.layer.axis % len(x.shape)
    if x.axes[place] is None:
        return [replace(x, shape=shape) for shape in site.shapes]
    site.freeze(x.axes[place], "it is split into pieces of fixed sizes")
    return _split(site, x, place, np.cumsum([shape[place] for shape in site.shapes]))


def _split(site: Site, x: Slots, place: int, stops: Ids) -> list[Slots]:
    ids = x.axes[place]
    assert ids is not None
    return [
        replace(x, shape=shape, axes=(*x.axes[:place], part, *x.axes[place + 1 :]))
        for shape, part in zip(site.shapes, np.split(ids, stops[:-1]), strict=True)
    ]


@operation_rule("Pad")
def pad(site: Site) -> Slots:
    """Padded channels are slots of their own; the config's widths follow the kept ones."""
    op, x = site.layer, site.inputs[0]
    number = arguments(site).get("constant_values")
    if symbolic(number):
        return site.unknown("a pad of tensors has no rule")[0]
    number = 0.0 if number is None else float(number)
    widths = [tuple(pair) for pair in op.pad_width]
    widths = widths * len(x.shape) if len(widths) == 1 else widths
    axes: list[Ids | None] = []
    added: dict[int, tuple[Ids, Ids]] = {}
    for axis, (ids, (before, after)) in enumerate(zip(x.axes, widths, strict=True)):
        if ids is None or not before + after:
            axes.append(ids)
        elif op.mode != "constant":
            site.freeze(ids, f"{op.mode} padding repeats it")
            axes.append(None)
        else:
            added[axis] = site.new(before), site.new(after)
            axes.append(np.concatenate([added[axis][0], ids, added[axis][1]]))
    if added:
        site.edit(lambda config, kept: _pad_config(config, widths, added, kept))
    same = op.mode != "constant" or number == (0.0 if x.zero else x.value)
    value = x.value if same else None
    return Slots(site.shapes[0], tuple(axes), x.zero and same, x.origin, value)


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

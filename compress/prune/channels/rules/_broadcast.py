"""Elementwise merges with broadcasting, of tensors and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.slots import Ids, Site, Slots


def elementwise(
    site: Site, inputs: Sequence[Slots], *, zero: str, constants: Sequence[Any] = ()
) -> Slots:
    """Ties the axes of tensors that are merged entry by entry.

    Args:
        site: The call.
        inputs: Slots of its tensors; lower ranks are aligned at the end.
        zero: When removed entries of the result are zero: "all" inputs are, "any" is,
            "first" is, or "never".
        constants: Arrays and numbers among the operands; surgery slices arrays.

    Returns:
        Slots of the result.
    """
    shape = site.shapes[0]
    rank = len(shape)
    axes: dict[int, Ids | None] = {}
    for axis in range(1, rank):
        axes[axis] = _axis(site, inputs, axis, rank, shape[axis])
    tracked = [axis for axis in axes if axes[axis] is not None]
    zeros = [
        slots.zero and all(_spans(slots, axis, rank, shape[axis]) for axis in tracked)
        for slots in inputs
    ]
    silent = [not np.any(np.asarray(value)) for value in constants]
    result = {
        "all": all(zeros) and all(silent),
        "any": any(zeros),
        "first": bool(zeros) and zeros[0],
        "never": False,
    }[zero]
    return site.out(axes, zero=result)


def _axis(
    site: Site, inputs: Sequence[Slots], axis: int, rank: int, size: int | None
) -> Ids | None:
    ids: Ids | None = None
    fixed = ""
    for slots in inputs:
        place = axis - (rank - len(slots.shape))
        if place < (0 if len(slots.shape) < rank else 1):
            continue
        own = slots.axes[place] if place > 0 else None
        if slots.shape[place] == 1 and size != 1:
            site.freeze(own, "its only entry is broadcast")
        elif own is None and slots.shape[place] != 1:
            fixed = fixed or slots.origin or "it meets a fixed axis"
        elif own is not None:
            ids = own if ids is None else site.link(ids, own)
    if ids is not None and fixed:
        site.freeze(ids, fixed)
    return ids


def _spans(slots: Slots, axis: int, rank: int, size: int | None) -> bool:
    place = axis - (rank - len(slots.shape))
    return place > 0 and slots.shape[place] == size and slots.axes[place] is not None


def sliced_constant(value: Any, axes: Sequence[Ids | None], kept: Any) -> Any:
    """Returns a constant operand without the removed entries of the result's axes.

    Args:
        value: A number or an array that is broadcast to the result.
        axes: Ids of the result's axes.
        kept: From surgery.
    """
    array = np.asarray(value)
    for place in range(array.ndim):
        ids = axes[len(axes) - array.ndim + place]
        if ids is not None and array.shape[place] == len(ids) > 1:
            array = np.take(array, kept(ids), axis=place)
    return value if array.ndim == 0 else array

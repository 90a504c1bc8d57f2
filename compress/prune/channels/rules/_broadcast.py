"""Elementwise merges with broadcasting, of tensors and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots

Array = npt.NDArray[Any]


def elementwise(
    call: LayerCall, inputs: Sequence[Slots], *, zero: str, constants: Sequence[Any] = ()
) -> Slots:
    """Ties the axes of tensors that are merged entry by entry.

    Args:
        call: The call.
        inputs: Slots of its tensors; lower ranks are aligned at the end.
        zero: When removed entries of the result are zero: "all" inputs are, "any" is,
            "first" is, or "never".
        constants: Arrays and numbers among the operands; surgery slices arrays.

    Returns:
        Slots of the result.
    """
    axes = tied(call, inputs)
    tracked = [axis for axis in axes if axes[axis] is not None]
    zeros = [slots.zero and all(spans(call, slots, axis) for axis in tracked) for slots in inputs]
    silent = [not np.any(np.asarray(value)) for value in constants]
    result = {
        "all": all(zeros) and all(silent),
        "any": vanishes(call, inputs, tracked),
        "first": bool(zeros) and zeros[0],
        "never": False,
    }[zero]
    return call.out(axes, zero=result)


def tied(call: LayerCall, inputs: Sequence[Slots]) -> dict[int, Ids | None]:
    """Ties the axes of tensors that are broadcast to the first output; returns its axes."""
    shape = call.shapes[0]
    rank = len(shape)
    return {axis: _axis(call, inputs, axis, rank, shape[axis]) for axis in range(rank)}


def spans(call: LayerCall, slots: Slots, axis: int) -> bool:
    """Tells whether a tensor has slots of its own on an axis of the first output."""
    shape = call.shapes[0]
    place = axis - (len(shape) - len(slots.shape))
    return place >= 0 and slots.shape[place] == shape[axis] and slots.axes[place] is not None


def vanishes(call: LayerCall, inputs: Sequence[Slots], tracked: Sequence[int]) -> bool:
    """Tells whether a product is zero at all removed entries of the tracked axes."""
    zeros = [slots for slots in inputs if slots.zero]
    return all(any(spans(call, slots, axis) for slots in zeros) for axis in tracked)


def _axis(
    call: LayerCall, inputs: Sequence[Slots], axis: int, rank: int, size: int | None
) -> Ids | None:
    ids: Ids | None = None
    fixed = ""
    for slots in inputs:
        place = axis - (rank - len(slots.shape))
        if place < 0:
            continue
        own = slots.axes[place]
        if slots.shape[place] == 1 and size != 1:
            call.freeze(own, "its only entry is broadcast")
        elif own is None and slots.shape[place] != 1:
            fixed = fixed or slots.origin or "it meets a fixed axis"
        elif own is not None:
            ids = own if ids is None else call.link(ids, own)
    if ids is not None and fixed:
        call.freeze(ids, fixed)
    return ids


def sliced_constant(value: Any, axes: Sequence[Ids | None], kept: Any) -> Any:
    """Returns a constant operand without the removed entries of the result's axes.

    Args:
        value: A number, list, array or tensor that is broadcast to the result.
        axes: Ids of the result's axes.
        kept: From surgery.
    """
    array = np.asarray(value)
    for place in range(array.ndim):
        at = len(axes) - array.ndim + place
        ids = axes[at] if at >= 0 else None
        if ids is not None and array.shape[place] == len(ids) > 1:
            array = np.take(array, kept(ids), axis=place)
    return alike(value, array)


def alike(value: Any, array: Array) -> Any:
    """Returns an array in the form (number, list, array, tensor) that a constant had."""
    if array.shape == np.shape(value):
        return value
    if isinstance(value, (list, tuple)):  # numbers in lists take the dtype of the tensor
        return array.tolist()
    if isinstance(value, np.ndarray):
        return array
    import keras

    return keras.ops.convert_to_tensor(array)

"""Raw operations that work entry by entry, with broadcasting: arithmetic, activations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.model.layers import select_classes
from compress.model.program import replaced
from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._broadcast import sliced_constant, spans, tied, vanishes
from compress.prune.channels.rules._common import halved, over_axes
from compress.prune.channels.rules._operands import (
    arguments,
    axes_of,
    holds_variable,
    operands,
    symbolic,
)

# zero where one operand is, whatever the other holds
_PRODUCTS = frozenset(["Multiply", "LogicalAnd", "BitwiseAnd", "DivideNoNan"])
_QUOTIENTS = frozenset(["Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod"])
# not finite for some operands
_PARTIAL = _QUOTIENTS | {
    "Log", "Log2", "Log10", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "Arccos", "Arccosh",
    "Arcsin", "Arctanh", "Erfinv", "Power",
}  # fmt: skip
NOT_FINITE = "its removed entries might not be finite numbers"


@operation_rule(*sorted(select_classes("entrywise")))
def entrywise(call: LayerCall) -> Slots:
    """Ties broadcast operands; what removed entries hold is computed where it is known."""
    values = list(arguments(call).values())
    if holds_variable(call):
        return call.unknown("a variable outside of layers is an operand")[0]
    if type(call.layer).__name__ == "Where" and len(values) < 3:
        return call.unknown("it returns positions")[0]
    slots = operands(call, values)
    tensors = [own for own, value in zip(slots, values, strict=True) if symbolic(value)]
    axes = tied(call, tensors)
    result = call.out(axes)
    _slice_constants(call, values, axes)
    tracked = result.tracked
    known = [
        _held(own, all(spans(call, own, axis) for axis in tracked)) if symbolic(value) else value
        for own, value in zip(slots, values, strict=True)
    ]
    if not tracked:
        return result
    if any(value is None for value in known):
        return _partly_known(call, slots, values, result)
    held = _computed(call, [value for value in values if symbolic(value)], tensors)
    if not np.all(np.isfinite(held)):
        return _barriers(call, tensors, result)
    return _holding(result, held)


def _held(slots: Slots, whole: bool) -> float | None:
    """Returns the number that removed entries hold; None: unknown."""
    if not whole:
        return None
    return 0.0 if slots.zero else slots.value


def _holding(result: Slots, held: npt.NDArray[Any]) -> Slots:
    if not held.any():
        return replace(result, zero=True)
    first = float(held.flat[0])
    return replace(result, value=first if np.all(held == held.flat[0]) else None)


def _computed(call: LayerCall, tensors: list[Any], slots: list[Slots]) -> npt.NDArray[Any]:
    """Applies the operation to what the removed entries of its operands hold."""
    import keras

    numbers = [
        keras.ops.full((1,), _held(own, True), dtype=tensor.dtype)
        for tensor, own in zip(tensors, slots, strict=True)
    ]
    args, kwargs = replaced((call.args, call.kwargs), tensors, numbers)
    try:
        held = keras.ops.convert_to_numpy(call.layer.call(*args, **kwargs))
        return np.asarray(held).astype(np.float64)
    except Exception:  # the model itself cannot run then; its coupling can still be reported
        return np.array([np.nan])


def _partly_known(call: LayerCall, slots: list[Slots], values: list[Any], result: Slots) -> Slots:
    kind = type(call.layer).__name__
    if kind in _PRODUCTS:
        return replace(result, zero=vanishes(call, slots, result.tracked))
    if kind in _QUOTIENTS:
        below = slots[1]
        if below.tracked and not below.value:
            _barriers(call, [below], result)
        return replace(result, zero=vanishes(call, slots[:1], result.tracked))
    if kind == "Where":
        chosen = zip(slots[1:], values[1:], strict=True)
        zero = all(_vanishes(call, own, value, result) for own, value in chosen)
        return replace(result, zero=zero)
    if kind in _PARTIAL and not (kind == "Power" and _whole_power(values[1])):
        return _barriers(call, slots, result)
    return result


def _vanishes(call: LayerCall, slots: Slots, value: Any, result: Slots) -> bool:
    if not symbolic(value):
        return not np.any(np.asarray(value))
    return vanishes(call, [slots], result.tracked)


def _whole_power(exponent: Any) -> bool:
    if symbolic(exponent):
        return False
    numbers = np.asarray(exponent)
    return bool(np.all(numbers >= 0) and np.all(numbers == np.round(numbers)))


def _barriers(call: LayerCall, slots: list[Slots], result: Slots) -> Slots:
    for own in slots:
        call.barrier(own, NOT_FINITE)
    return result


def _slice_constants(call: LayerCall, values: list[Any], axes: dict[int, Ids | None]) -> None:
    """Lets surgery slice arrays among the operands."""
    if all(symbolic(value) or value is None or not np.ndim(value) for value in values):
        return
    ids = [axes[axis] for axis in sorted(axes)]

    def sliced(value: Any, kept: Any) -> Any:
        plain = symbolic(value) or value is None
        return value if plain else sliced_constant(value, ids, kept)

    call.edit_call(
        lambda args, kwargs, kept: (
            tuple(sliced(value, kept) for value in args),
            {name: sliced(value, kept) for name, value in kwargs.items()},
        )
    )


@operation_rule("Softmax", "LogSoftmax", "Sparsemax")
def softmax(call: LayerCall) -> Slots:
    """Over the kept entries of its axes."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    tracked = set(x.tracked)
    exact = bool(tracked) and tracked <= set(axes) and type(call.layer).__name__ != "LogSoftmax"
    return over_axes(call, x, axes, exact=exact)


@operation_rule("Glu")
def glu(call: LayerCall) -> Slots:
    """Multiplies the first half of an axis by a gate of the second."""
    x = call.inputs[0]
    return halved(call, x, call.layer.axis % len(x.shape))

"""Raw operations that work entry by entry, with broadcasting, or reduce axes; softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.model.layers import select_classes
from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.rules._base import (
    arguments,
    arranged,
    axes_of,
    holds_variable,
    layer_rule,
    operands,
    operation_rule,
    over_axes,
    slice_constants,
    spans,
    symbolic,
    tied,
    vanishes,
)

# zero where one operand is, whatever the other holds
_PRODUCTS = frozenset(["Multiply", "LogicalAnd", "BitwiseAnd", "DivideNoNan"])
_QUOTIENTS = frozenset(["Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod"])
# not finite for some operands
_PARTIAL = _QUOTIENTS | {
    "Log", "Log2", "Log10", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "Arccos", "Arccosh",
    "Arcsin", "Arctanh", "Erfinv", "Power",
}  # fmt: skip
# zero entries on a reduced axis change nothing
_SUMS = frozenset(["Sum", "Nansum", "Any", "CountNonzero"])
# the number that all reduced entries hold
_KEEPS_VALUE = {
    "Mean", "Max", "Min", "Amax", "Amin", "Median", "Nanmean", "Nanmax", "Nanmin", "Nanmedian",
    "Average",
}  # fmt: skip
NOT_FINITE = "its removed entries might not be finite numbers"


@operation_rule(*sorted(select_classes("entrywise")))
def entrywise(call: LayerCall) -> Slots:
    """Tie broadcast operands; what removed entries hold is computed where it is known."""
    values = list(arguments(call).values())
    if holds_variable(call):
        return call.unknown("a variable outside of layers is an operand")[0]
    if type(call.layer).__name__ == "Where" and len(values) < 3:
        return call.unknown("it returns positions")[0]
    slots = operands(call, values)
    tensors = [own for own, value in zip(slots, values, strict=True) if symbolic(value)]
    axes = tied(call, tensors)
    result = call.out(axes)
    constants = [value for value in values if not symbolic(value) and np.ndim(value)]
    slice_constants(call, {id(value): list(axes.values()) for value in constants})
    tracked = result.tracked
    known = [
        _held(own, all(spans(call, own, axis) for axis in tracked)) if symbolic(value) else value
        for own, value in zip(slots, values, strict=True)
    ]
    if not tracked:
        return result
    if any(value is None for value in known):
        return _partly_known(call, slots, values, result)
    held = _computed(call)
    if not np.all(np.isfinite(held)):
        return _barriers(call, tensors, result)
    if not held.any():
        return replace(result, zero=True)
    return replace(result, value=float(held.flat[0]) if np.all(held == held.flat[0]) else None)


def _held(slots: Slots, whole: bool) -> float | None:
    """Return the number that removed entries hold; None: unknown."""
    if not whole:
        return None
    return 0.0 if slots.zero else slots.value


def _computed(call: LayerCall) -> npt.NDArray[Any]:
    """Applies the operation to what the removed entries of its operands hold."""
    numbers = [
        keras.ops.full((1,), _held(own, True), dtype=tensor.dtype)
        for tensor, own in zip(call.node.inputs, call.inputs, strict=True)
    ]
    args, kwargs = call.node.arguments(numbers)
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
        return replace(result, zero=all(_vanishes(call, *pair, result) for pair in chosen))
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


@layer_rule("Softmax")
@operation_rule("Softmax", "LogSoftmax", "Sparsemax")
def softmax(call: LayerCall) -> Slots:
    """Over the kept entries of its axes."""
    x, *masks = call.inputs
    for mask in masks:
        call.barrier(mask, "it is the mask of a softmax")
    axes, tracked = axes_of(call.layer.axis, len(x.shape)), set(x.tracked)
    exact = bool(tracked) and tracked <= set(axes) and type(call.layer).__name__ != "LogSoftmax"
    return over_axes(call, x, axes, exact=exact)


@operation_rule("Glu")
def glu(call: LayerCall) -> Slots:
    """Multiply the first half of an axis by a gate of the second."""
    x = call.inputs[0]
    axis = call.layer.axis % len(x.shape)
    ids = x.axes[axis]
    half = None if ids is None else call.columns(ids, 2)
    axes = (*x.axes[:axis], half, *x.axes[axis + 1 :])
    return Slots(call.shapes[0], axes, x.zero, x.origin)


@operation_rule("Average")
@operation_rule(
    "All", "Any", "Amax", "Amin", "Argmax", "Argmin", "CountNonzero", "Logsumexp", "Max", "Mean",
    "Median", "Min", "Nanargmax", "Nanargmin", "Nanmax", "Nanmean", "Nanmedian", "Nanmin",
    "Nanprod", "Nanstd", "Nansum", "Nanvar", "Norm", "Prod", "Ptp", "Std", "Sum", "Var",
)  # fmt: skip
def reduction(call: LayerCall) -> Slots:
    """Sums of zeros may lose entries; other reductions fix the axes that they reduce."""
    if arguments(call).get("weights") is not None:
        return call.unknown("weighted averages have no rule")[0]
    op, x = call.layer, call.inputs[0]
    return _reduced(call, axes_of(op.axis, len(x.shape)), bool(getattr(op, "keepdims", False)))


@operation_rule("Moments")
def moments(call: LayerCall) -> list[Slots]:
    """Mean and variance."""
    op, x = call.layer, call.inputs[0]
    out = _reduced(call, axes_of(op.axes, len(x.shape)), bool(op.keepdims))
    return [out, replace(out, value=None)]


def _reduced(call: LayerCall, axes: tuple[int, ...], keepdims: bool) -> Slots:
    x = call.inputs[0]
    kind = type(call.layer).__name__
    if not (x.zero and _adds_up(call, axes)):
        call.barrier(x, f"{kind.lower()} reduces it", axes)
    sources: list[int | None] = [
        None if axis in axes else axis
        for axis in range(len(x.shape))
        if keepdims or axis not in axes
    ]
    same = kind != "Logsumexp" and getattr(call.layer, "initial", None) is None
    value = x.value if kind in _KEEPS_VALUE and same else None
    return replace(arranged(call, x, sources), zero=x.zero and same, value=value)


def _adds_up(call: LayerCall, axes: tuple[int, ...]) -> bool:
    """Return whether zeros on the reduced axes change nothing."""
    op = call.layer
    if type(op).__name__ == "Norm":
        vector = op.axis is None or len(axes) == 1
        return vector and op.ord in (None, 1, 2, "fro")
    return type(op).__name__ in _SUMS


@operation_rule("Argsort")
@operation_rule("Cumsum", "Cumprod", "Nancumsum", "Nancumprod", "Sort", "Diff")
def along(call: LayerCall) -> Slots:
    """Run along one axis, which stays whole."""
    x, kind = call.inputs[0], type(call.layer).__name__.lower()
    if call.layer.axis is None:
        return call.unknown(f"{kind} without an axis folds all axes")[0]
    axis = call.layer.axis % len(x.shape)
    call.barrier(x, f"{kind} runs along it", [axis])
    sources = [None if at == axis else at for at in range(len(x.shape))]
    return replace(arranged(call, x, sources), zero=x.zero and kind != "argsort", value=None)


@operation_rule("TopK")
def top_k(call: LayerCall) -> list[Slots]:
    """Largest entries of the last axis, which stays whole, and their positions."""
    x = call.inputs[0]
    call.barrier(x, "topk runs along it", [-1])
    values = arranged(call, x, [*range(len(x.shape) - 1), None])
    return [values, replace(values, zero=False, value=None)]


@operation_rule("Tril", "Triu")
def triangle(call: LayerCall) -> Slots:
    """Set a triangle of the last two axes, which stay whole, to zero."""
    x = call.inputs[0]
    call.barrier(x, f"{type(call.layer).__name__.lower()} depends on its positions", [-2, -1])
    return replace(x, value=None)


@operation_rule("Normalize")
def normalize(call: LayerCall) -> Slots:
    """Divides by the norm over the kept entries of its axes."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    if not x.zero:
        call.barrier(x, "a norm sums over it", axes)
    return replace(x, value=None)


@operation_rule("LayerNorm", "RMSNorm")
def normalized(call: LayerCall) -> Slots:
    """Statistics of fixed axes alone; scales that are tensors have no rule."""
    values = list(arguments(call).values())
    if any(symbolic(value) for value in values[1:]):
        return call.unknown("normalization by tensors has no rule")[0]
    x = call.inputs[0]
    call.barrier(x, "a normalization reduces it", axes_of(call.layer.axis, len(x.shape)))
    shifted = type(call.layer).__name__ == "LayerNorm" and len(values) > 2 and values[2] is not None
    return replace(x, zero=x.zero and not shifted, value=None)

"""Rules of raw operations that are elementwise, with broadcasting, or reductions; softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.model.layers import select_classes
from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.rules._base import (
    get_arguments,
    has_slots,
    has_variable,
    is_product_zero,
    is_symbolic,
    layer_rule,
    link_broadcast_axes,
    list_operands,
    map_axes,
    normalize_axes,
    operation_rule,
    slice_constants,
)

# zero if one operand is, for any other operand
_PRODUCTS = frozenset(["Multiply", "LogicalAnd", "BitwiseAnd", "DivideNoNan"])
_QUOTIENTS = frozenset(["Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod"])
# not finite for some operands
_PARTIAL = _QUOTIENTS | {
    "Log", "Log2", "Log10", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "Arccos", "Arccosh",
    "Arcsin", "Arctanh", "Erfinv", "Power",
}  # fmt: skip
# zero entries on a reduced axis do not change the result
_SUMS = frozenset(["Sum", "Nansum", "Any", "CountNonzero"])
# the result equals the entries if all of them are equal
_KEEPS_VALUE = {
    "Mean", "Max", "Min", "Amax", "Amin", "Median", "Nanmean", "Nanmax", "Nanmin", "Nanmedian",
    "Average",
}  # fmt: skip
# axes that operations without the option `axis` run along
_LAST_AXES: dict[str, tuple[int, ...]] = {"TopK": (-1,), "Tril": (-2, -1), "Triu": (-2, -1)}
NOT_FINITE = "its removed entries might not be finite numbers"


@operation_rule(*sorted(select_classes("entrywise")))
def propagate_entrywise(call: LayerCall) -> Slots:
    """Link broadcast operands, and compute the value of removed entries if it is known."""
    values = list(get_arguments(call).values())
    if has_variable(call):
        return call.report_unknown("a variable outside of layers is an operand")[0]
    if type(call.layer).__name__ == "Where" and len(values) < 3:
        return call.report_unknown("it returns positions")[0]
    slots = list_operands(call, values)
    tensors = [operand for operand, value in zip(slots, values, strict=True) if is_symbolic(value)]
    axes = link_broadcast_axes(call, tensors)
    result = call.out(axes)
    constants = [value for value in values if not is_symbolic(value) and np.ndim(value)]
    slice_constants(call, {id(value): list(axes.values()) for value in constants})
    tracked = result.tracked
    removed_values = [
        _get_removed_value(operand, all(has_slots(call, operand, axis) for axis in tracked))
        if is_symbolic(value)
        else value
        for operand, value in zip(slots, values, strict=True)
    ]
    if not tracked:
        return result
    if any(value is None for value in removed_values):
        return _propagate_partly_known(call, slots, values, result)
    result_values = _compute_removed_values(call)
    if not np.all(np.isfinite(result_values)):
        return _freeze_operands(call, tensors, result)
    if not result_values.any():
        return replace(result, zero=True)
    return replace(
        result,
        value=float(result_values.flat[0])
        if np.all(result_values == result_values.flat[0])
        else None,
    )


def _get_removed_value(slots: Slots, spans_all: bool) -> float | None:
    """Return the value of removed entries; None if it is unknown."""
    if not spans_all:
        return None
    return 0.0 if slots.zero else slots.value


def _compute_removed_values(call: LayerCall) -> npt.NDArray[Any]:
    """Return the operation's result for the removed entries of its operands; NaN if it fails."""
    numbers = [
        keras.ops.full((1,), _get_removed_value(slots, True), dtype=tensor.dtype)
        for tensor, slots in zip(call.node.inputs, call.inputs, strict=True)
    ]
    args, kwargs = call.node.fill_arguments(numbers)
    try:
        result = keras.ops.convert_to_numpy(call.layer.call(*args, **kwargs))
        return np.asarray(result).astype(np.float64)
    except Exception:  # the model cannot run, but its coupling can be reported
        return np.array([np.nan])


def _propagate_partly_known(
    call: LayerCall, slots: list[Slots], values: list[Any], result: Slots
) -> Slots:
    kind = type(call.layer).__name__
    if kind in _PRODUCTS:
        return replace(result, zero=is_product_zero(call, slots, result.tracked))
    if kind in _QUOTIENTS:
        divisor = slots[1]
        if divisor.tracked and not divisor.value:
            _freeze_operands(call, [divisor], result)
        return replace(result, zero=is_product_zero(call, slots[:1], result.tracked))
    if kind == "Where":
        chosen = zip(slots[1:], values[1:], strict=True)
        return replace(result, zero=all(_is_zero(call, *pair, result) for pair in chosen))
    if kind in _PARTIAL and not (kind == "Power" and _is_integer_power(values[1])):
        return _freeze_operands(call, slots, result)
    return result


def _is_zero(call: LayerCall, slots: Slots, value: Any, result: Slots) -> bool:
    if not is_symbolic(value):
        return not np.any(np.asarray(value))
    return is_product_zero(call, [slots], result.tracked)


def _is_integer_power(exponent: Any) -> bool:
    if is_symbolic(exponent):
        return False
    numbers = np.asarray(exponent)
    return bool(np.all(numbers >= 0) and np.all(numbers == np.round(numbers)))


def _freeze_operands(call: LayerCall, slots: list[Slots], result: Slots) -> Slots:
    for operand in slots:
        call.freeze_axes(operand, NOT_FINITE)
    return result


@layer_rule("Softmax")
@operation_rule("Softmax", "LogSoftmax", "Sparsemax")
def propagate_softmax(call: LayerCall) -> Slots:
    """Propagate slots through a softmax, which is computed over the kept entries of its axes."""
    x, *masks = call.inputs
    for mask in masks:
        call.freeze_axes(mask, "it is the mask of a softmax")
    axes, tracked = set(normalize_axes(call.layer.axis, len(x.shape))), set(x.tracked)
    exact = bool(tracked) and tracked <= axes and type(call.layer).__name__ != "LogSoftmax"
    return Slots(x.shape, x.axes, exact, x.origin)


@operation_rule("Glu")
def propagate_glu(call: LayerCall) -> Slots:
    """Link the two halves of an axis: the second half gates the first."""
    x = call.inputs[0]
    axis = call.layer.axis % len(x.shape)
    ids = x.axes[axis]
    half = None if ids is None else call.link_columns(ids, 2)
    axes = (*x.axes[:axis], half, *x.axes[axis + 1 :])
    return Slots(call.shapes[0], axes, x.zero, x.origin)


@operation_rule(
    "All", "Any", "Amax", "Amin", "Argmax", "Argmin", "Average", "CountNonzero", "Logsumexp", "Max",
    "Mean", "Median", "Min", "Moments", "Nanargmax", "Nanargmin", "Nanmax", "Nanmean", "Nanmedian",
    "Nanmin", "Nanprod", "Nanstd", "Nansum", "Nanvar", "Norm", "Prod", "Ptp", "Std", "Sum", "Var",
)  # fmt: skip
def propagate_reduction(call: LayerCall) -> list[Slots]:
    """Freeze reduced axes, except in sums over entries that are zero if removed."""
    if get_arguments(call).get("weights") is not None:
        return call.report_unknown("weighted averages have no rule")
    op, x = call.layer, call.inputs[0]
    kind, rank = type(op).__name__, len(x.shape)
    axes = normalize_axes(op.axes if kind == "Moments" else op.axis, rank)
    if not (x.zero and _is_sum(call, axes)):
        call.freeze_axes(x, f"{kind.lower()} reduces it", axes)
    sources = [
        None if axis in axes else axis
        for axis in range(rank)
        if axis not in axes or getattr(op, "keepdims", False)
    ]
    same = kind != "Logsumexp" and getattr(op, "initial", None) is None
    value = x.value if kind in _KEEPS_VALUE and same else None
    out = replace(map_axes(call, x, sources), zero=x.zero and same, value=value)
    return [out] * len(call.shapes)


def _is_sum(call: LayerCall, axes: tuple[int, ...]) -> bool:
    """Return whether zeros on the reduced axes do not change the result."""
    op = call.layer
    if type(op).__name__ == "Norm":
        vector = op.axis is None or len(axes) == 1
        return vector and op.ord in (None, 1, 2, "fro")
    return type(op).__name__ in _SUMS


@operation_rule(
    "Argsort", "Cumprod", "Cumsum", "Diff", "Nancumprod", "Nancumsum", "Roll", "Sort", "TopK",
    "Tril", "Triu",
)  # fmt: skip
def propagate_scan(call: LayerCall) -> list[Slots]:
    """Freeze the axes that the operation runs along."""
    x, kind = call.inputs[0], type(call.layer).__name__
    axis = _LAST_AXES.get(kind, getattr(call.layer, "axis", None))
    if axis is None:
        return call.report_unknown(f"{kind.lower()} without an axis folds all axes")
    axes = normalize_axes(axis, len(x.shape))
    call.freeze_axes(x, f"{kind.lower()} runs along it", axes)
    sources = [None if index in axes else index for index in range(len(x.shape))]
    value = x.value if kind in ("Roll", "Sort", "TopK") else None
    out = replace(map_axes(call, x, sources), zero=x.zero and kind != "Argsort", value=value)
    return [out, *[replace(out, zero=False, value=None)] * (len(call.shapes) - 1)]


@operation_rule("Normalize")
def propagate_normalize(call: LayerCall) -> Slots:
    """Propagate slots through a division by the norm over the kept entries of its axes."""
    x = call.inputs[0]
    axes = normalize_axes(call.layer.axis, len(x.shape))
    if not x.zero:
        call.freeze_axes(x, "a norm sums over it", axes)
    return replace(x, value=None)


@operation_rule("LayerNorm", "RMSNorm")
def propagate_layer_norm(call: LayerCall) -> Slots:
    """Freeze the normalized axes; scales given as tensors have no rule."""
    values = list(get_arguments(call).values())
    if any(is_symbolic(value) for value in values[1:]):
        return call.report_unknown("normalization by tensors has no rule")[0]
    x = call.inputs[0]
    call.freeze_axes(x, "a normalization reduces it", normalize_axes(call.layer.axis, len(x.shape)))
    shifted = type(call.layer).__name__ == "LayerNorm" and len(values) > 2 and values[2] is not None
    return replace(x, zero=x.zero and not shifted, value=None)

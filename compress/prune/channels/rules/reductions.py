"""Raw operations that reduce axes or run along one: sums, means, extremes, sorting."""

from __future__ import annotations

from dataclasses import replace

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._operands import arguments, arranged, axes_of, symbolic

# zero entries on a reduced axis change nothing
_SUMS = frozenset(["Sum", "Nansum", "Any", "CountNonzero"])
# the number that all reduced entries hold
_KEEPS_VALUE = {
    "Mean", "Max", "Min", "Amax", "Amin", "Median", "Nanmean", "Nanmax", "Nanmin", "Nanmedian",
    "Average",
}  # fmt: skip


@operation_rule(
    "All", "Any", "Amax", "Amin", "Argmax", "Argmin", "CountNonzero", "Logsumexp", "Max", "Mean",
    "Median", "Min", "Nanargmax", "Nanargmin", "Nanmax", "Nanmean", "Nanmedian", "Nanmin",
    "Nanprod", "Nanstd", "Nansum", "Nanvar", "Norm", "Prod", "Ptp", "Std", "Sum", "Var",
)  # fmt: skip
def reduction(call: LayerCall) -> Slots:
    """Sums of zeros may lose entries; other reductions fix the axes that they reduce."""
    op, x = call.layer, call.inputs[0]
    axes = axes_of(op.axis, len(x.shape))
    return _reduced(call, axes, bool(getattr(op, "keepdims", False)))


@operation_rule("Average")
def average(call: LayerCall) -> Slots:
    """A mean; a weighted one has no rule."""
    if arguments(call).get("weights") is not None:
        return call.unknown("weighted averages have no rule")[0]
    return _reduced(call, axes_of(call.layer.axis, len(call.inputs[0].shape)), False)


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
        reduced = [axis for axis in axes if axis in x.tracked]
        call.barrier(x, f"{kind.lower()} reduces it", reduced)
    sources: list[int | None] = [
        None if axis in axes else axis
        for axis in range(len(x.shape))
        if keepdims or axis not in axes
    ]
    same = kind != "Logsumexp" and getattr(call.layer, "initial", None) is None
    value = x.value if kind in _KEEPS_VALUE and same else None
    return replace(arranged(call, x, sources), zero=x.zero and same, value=value)


def _adds_up(call: LayerCall, axes: tuple[int, ...]) -> bool:
    """Tells whether zeros on the reduced axes change nothing."""
    op = call.layer
    if type(op).__name__ == "Norm":
        vector = op.axis is None or len(axes) == 1
        return vector and op.ord in (None, 1, 2, "fro")
    return type(op).__name__ in _SUMS


@operation_rule("Cumsum", "Cumprod", "Nancumsum", "Nancumprod", "Sort", "Diff")
def along(call: LayerCall) -> Slots:
    """Runs along one axis, which stays whole."""
    return _along(call, zero=call.inputs[0].zero)


@operation_rule("Argsort")
def argsort(call: LayerCall) -> Slots:
    """Positions along one axis, which stays whole."""
    return _along(call, zero=False)


@operation_rule("TopK")
def top_k(call: LayerCall) -> list[Slots]:
    """Largest entries of the last axis, which stays whole, and their positions."""
    x = call.inputs[0]
    call.barrier(x, "topk runs along it", [x.tracked[-1]] if x.axes[-1] is not None else [])
    sources: list[int | None] = [*range(len(x.shape) - 1), None]
    values = arranged(call, x, sources)
    return [values, replace(values, zero=False, value=None)]


@operation_rule("Tril", "Triu")
def triangle(call: LayerCall) -> Slots:
    """Sets a triangle of the last two axes, which stay whole, to zero."""
    x = call.inputs[0]
    rank = len(x.shape)
    ends = [axis for axis in x.tracked if axis >= rank - 2]
    call.barrier(x, f"{type(call.layer).__name__.lower()} depends on its positions", ends)
    return replace(x, value=None)


@operation_rule("Normalize")
def normalize(call: LayerCall) -> Slots:
    """Divides by the norm over the kept entries of its axes."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    if not x.zero:
        call.barrier(x, "a norm sums over it", [axis for axis in axes if axis in x.tracked])
    return replace(x, value=None)


@operation_rule("LayerNorm", "RMSNorm")
def normalized(call: LayerCall) -> Slots:
    """Statistics of fixed axes alone; scales that are tensors have no rule."""
    values = list(arguments(call).values())
    if any(symbolic(value) for value in values[1:]):
        return call.unknown("normalization by tensors has no rule")[0]
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    call.barrier(x, "a normalization reduces it", [axis for axis in axes if axis in x.tracked])
    kind = type(call.layer).__name__
    shifted = kind == "LayerNorm" and len(values) > 2 and values[2] is not None
    return replace(x, zero=x.zero and not shifted, value=None)


def _along(call: LayerCall, zero: bool) -> Slots:
    x = call.inputs[0]
    kind = type(call.layer).__name__.lower()
    if call.layer.axis is None:
        return call.unknown(f"{kind} without an axis folds all axes")[0]
    axis = call.layer.axis % len(x.shape)
    call.barrier(x, f"{kind} runs along it", [axis] if axis in x.tracked else [])
    sources: list[int | None] = [None if at == axis else at for at in range(len(x.shape))]
    return replace(arranged(call, x, sources), zero=zero, value=None)

"""Raw operations that reduce axes or run along one: sums, means, extremes, sorting."""

from __future__ import annotations

from dataclasses import replace

from compress.prune.channels.coupling.call import Site
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
def reduction(site: Site) -> Slots:
    """Sums of zeros may lose entries; other reductions fix the axes that they reduce."""
    op, x = site.layer, site.inputs[0]
    axes = axes_of(op.axis, len(x.shape))
    return _reduced(site, axes, bool(getattr(op, "keepdims", False)))


@operation_rule("Average")
def average(site: Site) -> Slots:
    """A mean; a weighted one has no rule."""
    if arguments(site).get("weights") is not None:
        return site.unknown("weighted averages have no rule")[0]
    return _reduced(site, axes_of(site.layer.axis, len(site.inputs[0].shape)), False)


@operation_rule("Moments")
def moments(site: Site) -> list[Slots]:
    """Mean and variance."""
    op, x = site.layer, site.inputs[0]
    out = _reduced(site, axes_of(op.axes, len(x.shape)), bool(op.keepdims))
    return [out, replace(out, value=None)]


def _reduced(site: Site, axes: tuple[int, ...], keepdims: bool) -> Slots:
    x = site.inputs[0]
    kind = type(site.layer).__name__
    if not (x.zero and _adds_up(site, axes)):
        reduced = [axis for axis in axes if axis in x.tracked]
        site.barrier(x, f"{kind.lower()} reduces it", reduced)
    sources: list[int | None] = [
        None if axis in axes else axis
        for axis in range(len(x.shape))
        if keepdims or axis not in axes
    ]
    same = kind != "Logsumexp" and getattr(site.layer, "initial", None) is None
    value = x.value if kind in _KEEPS_VALUE and same else None
    return replace(arranged(site, x, sources), zero=x.zero and same, value=value)


def _adds_up(site: Site, axes: tuple[int, ...]) -> bool:
    """Tells whether zeros on the reduced axes change nothing."""
    op = site.layer
    if type(op).__name__ == "Norm":
        vector = op.axis is None or len(axes) == 1
        return vector and op.ord in (None, 1, 2, "fro")
    return type(op).__name__ in _SUMS


@operation_rule("Cumsum", "Cumprod", "Nancumsum", "Nancumprod", "Sort", "Diff")
def along(site: Site) -> Slots:
    """Runs along one axis, which stays whole."""
    return _along(site, zero=site.inputs[0].zero)


@operation_rule("Argsort")
def argsort(site: Site) -> Slots:
    """Positions along one axis, which stays whole."""
    return _along(site, zero=False)


@operation_rule("TopK")
def top_k(site: Site) -> list[Slots]:
    """Largest entries of the last axis, which stays whole, and their positions."""
    x = site.inputs[0]
    site.barrier(x, "topk runs along it", [x.tracked[-1]] if x.axes[-1] is not None else [])
    sources: list[int | None] = [*range(len(x.shape) - 1), None]
    values = arranged(site, x, sources)
    return [values, replace(values, zero=False, value=None)]


@operation_rule("Tril", "Triu")
def triangle(site: Site) -> Slots:
    """Sets a triangle of the last two axes, which stay whole, to zero."""
    x = site.inputs[0]
    rank = len(x.shape)
    ends = [axis for axis in x.tracked if axis >= rank - 2]
    site.barrier(x, f"{type(site.layer).__name__.lower()} depends on its positions", ends)
    return replace(x, value=None)


@operation_rule("Normalize")
def normalize(site: Site) -> Slots:
    """Divides by the norm over the kept entries of its axes."""
    x = site.inputs[0]
    axes = axes_of(site.layer.axis, len(x.shape))
    if not x.zero:
        site.barrier(x, "a norm sums over it", [axis for axis in axes if axis in x.tracked])
    return replace(x, value=None)


@operation_rule("LayerNorm", "RMSNorm")
def normalized(site: Site) -> Slots:
    """Statistics of fixed axes alone; scales that are tensors have no rule."""
    values = list(arguments(site).values())
    if any(symbolic(value) for value in values[1:]):
        return site.unknown("normalization by tensors has no rule")[0]
    x = site.inputs[0]
    axes = axes_of(site.layer.axis, len(x.shape))
    site.barrier(x, "a normalization reduces it", [axis for axis in axes if axis in x.tracked])
    kind = type(site.layer).__name__
    shifted = kind == "LayerNorm" and len(values) > 2 and values[2] is not None
    return replace(x, zero=x.zero and not shifted, value=None)


def _along(site: Site, zero: bool) -> Slots:
    x = site.inputs[0]
    kind = type(site.layer).__name__.lower()
    if site.layer.axis is None:
        return site.unknown(f"{kind} without an axis folds all axes")[0]
    axis = site.layer.axis % len(x.shape)
    site.barrier(x, f"{kind} runs along it", [axis] if axis in x.tracked else [])
    sources: list[int | None] = [None if at == axis else at for at in range(len(x.shape))]
    return replace(arranged(site, x, sources), zero=zero, value=None)

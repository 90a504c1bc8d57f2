"""Scalars of a graph of TensorFlow that are known without running it: limits of loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

DEEPEST = 32
"""Operations that are followed back from a scalar."""
MOST = 4096
"""Numbers of a tensor on the way; a larger one is no size."""


def number_of(tensor: Any) -> float | None:
    """Returns the value of a scalar of whole numbers; None: it is none, or not known."""
    if tensor.shape.rank != 0 or not tensor.dtype.is_integer:
        return None
    value = _value(tensor, DEEPEST)
    return None if value is None else float(value)


def _value(tensor: Any, left: int) -> Any:
    import tensorflow as tf

    size = tensor.shape.num_elements()
    if not left or (size is not None and size > MOST):
        return None
    operation = tensor.op
    if operation.type in ("Placeholder", "While", "If"):
        return None
    rule = _RULES.get(operation.type)
    if rule is None:
        return tf.get_static_value(tensor) if operation.type in _STATIC else None
    given = [_value(item, left - 1) for item in operation.inputs]
    if any(value is None for value in given):
        return None
    try:
        return rule(operation, *given)
    except (ValueError, IndexError, TypeError):
        return None


def _slice(operation: Any, values: Any, begin: Any, *_: Any) -> Any:
    """One entry of a vector, as `shape[0]` takes it."""
    one = operation.get_attr("shrink_axis_mask") == 1 and len(begin) == 1
    if not one or operation.get_attr("ellipsis_mask") or operation.get_attr("new_axis_mask"):
        return None
    return np.asarray(values)[int(begin[0])]


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(_: Any, values: Any, axes: Any) -> Any:
        # over no axes: the values themselves
        return function(values, axis=tuple(np.atleast_1d(axes).astype(int)))

    return reduce


def _two(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, one, other: function(one, other)


_STATIC = ("Const", "Shape", "Size", "Rank")
_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, value: value,
    "Cast": lambda operation, value: np.asarray(value).astype(
        operation.outputs[0].dtype.as_numpy_dtype
    ),
    "StridedSlice": _slice,
    "Range": lambda _, first, last, step: np.arange(first, last, step),
    "Max": _reduced(np.max),
    "Min": _reduced(np.min),
    "Prod": _reduced(np.prod),
    "Pack": lambda operation, *values: np.stack(values, operation.get_attr("axis")),
    "Maximum": _two(np.maximum),
    "Minimum": _two(np.minimum),
    **dict.fromkeys(("Add", "AddV2"), _two(np.add)),
    "Sub": _two(np.subtract),
    "Mul": _two(np.multiply),
    "FloorDiv": _two(np.floor_divide),
}

"""Arrays of examples and labels: the forms that are taken, and what parts of a data set must be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.task import has_classes

if TYPE_CHECKING:
    from compress.data._base import Split

Array = npt.NDArray[np.generic]


def check_split(
    split: Split, part: str, name: str, num_classes: int, kind: str = "multiclass"
) -> None:
    """Checks one part of a data set.

    Raises:
        InputError: See `Dataset`.
    """
    if len(split.x) != len(split.y):
        raise InputError(
            f"x and y of the {part} part of '{name}' must have equal lengths. "
            f"Received: {len(split.x)} and {len(split.y)}."
        )
    if len(split) == 0:
        raise InputError(f"The {part} part of '{name}' must not be empty. Received: 0 examples.")
    _check_labels(split.y, part, name, num_classes, kind)
    weight = split.weight
    if weight is not None:
        shaped = weight.shape == (len(split),)
        if not shaped or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
            smallest = f", smallest {weight.min():g}" if weight.size else ""
            raise InputError(
                f"Weights of '{name}' must be one finite number an example, at least 0, not all "
                f"0. Received: shape {weight.shape}{smallest} in the {part} part."
            )
    if split.x.dtype.kind == "f" and not is_finite(split.x):
        raise InputError(
            f"Examples of '{name}' must be finite. Received: NaN or infinity in the {part} part."
        )


def is_finite(x: Array) -> bool:
    """Tells whether all numbers are finite, without a mark for every one of them at a time."""
    rows = max(1, 2**24 // max(1, math.prod(x.shape[1:])))
    return all(np.isfinite(x[at : at + rows]).all() for at in range(0, len(x), rows))


def _check_labels(
    labels: npt.NDArray[Any], part: str, name: str, num_classes: int, kind: str
) -> None:
    if has_classes(kind):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            shifted = low == 1 and high == num_classes
            hint = " Do they start at 1? Class indices start at 0: subtract 1." if shifted else ""
            raise InputError(
                f"Labels of '{name}' must be in [0, {num_classes}) ({num_classes} classes). "
                f"Received: {low if low < 0 else high} in the {part} part.{hint}"
            )
        return
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise InputError(
            f"Labels of '{name}' must have shape (n, {num_classes}). Received: {labels.shape} in "
            f"the {part} part."
        )
    if kind == "multilabel" and not np.isin(labels, (0, 1)).all():
        raise InputError(f"Labels of '{name}' must be 0 or 1. Received: others in the {part} part.")
    if not np.isfinite(labels).all():
        raise InputError(f"Labels of '{name}' must be finite. Received: NaN or infinity.")


def as_labels(labels: Array, name: str, kind: str = "multiclass") -> npt.NDArray[Any]:
    """Returns `labels` as the task wants them.

    Args:
        labels: Class indices, shape (n,) or (n, 1), any integer type; several labels
            (n, labels), 0 or 1; numbers (n,) or (n, targets).
        name: The array's name, for the error.
        kind: Of the task.

    Raises:
        InputError: Another shape or type (one-hot rows, floating point).
    """
    if kind != "multilabel" and not has_classes(kind):
        if labels.ndim not in (1, 2) or labels.dtype.kind not in "fiub":
            raise InputError(
                f"{name} must be numbers of shape (n,) or (n, targets). Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        labels = labels[:, np.newaxis] if labels.ndim == 1 else labels
        if not labels.shape[1]:
            raise InputError(f"{name} must have at least one target. Received: none.")
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            return labels.astype(np.float32)
    if kind == "multilabel":
        numbers = labels.dtype.kind in "fiub" and labels.ndim == 2 and labels.shape[1]
        if not numbers or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{name} must be rows of 0 and 1, one column a label. Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        return labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise InputError(
            f"{name} must be a vector of integer class indices. "
            f"Received: shape {labels.shape}, type {labels.dtype}.{_other_task(labels)}"
        )
    return labels.astype(np.int64)


def _other_task(labels: Array) -> str:
    """Returns which task labels that are no class indices are likely to be of, as a hint."""
    if labels.dtype.kind not in "fiub" or not labels.size:
        return ""
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all():
        if (labels.sum(axis=1) == 1).all():
            return " Are they one-hot? Give their argmax, or --task multilabel for several labels."
        return " Several labels an example? Give --task multilabel."
    if labels.dtype.kind == "f" and labels.ndim in (1, 2):
        return " Numbers to predict? Give --task regression; classes: as integers."
    return ""


def as_examples(examples: Array, name: str) -> Array:
    """Returns `examples` with a channel axis on grey images; numbers only.

    Args:
        examples: Shape (n, features), (n, H, W) or (n, H, W, C).
        name: The array's name, for the error.

    Raises:
        InputError: Not numeric, no example axis, or nothing in an example.
    """
    if examples.dtype.kind not in "fiub" or examples.ndim < 2:
        raise InputError(
            f"{name} must be numbers of shape (n, features), (n, height, width) or "
            f"(n, height, width, channels). Received: shape {examples.shape}, "
            f"type {examples.dtype}."
        )
    if 0 in examples.shape[1:]:
        raise InputError(
            f"{name} must have at least one number an example. Received: shape {examples.shape}."
        )
    if examples.dtype.kind == "f" and examples.dtype != np.float32:
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            examples = examples.astype(np.float32)
    return examples[..., np.newaxis] if examples.ndim == 3 else examples

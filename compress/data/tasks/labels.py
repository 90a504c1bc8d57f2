"""Labels as data hold them, made of what users write: what each kind of task takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError

Array = npt.NDArray[Any]


def indices(labels: Array, name: str) -> npt.NDArray[np.int64]:
    """Returns class indices, (n,), of (n,) or (n, 1).

    Raises:
        InputError: Another shape or type (one-hot rows, floating point).
    """
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
    if labels.ndim >= 2 and labels.dtype.kind in "iub":
        return " A class at every position? Give --task segmentation (images) or tagging."
    return ""


def indices_by_position(
    labels: Array, name: str, positions: int, classes: int, void: int
) -> npt.NDArray[np.int32]:
    """Returns class indices with an axis for each position's, int32.

    Args:
        labels: (n, positions ...); with an axis of one number, or of one-hot rows, behind.
        name: The array's name, for the error.
        positions: How many axes positions have; 0: those that labels have.
        classes: How many there are; 0: that is not known.
        void: The index of what is not judged. In bytes, which are never negative, it is 255.

    Raises:
        InputError: Another shape or type.
    """
    rank = labels.ndim - 1
    if positions and rank == positions + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    elif positions and rank == positions + 1 and labels.shape[-1] == classes:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all()):
            raise InputError(f"{name} must be class indices or one-hot. Received: other rows.")
        labels = labels.argmax(-1)
    whole = labels.dtype.kind in "iub" or (
        labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
    )
    if labels.ndim < 2 or (positions and labels.ndim - 1 != positions) or not whole:
        shape = "(n, ...)" if not positions else f"(n, {', '.join(['size'] * positions)})"
        raise InputError(
            f"{name} must be class indices, one a position, of shape {shape}. Received: shape "
            f"{labels.shape}, type {labels.dtype}."
        )
    found = labels.astype(np.int32)
    if labels.dtype == np.uint8 and classes <= 255:
        found[labels == 255] = void
    return found


def yes_or_no(labels: Array, name: str) -> npt.NDArray[np.int64]:
    """Returns rows of 0 and 1, one column a label.

    Raises:
        InputError: Others.
    """
    numbers = labels.dtype.kind in "fiub" and labels.ndim == 2 and labels.shape[1]
    if not numbers or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"{name} must be rows of 0 and 1, one column a label. Received: shape "
            f"{labels.shape}, type {labels.dtype}."
        )
    return labels.astype(np.int64)


def yes_or_no_by_position(labels: Array, name: str, positions: int) -> npt.NDArray[np.int8]:
    """Returns masks of 0 and 1, (n, positions ..., masks), of bytes.

    Args:
        labels: (n, positions ..., masks); of one mask without the last axis too.
        name: The array's name, for the error.
        positions: How many axes positions have; 0: all but the first and the last.

    Raises:
        InputError: Other numbers, or another rank.
    """
    if positions and labels.ndim == positions + 1:
        labels = labels[..., np.newaxis]
    fits = labels.ndim == positions + 2 if positions else labels.ndim > 2
    if not fits or labels.dtype.kind not in "fiub" or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"{name} must be masks of 0 and 1, (n, positions ..., masks). Received: shape "
            f"{labels.shape}, type {labels.dtype}."
        )
    return labels.astype(np.int8)


def numbers(labels: Array, name: str, positions: int = 0) -> npt.NDArray[np.float32]:
    """Returns numbers, (n, targets) or (n, positions ..., targets), float32.

    Args:
        labels: Likewise; of one target without the last axis too.
        name: The array's name, for the error.
        positions: How many axes positions have, where that is known.

    Raises:
        InputError: No numbers, or no target.
    """
    if labels.ndim < 1 or labels.dtype.kind not in "fiub":
        raise InputError(
            f"{name} must be numbers of shape (n,), (n, targets) or (n, positions ..., targets). "
            f"Received: shape {labels.shape}, type {labels.dtype}."
        )
    if labels.ndim == 1 or (positions and labels.ndim == positions + 1):
        labels = labels[..., np.newaxis]
    if 0 in labels.shape[1:]:
        raise InputError(f"{name} must have at least one target. Received: none.")
    with np.errstate(over="ignore"):  # infinity is refused later, and in words
        return labels.astype(np.float32)


def check_range(labels: Array, part: str, name: str, classes: int) -> None:
    """Checks that class indices are of that many classes.

    Raises:
        InputError: One is not.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high >= classes:
        shifted = low == 1 and high == classes
        hint = " Do they start at 1? Class indices start at 0: subtract 1." if shifted else ""
        raise InputError(
            f"Labels of '{name}' must be in [0, {classes}) ({classes} classes). "
            f"Received: {low if low < 0 else high} in the {part} part.{hint}"
        )


def check_rows(labels: Array, part: str, name: str, columns: int) -> None:
    """Checks that labels are finite, with one number a column.

    Raises:
        InputError: They are not.
    """
    if labels.ndim < 2 or labels.shape[-1] != columns:
        raise InputError(
            f"Labels of '{name}' must have shape (n, {columns}). Received: {labels.shape} in "
            f"the {part} part."
        )
    if not np.isfinite(labels).all():
        raise InputError(f"Labels of '{name}' must be finite. Received: NaN or infinity.")

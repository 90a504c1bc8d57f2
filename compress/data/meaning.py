"""What labels mean: the task that they and a model's head tell of, and how they are read then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.examples import Array, as_labels
from compress.task import has_classes


@dataclass(frozen=True)
class Head:
    """What of a model says how labels are meant.

    Attributes:
        activation: "softmax", "sigmoid" or "linear" (none, so that outputs are logits or numbers).
        outputs: The width of its output.
        input_shape: Of one example; open sizes are None.
    """

    activation: str
    outputs: int
    input_shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Meaning:
    """What labels mean.

    Attributes:
        kind: Of the task.
        names: Number of classes, labels or targets; 0: as many as labels tell.
        one_hot: Rows have one 1, at the class.
        whole: Class indices that are written as floating point.
        notes: How it was told, for reports.
    """

    kind: str
    names: int = 0
    one_hot: bool = False
    whole: bool = False
    notes: tuple[str, ...] = ()

    def read(self, labels: Array, name: str) -> npt.NDArray[Any]:
        """Returns labels as a data set holds them.

        Raises:
            InputError: They are of another kind.
        """
        if self.one_hot:
            if labels.ndim != 2 or not _is_one_hot(labels):
                raise InputError(
                    f"{name} must be rows with one 1 each, as the training labels are. Received: "
                    f"shape {labels.shape}."
                )
            return as_labels(labels.argmax(axis=1), name, self.kind)
        if self.whole and labels.dtype.kind == "f" and _is_whole(labels):
            labels = labels.astype(np.int64)
        return as_labels(labels, name, self.kind)


def meaning_of(y: Array, head: Head | None, task: str | None) -> Meaning:
    """Tells what labels mean.

    Args:
        y: (n,), (n, 1) or (n, columns).
        head: Of the model, where there is one.
        task: What the user says; None: labels and head tell.

    Raises:
        InputError: They disagree.
    """
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if y.ndim > 2 or not y.size:
        raise InputError(
            f"y must have shape (n,) or (n, columns), n at least 1. Received: {y.shape}."
        )
    if task is not None:
        return _said(y, head, task, column)
    width, ends = (head.outputs, head.activation) if head is not None else (0, "")
    kind, why = _of_column(y, width, ends) if column else _of_rows(y, ends)
    one_hot = kind == "multiclass" and not column
    whole = has_classes(kind) and column and y.dtype.kind == "f"
    found = "one-hot rows" if one_hot else "whole numbers" if whole else why
    note = f"task {kind}, inferred from the labels ({found})"
    if head is not None:
        note += f" and the model's head ({ends}, {width} outputs)" if width else ""
    notes = (f"{note}; task= overrides it",)
    return Meaning(kind, _names(kind, y, head, column), one_hot, whole, notes)


def _said(y: Array, head: Head | None, task: str, column: bool) -> Meaning:
    """Reads labels as the user says they are meant."""
    one_hot = task == "multiclass" and not column and _is_one_hot(y)
    whole = has_classes(task) and column and y.dtype.kind == "f" and _is_whole(y)
    notes = ("labels are one-hot rows: the class is the position of the 1",) if one_hot else ()
    return Meaning(task, _names(task, y, head, column), one_hot, whole, notes)


def _names(kind: str, y: Array, head: Head | None, column: bool) -> int:
    """Returns the number of classes, labels or targets."""
    if kind == "binary":
        return 2
    if kind == "multiclass":
        # a model knows classes that these examples may lack
        return head.outputs if head is not None else (0 if column else y.shape[1])
    return 1 if column else int(y.shape[1])


def _of_column(y: Array, width: int, ends: str) -> tuple[str, str]:
    """Returns the task of one number an example, and what it shows by."""
    yes_no = bool(np.isin(y, (0, 1)).all())
    if y.dtype.kind == "f":
        if ends == "sigmoid" and width == 1 and yes_no:
            return "binary", "0 and 1"
        if (ends == "softmax" or width > 1) and _is_whole(y) and ends != "sigmoid":
            return "multiclass", "whole numbers"
        if ends == "softmax":
            raise InputError(
                "y must be class indices or one-hot rows for a model that ends in softmax. "
                "Received: numbers with fractions."
            )
        return "regression", "floating point"
    if width == 1 and ends == "sigmoid":
        return "binary", "0 and 1"
    if width == 1 and ends == "linear":
        return ("binary", "0 and 1") if yes_no else ("regression", "numbers")
    return "multiclass", "class indices"


def _of_rows(y: Array, ends: str) -> tuple[str, str]:
    """Returns the task of several numbers an example."""
    zeros_and_ones = bool(np.isin(y, (0, 1)).all())
    if ends == "sigmoid" and zeros_and_ones:
        return "multilabel", "rows of 0 and 1"
    if zeros_and_ones and _is_one_hot(y):
        return "multiclass", "one-hot rows"
    if ends == "softmax":
        raise InputError(
            "y must be class indices or one-hot rows for a model that ends in softmax. Received: "
            f"rows of shape {y.shape} that are not one-hot. Of probabilities give the argmax."
        )
    if zeros_and_ones:
        return "multilabel", "rows of 0 and 1"
    return "regression", "rows of numbers"


def _is_one_hot(rows: Array) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _is_whole(labels: Array) -> bool:
    return bool(np.isfinite(labels).all() and (labels == np.floor(labels)).all())

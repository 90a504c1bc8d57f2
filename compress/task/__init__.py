"""Tasks: what labels mean, and how outputs are trained and judged; one file a kind."""

from __future__ import annotations

from compress.errors import unknown_name
from compress.task._base import Array, Floats, Task
from compress.task.multiclass import MultiClass
from compress.task.regression import Regression
from compress.task.words import ERRORS, MEANING, UNBOUNDED
from compress.task.yes_no import Binary, MultiLabel

__all__ = [
    "Array",
    "Binary",
    "ERRORS",
    "Floats",
    "KINDS",
    "MEANING",
    "MultiClass",
    "MultiLabel",
    "QUALITIES",
    "Regression",
    "Task",
    "UNBOUNDED",
    "make_task",
]

KINDS = ("multiclass", "binary", "multilabel", "regression")
QUALITIES = tuple(
    dict.fromkeys(
        name for task in (MultiClass, Binary, MultiLabel, Regression) for name in task.qualities
    )
)
"""What can be selected by, in any task."""


def make_task(kind: str, names: int, labels: Array | None = None) -> Task:
    """Returns the task of a kind.

    Args:
        kind: One of `KINDS`.
        names: How many classes, labels or targets there are.
        labels: Of the training part; a regression's say what guessing costs.

    Raises:
        InputError: Unknown kind.
    """
    if kind == "multiclass":
        return MultiClass(names)
    if kind == "binary":
        return Binary()
    if kind == "multilabel":
        return MultiLabel(names)
    if kind == "regression":
        return Regression(names) if labels is None else Regression.of(labels)
    raise unknown_name("kind of task", kind, KINDS)

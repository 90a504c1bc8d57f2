"""Tasks: what labels mean, and how outputs are trained and judged; one file a kind."""

from __future__ import annotations

from compress.core.plugins import TASKS
from compress.data.tasks._base import Array, Floats, Task
from compress.data.tasks.by_position import VOID, Segmentation, Tagging
from compress.data.tasks.custom import SKILL, Custom
from compress.data.tasks.masks import Masks
from compress.data.tasks.multiclass import MultiClass
from compress.data.tasks.reconstruction import Reconstruction
from compress.data.tasks.regression import Regression
from compress.data.tasks.several import MEAN, Several
from compress.data.tasks.text import (
    ERRORS,
    MEANING,
    UNBOUNDED,
    in_units,
    is_quality,
    is_share,
    meaning,
    output_of,
)
from compress.data.tasks.unlabelled import Answers
from compress.data.tasks.yes_no import Binary, MultiLabel

__all__ = [
    "Answers",
    "Array",
    "Binary",
    "CUSTOM",
    "Custom",
    "ERRORS",
    "Floats",
    "MEAN",
    "MEANING",
    "Masks",
    "MultiClass",
    "MultiLabel",
    "Reconstruction",
    "Regression",
    "Segmentation",
    "Several",
    "TASKS",
    "Tagging",
    "Task",
    "UNBOUNDED",
    "UNLABELLED",
    "VOID",
    "has_classes",
    "has_positions",
    "in_units",
    "is_quality",
    "is_share",
    "output_of",
    "make_task",
    "meaning",
    "needs_labels",
    "qualities",
]


CUSTOM = Custom.name
"""The kind of task of a model's own loss and metrics, as it was compiled with them."""
UNLABELLED = Answers.name
"""The kind of task of data without labels: a model's answers stand for them."""


def has_classes(kind: str) -> bool:
    """Tells whether the labels of a kind of task are indices of classes.

    Raises:
        InputError: Unknown kind.
    """
    return bool(TASKS[kind].indices)


def has_positions(kind: str) -> bool:
    """Tells whether the labels of a kind of task are arrays of class indices, one a position.

    Raises:
        InputError: Unknown kind.
    """
    return bool(TASKS[kind].classes)


def needs_labels(kind: str) -> bool:
    """Tells whether data of a kind of task must come with labels.

    Raises:
        InputError: Unknown kind.
    """
    return kind != UNLABELLED and not TASKS[kind].of_inputs


def qualities() -> tuple[str, ...]:
    """Returns what can be selected by in some task, one that was registered too."""
    # those of several outputs and of compiled models have names that only data and models tell
    own = (TASKS[kind].qualities for kind in TASKS if kind not in (Several.name, Custom.name))
    return tuple(dict.fromkeys((*(name for names in own for name in names), MEAN, SKILL)))


def make_task(kind: str, names: int, labels: Array | None = None) -> Task:
    """Returns the task of a kind.

    Args:
        kind: A name in `compress.core.plugins.TASKS`.
        names: How many classes, labels or targets there are.
        labels: Of the training part; a regression's say what guessing costs.

    Raises:
        InputError: Unknown kind.
    """
    task: Task = TASKS[kind].for_labels(names, labels)
    return task

"""Tasks: the meaning of labels, losses, metrics and the metrics' names."""

from __future__ import annotations

from compress.data.tasks._base import Array, Floats, Task
from compress.data.tasks.classes import VOID, MultiClass, Segmentation, Tagging
from compress.data.tasks.model_tasks import COMPILED, MEAN, SKILL, Answers, Custom, Several
from compress.data.tasks.regression import Reconstruction, Regression
from compress.data.tasks.yes_no import Binary, Masks, MultiLabel
from compress.plugins import TASKS

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
MEANING = {
    "accuracy": ("Accuracy", "Share of right answers"),
    "f1_macro": ("F1", "Mean of F1 over the classes that occur"),
    "precision_macro": ("Precision", "Mean of precision over the classes that occur"),
    "recall_macro": ("Recall", "Mean of recall over the classes that occur"),
    "f1": ("F1", "F1 of the second class"),
    "precision": ("Precision", "Precision of the second class"),
    "recall": ("Recall", "Recall of the second class"),
    "roc_auc": ("ROC AUC", "Area under the ROC curve"),
    "f1_micro": ("F1 (pooled)", "F1 over the decisions of all labels together"),
    "exact_match": ("Exact match", "Share of examples whose labels are all right"),
    "mean_iou": ("Mean IoU", "Mean over classes of intersection over union"),
    "dice": ("Dice", "Mean over classes of Dice's coefficient (F1)"),
    "skill": ("Skill", "1 - loss / loss of answers to other examples"),
    "agreement": ("Agreement", "Share of decisions that are the given model's; of numbers R2"),
    "r2": ("R2", "Coefficient of determination, mean over targets"),
    "mae": ("MAE", "Mean absolute error"),
    "rmse": ("RMSE", "Root mean squared error"),
    "mean_quality": (
        "Mean quality",
        "Mean over outputs of the quality that each is judged by, each at least 0",
    ),
}
"""Title and sentence of each name that `Task.quality` returns."""
ERRORS = ("mae", "rmse")
"""These are in the targets' unit and less is better."""
UNBOUNDED = (*ERRORS, "r2", "skill")
"""These are no shares in [0, 1]."""


def has_classes(kind: str) -> bool:
    """Return whether the labels of a kind of task are indices of classes.

    Raises:
        InputError: Unknown kind.
    """
    return bool(TASKS[kind].indices)


def has_positions(kind: str) -> bool:
    """Return whether the labels of a kind of task are arrays of class indices, one a position.

    Raises:
        InputError: Unknown kind.
    """
    return bool(TASKS[kind].classes)


def needs_labels(kind: str) -> bool:
    """Return whether data of a kind of task must come with labels.

    Raises:
        InputError: Unknown kind.
    """
    return kind != UNLABELLED and not TASKS[kind].of_inputs


def qualities() -> tuple[str, ...]:
    """Return the metrics of all tasks, registered ones too, that can select a model."""
    # those of several outputs and of compiled models have names that only data and models tell
    own = (TASKS[kind].qualities for kind in TASKS if kind not in (Several.name, Custom.name))
    return tuple(dict.fromkeys((*(name for names in own for name in names), MEAN, SKILL)))


def make_task(kind: str, names: int, labels: Array | None = None) -> Task:
    """Return the task of a kind.

    Args:
        kind: A name in `compress.plugins.TASKS`.
        names: How many classes, labels or targets there are.
        labels: Of the training part; a regression's say what guessing costs.

    Raises:
        InputError: Unknown kind.
    """
    task: Task = TASKS[kind].for_labels(names, labels)
    return task


def meaning(name: str) -> tuple[str, str]:
    """Return title and description of a metric, with its output ("box.r2") where it has one."""
    output, own = output_of(name)
    if own.startswith(COMPILED):
        metric = own.removeprefix(COMPILED)
        title, sentence = metric, f"Metric '{metric}' that the model was compiled with"
    else:
        title, sentence = MEANING[own]
    if not output:
        return title, sentence
    return f"{title} ({output})", f"{sentence}; of output '{output}'"


def output_of(name: str) -> tuple[str, str]:
    """Return the output that a metric is of, "" where there is one, and the metric's own name."""
    before, sign, metric = name.partition(COMPILED)
    if sign:
        return before.removesuffix("."), sign + metric
    output, _, own = name.rpartition(".")
    return output, own


def is_quality(name: str) -> bool:
    """Return whether some task gives a quality of this name, of an output too."""
    own = output_of(name)[1]
    return own in MEANING or own.startswith(COMPILED)


def in_units(name: str) -> bool:
    """Return whether a quality has a unit of its own: it is no share to be shown in per cent."""
    own = output_of(name)[1]
    return own in ERRORS or own.startswith(COMPILED)


def is_share(name: str) -> bool:
    """Return whether a quality lies in [0, 1]."""
    own = output_of(name)[1]
    return own not in UNBOUNDED and not own.startswith(COMPILED)

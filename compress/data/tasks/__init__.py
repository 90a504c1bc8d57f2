"""Tasks: the interpretation of labels, losses, metrics and the metrics' names."""

from __future__ import annotations

from compress.data.tasks._base import Array, Floats, Task
from compress.data.tasks.binary import Binary, Masks, MultiLabel
from compress.data.tasks.classes import VOID, MultiClass, Segmentation, Tagging
from compress.data.tasks.model_tasks import (
    COMPILED_PREFIX,
    MEAN_METRIC,
    SKILL_METRIC,
    Answers,
    Custom,
    Several,
)
from compress.data.tasks.regression import Reconstruction, Regression
from compress.plugins import TASKS

__all__ = [
    "Answers",
    "Array",
    "Binary",
    "CUSTOM",
    "Custom",
    "ERRORS",
    "Floats",
    "MEAN_METRIC",
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
    "has_unit",
    "is_metric",
    "is_share",
    "split_metric_name",
    "create_task",
    "describe_metric",
    "needs_labels",
    "list_metrics",
]
CUSTOM = Custom.name
"""Kind of task of a compiled model with its own loss and metrics."""
UNLABELLED = Answers.name
"""Kind of task of data without labels, where a model's outputs are used as labels."""
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
        "Mean over outputs of the quality that each is evaluated with, each at least 0",
    ),
}
"""Title and description of each metric that `Task.quality` returns."""
ERRORS = ("mae", "rmse")
"""Metrics in the unit of the targets, for which less is better."""
UNBOUNDED = (*ERRORS, "r2", "skill")
"""Metrics that are not shares in [0, 1]."""


def has_classes(kind: str) -> bool:
    """Return whether the labels of a kind of task are class indices, one per example.

    Raises:
        InputError: The kind is unknown.
    """
    return bool(TASKS[kind].indices)


def has_positions(kind: str) -> bool:
    """Return whether the labels of a kind of task are arrays of class indices, one per position.

    Raises:
        InputError: The kind is unknown.
    """
    return bool(TASKS[kind].classes)


def needs_labels(kind: str) -> bool:
    """Return whether data of a kind of task must have labels.

    Raises:
        InputError: The kind is unknown.
    """
    return kind != UNLABELLED and not TASKS[kind].of_inputs


def list_metrics() -> tuple[str, ...]:
    """Return the metrics of all tasks, including registered ones, that can select a model."""
    # metric names of several outputs and compiled models depend on data and model
    task_metrics = (
        TASKS[kind].qualities for kind in TASKS if kind not in (Several.name, Custom.name)
    )
    return tuple(
        dict.fromkeys(
            (*(name for names in task_metrics for name in names), MEAN_METRIC, SKILL_METRIC)
        )
    )


def create_task(kind: str, num_classes: int, labels: Array | None = None) -> Task:
    """Return the task of a kind.

    Args:
        kind: A name in `compress.plugins.TASKS`.
        num_classes: Number of classes, labels or targets.
        labels: Labels of the training part. They determine the sizes of position axes, the chance
            loss of regression, and the activation of `UNLABELLED`.

    Raises:
        InputError: The kind is unknown.
    """
    task: Task = TASKS[kind].for_labels(num_classes, labels)
    return task


def describe_metric(name: str) -> tuple[str, str]:
    """Return title and description of a metric, including its output for names such as "box.r2"."""
    output, metric_name = split_metric_name(name)
    if metric_name.startswith(COMPILED_PREFIX):
        metric = metric_name.removeprefix(COMPILED_PREFIX)
        title, sentence = metric, f"Metric '{metric}' that the model was compiled with"
    else:
        title, sentence = MEANING[metric_name]
    if not output:
        return title, sentence
    return f"{title} ({output})", f"{sentence}; of output '{output}'"


def split_metric_name(name: str) -> tuple[str, str]:
    """Return the output of a metric, "" for a single output, and the name without the output."""
    before, sign, metric = name.partition(COMPILED_PREFIX)
    if sign:
        return before.removesuffix("."), sign + metric
    output, _, metric_name = name.rpartition(".")
    return output, metric_name


def is_metric(name: str) -> bool:
    """Return whether a name is a metric of some task, with or without an output."""
    metric_name = split_metric_name(name)[1]
    return metric_name in MEANING or metric_name.startswith(COMPILED_PREFIX)


def has_unit(name: str) -> bool:
    """Return whether a metric has a unit of its own, so that it is not shown in per cent."""
    metric_name = split_metric_name(name)[1]
    return metric_name in ERRORS or metric_name.startswith(COMPILED_PREFIX)


def is_share(name: str) -> bool:
    """Return whether a metric is in [0, 1]."""
    metric_name = split_metric_name(name)[1]
    return metric_name not in UNBOUNDED and not metric_name.startswith(COMPILED_PREFIX)

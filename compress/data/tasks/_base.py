"""Base class of tasks: labels, loss on logits and metrics; functions that tasks share."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import count_examples, map_columns, take_examples
from compress.core.errors import InputError
from compress.core.statistics import compute_jackknife_values

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
_CHUNK_LOGITS = 2**22
"""Number of logits compared at a time."""


class Task(ABC):
    """A kind of task: conversion of labels, training loss and metrics.

    Attributes:
        name: Name of the kind, as in `Dataset.kind`.
        activation: Function that maps logits to predictions: "softmax", "sigmoid" or "linear".
        qualities: Names of metrics in `quality` for which more is better; the first is the default
            selection metric. Each must be in `compress.data.tasks.MEANING`, which a custom task
            extends by its new names.
        indices: Whether a label is a single class index; else it is an array.
        classes: Whether a label is an array of class indices, one per position.
        of_inputs: Whether the labels are the model inputs themselves.
        shares: Metrics that are shares of examples, each of which is right or wrong.
        noun: Word for the class names of a data set: "classes", "labels", "targets", ...
        least_agreement: Smallest `agreement` of an exported file with its Keras model, in (0, 1],
            that is accepted by default; see `compress.measure.file_agreement` for its derivation.
        agrees_by_r2: Whether `agreement` is R^2 of numbers, not a share of equal decisions.
        label_smoothing: Share of a target that is moved to the other classes, in [0, 1).
        positions: Sizes of the axes of an output before its last one.
    """

    name: str
    activation: str
    qualities: tuple[str, ...]
    indices: bool = False
    classes: bool = False
    of_inputs: bool = False
    shares: tuple[str, ...] = ()
    noun: str = "outputs"
    least_agreement: float = 0.9
    agrees_by_r2: bool = False
    label_smoothing: float = 0.0
    positions: tuple[int, ...] = ()

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Task:
        """Return the task of a data set.

        Args:
            names: Number of classes, labels or targets.
            labels: Labels of the training part, if they are known.
        """
        make: Any = cls
        task: Task = make(names)
        return task

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return labels in the form of a data set: by default numbers, (n, ..., targets), float32.

        Args:
            labels: Labels in the user's form.
            name: Name of the array, for errors.
            shape: Shape of the model's output for one example; (): unknown.

        Raises:
            InputError: The labels do not fit this kind of task.
        """
        positions = max(0, len(shape) - 1)
        if labels.ndim < 1 or labels.dtype.kind not in "fiub":
            raise InputError(
                f"{name} must be numbers of shape (n,), (n, targets) or (n, positions ..., "
                f"targets). Received: shape {labels.shape}, type {labels.dtype}."
            )
        if labels.ndim == 1 or (positions and labels.ndim == positions + 1):
            labels = labels[..., np.newaxis]
        if 0 in labels.shape[1:]:
            raise InputError(f"{name} must have at least one target. Received: none.")
        with np.errstate(over="ignore"):  # infinity is rejected later, with a clear message
            return labels.astype(np.float32)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check the labels of a data set.

        Args:
            labels: Labels of one part.
            part: Name of the part, for errors.
            name: Name of the data, for errors.
            names: Number of classes, labels or targets.

        Raises:
            InputError: The labels are invalid.
        """
        check_rows(labels, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        """Return the number of classes, labels or targets in labels."""
        return int(labels.shape[-1])

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the number of examples of each class, label or target."""
        return [len(labels)] * names

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return the number of examples that `counts` implies; None if it is ambiguous."""
        return counts[0]

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The number of outputs of the head."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of a model's output for one example, the number of outputs last."""
        return (*self.positions, self.outputs)

    @abstractmethod
    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the loss per example (graph code).

        Args:
            labels: Labels in the form of the data set.
            logits: (batch, *output_shape), float32.

        Returns:
            (batch,), float32.
        """

    @abstractmethod
    def chance_loss(self) -> float:
        """Return an upper bound of the loss of the best constant prediction."""

    @abstractmethod
    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics of predictions by name.

        Args:
            labels: Labels in the form of the data set.
            scores: (n, *output_shape): logits or the model's outputs.
            threshold: Threshold of positive decisions in a sigmoid task: 0 for logits, 0.5 for
                probabilities.
        """

    def judged_by(self, metric: str) -> Task:
        """Return a copy of the task with another selection metric.

        Args:
            metric: One of `qualities`.
        """
        task = copy.copy(self)
        names = (metric, *(name for name in self.qualities if name != metric))
        vars(task).update(qualities=names)  # sets a field of a frozen dataclass
        return task

    @property
    def parts(self) -> dict[str, Task]:
        """The task of each output by its name; "" for a single output."""
        return {"": self}

    def share(self, metrics: dict[str, float]) -> float:
        """Return the value of the main metric that enters a mean over outputs, at least 0."""
        return max(0.0, metrics[self.qualities[0]])

    def tallies(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> Any:
        """Return terms of each example whose sums determine the metrics, (n, ...), or by name.

        None if the metrics cannot be computed from sums over examples.

        Args:
            labels: See `quality`.
            scores: See `quality`.
            threshold: See `quality`.
        """
        return None

    def compute_from_tallies(self, sums: Any) -> dict[str, float]:
        """Return the metrics from sums of `tallies` over examples."""
        raise NotImplementedError("this task's qualities are no sums over examples")

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return a mask of the right examples, (n,); None if the main metric is not their share.

        Args:
            labels: See `quality`.
            scores: See `quality`.
            threshold: See `quality`.
        """
        return None

    def example_values(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return values whose mean is the main metric, to compare models on the same examples.

        Args:
            labels: See `quality`.
            scores: See `quality`.
            threshold: See `quality`.

        Returns:
            (n,): 1 for right examples, else 0. If the main metric is not the share of right
            examples, pseudo-values of a jackknife, at most one for each of
            `compress.core.statistics.JACKKNIFE_GROUPS` groups of examples.
        """
        is_right = self.is_right(labels, scores, threshold=threshold)
        if is_right is not None:
            return is_right.astype(np.float64)
        main = self.qualities[0]
        tallies = self.tallies(labels, scores, threshold=threshold)

        def evaluate(index: npt.NDArray[np.int64]) -> float:
            if tallies is not None:
                sums = map_columns(lambda terms: terms[index].sum(0), tallies)
                return self.compute_from_tallies(sums)[main]
            # a metric may be undefined if only one class occurs
            sample = take_examples(labels, index), take_examples(scores, index)
            return self.quality(*sample, threshold=threshold).get(main, math.nan)

        return compute_jackknife_values(count_examples(scores), evaluate)

    @abstractmethod
    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield constant predictions, including the best one for each of the qualities.

        Args:
            labels: Labels in the form of the data set, at least one.

        Yields:
            Scores (n, *output_shape) with equal rows: logits, or numbers of a linear output.
        """

    def chance(self, labels: Array) -> float:
        """Return the main metric of the best constant prediction of these labels.

        Args:
            labels: Labels in the form of the data set, at least one.

        Example:
            >>> MultiClass(2).chance(np.array([0] * 9 + [1]))
            0.9
        """
        return self._find_best_constant(labels)[0]

    def _find_best_constant(self, labels: Array) -> tuple[float, Array]:
        """Return the main metric of the best constant prediction, and its scores."""
        main = self.qualities[0]
        results = []
        for scores in self.constants(labels):
            # a metric may be undefined if only one class occurs
            value = self.quality(labels, scores).get(main, 0.0)
            # avoid "-0" from rounding errors
            results.append((round(value, 12) + 0.0 if math.isfinite(value) else -math.inf, scores))
        return max(results, key=lambda result: result[0])

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return the standard error of the difference between a model's main metric and `chance`.

        Both are evaluated on the same examples. For a share of right predictions, this is McNemar's
        error with the largest possible number of examples that the two predict differently, as only
        the two shares are known. For other metrics, it is the error of two predictions that vary
        like the constant one.

        Args:
            labels: Labels in the form of the data set, at least one.
            quality: The model's main metric on these labels.

        Reference:
            McNemar 1947, "Note on the sampling error of the difference between correlated
            proportions or percentages".
        """
        chance, scores = self._find_best_constant(labels)
        if self.qualities[0] not in self.shares:
            values = self.example_values(labels, scores)
            return math.sqrt(2.0 / len(values)) * float(values.std())
        gain = quality - chance
        discordant = abs(gain) + 2 * max(0.0, min(1 - quality, chance))
        return math.sqrt(max(0.0, discordant - gain**2) / len(labels))

    @abstractmethod
    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal decisions; for numbers R^2 against the reference, at most 1.

        Args:
            scores: (n, *output_shape).
            reference: (n, *output_shape), on the same scale.
            threshold: See `quality`.
        """

    def error(self, labels: Array, logits: Floats) -> float:
        """Return the mean loss without label smoothing, averaged in float64.

        Args:
            labels: Labels in the form of the data set, at least one.
            logits: (n, *output_shape), float32.
        """
        plain: Any = replace(self, label_smoothing=0.0)  # type: ignore[type-var]
        total = 0.0
        rows = max(1, _CHUNK_LOGITS // max(1, logits[0].size))
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            total += float(np.sum(np.asarray(plain.loss(labels[part], logits[part]), np.float64)))
        return total / len(labels)


class TalliedTask(Task):
    """A task whose metrics are functions of sums over examples."""

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics from the sums of `tallies`; see `Task.quality`."""
        return self.compute_from_tallies(self.tallies(labels, scores, threshold=threshold).sum(0))

    @abstractmethod
    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the terms of each example, (n, terms, outputs); see `Task.tallies`."""

    @abstractmethod
    def compute_from_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the metrics from sums of `tallies` over examples."""


def check_range(labels: Array, part: str, name: str, classes: int) -> None:
    """Check that labels are class indices below the number of classes.

    Args:
        labels: Class indices of one part.
        part: Name of the part, for errors.
        name: Name of the data, for errors.
        classes: Number of classes.

    Raises:
        InputError: A label is out of range.
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
    """Check that labels are finite and have the given number of columns.

    Args:
        labels: Labels of one part, (n, ..., columns).
        part: Name of the part, for errors.
        name: Name of the data, for errors.
        columns: Size of the last axis.

    Raises:
        InputError: The shape is wrong, or a value is NaN or infinite.
    """
    if labels.ndim < 2 or labels.shape[-1] != columns:
        raise InputError(
            f"Labels of '{name}' must have shape (n, {columns}). Received: {labels.shape} in "
            f"the {part} part."
        )
    if not np.isfinite(labels).all():
        raise InputError(f"Labels of '{name}' must be finite. Received: NaN or infinity.")


def expand_row(row: Any, labels: Array, positions: tuple[int, ...] = ()) -> Array:
    """Return one prediction repeated for all examples and positions, as a view.

    Args:
        row: The prediction, (outputs,).
        labels: Labels, whose length is the number of examples.
        positions: Sizes of the position axes.

    Returns:
        (n, *positions, outputs).
    """
    values = np.asarray(row, np.float64)
    return np.broadcast_to(values, (len(labels), *positions, values.shape[-1]))


def compute_example_means(values: Any) -> Any:
    """Return the means over all axes but the first, (batch,) (graph code)."""
    import tensorflow as tf

    return tf.reduce_mean(values, axis=list(range(1, len(values.shape))))


def compute_overlap_metrics(correct: Any, predicted: Any, actual: Any) -> dict[str, float]:
    """Return mean IoU and Dice's coefficient over the predicted or actual classes.

    Args:
        correct, predicted, actual: Number of positions of each class that are predicted correctly,
            predicted, and actual, (classes,).
    """
    occurs = predicted + actual > 0
    overlap = correct[occurs] / (predicted + actual - correct)[occurs]
    dice = 2 * correct[occurs] / (predicted + actual)[occurs]
    return {
        "mean_iou": float(overlap.mean()) if occurs.any() else 0.0,
        "dice": float(dice.mean()) if occurs.any() else 0.0,
    }

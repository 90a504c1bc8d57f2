"""Base of tasks: labels, loss on logits and metrics; functions that tasks share."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import count, taken
from compress.core.errors import InputError
from compress.core.statistics import jackknife_values

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
_NUMBERS = 2**22
"""Of logits that are compared at a time."""


class Task(ABC):
    """How a model's outputs are read, trained and judged.

    Attributes:
        name: As `Dataset.kind` says it.
        activation: What turns logits into predictions: "softmax", "sigmoid" or "linear".
        qualities: Names that `quality` returns and more is better of; the first is the one
            that selects unless told otherwise. Each stands in `compress.data.tasks.MEANING`: a task
            of your own adds there what it calls otherwise.
        indices: Whether a label is one number: the index of a class; else it is an array.
        classes: Whether labels are an array of indices of classes, one a position.
        of_inputs: Whether labels are the inputs themselves, as the model is fed with them.
        shares: Those that are shares of examples, each of which is right or wrong.
        noun: What the names of a data set are of: "classes", "labels", "targets", ...
        least_agreement: The least `agreement` with its Keras model, in (0, 1], of a file that may
            ship unasked; see `compress.measure.quality`, which says where it comes from.
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
            names: How many classes, labels or targets there are.
            labels: Of the training part, where they are known.
        """
        make: Any = cls
        task: Task = make(names)
        return task

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return labels as data sets hold them: here numbers, (n, ..., targets), float32.

        Args:
            labels: As the user gives them.
            name: The array's name, for the error.
            shape: Of the output of the model that answers them, without the batch axis; (): it
                is not known.

        Raises:
            InputError: They are none of this kind of task.
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
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            return labels.astype(np.float32)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check labels that a data set holds.

        Args:
            labels: Of one part.
            part: Its name, for the error.
            name: Of the data.
            names: How many classes, labels or targets there are.

        Raises:
            InputError: They break a rule.
        """
        check_rows(labels, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        """Return the number of classes, labels or targets in labels."""
        return int(labels.shape[-1])

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return for each class, label or target how many examples have it."""
        return [len(labels)] * names

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return the number of examples behind `counts`; None where they do not tell."""
        return counts[0]

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The width of the head."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of a model's output for one example, the width of the head last."""
        return (*self.positions, self.outputs)

    @abstractmethod
    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the loss per example (graph code).

        Args:
            labels: As the data set holds them.
            logits: (batch, *output_shape), float32.

        Returns:
            (batch,), float32.
        """

    @abstractmethod
    def chance_loss(self) -> float:
        """Return an upper bound of the loss of a guess without inputs."""

    @abstractmethod
    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics of predictions by name.

        Args:
            labels: As the data set holds them.
            scores: (n, *output_shape): logits or the model's outputs.
            threshold: Of "yes" in a sigmoid task: 0 for logits, 0.5 for probabilities.
        """

    def judged_by(self, quality: str) -> Task:
        """Return the task with another of its qualities first: the one that selects.

        Args:
            quality: One of `qualities`.
        """
        other = copy.copy(self)
        names = (quality, *(name for name in self.qualities if name != quality))
        vars(other).update(qualities=names)  # of a frozen dataclass
        return other

    @property
    def parts(self) -> dict[str, Task]:
        """The task of each output by its name; "": there is one output."""
        return {"": self}

    def share(self, found: dict[str, float]) -> float:
        """Return the main metric as it counts in a mean over outputs, in [0, 1]: 0 is a guess."""
        return max(0.0, found[self.qualities[0]])

    @property
    def tally_shape(self) -> tuple[int, ...]:
        """The shape of an example's `tallies`; (): there are none."""
        return ()

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64] | None:
        """Return summands of each example whose sums give the metrics, (n, ...).

        None where qualities are of all examples at once, and no sums tell them.

        Args:
            labels, scores, threshold: See `quality`.
        """
        return None

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the qualities of sums over examples of `tallies`."""
        raise NotImplementedError("this task's qualities are no sums over examples")

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return which examples are right, (n,); None where the main metric is no share of these.

        Args:
            labels, scores, threshold: See `quality`.
        """
        return None

    def example_values(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return values whose mean is the main metric, to compare models on the same examples.

        Args:
            labels, scores, threshold: See `quality`.

        Returns:
            (n,): 1 for an example that is right, else 0. Where the main metric is no share of right
            examples pseudo-values of a jackknife, at most one for each of
            `compress.core.statistics.GROUPS` groups of examples.
        """
        right = self.is_right(labels, scores, threshold=threshold)
        if right is not None:
            return right.astype(np.float64)
        main = self.qualities[0]
        tallies = self.tallies(labels, scores, threshold=threshold)

        def evaluate(index: npt.NDArray[np.int64]) -> float:
            if tallies is not None:
                return self.of_tallies(tallies[index].sum(0))[main]
            # a quality may be undefined where one class alone occurs
            few = taken(labels, index), taken(scores, index)
            return self.quality(*few, threshold=threshold).get(main, math.nan)

        return jackknife_values(count(scores), evaluate)

    @abstractmethod
    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield constant answers, the best one in each of the qualities among them.

        Args:
            labels: As the data set holds them, at least one.

        Yields:
            Scores (n, *output_shape) whose rows are equal: logits, or numbers of a linear output.
        """

    def chance(self, labels: Array) -> float:
        """Return the main quality of the best constant answer to these labels.

        Args:
            labels: As the data set holds them, at least one.

        Example:
            >>> MultiClass(2).chance(np.array([0] * 9 + [1]))
            0.9
        """
        return self._best_constant(labels)[0]

    def _best_constant(self, labels: Array) -> tuple[float, Array]:
        """Return the main quality of the best constant answer, and its scores."""
        main = self.qualities[0]
        results = []
        for scores in self.constants(labels):
            # a quality may be undefined where one class alone occurs
            value = self.quality(labels, scores).get(main, 0.0)
            # rounding errors of an exact 0 would be printed with a sign
            results.append((round(value, 12) + 0.0 if math.isfinite(value) else -math.inf, scores))
        return max(results, key=lambda result: result[0])

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return the standard error of a model's main quality minus `chance`.

        Both are of the same examples. For a share of right answers, this is McNemar's error with
        the largest number of examples that the two answer differently, as only the two shares are
        known. For other qualities, it is that of two answers which vary like the constant one.

        Args:
            labels: As the data set holds them, at least one.
            quality: The model's main quality on these labels.

        Reference:
            McNemar 1947, "Note on the sampling error of the difference between correlated
            proportions or percentages".
        """
        chance, scores = self._best_constant(labels)
        if self.qualities[0] not in self.shares:
            values = self.example_values(labels, scores)
            return math.sqrt(2.0 / len(values)) * float(values.std())
        gain = quality - chance
        discordant = abs(gain) + 2 * max(0.0, min(1 - quality, chance))
        return math.sqrt(max(0.0, discordant - gain**2) / len(labels))

    @abstractmethod
    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal decisions; of numbers R^2 against the reference, at most 1.

        Args:
            scores: (n, *output_shape).
            reference: (n, *output_shape), on the same scale.
            threshold: See `quality`.
        """

    def error(self, labels: Array, logits: Floats) -> float:
        """Return the mean loss without label smoothing, in float64 where NumPy allows."""
        plain: Any = replace(self, label_smoothing=0.0)  # type: ignore[type-var]
        total = 0.0
        rows = max(1, _NUMBERS // max(1, logits[0].size))
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            total += float(np.sum(np.asarray(plain.loss(labels[part], logits[part]), np.float64)))
        return total / len(labels)


class Tallied(Task):
    """A task whose metrics are functions of sums over examples.

    Attributes:
        tally_rows: Numbers that `tallies` have of each output.
    """

    tally_rows: int

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics of the sums of `tallies`; see `Task.quality`."""
        return self.of_tallies(self.tallies(labels, scores, threshold=threshold).sum(0))

    @property
    def tally_shape(self) -> tuple[int, ...]:
        """The shape of an example's `tallies`."""
        return self.tally_rows, self.outputs

    @abstractmethod
    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the summands of each example, (n, tally_rows, outputs); see `Task.tallies`."""

    @abstractmethod
    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the metrics of sums over examples of `tallies`."""


def check_range(labels: Array, part: str, name: str, classes: int) -> None:
    """Check that class indices are of that many classes.

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
    """Check that labels are finite, with one number a column.

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


def repeat_row(row: Any, labels: Array, positions: tuple[int, ...] = ()) -> Array:
    """Return one answer for every example and position, (n, *positions, width), as a view."""
    values = np.asarray(row, np.float64)
    return np.broadcast_to(values, (len(labels), *positions, values.shape[-1]))


def per_example(values: Any) -> Any:
    """Return the means over everything but the first axis, (batch,) (graph code)."""
    import tensorflow as tf

    return tf.reduce_mean(values, axis=list(range(1, len(values.shape))))


def overlaps(right: Any, said: Any, true: Any) -> dict[str, float]:
    """Return mean IoU and Dice's coefficient over the classes that are said or true somewhere.

    Args:
        right, said, true: How often each class is both, said, and true, (classes,).
    """
    occur = said + true > 0
    overlap = right[occur] / (said + true - right)[occur]
    dice = 2 * right[occur] / (said + true)[occur]
    return {
        "mean_iou": float(overlap.mean()) if occur.any() else 0.0,
        "dice": float(dice.mean()) if occur.any() else 0.0,
    }

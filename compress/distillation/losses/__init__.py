"""Interfaces of distillation losses on logits and on features; the losses are files beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from compress.data.tasks import Task

Shape = tuple[int | None, ...]


class LogitLoss(ABC):
    """Compares the logits of student and teacher.

    Attributes:
        name: As the plan calls it.
        activations: The tasks it is defined for, by their activation.
    """

    name: str
    activations: tuple[str, ...] = ("softmax",)

    @classmethod
    def of(cls, task: Task) -> LogitLoss:
        """Return the loss for a task."""
        return cls()

    @abstractmethod
    def __call__(
        self, student: Any, teacher: Any, *, temperature: Any, labels: Any, weights: Any
    ) -> Any:
        """Return the loss per example (graph code).

        Losses over pairs of examples or over a whole batch use `weights`, so that an
        example of weight 2 counts like two; the mean over examples, by weight, is the loss.

        Args:
            student: (batch, outputs), any float type; see `by_position` for outputs with more.
            teacher: Likewise.
            temperature: T, above 0; a number or a scalar tensor.
            labels: As the data set holds them.
            weights: Of the examples, (batch,), float32.

        Returns:
            (batch,), float32.
        """

    @abstractmethod
    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Return the largest loss of a student with constant outputs."""


def by_position(
    loss: LogitLoss,
    student: Any,
    teacher: Any,
    *,
    temperature: Any,
    labels: Any,
    weights: Any,
    known: Any = None,
) -> Any:
    """Return a loss on logits where each position of an example has its own, (batch,).

    Every position is an example to the loss; of an example the mean over its known positions
    counts, 0 where there are none.

    Args:
        loss: Any.
        student: (batch, outputs) or (batch, positions ..., outputs).
        teacher: Likewise.
        temperature, labels, weights: See `LogitLoss`; labels with the positions' axes.
        known: Which positions count, (batch, positions ...); None: all.
    """
    import tensorflow as tf

    if len(student.shape) == 2:
        return loss(student, teacher, temperature=temperature, labels=labels, weights=weights)
    batch, width = tf.shape(student)[0], student.shape[-1]
    count = tf.reduce_prod(tf.shape(student)[1:-1])
    rank = len(student.shape) - 1
    if known is None:
        known = tf.ones(tf.shape(student)[:-1])
    share = tf.reshape(tf.cast(known, tf.float32), (-1,))
    each = loss(
        tf.reshape(student, (-1, width)),
        tf.reshape(teacher, (-1, width)),
        temperature=temperature,
        labels=tf.reshape(labels, (-1,) if len(labels.shape) == rank else (-1, labels.shape[-1])),
        weights=tf.repeat(weights, count) * share,
    )
    total = tf.reduce_sum(tf.reshape(each * share, (batch, -1)), axis=-1)
    return total / tf.maximum(tf.reduce_sum(tf.reshape(share, (batch, -1)), axis=-1), 1.0)


class FeatureLoss(ABC):
    """Compares the outputs of one pair of layers.

    Attributes:
        name: As the plan calls it.
        weight: The usual factor of this loss beside cross-entropy.
        where: Which layers it takes unless told: "stages" (the last of every resolution),
            "middle" (the last of the middle one) or "embedding" (what the head is fed).
    """

    name: str
    weight: float
    where: str

    def build(self, student: Shape, teacher: Shape, rng: np.random.Generator) -> list[Any]:
        """Fit the loss to a pair and return the variables that are trained with the student.

        Args:
            student: Shape of the student's output, the batch axis first.
            teacher: Of the teacher's.
            rng: For initial values.
        """
        return []

    def reduced(self, teacher: Any) -> Any:
        """Return what the loss needs of the teacher's output; it is cached (graph code)."""
        return teacher

    @abstractmethod
    def __call__(self, student: Any, teacher: Any, *, weights: Any) -> Any:
        """Return the loss per example (graph code).

        Args:
            student: The layer's output, (batch, ...), any float type.
            teacher: What `reduced` returned.
            weights: Of the examples, (batch,), float32.

        Returns:
            (batch,), float32.
        """

"""Interfaces of distillation losses on logits and on features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from compress.data.tasks import Task

Shape = tuple[int | None, ...]


class LogitLoss(ABC):
    """Loss between the logits of student and teacher.

    Attributes:
        name: Name in the options.
        activations: Activations of the tasks for which it is defined.
    """

    name: str
    activations: tuple[str, ...] = ("softmax",)

    @classmethod
    def from_task(cls, task: Task) -> LogitLoss:
        """Return the loss for a task."""
        return cls()

    @abstractmethod
    def __call__(
        self, student: Any, teacher: Any, *, temperature: Any, labels: Any, weights: Any
    ) -> Any:
        """Return the loss per example (graph code).

        The total loss is the weighted mean over examples. Losses over pairs of examples or over a
        whole batch use `weights`, so that an example of weight 2 counts as two examples.

        Args:
            student: (batch, outputs), any float type; see `apply_by_position` for more axes.
            teacher: Likewise.
            temperature: T, above 0.
            labels: Labels as stored in the data set.
            weights: Weights of the examples, (batch,), float32.

        Returns:
            (batch,), float32.
        """

    @abstractmethod
    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Return the largest loss of a student with constant outputs.

        Args:
            outputs: Number of outputs.
            temperature: T, above 0.
        """


def apply_by_position(
    loss: LogitLoss,
    student: Any,
    teacher: Any,
    *,
    temperature: Any,
    labels: Any,
    weights: Any,
    mask: Any = None,
) -> Any:
    """Return a logit loss per example, averaged over the positions of each example, (batch,).

    Each position counts as an example of the loss. The loss of an example is the mean over its
    unmasked positions, 0 if there are none.

    Args:
        loss: The logit loss.
        student: (batch, outputs) or (batch, positions ..., outputs).
        teacher: Likewise.
        temperature, labels, weights: See `LogitLoss`; labels have the axes of the positions.
        mask: True at positions that count, (batch, positions ...); None: all. Not used for (batch,
            outputs).
    """
    import tensorflow as tf

    if len(student.shape) == 2:
        return loss(student, teacher, temperature=temperature, labels=labels, weights=weights)
    batch, width = tf.shape(student)[0], student.shape[-1]
    count = tf.reduce_prod(tf.shape(student)[1:-1])
    rank = len(student.shape) - 1
    if mask is None:
        mask = tf.ones(tf.shape(student)[:-1])
    share = tf.reshape(tf.cast(mask, tf.float32), (-1,))
    position_losses = loss(
        tf.reshape(student, (-1, width)),
        tf.reshape(teacher, (-1, width)),
        temperature=temperature,
        labels=tf.reshape(labels, (-1,) if len(labels.shape) == rank else (-1, labels.shape[-1])),
        weights=tf.repeat(weights, count) * share,
    )
    total = tf.reduce_sum(tf.reshape(position_losses * share, (batch, -1)), axis=-1)
    return total / tf.maximum(tf.reduce_sum(tf.reshape(share, (batch, -1)), axis=-1), 1.0)


class FeatureLoss(ABC):
    """Loss between the outputs of a student layer and a teacher layer.

    Attributes:
        name: Name in the options.
        weight: Factor of the loss, divided evenly among its layer pairs; `feature_weight`
            multiplies it.
    """

    name: str
    weight: float

    def build(self, student: Shape, teacher: Shape, rng: np.random.Generator) -> list[Any]:
        """Adapt the loss to a pair of layers and return the variables to train.

        Args:
            student: Shape of the student's output, batch axis first.
            teacher: Shape of the teacher's output.
            rng: Generator of the initial values.
        """
        return []

    def reduced(self, teacher: Any) -> Any:
        """Return the teacher features that the loss needs (graph code).

        Args:
            teacher: Output of the teacher's layer, (batch, ...). The result may be cached.
        """
        return teacher

    @abstractmethod
    def __call__(self, student: Any, teacher: Any, *, weights: Any) -> Any:
        """Return the loss per example (graph code).

        Args:
            student: Output of the layer, (batch, ...), any float type.
            teacher: Result of `reduced`.
            weights: Weights of the examples, (batch,), float32.

        Returns:
            (batch,), float32.
        """

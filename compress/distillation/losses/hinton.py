"""Hinton's knowledge distillation: divergence of softened predictions."""

from __future__ import annotations

import math
from typing import Any

from compress.data.tasks import Custom, Regression, Task
from compress.distillation.losses import LogitLoss


class HintonKD(LogitLoss):
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), per example.

    The factor T^2 keeps the size of the gradient (which shrinks as 1 / T^2) comparable
    with that of the label loss, whatever the temperature.

    Of a sigmoid task the mean over labels of T^2 * KL between the two Bernoulli
    distributions; of a regression the mean over targets of the squared difference, where T
    has no part; of outputs with a loss of the user's own that over their variance.

    Args:
        activation: Of the task: "softmax", "sigmoid" or "linear".
        guess: What a guess costs in a regression.
        scale: What a squared difference is multiplied by: of a loss of the user's own what a guess
            costs over the variance of the outputs, so that both losses have one unit.

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network",
        section 2. They write cross-entropy; KL differs by the teacher's entropy, which
        is constant in the student.
    """

    name = "kd"
    activations = ("softmax", "sigmoid", "linear")

    def __init__(self, activation: str = "softmax", guess: float = 1.0, scale: float = 1.0) -> None:
        self.activation, self.guess, self.scale = activation, guess, scale

    @classmethod
    def of(cls, task: Task) -> HintonKD:
        """Return the loss for a task: on its activation."""
        if isinstance(task, Custom):
            return cls(task.activation, task.guess, task.guess / task.spread)
        return cls(task.activation, task.chance_loss() if isinstance(task, Regression) else 1.0)

    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Return T^2 log K, T^2 log 2 or the loss of a guess in a regression."""
        if self.activation == "linear":
            return self.guess
        classes = outputs if self.activation == "softmax" else 2
        return temperature**2 * math.log(classes)

    def __call__(
        self,
        student: Any,
        teacher: Any,
        *,
        temperature: Any,
        labels: Any = None,
        weights: Any = None,
    ) -> Any:
        """Return the loss per example, at least 0 up to rounding; see `LogitLoss`."""
        import tensorflow as tf

        student, teacher = tf.cast(student, tf.float32), tf.cast(teacher, tf.float32)
        if self.activation == "linear":
            squared = tf.math.squared_difference(student, teacher)
            return self.scale * tf.reduce_mean(squared, axis=-1)
        student, teacher = student / temperature, teacher / temperature
        if self.activation == "softmax":
            return temperature**2 * divergence(teacher, student)
        return temperature**2 * tf.reduce_mean(bernoulli_divergence(teacher, student), axis=-1)


def divergence(teacher: Any, student: Any) -> Any:
    """Return KL(softmax(teacher) || softmax(student)) over the last axis."""
    import tensorflow as tf

    log_teacher, log_student = tf.nn.log_softmax(teacher), tf.nn.log_softmax(student)
    return tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def bernoulli_divergence(teacher: Any, student: Any) -> Any:
    """Return KL between Bernoulli distributions with the log-odds `teacher` and `student`."""
    import tensorflow as tf

    yes = tf.sigmoid(teacher) * (tf.math.log_sigmoid(teacher) - tf.math.log_sigmoid(student))
    no = tf.sigmoid(-teacher) * (tf.math.log_sigmoid(-teacher) - tf.math.log_sigmoid(-student))
    return yes + no

"""Knowledge distillation (Hinton et al. 2015): divergence of softened predictions."""

from __future__ import annotations

import math
from typing import Any

from compress.core.lazy_modules import tf
from compress.data.tasks import Custom, Regression, Task
from compress.distillation.losses import LogitLoss


class HintonKD(LogitLoss):
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), per example.

    The factor T^2 keeps the gradient (which shrinks as 1 / T^2) comparable with that of the label
    loss at any temperature.

    In a sigmoid task it is the mean over labels of T^2 * KL between the two Bernoulli
    distributions. In a regression it is the mean over targets of the squared difference, without T.
    For outputs with a user-defined loss, `scale` converts the squared difference to the unit of
    that loss.

    Args:
        activation: Activation of the task: "softmax", "sigmoid" or "linear".
        guess: Loss of a constant guess, for linear outputs.
        scale: Factor of the squared difference; for a user-defined loss, the loss of a guess
            divided by the variance of the outputs, so that both losses have the same unit.

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2. They
        write cross-entropy; KL differs from it by the teacher's entropy, which is constant in the
        student.
    """

    name = "kd"
    activations = ("softmax", "sigmoid", "linear")

    def __init__(self, activation: str = "softmax", guess: float = 1.0, scale: float = 1.0) -> None:
        self.activation, self.guess, self.scale = activation, guess, scale

    @classmethod
    def from_task(cls, task: Task) -> HintonKD:
        """Return the loss for a task, according to its activation."""
        if isinstance(task, Custom):
            return cls(task.activation, task.guess, task.guess / task.spread)
        return cls(task.activation, task.chance_loss() if isinstance(task, Regression) else 1.0)

    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Return T^2 log K, T^2 log 2, or the loss of a guess for linear outputs."""
        if self.activation == "linear":
            return self.guess
        return temperature**2 * math.log(outputs if self.activation == "softmax" else 2)

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
        student, teacher = tf.cast(student, tf.float32), tf.cast(teacher, tf.float32)
        if self.activation == "linear":
            squared = tf.math.squared_difference(student, teacher)
            return self.scale * tf.reduce_mean(squared, axis=-1)
        student, teacher = student / temperature, teacher / temperature
        if self.activation == "softmax":
            return temperature**2 * compute_divergence(teacher, student)
        return temperature**2 * tf.reduce_mean(
            compute_bernoulli_divergence(teacher, student), axis=-1
        )


def compute_divergence(teacher: Any, student: Any) -> Any:
    """Return KL(softmax(teacher) || softmax(student)) over the last axis."""
    log_teacher, log_student = tf.nn.log_softmax(teacher), tf.nn.log_softmax(student)
    return tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def compute_bernoulli_divergence(teacher: Any, student: Any) -> Any:
    """Return KL between Bernoulli distributions with the log-odds `teacher` and `student`."""
    yes = tf.sigmoid(teacher) * (tf.math.log_sigmoid(teacher) - tf.math.log_sigmoid(student))
    no = tf.sigmoid(-teacher) * (tf.math.log_sigmoid(-teacher) - tf.math.log_sigmoid(-student))
    return yes + no

"""Hinton's knowledge distillation: KL divergence of softened class probabilities."""

from __future__ import annotations

import math
from typing import Any

from compress.options import require


class HintonKD:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), per example.

    The factor T^2 keeps the size of the gradient (which shrinks as 1 / T^2) comparable
    with that of the label loss, whatever the temperature.

    Args:
        temperature: T, above 0.

    Raises:
        InputError: T <= 0.

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network",
        section 2. They write cross-entropy; KL differs by the teacher's entropy, which
        is constant in the student.
    """

    def __init__(self, temperature: float) -> None:
        require(temperature > 0, "temperature", "be above 0", temperature)
        self.temperature = temperature

    def guessing(self, num_classes: int) -> float:
        """Returns T^2 log K: the most that a uniform student costs (a one-hot teacher)."""
        return self.temperature**2 * math.log(num_classes)

    def __call__(self, student: Any, teacher: Any) -> Any:
        """Returns the loss per example.

        Args:
            student: Logits, (batch, classes).
            teacher: Logits, (batch, classes).

        Returns:
            (batch,), float32, at least 0 up to rounding.
        """
        import tensorflow as tf

        log_teacher = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / self.temperature)
        log_student = tf.nn.log_softmax(tf.cast(student, tf.float32) / self.temperature)
        # (batch, classes) -> (batch,)
        divergence = tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return self.temperature**2 * divergence

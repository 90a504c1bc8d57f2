"""DKD: the target's part and the others' part of the divergence, decoupled."""

from __future__ import annotations

import math
from typing import Any

from compress.distillation.losses import LogitLoss
from compress.distillation.losses.hinton import divergence

FAR = 1e9
"""Taken from the target's logit: its softmax is 0 then, beside anything finite in float32."""


class DKD(LogitLoss):
    """T^2 (alpha * TCKD + beta * NCKD), per example.

    TCKD is the divergence between the two-class distributions (target, all others); NCKD
    that between the softmaxes over the classes that are not the target. Hinton's loss is
    TCKD + (1 - p_target) NCKD: a confident teacher's knowledge of the other classes hardly
    counts there.

    Args:
        alpha: Weight of TCKD, at least 0.
        beta: Weight of NCKD, at least 0.

    Reference:
        Zhao et al. 2022, "Decoupled Knowledge Distillation", eq. 7. They choose beta by the
        teacher, from 0.5 (ImageNet) to 10 (CIFAR-100), and let it rise over 20 epochs; the
        default of 2 is for trainings that may be short: 8 cost a ResNet-20 of half width 3
        points against labels alone in 3 epochs of Fashion-MNIST (one run).
    """

    name = "dkd"

    def __init__(self, alpha: float = 1.0, beta: float = 2.0) -> None:
        self.alpha, self.beta = alpha, beta

    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Return the largest loss of a uniform student: from log K and log(K - 1)."""
        others = math.log(outputs - 1) if outputs > 2 else 0.0
        return temperature**2 * (self.alpha * math.log(outputs) + self.beta * others)

    def __call__(
        self, student: Any, teacher: Any, *, temperature: Any, labels: Any, weights: Any = None
    ) -> Any:
        """Return the loss per example; see `LogitLoss`."""
        import tensorflow as tf

        student = tf.cast(student, tf.float32) / temperature
        teacher = tf.cast(teacher, tf.float32) / temperature
        target = tf.one_hot(labels, student.shape[-1])
        others = divergence(teacher - FAR * target, student - FAR * target)
        two = divergence(_target_and_others(teacher, target), _target_and_others(student, target))
        return temperature**2 * (self.alpha * two + self.beta * others)


def _target_and_others(logits: Any, target: Any) -> Any:
    """Return the logits of (target, any other class), (batch, 2).

    In logarithms: 1 - p_target would be 0 in float32 for a confident model.
    """
    import tensorflow as tf

    of_target = tf.reduce_sum(logits * target, axis=-1)
    return tf.stack([of_target, tf.reduce_logsumexp(logits - FAR * target, axis=-1)], axis=-1)

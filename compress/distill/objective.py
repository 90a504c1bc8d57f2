"""The training objective of distillation: labels and a teacher, mixed."""

from __future__ import annotations

from typing import Any

from compress.distill.losses import HintonKD
from compress.task import CrossEntropy, Floats


class DistillObjective:
    """(1 - w) * cross-entropy with the labels + w * distillation loss.

    The teacher's logits are computed once, for the training examples as they are (the
    loop does not augment), so that a step costs one student pass and no teacher pass.

    Args:
        labels: The label loss.
        loss: The distillation loss on logits.
        teacher_logits: (n, classes), for the training part in its stored order.
        weight: w, in [0, 1].
    """

    def __init__(
        self, labels: CrossEntropy, loss: HintonKD, teacher_logits: Floats, weight: float
    ) -> None:
        self._labels, self._loss, self._weight = labels, loss, weight
        self._teacher_logits = teacher_logits

    def arrays(self) -> dict[str, Floats]:
        """Returns the teacher's logits, gathered with each batch."""
        return {"teacher_logits": self._teacher_logits}

    def guessing(self) -> float:
        """Returns the most that a uniform guess costs."""
        taught = self._loss.guessing(self._labels.num_classes)
        return (1.0 - self._weight) * self._labels.guessing() + self._weight * taught

    def loss(self, labels: Any, logits: Any, extra: dict[str, Any]) -> Any:
        """Returns the mixed loss per example, (batch,)."""
        taught = self._loss(logits, extra["teacher_logits"])
        return (1.0 - self._weight) * self._labels.loss(labels, logits, {}) + self._weight * taught

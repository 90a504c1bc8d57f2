"""No labels: a model is judged by whether it answers as another did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.data.tasks._base import Array, Floats, Task, per_example, repeat_row
from compress.data.tasks.multiclass import MultiClass
from compress.data.tasks.regression import Regression
from compress.data.tasks.yes_no import MultiLabel, sigmoid_loss


@dataclass(frozen=True)
class Answers(Task):
    """A model's answers in place of labels, (n, num_outputs) or (n, positions ..., num_outputs).

    Attributes:
        num_outputs: Width of the head.
        activation: What the answers came out of: rows of at least 0 that sum to 1 out of a
            softmax, others within [0, 1] out of a sigmoid, the rest as they are.
        plain: The task whose answers these are.

    Reference:
        Trained, it is Hinton et al. 2015, "Distilling the Knowledge in a Neural Network",
        section 2, at temperature 1: cross-entropy with the answers.
    """

    num_outputs: int
    activation: str = "softmax"
    label_smoothing: float = 0.0
    plain: Task = field(default_factory=lambda: MultiClass(2))
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "unlabelled"
    noun = "outputs"
    qualities = ("agreement",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Answers:
        """Returns the task of so many outputs; answers say what they came out of."""
        activation = "softmax" if labels is None else _activation(labels)
        plain: Task = MultiClass(names)
        if activation == "sigmoid":
            plain = MultiLabel(names)
        elif activation == "linear":
            plain = Regression(names) if labels is None else Regression.of(labels)
        positions = () if labels is None else tuple(labels.shape[1:-1])
        return cls(names, activation, plain=plain, positions=positions)

    @property
    def outputs(self) -> int:
        """The width of the head."""
        return self.num_outputs

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(positions ..., width of the head)."""
        return (*self.positions, self.num_outputs)

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the cross-entropy with the answers, or the mean squared error, (batch,)."""
        import tensorflow as tf

        target = tf.cast(labels, tf.float32)
        if self.activation == "linear":
            return self.plain.loss(target, logits)
        if self.activation == "sigmoid":
            return sigmoid_loss(target, logits, self.label_smoothing)
        share = self.label_smoothing
        target = target * (1.0 - share) + share / self.num_outputs
        return per_example(tf.nn.softmax_cross_entropy_with_logits(target, logits))

    def chance_loss(self) -> float:
        """Returns what it is for labels of the plain task."""
        return self.plain.chance_loss()

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the decision, or for linear outputs the mean, that agrees most often."""
        flat = labels.reshape(-1, self.num_outputs)
        if self.activation == "softmax":
            most = np.bincount(flat.argmax(-1), minlength=self.num_outputs).argmax()
            row = np.eye(self.num_outputs)[most]
        elif self.activation == "sigmoid":
            row = np.where((flat > 0.5).mean(axis=0) > 0.5, 1.0, -1.0)
        else:
            row = flat.astype(np.float64).mean(axis=0)
        yield repeat_row(row, labels, tuple(labels.shape[1:-1]))

    def example_values(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the share of equal decisions of each example, (n,); of numbers see `Task`."""
        if self.activation == "linear":
            return super().example_values(labels, scores, threshold=threshold)
        scores = scores.reshape(labels.shape)
        if self.activation == "sigmoid":
            same = (scores > threshold) == (labels > 0.5)
        else:
            same = scores.argmax(-1) == labels.argmax(-1)
        shares: npt.NDArray[np.float64] = same.reshape(len(same), -1).mean(1)
        return shares

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0: answers are compared with those of the model itself, which is no sample.

        Whether a model has learned is not known without labels, but one that always answers the
        same has not.
        """
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns the agreement with the answers, at least 0; see `agreement`."""
        scores = scores.reshape(labels.shape)
        if self.activation == "sigmoid":
            # answers are probabilities, scores may be logits
            same = (scores > threshold) == (labels > 0.5)
            return {"agreement": float(same.mean())}
        return {"agreement": max(0.0, self.plain.agreement(scores, labels))}

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Returns the share of equal decisions; of numbers R^2 against the reference."""
        return self.plain.agreement(scores, reference, threshold=threshold)


def _activation(answers: Array) -> str:
    """Returns what answers come out of, by what they are."""
    if not answers.size or answers.min() < 0 or answers.max() > 1 + 1e-6:
        return "linear"
    sums = answers.sum(axis=-1, dtype=np.float64)
    whole = answers.shape[-1] > 1 and bool(np.abs(sums - 1).max() < 1e-3)
    return "softmax" if whole else "sigmoid"

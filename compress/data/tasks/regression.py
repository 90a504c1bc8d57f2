"""Regression of numbers per example or position, and reconstruction of inputs: squared error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.data.tasks._base import Array, Floats, TalliedTask, compute_example_means, expand_row


@dataclass(frozen=True)
class Regression(TalliedTask):
    """Regression of `num_targets` numbers per example or per position, float32.

    Labels are (n, num_targets) or (n, positions ..., num_targets).

    Attributes:
        num_targets: Number of targets.
        variance: Mean over targets of the variance of the training labels, which is the loss of
            predicting their means.
        label_smoothing: Has no effect.
        means: Means of the training labels, one per target; (): all 0.
        positions: Sizes of the position axes of the labels; (): none.
    """

    num_targets: int
    variance: float = 1.0
    label_smoothing: float = 0.0
    means: tuple[float, ...] = field(default=(), repr=False)  # the repr identifies a training
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "regression"
    noun = "targets"
    activation = "linear"
    qualities = ("r2",)
    agrees_by_r2 = True

    @classmethod
    def from_labels(cls, labels: Array) -> Regression:
        """Return the task of training labels, (n, ..., targets)."""
        exact = labels.reshape(-1, labels.shape[-1]).astype(np.float64)
        variance = float(exact.var(axis=0).mean())
        means = tuple(float(mean) for mean in exact.mean(axis=0))
        # all labels are 0: any positive number works
        spread = variance if variance or any(means) else 1.0
        return cls(len(means), spread, means=means, positions=tuple(labels.shape[1:-1]))

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Regression:
        """Return the task of a number of targets; labels determine its chance loss."""
        return cls(names) if labels is None else cls.from_labels(labels)

    @property
    def outputs(self) -> int:
        """The number of targets."""
        return self.num_targets

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over positions and targets of the squared error, (batch,)."""
        import tensorflow as tf

        target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
        return compute_example_means(tf.math.squared_difference(logits, target))

    def chance_loss(self) -> float:
        """Return the mean square of the labels: the loss of an untrained model that predicts 0."""
        return self.variance + sum(mean**2 for mean in self.means) / self.num_targets

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the mean of each target: its R^2 is 0, or 1 for a constant target."""
        exact = labels.reshape(-1, labels.shape[-1]).astype(np.float64)
        yield expand_row(exact.mean(axis=0), labels, tuple(labels.shape[1:-1]))

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 1.645 / n: unrelated predictions rarely reach an R^2 of 1.645 times this.

        R^2 of a line through unrelated predictions is the square of a correlation with standard
        error 1 / sqrt(n); with a probability of 10 % it exceeds 1.645^2 / n.
        """
        return 1.645 / len(labels)

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return sums over the positions of an example.

        Shapes:
            (n, 4, targets): sums of squared errors, of squared deviations from the mean of all
            these labels and of absolute errors, and the number of positions.
        """
        flat = (len(labels), -1, scores.shape[-1])
        true = labels.reshape(flat).astype(np.float64)
        return _compute_tallies(scores.reshape(flat) - true, true - true.mean((0, 1)))

    def compute_from_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return R^2 (mean over targets, at most 1), mean absolute and root mean squared error.

        R^2 of a target is 1 - (sum of squared errors) / (sum of squared deviations from the labels'
        mean). For a constant target it is 1 if all predictions are exact, else 0, as in
        scikit-learn.

        Args:
            sums: Sums of `tallies`, (4, targets).
        """
        squared, about, absolute, count = sums
        constant = about == 0
        share = squared / np.where(constant, 1.0, about)
        r2 = np.where(constant, np.where(squared == 0, 1.0, 0.0), 1.0 - share)
        return {
            "r2": float(r2.mean()),
            "mae": float(absolute.sum() / count.sum()),
            "rmse": math.sqrt(squared.sum() / count.sum()),
        }

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return R^2 of the scores against the reference."""
        return self.quality(reference, scores)["r2"]


@dataclass(frozen=True)
class Reconstruction(Regression):
    """Reconstruction of the model input, (n, ..., channels), which is its own label."""

    name = "reconstruction"
    noun = "channels"
    of_inputs = True

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check nothing: the labels are the examples, which are checked separately."""

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the mean example: its R^2 is 0."""
        mean = labels.astype(np.float64).mean(axis=0)
        yield np.broadcast_to(mean, (len(labels), *mean.shape))

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return sums over the numbers of an example.

        Shapes:
            (n, 4, 1): sums of squared errors, of squared deviations from the mean of all these
            examples and of absolute errors, and the count of numbers.
        """
        true = labels.reshape(len(labels), -1, 1).astype(np.float64)
        return _compute_tallies(scores.reshape(true.shape) - true, true - true.mean(0))


def _compute_tallies(error: Array, centred_labels: Array) -> npt.NDArray[np.float64]:
    """Return the tallies of errors and centred labels, (n, positions, targets) each."""
    count = np.full((len(error), error.shape[2]), float(error.shape[1]))
    sums = [np.square(error).sum(1), np.square(centred_labels).sum(1), np.abs(error).sum(1), count]
    return np.stack(sums, 1)

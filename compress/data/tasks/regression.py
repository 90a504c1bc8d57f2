"""Numbers, one or several an example or a position, and inputs given back: squared error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.data.tasks._base import Array, Floats, Tallied, per_example, repeat_row


@dataclass(frozen=True)
class Regression(Tallied):
    """`num_targets` numbers an example or, at each position, of one: float32.

    Labels are (n, num_targets) or (n, positions ..., num_targets).

    Attributes:
        positions: Of the labels; (): there are none.
        variance: Mean over targets of the variance of the training labels: what guessing
            the mean costs.
        means: Of the training labels, one a target; (): all 0.
    """

    num_targets: int
    variance: float = 1.0
    label_smoothing: float = 0.0
    means: tuple[float, ...] = field(default=(), repr=False)  # the repr says which training it is
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "regression"
    noun = "targets"
    activation = "linear"
    qualities = ("r2",)
    agrees_by_r2 = True
    tally_rows = 4

    @classmethod
    def of(cls, labels: Array) -> Regression:
        """Return the task of training labels, (n, ..., targets)."""
        exact = labels.reshape(-1, labels.shape[-1]).astype(np.float64)
        variance = float(exact.var(axis=0).mean())
        means = tuple(float(mean) for mean in exact.mean(axis=0))
        # all labels 0: any positive number will do
        spread = variance if variance or any(means) else 1.0
        return cls(len(means), spread, means=means, positions=tuple(labels.shape[1:-1]))

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Regression:
        """Return the task of so many targets; labels say what guessing costs."""
        return cls(names) if labels is None else cls.of(labels)

    @property
    def outputs(self) -> int:
        """The number of targets."""
        return self.num_targets

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over positions and targets of the squared error, (batch,)."""
        import tensorflow as tf

        target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
        return per_example(tf.math.squared_difference(logits, target))

    def chance_loss(self) -> float:
        """Return the mean square of the labels: the cost of guessing 0, as untrained nets do."""
        return self.variance + sum(mean**2 for mean in self.means) / self.num_targets

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the mean of each target: its R^2 is 0, or 1 where the target does not vary."""
        exact = labels.reshape(-1, labels.shape[-1]).astype(np.float64)
        yield repeat_row(exact.mean(axis=0), labels, tuple(labels.shape[1:-1]))

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 1.645 / n: a line through unrelated answers rarely reaches 1.645 of these.

        Its R^2 is the square of a correlation whose standard error is 1 / sqrt(n); in one case of
        ten it exceeds 1.645^2 / n.
        """
        return 1.645 / len(labels)

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return sums over the positions of an example.

        Shapes:
            (n, 4, targets): of squared errors, squares about the mean of all these labels,
            absolute errors, and the number of positions.
        """
        flat = (len(labels), -1, scores.shape[-1])
        true = labels.reshape(flat).astype(np.float64)
        return _sums_of_examples(scores.reshape(flat) - true, true - true.mean((0, 1)))

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return R^2 (mean over targets, at most 1), mean absolute and root mean squared error.

        R^2 of a target is 1 - (sum of squared errors) / (sum of squares about the labels' mean);
        of a target that does not vary 1 where all is right, else 0, as scikit-learn has it.

        Args:
            sums: Of `tallies`, (4, targets).
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
    """The input itself is the label, (n, ..., channels), as the model is fed with it."""

    name = "reconstruction"
    noun = "channels"
    of_inputs = True

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check nothing: labels are the examples, which are checked."""

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the mean example: its R^2 is 0."""
        mean = labels.astype(np.float64).mean(axis=0)
        yield np.broadcast_to(mean, (len(labels), *mean.shape))

    @property
    def tally_shape(self) -> tuple[int, ...]:
        """See `tallies`."""
        return (4, 1)

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return sums over the numbers of an example.

        Shapes:
            (n, 4, 1): of squared errors, squares about the mean of all these examples, absolute
            errors, and how many numbers there are.
        """
        true = labels.reshape(len(labels), -1, 1).astype(np.float64)
        return _sums_of_examples(scores.reshape(true.shape) - true, true - true.mean(0))


def _sums_of_examples(error: Array, about: Array) -> npt.NDArray[np.float64]:
    """Return the tallies of errors and of labels about their mean, (n, positions, targets)."""
    count = np.full((len(error), error.shape[2]), float(error.shape[1]))
    sums = [np.square(error).sum(1), np.square(about).sum(1), np.abs(error).sum(1), count]
    return np.stack(sums, 1)

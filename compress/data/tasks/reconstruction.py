"""Inputs given back (autoencoders): squared error against what the model is fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.data.tasks._base import Array, Floats
from compress.data.tasks.regression import Regression


@dataclass(frozen=True)
class Reconstruction(Regression):
    """The input itself is the label, (n, ..., channels), as the model is fed with it."""

    name = "reconstruction"
    noun = "channels"
    of_inputs = True

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Checks nothing: labels are the examples, which are checked."""

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
        """Returns sums over the numbers of an example.

        Shapes:
            (n, 4, 1): of squared errors, squares about the mean of all these examples, absolute
            errors, and how many numbers there are.
        """
        true = labels.reshape(len(labels), -1).astype(np.float64)
        error = scores.reshape(true.shape) - true
        about = true - true.mean(0)
        count = np.full(len(labels), float(true.shape[1]))
        found = [np.square(error).sum(1), np.square(about).sum(1), np.abs(error).sum(1), count]
        return np.stack(found, 1)[..., np.newaxis]

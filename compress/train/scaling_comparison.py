"""What one scaling of the inputs makes of a model, and which of two is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import VOID

APART = 2.0
"""Standard errors that two scalings must differ by."""
SENSE = 3.0
"""Standard errors that the best must be ahead of guessing by: it is the best of many."""
BOLD = 5.0
"""Of two scalings that are as right, one whose answers are this factor bolder, or shyer, than
would be best is out: nobody trains a model so, and inputs of another size make it so."""
ALIKE = 0.99
"""Two scalings that agree in this share of the answers do not differ in what they are."""
HUGE = 1e15
"""In place of infinity: its square is still a number."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tried:
    """One scaling's answers.

    Attributes:
        name: The scaling.
        y: What answers are held against: labels, or inputs in this scaling that are given back.
        logits: (examples, *output_shape).
        right: Of each example the share of right decisions; minus the squared error.
        exponent: Decimal logarithm of the temperature at which the loss is least.
        fit: Minus the loss of each example at that temperature.
        plain: Minus the mean loss as it is.
    """

    name: str
    y: npt.NDArray[Any]
    logits: npt.NDArray[np.float32]
    right: Floats
    exponent: float
    fit: Floats
    plain: float

    @property
    def rank(self) -> tuple[float, float]:
        """The more the better."""
        return float(self.right.mean()), float(self.fit.mean())


def tried_with(
    name: str, logits: npt.NDArray[np.float32], data: Dataset, y: npt.NDArray[Any]
) -> Tried:
    """Judges a model's answers in one scaling."""
    finite = np.nan_to_num(logits, nan=0.0, posinf=HUGE, neginf=-HUGE)
    right, exponent = _right(data, y, finite), _exponent(data, y, finite)
    fit = _fit(data, y, finite, exponent)
    if right.min() == 1.0:
        # where every answer is right bolder ones are always better: that tells nothing
        exponent = max(0.0, exponent)
    return Tried(
        name,
        y,
        finite,
        right,
        exponent,
        fit,
        float(_fit(data, y, finite, 0.0).mean()),
    )


def _right(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> Floats:
    """Returns for each example the share of right decisions, or minus the squared error.

    The error of an input that is given back is that over the inputs' variance: each scaling has
    its own.
    """
    if data.task.activation == "softmax":
        known = y != VOID
        right = ((logits.argmax(-1) == y) & known).reshape(len(y), -1)
        return np.asarray(right.sum(-1) / np.maximum(known.reshape(len(y), -1).sum(-1), 1))
    true = y.reshape(len(y), -1)
    if data.task.activation == "linear":
        error = np.mean((logits.reshape(true.shape).astype(np.float64) - true) ** 2, axis=-1)
        return np.asarray(-error / (_variance(y) if data.gives_back else 1.0))
    found: Floats = ((logits.reshape(true.shape) > 0) == true.astype(bool)).mean(-1)
    return found


def _variance(y: npt.NDArray[Any]) -> float:
    return float(np.var(y, dtype=np.float64)) or 1.0


def _fit(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any], exponent: float) -> Floats:
    """Returns minus the loss of each example at the temperature 10^exponent."""
    softened = logits.astype(np.float64) / 10.0**exponent
    loss = np.asarray(data.task.loss(y, softened.astype(np.float32)), np.float64)
    return -loss / (_variance(y) if data.gives_back else 1.0)


def _exponent(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Returns the logarithm of the temperature at which the mean loss is least, within 0.06.

    Another scaling of the inputs makes answers bolder or shyer, and a little bolder or shyer
    than the model was trained to be is often better on new examples.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    if data.task.activation == "linear":
        return 0.0

    def mean(exponent: float) -> float:
        return float(_fit(data, y, logits, exponent).mean())

    # the mean loss is convex in 1 / temperature: steps may get smaller around the best
    best = float(max(range(-2, 16), key=mean))
    for step in (0.5, 0.25, 0.12, 0.06):
        best = max((best - step, best, best + step), key=mean)
    return best


def _beyond_noise(differences: Floats, errors: float) -> bool:
    """Tells whether paired differences are above 0 by so many standard errors.

    Their sum against the root of the sum of their squares; where they are -1, 0 or 1 that is
    McNemar's test.

    Reference:
        McNemar 1947, "Note on the sampling error of the difference between correlated
        proportions or percentages".
    """
    spread = float(np.sqrt((differences**2).sum()))
    return spread > 0 and float(differences.sum()) >= errors * spread


def beats(one: Tried, two: Tried) -> bool:
    """Tells whether one scaling is better than another beyond noise.

    By the share of right decisions (squared error in a regression); where that does not tell,
    by the loss at the best temperature of each; where neither does, by how far that temperature
    is from 1 (`BOLD`).
    """
    for mine, its in ((one.right, two.right), (one.fit, two.fit)):
        if _beyond_noise(mine - its, APART):
            return True
        if _beyond_noise(its - mine, APART):
            return False
    return abs(two.exponent) - abs(one.exponent) >= math.log10(BOLD)


def differs(one: Tried, two: Tried, data: Dataset) -> bool:
    """Tells whether the answers in two scalings are other ones."""
    return data.task.agreement(one.logits, two.logits) < ALIKE


def require_sense(best: Tried, data: Dataset, what: str, examples: str) -> None:
    """Requires more than what a constant answer reaches.

    In decisions, in decisions with every class counting alike, or in the loss: of rare classes
    a good model may win in one of them alone.
    """
    y = best.y
    right, fit = _constant(data, y)
    gains = [best.right - right, best.fit - fit]
    if data.task.indices:
        classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
        weights = (len(y) / (len(classes) * counts))[place]
        gains.append((best.right - 1.0 / len(classes)) * weights)
    if any(_beyond_noise(gain, SENSE) for gain in gains):
        return
    raise InputError(
        f"{what} must answer validation examples better than guessing does, in one of the usual "
        f"scalings of its inputs. Received: {said(best, data)} at best on {examples}. "
        "Pass --normalize with what it was trained with, if it was trained for these data."
    )


def _constant(data: Dataset, y: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Returns rightness and minus the loss of the best answer that looks at no input."""
    train, width = data.train.y, data.task.outputs
    if data.gives_back:  # each scaling has a mean of its own
        row = y.mean(axis=0, dtype=np.float64)
    elif data.task.activation == "softmax":
        share = np.bincount(train[train != VOID].ravel(), minlength=width) / max(1, train.size)
        row = np.log(np.maximum(share, 1e-9))
    else:
        row = train.reshape(-1, width).mean(axis=0, dtype=np.float64)
        if data.task.activation == "sigmoid":
            share = np.clip(row, 1e-9, 1 - 1e-9)
            row = np.log(share / (1 - share))
    shape = (len(y), *data.task.output_shape)
    logits = np.broadcast_to(row.astype(np.float32), shape)
    return _right(data, y, logits), _fit(data, y, logits, 0.0)


def said(tried: Tried, data: Dataset) -> str:
    """Returns "unit (accuracy 0.8670)"."""
    name = data.task.qualities[0]
    return f"{tried.name} ({name} {data.task.quality(tried.y, tried.logits)[name]:.4f})"

"""Finds the scaling that a model was trained with, by how well it answers validation examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, load_data
from compress.data.preprocessing import scalings
from compress.model.logits import check_head, logits_view
from compress.plan import Plan
from compress.run.origin import origin_of
from compress.train.predict import EVALUATION_BATCH, Predictor

if TYPE_CHECKING:
    import keras

FIRST_LOOK = 512
"""Validation examples that every scaling is tried on; what is left is tried on all of them."""
MORE = 4096
"""Training examples that are asked too where validation examples do not decide."""
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
Examples = tuple[npt.NDArray[Any], npt.NDArray[Any], str]


@dataclass(frozen=True)
class FoundScaling:
    """A scaling, and how it was found.

    Attributes:
        name: As `--normalize` calls it.
        preprocess: The map.
        note: What a report must say: which, and how far ahead of the next.
    """

    name: str
    preprocess: Preprocessing
    note: str


@dataclass(frozen=True)
class _Tried:
    """One scaling's answers.

    Attributes:
        name: The scaling.
        logits: (examples, outputs).
        right: Of each example the share of right decisions; minus the squared error.
        exponent: Decimal logarithm of the temperature at which the loss is least.
        fit: Minus the loss of each example at that temperature.
        plain: Minus the mean loss as it is.
    """

    name: str
    logits: npt.NDArray[np.float32]
    right: Floats
    exponent: float
    fit: Floats
    plain: float

    @property
    def rank(self) -> tuple[float, float]:
        """The more the better."""
        return float(self.right.mean()), float(self.fit.mean())


def load_for_model(path: Path, plan: Plan, model: keras.Model) -> Dataset:
    """Loads the plan's data, scaled as the model was trained with where that is left open.

    Args:
        path: The model's file. Of one from a run's folder the run tells; of another one the
            answers do, see `find_scaling`.
        plan: Names the data, their split and `normalize`.
        model: What lies in the file.

    Raises:
        InputError: The data cannot be loaded, or the scaling cannot be found.
    """
    if plan.data.normalize != "auto":
        return load_data(plan.data, seed=plan.seed)
    origin = origin_of(path)
    stored = origin.preprocess if origin is not None else None
    data = load_data(plan.data, seed=plan.seed, preprocess=stored)
    # a data set of the user's own code comes scaled
    if stored is not None or data.max_value is None:
        return data
    found = find_scaling(model, data, f"Model '{path}'")
    return replace(data, preprocess=found.preprocess, notes=(*data.notes, found.note))


def find_scaling(model: keras.Model, data: Dataset, what: str) -> FoundScaling:
    """Tries the usual scalings on validation examples and returns the best.

    Two scalings are compared on the same examples, see `_beats`. Where validation examples do
    not tell them apart training examples are asked too: nothing is judged here.

    Args:
        model: Reads the data's examples in an unknown scaling; not changed.
        data: From `load_data`; neither its `preprocess` is looked at nor the test part.
        what: Who the model is, for the error: "Model 'x.keras'".

    Returns:
        The best. Of several that answer alike in `ALIKE` of the examples the one of least loss:
        which it is makes little difference then.

    Raises:
        InputError: The model does not fit the data, the best scaling is not better than guessing,
            or another is as good within noise and answers otherwise.
    """
    check_head(model, data)
    known = scalings(data.train.x, data.max_value or 1.0)
    left = list(known)
    with logits_view(model, data.task) as view:
        predict = Predictor(view, Preprocessing())
        for look in _looks(data):
            x, y, examples = look
            tried = [_try(name, _logits(predict, known[name], x), data, y) for name in left]
            tried.sort(key=lambda item: item.rank, reverse=True)
            first = [item for item in tried if not any(_beats(other, item) for other in tried)]
            left = [item.name for item in first]
            # those that answer like the first: the one that fits as it is
            best = max(
                (item for item in first if not _differs(item, first[0], data)),
                key=lambda item: item.plain,
            )
            differing = [item for item in first if _differs(item, best, data)]
            if not differing:
                break
    _require_sense(best, data, y, what, examples)
    if differing:
        raise InputError(
            f"{what} must show by its answers how its inputs were scaled. Received: "
            f"{_said(best, data, y)} and {_said(differing[0], data, y)} on {examples}, within "
            "noise. Pass --normalize with what it was trained with."
        )
    text = f"inputs of {what[:1].lower()}{what[1:]} are scaled by {_said(best, data, y)}"
    others = [item for item in tried if item is not best]
    if others:
        text += f", before {_said(others[0], data, y)}"
        if others[0].rank > best.rank and others[0] not in first:
            text += f", whose answers are over {BOLD:g} times too large or too small"
    text += f": found on {examples}"
    if len(first) > 1:
        alike = next(item.name for item in first if item is not best)
        text += f" (with {alike} it answers alike)"
    return FoundScaling(best.name, known[best.name], text)


def _looks(data: Dataset) -> Iterator[Examples]:
    """Gives more and more examples: x, y and what they are."""
    order = np.random.default_rng(0).permutation(len(data.val))
    for size in sorted({min(FIRST_LOOK, len(order)), len(order)}):
        part = data.val.take(np.sort(order[:size]))
        yield part.x, part.y, f"{size:,} validation examples"
    order = np.random.default_rng(0).permutation(len(data.train))
    part = data.train.take(np.sort(order[:MORE]))
    x, y = np.concatenate([data.val.x, part.x]), np.concatenate([data.val.y, part.y])
    yield x, y, f"{len(data.val):,} validation and {len(part):,} training examples"


def _logits(
    predict: Predictor, scaling: Preprocessing, x: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Predicts in batches: all examples as float32 at once may not fit into memory."""
    starts = range(0, len(x), EVALUATION_BATCH)
    return np.concatenate([predict(scaling(x[i : i + EVALUATION_BATCH])) for i in starts])


def _try(name: str, logits: npt.NDArray[np.float32], data: Dataset, y: npt.NDArray[Any]) -> _Tried:
    finite = np.nan_to_num(logits, nan=0.0, posinf=HUGE, neginf=-HUGE)
    exponent = _exponent(data, y, finite)
    return _Tried(
        name,
        finite,
        _right(data, y, finite),
        exponent,
        _fit(data, y, finite, exponent),
        float(_fit(data, y, finite, 0.0).mean()),
    )


def _right(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> Floats:
    """Returns for each example the share of right decisions, or minus the squared error."""
    found: Floats
    if data.kind == "multiclass":
        found = (logits.argmax(-1) == y).astype(np.float64)
    elif data.kind == "regression":
        found = -np.mean((logits.astype(np.float64) - y.reshape(logits.shape)) ** 2, axis=-1)
    else:
        found = ((logits > 0) == y.reshape(logits.shape).astype(bool)).mean(-1)
    return found


def _fit(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any], exponent: float) -> Floats:
    """Returns minus the loss of each example at the temperature 10^exponent."""
    softened = logits.astype(np.float64) / 10.0**exponent
    return -np.asarray(data.task.loss(y, softened.astype(np.float32)), np.float64)


def _exponent(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Returns the logarithm of the temperature at which the mean loss is least, within 0.06.

    Another scaling of the inputs makes answers bolder or shyer, and a little bolder or shyer
    than the model was trained to be is often better on new examples.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    if data.kind == "regression":
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


def _beats(one: _Tried, two: _Tried) -> bool:
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


def _differs(one: _Tried, two: _Tried, data: Dataset) -> bool:
    return data.task.agreement(one.logits, two.logits) < ALIKE


def _require_sense(
    best: _Tried, data: Dataset, y: npt.NDArray[Any], what: str, examples: str
) -> None:
    """Requires more than what a constant answer reaches.

    In decisions, in decisions with every class counting alike, or in the loss: of rare classes
    a good model may win in one of them alone.
    """
    right, fit = _constant(data, y)
    gains = [best.right - right, best.fit - fit]
    if data.kind in ("multiclass", "binary"):
        classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
        weights = (len(y) / (len(classes) * counts))[place]
        gains.append((best.right - 1.0 / len(classes)) * weights)
    if any(_beyond_noise(gain, SENSE) for gain in gains):
        return
    raise InputError(
        f"{what} must answer validation examples better than guessing does, in one of the usual "
        f"scalings of its inputs. Received: {_said(best, data, y)} at best on {examples}. "
        "Pass --normalize with what it was trained with, if it was trained for these data."
    )


def _constant(data: Dataset, y: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Returns rightness and minus the loss of the best answer that looks at no input."""
    train = data.train.y
    if data.kind == "regression":
        row = train.astype(np.float64).mean(axis=0)
    elif data.kind == "multiclass":
        share = np.bincount(train, minlength=data.num_classes) / len(train)
        row = np.log(np.maximum(share, 1e-9))
    else:
        share = np.clip(train.reshape(len(train), -1).mean(axis=0), 1e-9, 1 - 1e-9)
        row = np.log(share / (1 - share))
    logits = np.repeat(row[np.newaxis].astype(np.float32), len(y), axis=0)
    return _right(data, y, logits), _fit(data, y, logits, 0.0)


def _said(tried: _Tried, data: Dataset, y: npt.NDArray[Any]) -> str:
    """Returns "unit (accuracy 0.8670)"."""
    name = data.task.qualities[0]
    return f"{tried.name} ({name} {data.task.quality(y, tried.logits)[name]:.4f})"

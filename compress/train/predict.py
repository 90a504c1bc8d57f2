"""Logits of a model in inference mode, and the input scaling that it was trained with.

The scaling is inferred: each usual one is tried, and the one whose answers fit the labels is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, arrays, count, joined, mapped, taken
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split
from compress.data.preprocessing import scalings
from compress.data.tasks import CUSTOM, VOID
from compress.model.activations import examples_at_once
from compress.model.heads import check_head
from compress.model.logits import logits_view

if TYPE_CHECKING:
    import keras

EVALUATION_BATCH = 1024
"""Examples at a time, where the memory budget allows."""
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


class Predictor:
    """A model's logits for raw examples, in batches of one size (one trace).

    Args:
        view: (x, training) -> logits, as `compress.model.logits.logits_view` gives it.
        preprocess: Raw examples -> model inputs.
        model: What the view runs; of several models a list. Its activations decide how many
            examples are run at a time.
    """

    def __init__(self, view: Callable[..., Any], preprocess: Preprocessing, model: Any) -> None:
        import tensorflow as tf

        scaled = preprocess.in_graph()
        self._model = model
        self._most = 0
        self._call = tf.function(lambda x: view(scaled(x), training=False), autograph=False)

    def __call__(self, x: Columns) -> Any:
        """Return logits (n, *output_shape) for raw examples (n, ...).

        Of several inputs arrays by name, and likewise of several outputs.
        """
        import tensorflow as tf

        total = count(x)
        size = min(self.most(x), total)
        spec = mapped(lambda values: tf.TensorSpec((size, *values.shape[1:]), values.dtype), x)
        # what is traced is called itself: TensorFlow warns of functions that are seldom reused
        run = self._call.get_concrete_function(spec)
        outputs = []
        for start in range(0, total, size):
            part = taken(x, slice(start, start + size))
            # padded, because another batch size would trace the model again
            made = run(mapped(partial(_padded, size), part))
            outputs.append(mapped(partial(_first, count(part)), made))
        return joined(outputs)

    def most(self, x: Columns) -> int:
        """Return how many of such examples are run at a time.

        It is found once: another number would trace the model again.
        """
        if not self._most:
            self._most = examples_at_once(
                self._model, EVALUATION_BATCH, sizes=[values.shape[1:] for values in arrays(x)]
            )
        return self._most


def _first(size: int, made: Any) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = made.numpy()[:size]
    return found


def _padded(size: int, part: npt.NDArray[Any]) -> Any:
    import tensorflow as tf

    filling = np.repeat(part[:1], size - len(part), axis=0)
    return tf.convert_to_tensor(np.concatenate([part, filling]))


def predict_logits(model: keras.Model, data: Dataset, part: str) -> Any:
    """Return a model's logits for a part of the data, in inference mode.

    Shapes:
        (n, *data.task.output_shape); of several outputs such arrays by name.

    Raises:
        InputError: The model does not fit the data.
    """
    check_head(model, data)
    with logits_view(model, data.task) as view:
        return Predictor(view, data.preprocess, model)(data.split(part).x)


def quality_of(model: keras.Model, data: Dataset, part: str) -> dict[str, float]:
    """Return the qualities of a model on a part of the data, by name.

    Raises:
        InputError: The model does not fit the data.
    """
    return data.task.quality(data.labels(data.split(part)), predict_logits(model, data, part))


@dataclass(frozen=True)
class FoundScaling:
    """An input scaling and the note on how it was found.

    Attributes:
        name: As `--normalize` calls it.
        preprocess: The map.
        note: What a report must say: which, and how far ahead of the next.
    """

    name: str
    preprocess: Preprocessing
    note: str


@dataclass(frozen=True)
class Tried:
    """Answers of a model to examples in one scaling, and how good they are.

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
        """Rank of the scaling; larger is better."""
        return float(self.right.mean()), float(self.fit.mean())


def find_scaling(model: keras.Model, data: Dataset, what: str) -> FoundScaling:
    """Try the usual input scalings on validation examples and return the best.

    Two scalings are compared on the same examples, see `beats`. Where validation examples do
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
    if len(data.input_shapes) > 1 or data.outputs or data.kind == CUSTOM:
        raise InputError(
            "normalize must be given for data of several inputs or outputs, and where a model's "
            "own loss judges. Received: auto, for "
            f"{what[:1].lower()}{what[1:]}. Pass --normalize with what it was trained with."
        )
    check_head(model, data)
    known = scalings(data.train.x, data.max_value or 1.0)
    left = list(known)
    with logits_view(model, data.task) as view:
        predict = Predictor(view, Preprocessing(), model)
        for look in _looks(data):
            part, examples = look
            tried = [_tried(name, known[name], predict, part, data) for name in left]
            tried.sort(key=lambda item: item.rank, reverse=True)
            first = [item for item in tried if not any(beats(other, item) for other in tried)]
            left = [item.name for item in first]
            # those that answer like the first: the one that fits as it is
            best = max(
                (item for item in first if not differs(item, first[0], data)),
                key=lambda item: item.plain,
            )
            differing = [item for item in first if differs(item, best, data)]
            if not differing:
                break
    require_sense(best, data, what, examples)
    if differing:
        raise InputError(
            f"{what} must show by its answers how its inputs were scaled. Received: "
            f"{said(best, data)} and {said(differing[0], data)} on {examples}, within "
            "noise. Pass --normalize with what it was trained with."
        )
    text = f"inputs of {what[:1].lower()}{what[1:]} are scaled by {said(best, data)}"
    others = [item for item in tried if item is not best]
    if others:
        text += f", before {said(others[0], data)}"
        if others[0].rank > best.rank and others[0] not in first:
            text += f", whose answers are over {BOLD:g} times too large or too small"
    text += f": found on {examples}"
    if len(first) > 1:
        alike = next(item.name for item in first if item is not best)
        text += f" (with {alike} it answers alike)"
    return FoundScaling(best.name, known[best.name], text)


def _looks(data: Dataset) -> Iterator[tuple[Split, str]]:
    """Yield more and more examples, each with a description."""
    order = np.random.default_rng(0).permutation(len(data.val))
    for size in sorted({min(FIRST_LOOK, len(order)), len(order)}):
        yield data.val.take(np.sort(order[:size])), f"{size:,} validation examples"
    order = np.random.default_rng(0).permutation(len(data.train))
    part = data.train.take(np.sort(order[:MORE]))
    more = Split(np.concatenate([data.val.x, part.x]), np.concatenate([data.val.y, part.y]))
    yield more, f"{len(data.val):,} validation and {len(part):,} training examples"


def _tried(
    name: str, scaling: Preprocessing, predict: Predictor, part: Split, data: Dataset
) -> Tried:
    y, size = scaling(part.x) if data.gives_back else part.y, predict.most(part.x)
    # in batches: all examples as float32 at once may not fit into memory
    starts = range(0, len(part.x), size)
    logits = np.concatenate([predict(scaling(part.x[at : at + size])) for at in starts])
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
    """Return for each example the share of right decisions, or minus the squared error.

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
    """Return minus the loss of each example at the temperature 10^exponent."""
    loss = np.asarray(
        data.task.loss(y, (logits.astype(np.float64) / 10.0**exponent).astype(np.float32)),
        np.float64,
    )
    return -loss / (_variance(y) if data.gives_back else 1.0)


def _exponent(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Return the logarithm of the temperature at which the mean loss is least, within 0.06.

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


def beats(one: Tried, two: Tried) -> bool:
    """Tell whether one scaling is better than another beyond noise.

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
    """Tell whether two scalings give different answers."""
    return data.task.agreement(one.logits, two.logits) < ALIKE


def require_sense(best: Tried, data: Dataset, what: str, examples: str) -> None:
    """Require an accuracy or loss better than that of a constant answer.

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
    """Return rightness and minus the loss of the best constant answer."""
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
    logits = np.broadcast_to(row.astype(np.float32), (len(y), *data.task.output_shape))
    return _right(data, y, logits), _fit(data, y, logits, 0.0)


def said(tried: Tried, data: Dataset) -> str:
    """Return a scaling with its quality: "unit (accuracy 0.8670)"."""
    name = data.task.qualities[0]
    return f"{tried.name} ({name} {data.task.quality(tried.y, tried.logits)[name]:.4f})"


def _beyond_noise(differences: Floats, errors: float) -> bool:
    """Tell whether paired differences are above 0 by so many standard errors.

    Their sum against the root of the sum of their squares; where they are -1, 0 or 1 that is
    McNemar's test.

    Reference:
        McNemar 1947, "Note on the sampling error of the difference between correlated
        proportions or percentages".
    """
    spread = float(np.sqrt((differences**2).sum()))
    return spread > 0 and float(differences.sum()) >= errors * spread

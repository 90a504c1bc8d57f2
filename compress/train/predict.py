"""Inference: logits and metrics of a model, and inference of its input scaling.

To infer the scaling, each common scaling is tried, and the one with the best predictions for the
labels is selected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import (
    Columns,
    concat_examples,
    count_examples,
    list_arrays,
    map_columns,
    take_examples,
)
from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.data import Dataset, Preprocessing, Split
from compress.data.preprocessing import list_scalings
from compress.data.tasks import CUSTOM, VOID
from compress.model.activations import find_batch_size
from compress.model.heads import check_head
from compress.model.logits import open_logits_view

EVALUATION_BATCH = 1024
"""Maximum number of examples per batch; the memory budget may allow fewer."""
FIRST_EXAMPLES = 512
"""Number of validation examples for the first comparison of all scalings; the best ones are then
compared on all validation examples."""
EXTRA_EXAMPLES = 4096
"""Maximum number of training examples that are added if validation examples do not suffice."""
MIN_SEPARATION = 2.0
"""Minimum difference between two scalings, in standard errors."""
MIN_ADVANTAGE = 3.0
"""Minimum advantage of the best scaling over a guess, in standard errors; larger because it is the
best of many."""
MAX_TEMPERATURE_FACTOR = 5.0
"""Of two equally accurate scalings, one is rejected if its best temperature is further from 1 by
this factor: a wrong input scale makes predictions over- or underconfident."""
MIN_AGREEMENT = 0.99
"""Share of equal predictions from which on two scalings count as equivalent."""
HUGE = 1e15
"""Replaces infinity; its square is still finite."""
Floats = npt.NDArray[np.float64]


class Predictor:
    """Logits of a model for raw examples, computed in batches of one size (one trace).

    Args:
        view: Function (x, training) -> logits, as from `compress.model.logits.open_logits_view`.
        preprocess: Map from raw examples to model inputs.
        model: Model of the view, or a list of models. Its activations determine the batch size.
    """

    def __init__(self, view: Callable[..., Any], preprocess: Preprocessing, model: Any) -> None:
        scaled = preprocess.to_graph_function()
        self._model = model
        self._batch_size = 0
        self._call = tf.function(lambda x: view(scaled(x), training=False), autograph=False)

    def __call__(self, x: Columns) -> Any:
        """Return logits (n, *output_shape) for raw examples (n, ...).

        Several inputs are arrays by name, and so are several outputs.
        """
        total = count_examples(x)
        size = min(self.compute_batch_size(x), total)
        spec = map_columns(lambda values: tf.TensorSpec((size, *values.shape[1:]), values.dtype), x)
        # call the traced function itself: TensorFlow warns if functions are retraced often
        run = self._call.get_concrete_function(spec)
        outputs = []
        for start in range(0, total, size):
            part = take_examples(x, slice(start, start + size))
            # padded, because another batch size would trace the model again
            batch_outputs = run(map_columns(partial(_pad_batch, size), part))
            outputs.append(map_columns(partial(_take_first, count_examples(part)), batch_outputs))
        return concat_examples(outputs)

    def compute_batch_size(self, x: Columns) -> int:
        """Return the number of such examples per batch.

        It is computed once, because another size would retrace the model.
        """
        if not self._batch_size:
            self._batch_size = find_batch_size(
                self._model,
                EVALUATION_BATCH,
                input_shapes=[values.shape[1:] for values in list_arrays(x)],
            )
        return self._batch_size


def _take_first(size: int, outputs: Any) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = outputs.numpy()[:size]
    return rows


def _pad_batch(size: int, part: npt.NDArray[Any]) -> Any:
    filling = np.repeat(part[:1], size - len(part), axis=0)
    return tf.convert_to_tensor(np.concatenate([part, filling]))


def predict_logits(model: keras.Model, data: Dataset, part: str) -> Any:
    """Return a model's logits for a part of the data, in inference mode.

    Args:
        model: The model.
        data: Data set.
        part: "train", "val" or "test".

    Shapes:
        (n, *data.task.output_shape); for several outputs such arrays by name.

    Raises:
        InputError: The model does not fit the data.
    """
    check_head(model, data)
    with open_logits_view(model, data.task) as view:
        return Predictor(view, data.preprocess, model)(data.split(part).x)


def evaluate_model(model: keras.Model, data: Dataset, part: str) -> dict[str, float]:
    """Return the metrics of a model on a part of the data, by name.

    Args:
        model: The model.
        data: Data set.
        part: "train", "val" or "test".

    Raises:
        InputError: The model does not fit the data.
    """
    return data.task.quality(data.labels(data.split(part)), predict_logits(model, data, part))


@dataclass(frozen=True)
class InferredScaling:
    """An inferred input scaling, with a note for the report.

    Attributes:
        name: Name of the scaling as in `--normalize`.
        preprocess: Map from raw examples to model inputs.
        note: Note for the report: the scaling and its advantage over the next one.
    """

    name: str
    preprocess: Preprocessing
    note: str


@dataclass(frozen=True)
class ScalingTrial:
    """Predictions of a model for examples in one scaling, with their scores.

    Attributes:
        name: Name of the scaling.
        targets: Labels, or the scaled inputs if the model reconstructs its inputs.
        logits: (examples, *output_shape), finite: NaN is replaced by 0, infinity by `HUGE`.
        scores: Share of correct decisions of each example, or minus the squared error.
        exponent: Decimal logarithm of the temperature with the lowest loss; at least 0 if all
            decisions are correct.
        fit: Minus the loss of each example at the temperature with the lowest loss.
        plain_fit: Minus the mean loss at temperature 1.
    """

    name: str
    targets: npt.NDArray[Any]
    logits: npt.NDArray[np.float32]
    scores: Floats
    exponent: float
    fit: Floats
    plain_fit: float

    @property
    def rank(self) -> tuple[float, float]:
        """Rank of the scaling; larger is better."""
        return float(self.scores.mean()), float(self.fit.mean())


def find_scaling(model: keras.Model, data: Dataset, model_name: str) -> InferredScaling:
    """Try the common input scalings on validation examples and return the best one.

    Scalings are compared on the same examples, see `is_better`. If validation examples do not
    separate them, training examples are added; this is acceptable because no model is evaluated
    here.

    Args:
        model: Model with an unknown input scaling; it is not changed.
        data: Data from `load_data`; neither its `preprocess` nor the test part is used.
        model_name: Name of the model in errors and notes, such as "Model 'x.keras'".

    Returns:
        The best scaling. If several agree in `MIN_AGREEMENT` of the predictions, it is the one with
        the lowest loss; the choice makes little difference then.

    Raises:
        InputError: The model does not fit the data, the best scaling is not better than a guess, or
            another one is as good within noise but gives other predictions.
    """
    if len(data.input_shapes) > 1 or data.outputs or data.kind == CUSTOM:
        raise InputError(
            "normalize must be given for data of several inputs or outputs, and where a model's "
            "own loss judges. Received: auto, for "
            f"{model_name[:1].lower()}{model_name[1:]}. Pass --normalize with what it was trained "
            "with."
        )
    check_head(model, data)
    candidates = list_scalings(data.train.x, data.max_value or 1.0)
    remaining = list(candidates)
    with open_logits_view(model, data.task) as view:
        predict = Predictor(view, Preprocessing(), model)
        for sample in _iterate_samples(data):
            part, examples = sample
            trials = [
                _try_scaling(name, candidates[name], predict, part, data) for name in remaining
            ]
            trials.sort(key=lambda item: item.rank, reverse=True)
            unbeaten = [
                item for item in trials if not any(is_better(other, item) for other in trials)
            ]
            remaining = [item.name for item in unbeaten]
            # among those that agree with the first, the one with the lowest loss
            best = max(
                (item for item in unbeaten if not has_other_answers(item, unbeaten[0], data)),
                key=lambda item: item.plain_fit,
            )
            differing = [item for item in unbeaten if has_other_answers(item, best, data)]
            if not differing:
                break
    require_skill(best, data, model_name, examples)
    if differing:
        raise InputError(
            f"{model_name} must show by its answers how its inputs were scaled. Received: "
            f"{format_trial(best, data)} and {format_trial(differing[0], data)} on {examples}, "
            "within noise. Pass --normalize with what it was trained with."
        )
    name = model_name[:1].lower() + model_name[1:]
    text = f"inputs of {name} are scaled by {format_trial(best, data)}"
    others = [item for item in trials if item is not best]
    if others:
        text += f", before {format_trial(others[0], data)}"
        if others[0].rank > best.rank and others[0] not in unbeaten:
            text += (
                f", whose answers are over {MAX_TEMPERATURE_FACTOR:g} times too large or too small"
            )
    text += f": found on {examples}"
    if len(unbeaten) > 1:
        alike = next(item.name for item in unbeaten if item is not best)
        text += f" (with {alike} it answers alike)"
    return InferredScaling(best.name, candidates[best.name], text)


def _iterate_samples(data: Dataset) -> Iterator[tuple[Split, str]]:
    """Yield increasing samples of examples, each with a description."""
    order = np.random.default_rng(0).permutation(len(data.val))
    for size in sorted({min(FIRST_EXAMPLES, len(order)), len(order)}):
        yield data.val.take(np.sort(order[:size])), f"{size:,} validation examples"
    order = np.random.default_rng(0).permutation(len(data.train))
    part = data.train.take(np.sort(order[:EXTRA_EXAMPLES]))
    more = Split(np.concatenate([data.val.x, part.x]), np.concatenate([data.val.y, part.y]))
    yield more, f"{len(data.val):,} validation and {len(part):,} training examples"


def _try_scaling(
    name: str, scaling: Preprocessing, predict: Predictor, part: Split, data: Dataset
) -> ScalingTrial:
    """Return the model's predictions in one input scaling, with their scores and losses."""
    y, size = scaling(part.x) if data.gives_back else part.y, predict.compute_batch_size(part.x)
    # in batches: all examples as float32 at once may not fit into memory
    starts = range(0, len(part.x), size)
    logits = np.concatenate([predict(scaling(part.x[at : at + size])) for at in starts])
    finite = np.nan_to_num(logits, nan=0.0, posinf=HUGE, neginf=-HUGE)
    scores, exponent = _score_answers(data, y, finite), _find_exponent(data, y, finite)
    fit = _compute_fit(data, y, finite, exponent)
    if scores.min() == 1.0:
        # if all predictions are correct, more confident ones are always better
        exponent = max(0.0, exponent)
    return ScalingTrial(
        name,
        y,
        finite,
        scores,
        exponent,
        fit,
        float(_compute_fit(data, y, finite, 0.0).mean()),
    )


def _score_answers(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> Floats:
    """Return for each example the share of correct decisions, or minus the squared error.

    If the model reconstructs its inputs, the error is divided by the variance of the inputs, which
    depends on the scaling.
    """
    if data.task.activation == "softmax":
        is_labelled = y != VOID
        right = ((logits.argmax(-1) == y) & is_labelled).reshape(len(y), -1)
        return np.asarray(right.sum(-1) / np.maximum(is_labelled.reshape(len(y), -1).sum(-1), 1))
    true = y.reshape(len(y), -1)
    if data.task.activation == "linear":
        error = np.mean((logits.reshape(true.shape).astype(np.float64) - true) ** 2, axis=-1)
        return np.asarray(-error / (_compute_variance(y) if data.gives_back else 1.0))
    share: Floats = ((logits.reshape(true.shape) > 0) == true.astype(bool)).mean(-1)
    return share


def _compute_variance(y: npt.NDArray[Any]) -> float:
    return float(np.var(y, dtype=np.float64)) or 1.0


def _compute_fit(
    data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any], exponent: float
) -> Floats:
    """Return minus the loss of each example at the temperature 10^exponent."""
    loss = np.asarray(
        data.task.loss(y, (logits.astype(np.float64) / 10.0**exponent).astype(np.float32)),
        np.float64,
    )
    return -loss / (_compute_variance(y) if data.gives_back else 1.0)


def _find_exponent(data: Dataset, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Return the decimal logarithm of the temperature with the lowest mean loss, within 0.06.

    A wrong input scaling makes predictions over- or underconfident. Slightly different confidence
    than in training is often better on new examples, so scalings are compared at their best
    temperature.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    if data.task.activation == "linear":
        return 0.0

    def compute_mean_fit(exponent: float) -> float:
        return float(_compute_fit(data, y, logits, exponent).mean())

    # the mean loss is convex in 1 / temperature: steps may get smaller around the best
    best = float(max(range(-2, 16), key=compute_mean_fit))
    for step in (0.5, 0.25, 0.12, 0.06):
        best = max((best - step, best, best + step), key=compute_mean_fit)
    return best


def is_better(first: ScalingTrial, second: ScalingTrial) -> bool:
    """Return whether one scaling is better than another beyond noise.

    The first criterion is the share of correct decisions (squared error in a regression), the
    second the loss at the best temperature of each, the third the distance of that temperature from
    1 (`MAX_TEMPERATURE_FACTOR`).
    """
    for scores, other_scores in ((first.scores, second.scores), (first.fit, second.fit)):
        if _is_beyond_noise(scores - other_scores, MIN_SEPARATION):
            return True
        if _is_beyond_noise(other_scores - scores, MIN_SEPARATION):
            return False
    return abs(second.exponent) - abs(first.exponent) >= math.log10(MAX_TEMPERATURE_FACTOR)


def has_other_answers(first: ScalingTrial, second: ScalingTrial, data: Dataset) -> bool:
    """Return whether two scalings give different predictions.

    Args:
        first, second: Trials on the same examples.
        data: Data set.
    """
    return data.task.agreement(first.logits, second.logits) < MIN_AGREEMENT


def require_skill(best: ScalingTrial, data: Dataset, model_name: str, examples: str) -> None:
    """Raise an error unless the best scaling beats a constant prediction.

    It may do so in decisions, in decisions with equal weight of all classes, or in the loss: with
    rare classes, a good model may be better in only one of them.

    Args:
        best: Trial of the best scaling.
        data: Data set.
        model_name: Name of the model in the error.
        examples: Description of the examples in the error.

    Raises:
        InputError: The model is not better than a guess.
    """
    y = best.targets
    constant_scores, constant_fit = _score_constant(data, y)
    gains = [best.scores - constant_scores, best.fit - constant_fit]
    if data.task.indices:
        classes, class_index, counts = np.unique(y, return_inverse=True, return_counts=True)
        weights = (len(y) / (len(classes) * counts))[class_index]
        gains.append((best.scores - 1.0 / len(classes)) * weights)
    if any(_is_beyond_noise(gain, MIN_ADVANTAGE) for gain in gains):
        return
    raise InputError(
        f"{model_name} must answer validation examples better than guessing does, in one of the "
        f"usual scalings of its inputs. Received: {format_trial(best, data)} at best on "
        f"{examples}. Pass --normalize with what it was trained with, if it was trained for these "
        "data."
    )


def _score_constant(data: Dataset, y: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return scores and minus the loss of the best constant prediction, by example."""
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
    return _score_answers(data, y, logits), _compute_fit(data, y, logits, 0.0)


def format_trial(trial: ScalingTrial, data: Dataset) -> str:
    """Return a scaling with its metric: "unit (accuracy 0.8670)"."""
    name = data.task.qualities[0]
    return f"{trial.name} ({name} {data.task.quality(trial.targets, trial.logits)[name]:.4f})"


def _is_beyond_noise(differences: Floats, errors: float) -> bool:
    """Return whether paired differences are above 0 by a number of standard errors.

    The sum is compared with the root of the sum of squares. For differences of -1, 0 or 1 this is
    McNemar's test.

    Reference:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions
        or percentages".
    """
    spread = float(np.sqrt((differences**2).sum()))
    return spread > 0 and float(differences.sum()) >= errors * spread

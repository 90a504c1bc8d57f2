"""Tasks that need a model: its outputs as labels, its compiled loss, several outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.core.memory_budget import get_current_budget
from compress.data.tasks._base import (
    Array,
    Floats,
    Task,
    check_rows,
    compute_example_means,
    expand_row,
)
from compress.data.tasks.binary import MultiLabel, compute_sigmoid_loss
from compress.data.tasks.classes import MultiClass
from compress.data.tasks.regression import Regression

COMPILED_PREFIX = "compiled:"
"""Prefix of metrics that a model was compiled with."""
SKILL_METRIC = "skill"
"""1 - loss / (loss of outputs for other examples): 1 is perfect, 0 ignores the inputs."""
BATCH_SIZE = 1024
"""Largest number of examples per metric update; the memory budget may reduce it."""
MEAN_METRIC = "mean_quality"
"""Mean over outputs of each output's selection metric, each at least 0."""


@dataclass(frozen=True)
class Answers(Task):
    """A model's outputs as labels, (n, num_outputs) or (n, positions ..., num_outputs).

    Attributes:
        num_outputs: Number of outputs of the head.
        activation: Activation of the outputs: "softmax" for rows of at least 0 that sum to 1,
            "sigmoid" for other values within [0, 1], else "linear".
        label_smoothing: Share of a target that is moved to the other classes, in [0, 1).
        plain: Task of the model that gives the outputs.
        positions: Sizes of the position axes; (): none.

    Reference:
        As a training loss: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network",
        section 2, at temperature 1 (cross-entropy with the teacher's outputs).
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
        """Return the task of a number of outputs; their values determine the activation."""
        activation = "softmax" if labels is None else _infer_activation(labels)
        plain: Task = MultiClass(names)
        if activation == "sigmoid":
            plain = MultiLabel(names)
        elif activation == "linear":
            plain = Regression(names) if labels is None else Regression.from_labels(labels)
        positions = () if labels is None else tuple(labels.shape[1:-1])
        return cls(names, activation, plain=plain, positions=positions)

    @property
    def outputs(self) -> int:
        """The number of outputs of the head."""
        return self.num_outputs

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the cross-entropy with the labels, or the mean squared error, (batch,)."""
        target = tf.cast(labels, tf.float32)
        if self.activation == "linear":
            return self.plain.loss(target, logits)
        if self.activation == "sigmoid":
            return compute_sigmoid_loss(target, logits, self.label_smoothing)
        share = self.label_smoothing
        target = target * (1.0 - share) + share / self.num_outputs
        return compute_example_means(tf.nn.softmax_cross_entropy_with_logits(target, logits))

    def chance_loss(self) -> float:
        """Return the chance loss of the plain task."""
        return self.plain.chance_loss()

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the most frequent decision, or the mean for linear outputs."""
        flat = labels.reshape(-1, self.num_outputs)
        if self.activation == "softmax":
            most_frequent = np.bincount(flat.argmax(-1), minlength=self.num_outputs).argmax()
            row = np.eye(self.num_outputs)[most_frequent]
        elif self.activation == "sigmoid":
            row = np.where((flat > 0.5).mean(axis=0) > 0.5, 1.0, -1.0)
        else:
            row = flat.astype(np.float64).mean(axis=0)
        yield expand_row(row, labels, tuple(labels.shape[1:-1]))

    def example_values(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the share of equal decisions per example, (n,); for linear outputs see `Task`."""
        if self.activation == "linear":
            return super().example_values(labels, scores, threshold=threshold)
        scores = scores.reshape(labels.shape)
        if self.activation == "sigmoid":
            is_equal = (scores > threshold) == (labels > 0.5)
        else:
            is_equal = scores.argmax(-1) == labels.argmax(-1)
        return np.asarray(is_equal.reshape(len(is_equal), -1).mean(1))

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0, since the comparison with the model's own outputs has no sampling error.

        Without labels it is unknown whether a model was trained, but a model with constant outputs
        was not.
        """
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the agreement with the labels, at least 0; see `agreement`."""
        scores = scores.reshape(labels.shape)
        if self.activation == "sigmoid":
            # labels are probabilities, scores may be logits
            return {"agreement": float(((scores > threshold) == (labels > 0.5)).mean())}
        return {"agreement": max(0.0, self.plain.agreement(scores, labels))}

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal decisions; for linear outputs R^2 against the reference."""
        return self.plain.agreement(scores, reference, threshold=threshold)


@dataclass(frozen=True)
class Custom(Task):
    """Unchanged outputs with a custom loss and metrics.

    Attributes:
        shape: Shape of the output for one example.
        function: Loss function (labels, outputs) -> losses, (batch, ...) or one number.
        text: Name of the loss, which identifies a training.
        metrics: Names and Keras metrics.
        main: Selection metric: a metric's name, prefixed by "-" if less is better; "": `skill`.
        guess: Loss of outputs for other examples.
        level: Value of `main` for outputs for other examples.
        spread: Variance of the model's outputs, the scale for differences between outputs.
        label_smoothing: Has no effect.
    """

    shape: tuple[int, ...]
    function: Any = field(repr=False, compare=False)
    text: str = "loss"
    metrics: tuple[tuple[str, Any], ...] = field(default=(), repr=False, compare=False)
    main: str = ""
    guess: float = 1.0
    level: float = 0.0
    spread: float = 1.0
    label_smoothing: float = 0.0

    name = "custom"
    activation = "linear"
    noun = "outputs"
    agrees_by_r2 = True

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Custom:
        """Raise an error: labels do not determine a loss.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "Task 'custom' must be of a model that was compiled with a loss. Received: labels "
            "alone. Give the compiled model with the data."
        )

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return numbers of any shape, with integers unchanged; see `Task.read`."""
        if labels.dtype.kind not in "fiub" or not labels.ndim:
            raise InputError(
                f"{name} must be numbers, (n, ...). Received: shape {labels.shape}, type "
                f"{labels.dtype}."
            )
        return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check that labels are finite; see `Task.check`."""
        rows = labels.reshape(len(labels), -1)
        check_rows(rows, part, name, rows.shape[1])

    @property
    def qualities(self) -> tuple[str, ...]:  # type: ignore[override]
        """The selection metric, then the other metrics and `skill`."""
        metric_names = [f"{COMPILED_PREFIX}{name}" for name, _ in self.metrics]
        # "-mae", for which less is better, is named neg_mae
        main = f"neg_{self.main[1:]}" if self.main.startswith("-") else self.main
        first = f"{COMPILED_PREFIX}{main}" if main else SKILL_METRIC
        return tuple(dict.fromkeys((first, *metric_names, SKILL_METRIC)))

    @property
    def outputs(self) -> int:
        """The size of the last axis of the output."""
        return self.shape[-1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the model's output for one example."""
        return self.shape

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean loss per example, (batch,)."""
        # Keras passes labels to losses as float32
        true = tf.cast(labels, tf.float32)
        call = getattr(self.function, "call", self.function)
        values = tf.cast(call(true, logits), tf.float32)
        if not len(values.shape):
            return tf.fill(tf.shape(logits)[:1], values)
        return compute_example_means(values)

    def chance_loss(self) -> float:
        """Return the loss of outputs for other examples."""
        return self.guess

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the mean and median, or the most frequent class, of labels that fit the outputs.

        For other labels only the loss determines their interpretation.
        """
        if labels.shape[1:] == self.shape:
            for middle in (np.mean, np.median):
                row = middle(labels.astype(np.float32), axis=0)
                yield np.broadcast_to(row, labels.shape).astype(np.float32)
        elif labels.shape[1:] in ((), (1,)) and len(self.shape) == 1 and labels.dtype.kind in "iu":
            most_frequent = int(np.bincount(np.clip(labels.reshape(-1), 0, None)).argmax())
            if most_frequent < self.shape[0]:
                yield expand_row(np.eye(self.shape[0])[most_frequent], labels).astype(np.float32)

    def chance(self, labels: Array) -> float:
        """Return the main metric of the best constant output, or of outputs for other examples."""
        values = [self.quality(labels, scores)[self.qualities[0]]
                  for scores in self.constants(labels)]  # fmt: skip
        return max([self.level, *(value for value in values if np.isfinite(value))])

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0, since the variance of custom metrics is unknown."""
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics and `skill`, the selection metric first."""
        results = {}
        # metrics allocate a few arrays of the outputs' size
        example_bytes = 4 * (labels[:1].nbytes + scores[:1].nbytes)
        size = get_current_budget().find_batch_size(
            example_bytes, max_examples=BATCH_SIZE, purpose="the metrics of a custom task"
        )
        for name, metric in self.metrics:
            metric.reset_state()
            for start in range(0, len(labels), size):
                part = slice(start, start + size)
                metric.update_state(labels[part], scores[part])
            results[f"{COMPILED_PREFIX}{name}"] = float(metric.result())
        results[SKILL_METRIC] = 1.0 - self.error(labels, scores) / self.guess
        first = self.qualities[0]
        if self.main.startswith("-"):
            results[first] = -results[f"{COMPILED_PREFIX}{self.main[1:]}"]
        return {first: results[first], **results}

    def share(self, metrics: dict[str, float]) -> float:
        """Return `skill`, at least 0, since metrics may have any unit; see `Task.share`."""
        return max(0.0, metrics[SKILL_METRIC])

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return R^2 of the scores against the reference."""
        return Regression(scores.shape[-1]).agreement(scores, reference)


@dataclass(frozen=True)
class Several(Task):
    """A task for each output; labels, logits and scores are mappings by output name.

    Attributes:
        each: Names and tasks, in the order of the model's outputs.
        weights: Weights of the outputs' losses; (): inverse chance losses, so that outputs with
            different units have equal weight.
        label_smoothing: Share of a target that is moved to the other classes, in [0, 1).
        main: Selection metric; "": `mean_quality`.
    """

    each: tuple[tuple[str, Task], ...]
    weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    main: str = ""

    name = "several"
    activation = ""
    noun = "outputs"

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Several:
        """Raise an error: labels do not determine the tasks of outputs.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "Task 'several' must be of data that name an output each. Received: labels alone."
        )

    @property
    def parts(self) -> dict[str, Task]:
        """The task of each output, by name."""
        return dict(self.each)

    @property
    def qualities(self) -> tuple[str, ...]:  # type: ignore[override]
        """The selection metric, `mean_quality`, and the outputs' metrics, such as "box.r2"."""
        output_metrics = (
            f"{name}.{quality}" for name, task in self.each for quality in task.qualities
        )
        return tuple(dict.fromkeys((self.main or MEAN_METRIC, MEAN_METRIC, *output_metrics)))

    @property
    def outputs(self) -> int:
        """The total number of outputs of all heads."""
        return sum(task.outputs for _, task in self.each)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each output's loss, by name."""
        weights = self.weights or tuple(1.0 / task.chance_loss() for _, task in self.each)
        return dict(zip(self.parts, weights, strict=True))

    def loss(self, labels: Mapping[str, Any], logits: Mapping[str, Any]) -> Any:
        """Return the weighted sum of the outputs' losses, (batch,)."""
        total = 0.0
        for name, task in self.each:
            smoothed: Any = replace(task, label_smoothing=self.label_smoothing)  # type: ignore[type-var]
            total += self.loss_weights[name] * smoothed.loss(labels[name], logits[name])
        return total

    def chance_loss(self) -> float:
        """Return the weighted sum of the outputs' chance losses."""
        return sum(self.loss_weights[name] * task.chance_loss() for name, task in self.each)

    def constants(self, labels: Any) -> Iterator[Any]:
        """Yield nothing: the best constant is found separately for each output, see `chance`."""
        yield from ()

    def chance(self, labels: Any) -> float:
        """Return the main metric if each output is its best constant prediction."""
        selected = self._select_output()
        if selected is not None:
            return selected[1].chance(labels[selected[0]])
        return float(np.mean([
            task.share({task.qualities[0]: task.chance(labels[name]), "skill": 0.0})
            for name, task in self.each
        ]))  # fmt: skip

    def chance_error(self, labels: Any, quality: float) -> float:
        """Return the standard error of the selecting output, or of the mean over outputs."""
        selected = self._select_output()
        if selected is not None:
            return selected[1].chance_error(labels[selected[0]], quality)
        errors = [task.chance_error(labels[name], quality) for name, task in self.each]
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def _select_output(self) -> tuple[str, Task] | None:
        """Return the output of the selection metric and its task; None for a mean over outputs."""
        for name, task in self.each:
            metric = self.main.removeprefix(f"{name}.")
            if metric != self.main and metric in task.qualities:
                return name, task if metric == task.qualities[0] else task.judged_by(metric)
        return None

    def quality(self, labels: Any, scores: Any, *, threshold: Any = 0.0) -> dict[str, float]:
        """Return `mean_quality` and the metrics of each output, prefixed by its name."""
        output_metrics = {
            name: task.quality(
                labels[name], scores[name], threshold=_select_threshold(threshold, name)
            )
            for name, task in self.each
        }
        return self._combine_metrics(output_metrics)

    def _combine_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return the selection metric, then `mean_quality`, then all metrics as "output.metric"."""
        mean = float(np.mean([task.share(dict(metrics[name])) for name, task in self.each]))
        combined = {MEAN_METRIC: mean} | {
            f"{name}.{key}": value
            for name, output_metrics in metrics.items()
            for key, value in output_metrics.items()
        }
        first = self.main or MEAN_METRIC
        return {first: combined[first], **combined}

    def tallies(self, labels: Any, scores: Any, *, threshold: Any = 0.0) -> Any:
        """Return the tallies of all outputs, by name; None if an output has none."""
        output_tallies = {
            name: task.tallies(
                labels[name], scores[name], threshold=_select_threshold(threshold, name)
            )
            for name, task in self.each
        }
        return None if any(item is None for item in output_tallies.values()) else output_tallies

    def compute_from_tallies(self, sums: Any) -> dict[str, float]:
        """Return the metrics from sums of `tallies` over examples."""
        return self._combine_metrics(
            {name: task.compute_from_tallies(sums[name]) for name, task in self.each}
        )

    def agreement(self, scores: Any, reference: Any, *, threshold: Any = 0.0) -> float:
        """Return the mean agreement over outputs."""
        agreements = [
            task.agreement(
                scores[name], reference[name], threshold=_select_threshold(threshold, name)
            )
            for name, task in self.each
        ]
        return float(np.mean(agreements))

    def error(self, labels: Any, logits: Any) -> float:
        """Return the weighted sum of the outputs' mean losses without label smoothing."""
        return sum(
            self.loss_weights[name] * task.error(labels[name], logits[name])
            for name, task in self.each
        )


def _infer_activation(outputs: Array) -> str:
    if not outputs.size or outputs.min() < 0 or outputs.max() > 1 + 1e-6:
        return "linear"
    sums = outputs.sum(axis=-1, dtype=np.float64)
    is_distribution = outputs.shape[-1] > 1 and bool(np.abs(sums - 1).max() < 1e-3)
    return "softmax" if is_distribution else "sigmoid"


def _select_threshold(threshold: Any, name: str) -> float:
    return float(threshold[name] if isinstance(threshold, Mapping) else threshold)

"""Tasks that need a model: its outputs as labels, its compiled loss, several outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.memory_budget import current_budget
from compress.data.tasks._base import Array, Floats, Task, check_rows, per_example, repeat_row
from compress.data.tasks.classes import MultiClass
from compress.data.tasks.regression import Regression
from compress.data.tasks.yes_no import MultiLabel, sigmoid_loss

COMPILED = "compiled:"
"""Begins the names of qualities that are metrics of the compiled model."""
SKILL = "skill"
"""1 - loss / (loss of answers to other examples): 1 is perfect, 0 looks at no input."""
BATCH = 1024
"""Examples that metrics are given at a time, where the memory budget allows."""
MEAN = "mean_quality"
"""The mean over outputs of the quality that each is judged by, each at least 0."""


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
        """Return the task of so many outputs; answers say what they came out of."""
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

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the cross-entropy with the answers, or the mean squared error, (batch,)."""
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
        """Return that of the plain task."""
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
        return np.asarray(same.reshape(len(same), -1).mean(1))

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0: answers are compared with those of the model itself, which is no sample.

        Whether a model has learned is not known without labels, but one that always answers the
        same has not.
        """
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the agreement with the answers, at least 0; see `agreement`."""
        scores = scores.reshape(labels.shape)
        if self.activation == "sigmoid":
            # answers are probabilities, scores may be logits
            return {"agreement": float(((scores > threshold) == (labels > 0.5)).mean())}
        return {"agreement": max(0.0, self.plain.agreement(scores, labels))}

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal decisions; of numbers R^2 against the reference."""
        return self.plain.agreement(scores, reference, threshold=threshold)


@dataclass(frozen=True)
class Custom(Task):
    """Outputs as they are, a loss on them, and metrics.

    Attributes:
        shape: Of the output for one example.
        function: (labels, outputs) -> losses, (batch, ...) or one number.
        text: What the loss is called, to know a training again.
        metrics: Keras metrics by name.
        main: The quality that selects: a metric's name, with "-" before it where less is better;
            "": `skill`.
        guess: What answers to other examples cost.
        level: What they reach in `main`.
        spread: Variance of the model's outputs: what its answers are told apart by.
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
        """Raise an error: labels do not tell a loss.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "Task 'custom' must be of a model that was compiled with a loss. Received: labels "
            "alone. Give the compiled model with the data."
        )

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: numbers of any shape; whole ones stay whole."""
        if labels.dtype.kind not in "fiub" or not labels.ndim:
            raise InputError(
                f"{name} must be numbers, (n, ...). Received: shape {labels.shape}, type "
                f"{labels.dtype}."
            )
        return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """See `Task.check`: labels are finite."""
        rows = labels.reshape(len(labels), -1)
        check_rows(rows, part, name, rows.shape[1])

    @property
    def qualities(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one that selects, then the others: metrics and `skill`."""
        named = [f"{COMPILED}{name}" for name, _ in self.metrics]
        # "-mae", of which less is better, is called neg_mae
        main = f"neg_{self.main[1:]}" if self.main.startswith("-") else self.main
        first = f"{COMPILED}{main}" if main else SKILL
        return tuple(dict.fromkeys((first, *named, SKILL)))

    @property
    def outputs(self) -> int:
        """The width of the output."""
        return self.shape[-1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """As the model's output is."""
        return self.shape

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the loss, (batch,): the mean of what the function gives for an example."""
        import tensorflow as tf

        # as Keras hands labels to losses
        true = tf.cast(labels, tf.float32)
        call = getattr(self.function, "call", self.function)
        values = tf.cast(call(true, logits), tf.float32)
        if not len(values.shape):
            return tf.fill(tf.shape(logits)[:1], values)
        return per_example(values)

    def chance_loss(self) -> float:
        """Return the loss of outputs for other examples."""
        return self.guess

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the labels' mean and median, or their most frequent class, where they fit outputs.

        What else labels mean is known to the loss alone.
        """
        if labels.shape[1:] == self.shape:
            for middle in (np.mean, np.median):
                row = middle(labels.astype(np.float32), axis=0)
                yield np.broadcast_to(row, labels.shape).astype(np.float32)
        elif labels.shape[1:] in ((), (1,)) and len(self.shape) == 1 and labels.dtype.kind in "iu":
            most = int(np.bincount(np.clip(labels.reshape(-1), 0, None)).argmax())
            if most < self.shape[0]:
                yield repeat_row(np.eye(self.shape[0])[most], labels).astype(np.float32)

    def chance(self, labels: Array) -> float:
        """Return the main metric of the best constant output, or of outputs for other examples."""
        values = [self.quality(labels, scores)[self.qualities[0]]
                  for scores in self.constants(labels)]  # fmt: skip
        return max([self.level, *(value for value in values if np.isfinite(value))])

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0: how metrics of the user's own vary is not known."""
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return the metrics and `skill`, the one that selects first."""
        found = {}
        # metrics make a few arrays of the outputs' size
        each = 4 * (labels[:1].nbytes + scores[:1].nbytes)
        size = current_budget().batch_size(each, most=BATCH, what="the metrics of a custom task")
        for name, metric in self.metrics:
            metric.reset_state()
            for start in range(0, len(labels), size):
                part = slice(start, start + size)
                metric.update_state(labels[part], scores[part])
            found[f"{COMPILED}{name}"] = float(metric.result())
        found[SKILL] = 1.0 - self.error(labels, scores) / self.guess
        first = self.qualities[0]
        if self.main.startswith("-"):
            found[first] = -found[f"{COMPILED}{self.main[1:]}"]
        return {first: found[first], **found}

    def share(self, found: dict[str, float]) -> float:
        """See `Task.share`: `skill`, since metrics may have any unit."""
        return max(0.0, found[SKILL])

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return R^2 of the scores against the reference."""
        return Regression(scores.shape[-1]).agreement(scores, reference)


@dataclass(frozen=True)
class Several(Task):
    """A task for each output; labels, logits and scores are mappings by the outputs' names.

    Attributes:
        each: Names and tasks, in the order of the model's outputs.
        weights: Of the outputs' losses; (): each loss counts by what guessing costs, so that
            outputs of other units count alike.
        main: The quality that selects; "": `mean_quality`.
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
        """Raise an error: labels do not tell the tasks of outputs.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "Task 'several' must be of data that name an output each. Received: labels alone."
        )

    @property
    def parts(self) -> dict[str, Task]:
        """The task of each output, by its name."""
        return dict(self.each)

    @property
    def qualities(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one that selects, `mean_quality`, those of each output behind its name: "box.r2"."""
        named = (f"{name}.{quality}" for name, task in self.each for quality in task.qualities)
        return tuple(dict.fromkeys((self.main or MEAN, MEAN, *named)))

    @property
    def outputs(self) -> int:
        """The widths of all heads together."""
        return sum(task.outputs for _, task in self.each)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each output's loss, by name."""
        given = self.weights or tuple(1.0 / task.chance_loss() for _, task in self.each)
        return dict(zip(self.parts, given, strict=True))

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
        """Yield nothing: the best constant answer is found for each output, see `chance`."""
        yield from ()

    def chance(self, labels: Any) -> float:
        """Return the main metric where each output is its best constant."""
        chosen = self._chosen()
        if chosen is not None:
            return chosen[1].chance(labels[chosen[0]])
        return float(np.mean([
            task.share({task.qualities[0]: task.chance(labels[name]), "skill": 0.0})
            for name, task in self.each
        ]))  # fmt: skip

    def chance_error(self, labels: Any, quality: float) -> float:
        """Return the standard error of the chosen output, or of the mean over outputs."""
        chosen = self._chosen()
        if chosen is not None:
            return chosen[1].chance_error(labels[chosen[0]], quality)
        errors = [task.chance_error(labels[name], quality) for name, task in self.each]
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def _chosen(self) -> tuple[str, Task] | None:
        """Return the output whose quality selects, judged by that; None: the mean selects."""
        for name, task in self.each:
            metric = self.main.removeprefix(f"{name}.")
            if metric != self.main and metric in task.qualities:
                return name, task if metric == task.qualities[0] else task.judged_by(metric)
        return None

    def quality(self, labels: Any, scores: Any, *, threshold: Any = 0.0) -> dict[str, float]:
        """Return `mean_quality` and the qualities of each output behind its name."""
        found = {
            name: task.quality(labels[name], scores[name], threshold=_of(threshold, name))
            for name, task in self.each
        }
        return self._together(found)

    def _together(self, found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        main = [task.share(dict(found[name])) for name, task in self.each]
        each = {f"{name}.{key}": value for name in found for key, value in found[name].items()}
        together = {MEAN: float(np.mean(main)), **each}
        first = self.main or MEAN
        return {first: together[first], **together}

    def tallies(
        self, labels: Any, scores: Any, *, threshold: Any = 0.0
    ) -> npt.NDArray[np.float64] | None:
        """Return the tallies of all outputs side by side, (n, ...); None where one has none."""
        found = []
        for name, task in self.each:
            own = task.tallies(labels[name], scores[name], threshold=_of(threshold, name))
            if own is None:
                return None
            found.append(own.reshape(len(own), -1))
        return np.concatenate(found, 1)

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the qualities of sums over examples of `tallies`."""
        found, start = {}, 0
        for name, task in self.each:
            shape = task.tally_shape
            stop = start + int(np.prod(shape))
            found[name] = task.of_tallies(sums[start:stop].reshape(shape))
            start = stop
        return self._together(found)

    def agreement(self, scores: Any, reference: Any, *, threshold: Any = 0.0) -> float:
        """Return the mean agreement over outputs."""
        found = [
            task.agreement(scores[name], reference[name], threshold=_of(threshold, name))
            for name, task in self.each
        ]
        return float(np.mean(found))

    def error(self, labels: Any, logits: Any) -> float:
        """Return the weighted sum of the outputs' mean losses without label smoothing."""
        return sum(
            self.loss_weights[name] * task.error(labels[name], logits[name])
            for name, task in self.each
        )


def _activation(answers: Array) -> str:
    if not answers.size or answers.min() < 0 or answers.max() > 1 + 1e-6:
        return "linear"
    sums = answers.sum(axis=-1, dtype=np.float64)
    whole = answers.shape[-1] > 1 and bool(np.abs(sums - 1).max() < 1e-3)
    return "softmax" if whole else "sigmoid"


def _of(threshold: Any, name: str) -> float:
    return float(threshold[name] if isinstance(threshold, Mapping) else threshold)

"""A loss and metrics of the user's own, as a model was compiled with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.memory_budget import current_budget
from compress.data.tasks._base import Array, Floats, Task, check_rows, per_example, repeat_row
from compress.data.tasks.regression import Regression

COMPILED = "compiled:"
"""Begins the names of qualities that are metrics of the compiled model."""
SKILL = "skill"
"""1 - loss / (loss of answers to other examples): 1 is perfect, 0 looks at no input."""
BATCH = 1024
"""Examples that metrics are given at a time, where the memory budget allows."""


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
        """Raises an error: labels do not tell a loss.

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
        """Returns the loss, (batch,): the mean of what the function gives for an example."""
        import tensorflow as tf

        # as Keras hands labels to losses
        true = tf.cast(labels, tf.float32)
        call = getattr(self.function, "call", self.function)
        values = tf.cast(call(true, logits), tf.float32)
        if not len(values.shape):
            return tf.fill(tf.shape(logits)[:1], values)
        return per_example(values)

    def chance_loss(self) -> float:
        """Returns what answers to other examples cost."""
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
        """Return what the best constant answer or answers to other examples reach."""
        values = [self.quality(labels, scores)[self.qualities[0]]
                  for scores in self.constants(labels)]  # fmt: skip
        return max([self.level, *(value for value in values if np.isfinite(value))])

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return 0: how metrics of the user's own vary is not known."""
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns the metrics and `skill`, the one that selects first."""
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
        """Returns R^2 of the scores against the reference."""
        return Regression(scores.shape[-1]).agreement(scores, reference)

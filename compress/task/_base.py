"""What a task is: its labels, its loss on logits, and its qualities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class Task(ABC):
    """How a model's outputs are read, trained and judged.

    Attributes:
        name: As `Dataset.kind` says it.
        activation: What turns logits into predictions: "softmax", "sigmoid" or "linear".
        qualities: Names that `quality` returns and more is better of; the first is the one
            that selects unless told otherwise. Each stands in `compress.task.MEANING`: a task
            of your own adds there what it calls otherwise.
        indices: Whether a label is one number: the index of a class; else it is a row.
        shares: Those that are shares of examples, each of which is right or wrong.
        label_smoothing: Share of a target that is moved to the other classes, in [0, 1).
    """

    name: str
    activation: str
    qualities: tuple[str, ...]
    indices: bool = False
    shares: tuple[str, ...] = ()
    label_smoothing: float = 0.0

    @classmethod
    @abstractmethod
    def for_labels(cls, names: int, labels: Array | None) -> Task:
        """Returns the task of a data set.

        Args:
            names: How many classes, labels or targets there are.
            labels: Of the training part, where they are known.
        """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The width of the head."""

    @abstractmethod
    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the loss per example (graph code).

        Args:
            labels: As the data set holds them.
            logits: (batch, outputs), float32.

        Returns:
            (batch,), float32.
        """

    @abstractmethod
    def chance_loss(self) -> float:
        """Returns what a guess costs that looks at no input, at most."""

    @abstractmethod
    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns the qualities of predictions.

        Args:
            labels: As the data set holds them.
            scores: (n, outputs): logits or the model's outputs.
            threshold: Of "yes" in a sigmoid task: 0 for logits, 0.5 for probabilities.
        """

    @abstractmethod
    def chance(self) -> float:
        """Returns the main quality of a guess that looks at no input."""

    @abstractmethod
    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Returns how far two outputs for the same examples say the same, at most 1.

        The share of equal decisions; of numbers R^2 against the reference.

        Args:
            scores: (n, outputs).
            reference: (n, outputs), on the same scale.
            threshold: See `quality`.
        """

    def error(self, labels: Array, logits: Floats) -> float:
        """Returns the mean loss without label smoothing, in float64 where NumPy allows."""
        from dataclasses import replace

        plain: Any = replace(self, label_smoothing=0.0)  # type: ignore[type-var]
        total = 0.0
        for start in range(0, len(labels), _BATCH):
            part = slice(start, start + _BATCH)
            total += float(np.sum(np.asarray(plain.loss(labels[part], logits[part]), np.float64)))
        return total / len(labels)


_BATCH = 65_536

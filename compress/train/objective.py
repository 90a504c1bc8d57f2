"""What training minimises: a loss per example, so that example weights apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from compress.data.tasks import Task

if TYPE_CHECKING:
    import keras


Step = Callable[[Any, Any, Any], Any]
"""(inputs, labels, weights or None) -> the loss, after the model's weights have changed."""


@dataclass(frozen=True)
class Batch:
    """What a loss may look at, in one step (graph code).

    Attributes:
        labels: As the data set holds them.
        logits: Of the student, (batch, outputs), float32.
        features: Outputs of the student's layers that the objective's `feature_layers` name.
        given: The batch's rows of `arrays()` and what `live()` returned.
        weights: Of the examples, (batch,); the loop multiplies by them.
        progress: Share of the training that is done, in [0, 1).
    """

    labels: Any
    logits: Any
    features: Mapping[str, Any]
    given: Mapping[str, Any]
    weights: Any
    progress: Any


class Objective(Protocol):
    """What the training loop asks for.

    Attributes:
        feature_layers: Names of the student's layers whose outputs the loss needs.
        identity: What a training that goes on must agree in.
    """

    feature_layers: Sequence[str]
    identity: str

    def variables(self) -> list[Any]:
        """Returns Keras variables that are trained with the student and then thrown away."""
        ...

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns arrays over the training examples, gathered with each batch."""
        ...

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Returns what is computed from a batch's inputs (graph code)."""
        ...

    def chance_loss(self) -> float:
        """Returns the most that a guess costs; far above it, and above what the training began
        with, it has diverged."""
        ...

    def loss(self, batch: Batch) -> Any:
        """Returns the loss per example, (batch,), float32."""
        ...

    def step(self, model: keras.Model, optimizer: Any) -> Step | None:
        """Returns what makes whole steps of a model; None: the loop does, by the loss.

        Args:
            model: What is trained.
            optimizer: Built for its weights.
        """
        ...


class LabelObjective:
    """The task's own loss.

    Args:
        task: Of the data.
        label_smoothing: Share of a target that moves to the other classes, in [0, 1).
    """

    feature_layers: Sequence[str] = ()

    def __init__(self, task: Task, label_smoothing: float = 0.0) -> None:
        self.task: Any = replace(task, label_smoothing=label_smoothing)  # type: ignore[type-var]
        self.identity = f"labels {self.task!r}"

    def variables(self) -> list[Any]:
        """Trains nothing of its own."""
        return []

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Needs no further arrays."""
        return {}

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Computes nothing from inputs."""
        return {}

    def chance_loss(self) -> float:
        """Returns the task's."""
        return float(self.task.chance_loss())

    def loss(self, batch: Batch) -> Any:
        """Returns the task's loss, (batch,)."""
        return self.task.loss(batch.labels, batch.logits)

    def step(self, model: keras.Model, optimizer: Any) -> Step | None:
        """Leaves steps to the loop."""
        return None

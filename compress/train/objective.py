"""Training objectives: a loss per example, so that weights apply, or the model's own step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.arrays import mapped
from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import CUSTOM, Task
from compress.model.compiled import OwnStep, step_on
from compress.model.copies import copy_model
from compress.model.ports import output_names, packed
from compress.plan import TrainSettings

if TYPE_CHECKING:
    import keras

MOMENTUM = 0.9
EXPONENTIAL_FLOOR = 0.01
"""What the exponential schedule ends at, as a share of the peak learning rate."""
Step = Callable[[Any, Any, Any], Any]
"""(inputs, labels, weights or None) -> the loss, after the model's weights have changed."""


@dataclass(frozen=True)
class Batch:
    """The inputs of a loss in one step (graph code).

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
    """Interface of what the training loop minimises.

    Attributes:
        feature_layers: Names of the student's layers whose outputs the loss needs.
        identity: What a training that goes on must agree in.
    """

    feature_layers: Sequence[str] = ()
    identity: str

    def variables(self) -> list[Any]:
        """Return Keras variables that are trained with the student and then thrown away."""
        return []

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return arrays over the training examples, gathered with each batch."""
        return {}

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Return tensors that are computed from a batch's inputs (graph code)."""
        return {}

    def chance_loss(self) -> float:
        """Return the largest loss of a guess; far above it and above the first loss it has
        diverged.
        """

    def loss(self, batch: Batch) -> Any:
        """Return the loss per example, (batch,), float32."""

    def step(self, model: keras.Model, optimizer: Any) -> Step | None:
        """Return a function that makes a whole step of a model; None: the loop makes it from the
        loss.

        Args:
            model: What is trained.
            optimizer: Built for its weights.
        """
        return None


class LabelObjective(Objective):
    """The task's own loss.

    Args:
        task: Of the data.
        label_smoothing: Share of a target that moves to the other classes, in [0, 1).
    """

    def __init__(self, task: Task, label_smoothing: float = 0.0) -> None:
        self.task: Any = replace(task, label_smoothing=label_smoothing)  # type: ignore[type-var]
        self.identity = f"labels {self.task!r}"

    def chance_loss(self) -> float:
        """Return the chance loss of the task."""
        return float(self.task.chance_loss())

    def loss(self, batch: Batch) -> Any:
        """Return the task's loss, (batch,)."""
        return self.task.loss(batch.labels, batch.logits)


class OwnStepObjective(LabelObjective):
    """Objective that leaves each step to the `train_step` of the user's class.

    Our optimizer, schedule, batches, augmentation and masks are those of any training; losses,
    gradients and what is made of inputs and labels are the class's.

    Args:
        own: The user's.
        task: Of the data, which judges: custom.
    """

    def __init__(self, own: OwnStep, task: Task) -> None:
        super().__init__(task)
        self.own = own
        self.identity = f"train_step of {own.name}, {task!r}"

    def chance_loss(self) -> float:
        """Return infinity: the loss of a guess is unknown for an arbitrary loss."""
        return math.inf

    def step(self, model: keras.Model, optimizer: Any) -> Step:
        """Return a function that makes a step of a graph with an optimizer built for it."""
        worker = self.own.on(model, optimizer)

        def run(inputs: Any, labels: Any, weights: Any) -> Any:
            return step_on(worker, (packed(model, inputs), _answers(model, labels), weights))

        return run


def own_objective(own: OwnStep | None, data: Dataset, name: str) -> OwnStepObjective:
    """Return the objective of a training by a model's own `train_step`.

    Raises:
        InputError: There is none, or labels are not read as they are.
    """
    if own is None:
        raise InputError(
            f"own_train_step must be of a model whose class has a train_step. Received: '{name}', "
            "which is trained as Keras trains any."
        )
    kinds = {item.kind for item in data.outputs} or {data.kind}
    if kinds != {CUSTOM}:
        raise InputError(
            f"own_train_step must go with the task {CUSTOM}, which hands labels over as they are. "
            f"Received: {', '.join(sorted(kinds))}. Give task='{CUSTOM}', of a model that was "
            "compiled with a loss."
        )
    return OwnStepObjective(own, data.task)


def check_own_step(
    objective: OwnStepObjective, model: keras.Model, data: Dataset, settings: TrainSettings
) -> None:
    """Trace a step on a copy of a model, so that errors show before any work.

    Args:
        objective: Of the training.
        model: A graph; it stays as it is.
        data: Whose first training examples are traced with.
        settings: Of the optimizer.

    Raises:
        InputError: The user's `train_step` fails.
    """
    import tensorflow as tf

    copy = copy_model(model)
    step = objective.step(copy, build_optimizer(settings, 1, copy.trainable_variables))
    part = data.train.take(np.arange(min(2, len(data.train))))
    weights = None if part.weight is None else tf.constant(part.weight)
    traced = tf.function(lambda x, y: step(x, y, weights), autograph=False)
    traced.get_concrete_function(  # not called: weights stay
        mapped(tf.constant, data.preprocess(part.x)), mapped(tf.constant, part.y)
    )


def _answers(model: keras.Model, labels: Any) -> Any:
    """Return labels in the structure of the model's outputs."""
    import keras

    if not isinstance(labels, Mapping):
        return labels
    rows = [labels[name] for name in output_names(model)]
    return keras.tree.pack_sequence_as(getattr(model, "output", None), rows)


def learning_rate(settings: TrainSettings, total_steps: int) -> Any:
    """Return the learning rate as a number or a Keras schedule over `total_steps`."""
    import keras

    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, total_steps)
    if settings.schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            settings.learning_rate, total_steps, EXPONENTIAL_FLOOR
        )
    return settings.learning_rate


def build_optimizer(
    settings: TrainSettings, total_steps: int, variables: list[Any], parts: int = 1
) -> keras.optimizers.Optimizer:
    """Build the optimizer for `variables`.

    Weight decay is decoupled for every optimizer (Loshchilov & Hutter 2019) and spares
    vectors (biases, normalization scales), which it would only push towards zero.

    Args:
        settings: Names and numbers.
        total_steps: Batches that the schedule spans, at least 1 (Keras's schedules count batches,
            of parts too).
        variables: The trainable variables.
        parts: How many batches give one step, by the mean of their gradients.

    Returns:
        A Keras optimizer, built.
    """
    import keras

    common: dict[str, Any] = {
        "learning_rate": learning_rate(settings, total_steps),
        "weight_decay": settings.weight_decay or None,
        "gradient_accumulation_steps": parts if parts > 1 else None,
    }
    makers: dict[str, Any] = {
        "sgd": lambda: keras.optimizers.SGD(**common),
        "momentum": lambda: keras.optimizers.SGD(momentum=MOMENTUM, **common),
        "nesterov": lambda: keras.optimizers.SGD(momentum=MOMENTUM, nesterov=True, **common),
        "adagrad": lambda: keras.optimizers.Adagrad(**common),
        "rmsprop": lambda: keras.optimizers.RMSprop(**common),
        "adam": lambda: keras.optimizers.Adam(**common),
        "adamw": lambda: keras.optimizers.AdamW(**common),
    }
    if settings.optimizer == "adamw":
        common["weight_decay"] = settings.weight_decay
    optimizer = makers[settings.optimizer]()
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer

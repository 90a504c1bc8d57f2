"""Training objectives, user-defined training steps, and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.arrays import map_columns
from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.data import Dataset
from compress.data.tasks import CUSTOM, Task
from compress.model.compile_config import CustomTrainStep, run_train_step
from compress.model.copies import copy_model
from compress.model.ports import list_output_names, pack_inputs
from compress.plan import TrainSettings

MOMENTUM = 0.9
EXPONENTIAL_FLOOR = 0.01
"""Final learning rate of the exponential schedule, as a share of the peak."""
Step = Callable[[Any, Any, Any], Any]
"""Function from (inputs, labels, weights or None) to the loss; it also updates the model's
weights."""


@dataclass(frozen=True)
class Batch:
    """Inputs of a loss in one step (graph code).

    Attributes:
        labels: Labels as stored in the data set.
        logits: Logits of the model, (batch, *output_shape), float32; for several outputs, such
            tensors by name.
        features: Outputs of the layers named by the objective's `feature_layers`.
        given: The batch's rows of `Objective.arrays`, and the result of `Objective.live`.
        weights: Weights of the examples, (batch,), float32; the loop multiplies the loss by them.
    """

    labels: Any
    logits: Any
    features: Mapping[str, Any]
    given: Mapping[str, Any]
    weights: Any


class Objective(Protocol):
    """Interface of a training objective.

    Attributes:
        feature_layers: Names of the model's layers with outputs that the loss needs.
        identity: Settings that must match when training resumes.
    """

    feature_layers: Sequence[str] = ()
    identity: str

    def variables(self) -> list[Any]:
        """Return Keras variables that are trained with the model and then discarded."""
        return []

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return arrays with one row per training example, gathered with each batch."""
        return {}

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Return tensors computed from the inputs of a batch (graph code)."""
        return {}

    def chance_loss(self) -> float:
        """Return the largest loss of a constant guess, used to detect divergence."""

    def loss(self, batch: Batch) -> Any:
        """Return the loss per example, (batch,), float32."""

    def step(self, model: keras.Model, optimizer: Any) -> Step | None:
        """Return a function that performs a training step, or None to use the loss.

        Args:
            model: The model to train.
            optimizer: Optimizer built for its weights.
        """
        return None


class LabelObjective(Objective):
    """Loss of the task on the labels.

    Args:
        task: Task of the data.
        label_smoothing: Share of a target that is moved to the other classes, in [0, 1).
    """

    def __init__(self, task: Task, label_smoothing: float = 0.0) -> None:
        self.task: Any = replace(task, label_smoothing=label_smoothing)  # type: ignore[type-var]
        self.identity = f"labels {self.task!r}"

    def chance_loss(self) -> float:
        """Return the loss of a constant guess in the task."""
        return float(self.task.chance_loss())

    def loss(self, batch: Batch) -> Any:
        """Return the loss of the task per example, (batch,)."""
        return self.task.loss(batch.labels, batch.logits)


class OwnStepObjective(LabelObjective):
    """Objective that uses the `train_step` of the user's model class.

    Optimizer, schedule, batches, augmentation and masks are the same as in any training. The user's
    class defines the losses, the gradients and the use of inputs and labels.

    Args:
        own_step: The user's training step.
        task: Custom task of the data, used for evaluation.
    """

    def __init__(self, own_step: CustomTrainStep, task: Task) -> None:
        super().__init__(task)
        self.own_step = own_step
        self.identity = f"train_step of {own_step.name}, {task!r}"

    def chance_loss(self) -> float:
        """Return infinity: the loss of a guess is unknown for an arbitrary loss."""
        return math.inf

    def step(self, model: keras.Model, optimizer: Any) -> Step:
        """Return a function that performs the user's training step."""
        step_model = self.own_step.build_model(model, optimizer)

        def run(inputs: Any, labels: Any, weights: Any) -> Any:
            return run_train_step(
                step_model, (pack_inputs(model, inputs), _pack_labels(model, labels), weights)
            )

        return run


def build_own_objective(
    own_step: CustomTrainStep | None, data: Dataset, name: str
) -> OwnStepObjective:
    """Return the objective for the `train_step` of the model's own class.

    Args:
        own_step: The user's training step; None: the class has none.
        data: Data set of a custom task.
        name: Name of the model, for the error.

    Raises:
        InputError: The class has no `train_step`, or the task is not custom.
    """
    if own_step is None:
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
    return OwnStepObjective(own_step, data.task)


def check_own_step(
    objective: OwnStepObjective, model: keras.Model, data: Dataset, settings: TrainSettings
) -> None:
    """Trace a training step on a copy of the model, so that errors are raised early.

    Args:
        objective: Objective of the training.
        model: A graph; it is not changed.
        data: Data set; its first training examples are used.
        settings: Settings of the optimizer.

    Raises:
        InputError: The user's `train_step` fails.
    """
    copy = copy_model(model)
    step = objective.step(copy, build_optimizer(settings, 1, copy.trainable_variables))
    part = data.train.take(np.arange(min(2, len(data.train))))
    weights = None if part.weight is None else tf.constant(part.weight)
    traced = tf.function(lambda x, y: step(x, y, weights), autograph=False)
    traced.get_concrete_function(  # not called: weights stay
        map_columns(tf.constant, data.preprocess(part.x)), map_columns(tf.constant, part.y)
    )


def _pack_labels(model: keras.Model, labels: Any) -> Any:
    """Return labels in the structure of the model's outputs."""
    if not isinstance(labels, Mapping):
        return labels
    rows = [labels[name] for name in list_output_names(model)]
    return keras.tree.pack_sequence_as(getattr(model, "output", None), rows)


def build_learning_rate(settings: TrainSettings, total_steps: int) -> Any:
    """Return the learning rate as a number or a Keras schedule.

    Args:
        settings: Training settings; the schedule "cosine" ends at 0, "exponential" at 1 % of the
            peak.
        total_steps: Number of steps from the peak to the end; see `build_optimizer`.
    """
    if settings.learning_rate_schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, total_steps)
    if settings.learning_rate_schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            settings.learning_rate, total_steps, EXPONENTIAL_FLOOR
        )
    return settings.learning_rate


def build_optimizer(
    settings: TrainSettings, total_steps: int, variables: list[Any], parts: int = 1
) -> keras.optimizers.Optimizer:
    """Return the optimizer, built for `variables`.

    Weight decay is decoupled for every optimizer (Loshchilov & Hutter 2019). It does not apply to
    vectors (biases, normalization scales), which it would only push towards zero.

    Args:
        settings: Training settings.
        total_steps: Number of batches in the schedule, at least 1; parts of batches count as
            batches, as in Keras's schedules.
        variables: The trainable variables.
        parts: Number of batches per optimizer step, with averaged gradients.

    Returns:
        A built Keras optimizer.
    """
    common: dict[str, Any] = {
        "learning_rate": build_learning_rate(settings, total_steps),
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

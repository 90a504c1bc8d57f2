"""Training by a model's own `train_step`: what `fit` would do with it, in our loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.columns import mapped
from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import CUSTOM, Task
from compress.model.copies import copy_model
from compress.model.own_step import OwnStep, step_on
from compress.model.ports import output_names, packed
from compress.plan import TrainSettings
from compress.train.objective import LabelObjective, Step
from compress.train.optimizers import build_optimizer

if TYPE_CHECKING:
    import keras


class OwnStepObjective(LabelObjective):
    """Leaves each step to the `train_step` of the user's class.

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
        """Returns infinity: what guessing costs in a loss of any kind is not known."""
        return math.inf

    def step(self, model: keras.Model, optimizer: Any) -> Step:
        """Returns what makes a step of a model, a graph, with an optimizer built for it."""
        worker = self.own.on(model, optimizer)

        def run(inputs: Any, labels: Any, weights: Any) -> Any:
            return step_on(worker, (packed(model, inputs), _answers(model, labels), weights))

        return run


def own_objective(own: OwnStep | None, data: Dataset, name: str) -> OwnStepObjective:
    """Returns the objective of a training by a model's own `train_step`.

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
    """Traces a step of a copy of a model: what is wrong shows before any work.

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
    optimizer = build_optimizer(settings, 1, copy.trainable_variables)
    step = objective.step(copy, optimizer)
    part = data.train.take(np.arange(min(2, len(data.train))))
    weights = None if part.weight is None else tf.constant(part.weight)
    labels = mapped(tf.constant, part.y)
    inputs = mapped(tf.constant, data.preprocess(part.x))
    traced = tf.function(lambda x, y: step(x, y, weights), autograph=False)
    traced.get_concrete_function(inputs, labels)  # not called: weights stay


def _answers(model: keras.Model, labels: Any) -> Any:
    """Returns labels in the structure of the model's outputs."""
    import keras

    if not isinstance(labels, Mapping):
        return labels
    structure = getattr(model, "output", None)
    return keras.tree.pack_sequence_as(structure, [labels[name] for name in output_names(model)])

"""The loop itself: epochs, the best of them, a checkpoint after each; batches in parts that fit."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays
from compress.core.device import Device
from compress.core.errors import InputError, TrainingDiverged, unknown_name
from compress.core.memory_budget import current_budget
from compress.data import Dataset
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.compiled import own_step_of
from compress.model.heads import check_head
from compress.model.inference import fused_normalization
from compress.model.internals import layers_inside
from compress.model.logits import logits_view
from compress.plan import TrainSettings
from compress.train import checkpoint as checkpoints
from compress.train.augment import check_augment
from compress.train.objective import LabelObjective, Objective, own_objective
from compress.train.optimizers import build_optimizer
from compress.train.predict import Predictor
from compress.train.records import EpochRecord, Hook, TrainContext, TrainResult
from compress.train.steps import Steps

if TYPE_CHECKING:
    import keras

COPIES = 5
"""Copies of the weights that a training makes: gradients, their sum over the parts, the two of the
optimizer, and the best epoch's."""
LEAST_NORMALIZED = 4
"""Examples that batch normalization must have at least: of fewer the statistics are noise."""
BACKWARD = 1.3
"""Memory of a step over that of the tensors that its backward pass needs."""
DIVERGED = 10.0
"""An epoch whose mean loss is this many times that of guessing, and that before training, has
diverged."""
STEPS_PER_CALL = 50
"""Steps in one call of the compiled function: long enough to hide the call, short
enough for Ctrl-C and progress."""


def train(
    model: keras.Model,
    data: Dataset,
    settings: TrainSettings,
    *,
    device: Device,
    seed: int = 0,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
    select_by: str = "",
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, int, EpochRecord], None] | None = None,
    should_stop: Callable[[EpochRecord], bool] | None = None,
) -> TrainResult:
    """Trains a model in place and leaves it with its best epoch's weights.

    The best epoch is the one with the highest validation quality, ties broken by the
    lower validation loss, among those that every hook allows. Batches are drawn without
    replacement in an order fixed by `seed`; what does not fill the last batch of an
    epoch is left to the next shuffle.

    Args:
        model: A Keras model with one input and one output of (batch, *output_shape).
        data: Training part trains, validation part selects; the test part is not read.
        settings: Optimizer, schedule, epochs, batch size, smoothing, class weights.
        device: From `compress.core.device.setup`.
        seed: Seed of the batch order and of augmentation.
        objective: What to minimise; default: the task's loss with label smoothing, or the
            model's own `train_step` where the settings ask for it.
        hooks: Acting during training (pruning).
        select_by: A name among `data.task.qualities`; default: the first.
        checkpoint: A file that is written after each epoch; where it exists, training goes
            on from it. It stays when training is done.
        on_epoch: Called after each epoch with (epoch, epochs, record).
        should_stop: Called after each epoch but the last; True ends the training there. Schedules
            are laid out for all epochs.

    Returns:
        History and best epoch.

    Raises:
        InputError: The model does not fit the data, or the checkpoint is of another training.
        TrainingDiverged: The loss became NaN or infinite, or exploded; the message says
            when. The model is then left with unusable weights.
    """
    settings.require_epochs()
    check_head(model, data)
    check_augment(settings.augment, data)
    if objective is None and settings.own_train_step:
        objective = own_objective(own_step_of(model), data, model.name)
    objective = objective or LabelObjective(data.task, settings.label_smoothing)
    select_by = select_by or data.task.qualities[0]
    if select_by not in data.task.qualities:
        raise unknown_name("quality", select_by, data.task.qualities)
    if not model.trainable_variables:
        raise InputError(f"Model '{model.name}' must have trainable weights. Received: none.")
    context = TrainContext(data, settings, objective, hooks, device, seed, select_by)
    parts = checkpoints.parts_of(checkpoint) if checkpoint else None
    if parts is None:
        parts = parts_of_a_batch(
            model, context.whole_batch, sizes=list(data.input_shapes.values()),
            teachers=getattr(objective, "models", ()),
        )  # fmt: skip
    context = replace(context, parts=parts)
    training = Training(model, context)
    with (
        logits_view(model, data.task, objective.feature_layers) as view,
        fused_normalization(model),
    ):
        training.start(view, checkpoint)
        for epoch in range(training.done + 1, context.epochs + 1):
            record = training.epoch(epoch)
            if checkpoint is not None:
                checkpoints.save(training.saved(), checkpoint)
            if on_epoch:
                on_epoch(epoch, context.epochs, record)
            if should_stop and epoch < context.epochs and should_stop(record):
                break
    result = training.result()
    if parts == 1:
        return result
    return replace(result, notes=(note_on_parts(model, context.whole_batch, parts), *result.notes))


class Training:
    """One training: what it has so far, and how it takes one epoch more."""

    def __init__(self, model: keras.Model, context: TrainContext) -> None:
        self.model, self.context = model, context
        self.history: list[EpochRecord] = []
        self.best: tuple[tuple[float, float], int, list[npt.NDArray[Any]]] | None = None
        self.yardstick = 0.0

    @property
    def done(self) -> int:
        """Epochs that are over."""
        return len(self.history)

    def start(self, view: Any, checkpoint: Path | None) -> None:
        """Builds optimizer and compiled steps; goes on from a checkpoint where there is one."""
        import keras
        import tensorflow as tf

        stored = checkpoints.load(checkpoint, self._identity()) if checkpoint else None
        if stored:
            stored.assign("model", self.model.variables)
        context, objective = self.context, self.context.objective
        variables = [*self.model.trainable_variables, *objective.variables()]
        settings = replace(context.settings, accumulate=context.accumulate)
        optimizer: Any = build_optimizer(settings, context.total_steps, variables)
        if context.device.policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(variables)
        self.optimizer = optimizer
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        for place, hook in enumerate(context.hooks):
            hook.start(
                self.model,
                self.step,
                context.total_steps,
                context.steps_per_epoch,
                jit=context.device.jit,
                state=stored.state(f"hook{place}") if stored else None,
            )
        if stored:
            self._restore(stored)
        self.order = np.random.default_rng(context.seed)
        for _ in self.history:
            self.order.permutation(len(context.data.train))
        self.run = Steps(
            context,
            view=view,
            variables=variables,
            optimizer=optimizer,
            step=self.step,
            own=objective.step(self.model, optimizer),
        )
        self.yardstick = self._yardstick(stored)
        feature_layers = bool(objective.feature_layers)
        logits = (lambda x, training: view(x, training=training)[0]) if feature_layers else view
        self.predict = Predictor(logits, context.data.preprocess, self.model)

    def _yardstick(self, stored: checkpoints.Checkpoint | None) -> float:
        """Returns what a training that has learnt nothing costs: the start's, where it goes on.

        Guessing alone is no measure: inputs may be large, penalties too.
        """
        if stored and "yardstick" in stored.about:
            return float(stored.about["yardstick"])
        chance = self.context.objective.chance_loss()
        if math.isinf(chance):
            return chance
        first = self.run.first_loss(len(self.context.data.train))
        return max(chance, first if math.isfinite(first) else 0.0)

    def epoch(self, epoch: int) -> EpochRecord:
        """Trains and validates once."""
        began = time.perf_counter()
        context, data, task = self.context, self.context.data, self.context.data.task
        shuffled = self.order.permutation(len(data.train))
        shuffled = shuffled[: context.steps_per_epoch * context.batch]
        index = shuffled.reshape(-1, context.batch).astype(np.int32)
        loss = _run_epoch(self.run, index, epoch)
        if loss > DIVERGED * self.yardstick:
            raise TrainingDiverged(
                f"the mean loss of epoch {epoch} is {loss:.3g}, above {DIVERGED:g} times "
                f"that of guessing and that before training ({self.yardstick:.3g})"
            )
        logits = self.predict(data.val.x)
        if not all(np.isfinite(made).all() for made in arrays(logits)):
            raise TrainingDiverged(f"outputs are not finite after epoch {epoch}")
        labels = data.labels(data.val)
        record = EpochRecord(
            epoch,
            loss,
            task.error(labels, logits),
            task.quality(labels, logits),
            time.perf_counter() - began,
        )
        self.history.append(record)
        rank = self._rank(record)
        allowed = all(hook.may_select(epoch * context.steps_per_epoch) for hook in context.hooks)
        if allowed and (self.best is None or rank > self.best[0]):
            self.best = (rank, epoch, [variable.numpy() for variable in self.model.variables])
        return record

    def result(self) -> TrainResult:
        """Puts the best epoch's weights back and tells how it went."""
        if self.best is None:
            raise InputError(
                "Training must be long enough for its schedule to end. "
                f"Received: {self.context.epochs} epochs."
            )
        for variable, value in zip(self.model.variables, self.best[2], strict=True):
            variable.assign(value)
        return TrainResult(
            tuple(self.history),
            self.best[1],
            self.history[self.best[1] - 1].val,
            int(self.step.numpy()),
            tuple(self.run.notes),
        )

    def _rank(self, record: EpochRecord) -> tuple[float, float]:
        """Returns what selects the best epoch, the more the better."""
        return record.val[self.context.select_by], -record.val_loss

    # -- going on ---------------------------------------------------------------------------

    def _identity(self) -> str:
        context = self.context
        variables = [f"{v.path} {tuple(v.shape)}" for v in self.model.variables]
        structure = hashlib.sha256("\n".join(variables).encode()).hexdigest()[:16]
        settings = [f"{key} {value!r}" for key, value in asdict(context.settings).items()]
        return "\n".join(
            [
                f"model {structure}",
                f"data {context.data.fingerprint()}",
                f"seed {context.seed}",
                f"selection by {context.select_by}",
                context.objective.identity,
                *settings,
            ]
        )

    def saved(self) -> checkpoints.Checkpoint:
        """Returns everything that a training needs to go on after the last epoch."""
        about: dict[str, Any] = {
            "history": [asdict(record) for record in self.history],
            "best": self.best[1] if self.best else None,
            "step": int(self.step.numpy()),
            "yardstick": self.yardstick,
            "parts": self.context.parts,
        }
        made = checkpoints.Checkpoint(self._identity(), about)
        made.put("model", self.model.variables)
        made.put("optimizer", self.optimizer.variables)
        made.put("objective", self.context.objective.variables())
        made.put("best", self.best[2] if self.best else [])
        for place, hook in enumerate(self.context.hooks):
            made.arrays |= {f"hook{place}/{key}": v for key, v in hook.state().items()}
        return made

    def _restore(self, stored: checkpoints.Checkpoint) -> None:
        stored.assign("optimizer", self.optimizer.variables)
        stored.assign("objective", self.context.objective.variables())
        self.step.assign(stored.about["step"])
        self.history = [EpochRecord(**record) for record in stored.about["history"]]
        if stored.about["best"]:
            record = self.history[stored.about["best"] - 1]
            self.best = (self._rank(record), record.epoch, stored.get("best"))


def _run_epoch(run: Callable[[Any], Any], index: npt.NDArray[np.int32], epoch: int) -> float:
    """Runs the steps of one epoch, (steps, batch) indices, and returns the mean loss."""
    import tensorflow as tf

    total = 0.0
    for start in range(0, len(index), STEPS_PER_CALL):
        total += float(run(tf.constant(index[start : start + STEPS_PER_CALL])))
        if not math.isfinite(total):
            raise TrainingDiverged(f"the loss is NaN or infinite in epoch {epoch}")
    return total / len(index)


def parts_of_a_batch(
    model: keras.Model,
    batch: int,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    teachers: Sequence[keras.Model] = (),
) -> int:
    """Return into how many parts a batch is cut, so that a part fits into memory.

    The gradients of the parts are averaged into one step of the optimizer. Batch normalization sees
    the parts; everything else computes the same.

    Args:
        model: What is trained.
        batch: Examples.
        sizes: Of one example, an input each.
        teachers: What runs in every step, in inference mode.

    Raises:
        InputError: Not even the smallest part fits; the message names the memory that would do.
    """
    live = sum(activation_bytes(teacher, sizes).live for teacher in teachers)
    each = int(BACKWARD * activation_bytes(model, sizes).total + OVERHEAD * live)
    least = min(batch, LEAST_NORMALIZED if _is_normalized(model) else 1)
    size = current_budget().batch_size(
        each,
        most=batch,
        what=f"training model '{model.name}'",
        fixed=COPIES * 4 * model.count_params(),
        least=least,
    )
    return -(-batch // size)


def note_on_parts(model: keras.Model, batch: int, parts: int) -> str:
    """Return what a report says of batches that were cut."""
    note = f"memory holds no batch of {batch}: it was trained in {parts} parts"
    if _is_normalized(model):
        note += ", whose statistics batch normalization used"
    return note


def _is_normalized(model: keras.Model) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_inside(model))

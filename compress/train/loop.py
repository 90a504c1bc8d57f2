"""The loop itself: epochs, the best of them, a checkpoint after each; batches in parts that fit."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from compress.train.objective import LabelObjective, Objective, build_optimizer, own_objective
from compress.train.predict import Predictor
from compress.train.records import (
    Checkpoint,
    EpochRecord,
    Hook,
    TrainResult,
    load_checkpoint,
    parts_of_checkpoint,
    save_checkpoint,
)
from compress.train.steps import Steps, check_augment

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
    """Train a model in place and leaves it with its best epoch's weights.

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
    training = Training(model, data, settings, objective, hooks, device, seed, select_by)
    parts = parts_of_checkpoint(checkpoint) if checkpoint else None
    if parts is None:
        parts = parts_of_a_batch(
            model, training.whole_batch, sizes=list(data.input_shapes.values()),
            teachers=getattr(objective, "models", ()),
        )  # fmt: skip
    training.parts = parts
    with (
        logits_view(model, data.task, objective.feature_layers) as view,
        fused_normalization(model),
    ):
        training.start(view, checkpoint)
        for epoch in range(len(training.history) + 1, training.epochs + 1):
            record = training.epoch(epoch)
            if checkpoint is not None:
                save_checkpoint(training.saved(), checkpoint)
            if on_epoch:
                on_epoch(epoch, training.epochs, record)
            if should_stop and epoch < training.epochs and should_stop(record):
                break
    result = training.result()
    if parts == 1:
        return result
    note = f"memory holds no batch of {training.whole_batch}: it was trained in {parts} parts"
    if _is_normalized(model):
        note += ", whose statistics batch normalization used"
    return replace(result, notes=(note, *result.notes))


@dataclass(eq=False)
class Training:
    """One training: its settings, its progress, and the step to the next epoch.

    Attributes:
        model: What is trained.
        data: Training part trains, validation part selects.
        settings: How to train.
        objective: What is minimised.
        hooks: Acting during training.
        device: What computes.
        seed: Of the batch order and of augmentation.
        select_by: The validation quality that selects the best epoch.
        parts: Into how many a batch is cut; see `parts_of_a_batch`.
        history: A record an epoch.
        best: Rank, number and variables of the best epoch; None: there is none yet.
        yardstick: What a training that has learnt nothing costs.
    """

    model: keras.Model
    data: Dataset
    settings: TrainSettings
    objective: Objective
    hooks: Sequence[Hook]
    device: Device
    seed: int
    select_by: str
    parts: int = 1
    history: list[EpochRecord] = field(default_factory=list)
    best: tuple[tuple[float, float], int, list[npt.NDArray[Any]]] | None = None
    yardstick: float = 0.0

    @property
    def whole_batch(self) -> int:
        """Examples that are asked for in a step."""
        return min(self.settings.batch_size, len(self.data.train))

    @property
    def batch(self) -> int:
        """Examples of a step: a part of a batch."""
        return -(-self.whole_batch // self.parts)

    @property
    def steps_per_epoch(self) -> int:
        """Full steps of an epoch."""
        return len(self.data.train) // self.batch

    @property
    def epochs(self) -> int:
        """Epochs of the training: as many as of whole batches."""
        return self.settings.epochs_for(len(self.data.train) // self.whole_batch)

    @property
    def total_steps(self) -> int:
        """Steps of the training."""
        return self.epochs * self.steps_per_epoch

    def start(self, view: Any, checkpoint: Path | None) -> None:
        """Build the optimizer and the compiled steps; resume from a checkpoint if there is one."""
        import keras
        import tensorflow as tf

        stored = load_checkpoint(checkpoint, self._identity()) if checkpoint else None
        if stored:
            stored.assign("model", self.model.variables)
        objective = self.objective
        variables = [*self.model.trainable_variables, *objective.variables()]
        optimizer: Any = build_optimizer(self.settings, self.total_steps, variables, self.parts)
        if self.device.policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(variables)
        self.optimizer = optimizer
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        for place, hook in enumerate(self.hooks):
            hook.start(
                self.model,
                self.step,
                self.total_steps,
                self.steps_per_epoch,
                jit=self.device.jit,
                state=stored.state(f"hook{place}") if stored else None,
            )
        if stored:
            self._restore(stored)
        self.order = np.random.default_rng(self.seed)
        for _ in self.history:
            self.order.permutation(len(self.data.train))
        self.run = Steps(
            self,
            view=view,
            variables=variables,
            optimizer=optimizer,
            step=self.step,
            own=objective.step(self.model, optimizer),
        )
        self.yardstick = self._yardstick(stored)
        has_features = bool(objective.feature_layers)
        logits = (lambda x, training: view(x, training=training)[0]) if has_features else view
        self.predict = Predictor(logits, self.data.preprocess, self.model)

    def _yardstick(self, stored: Checkpoint | None) -> float:
        """Return the loss of a training that has learnt nothing: that of the start, if it is
        resumed.

        Guessing alone is no measure: inputs may be large, penalties too.
        """
        if stored and "yardstick" in stored.about:
            return float(stored.about["yardstick"])
        chance = self.objective.chance_loss()
        if math.isinf(chance):
            return chance
        first = self.run.first_loss(len(self.data.train))
        return max(chance, first if math.isfinite(first) else 0.0)

    def epoch(self, epoch: int) -> EpochRecord:
        """Train and validate for one epoch."""
        import tensorflow as tf

        began = time.perf_counter()
        data, task = self.data, self.data.task
        shuffled = self.order.permutation(len(data.train))
        shuffled = shuffled[: self.steps_per_epoch * self.batch]
        index = shuffled.reshape(-1, self.batch).astype(np.int32)
        total = 0.0
        for start in range(0, len(index), STEPS_PER_CALL):
            total += float(self.run(tf.constant(index[start : start + STEPS_PER_CALL])))
            if not math.isfinite(total):
                raise TrainingDiverged(f"the loss is NaN or infinite in epoch {epoch}")
        loss = total / len(index)
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
        allowed = all(hook.may_select(epoch * self.steps_per_epoch) for hook in self.hooks)
        if allowed and (self.best is None or rank > self.best[0]):
            self.best = (rank, epoch, [variable.numpy() for variable in self.model.variables])
        return record

    def result(self) -> TrainResult:
        """Restore the weights of the best epoch and return the record of the training."""
        if self.best is None:
            raise InputError(
                "Training must be long enough for its schedule to end. "
                f"Received: {self.epochs} epochs."
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
        """Return the key that selects the best epoch; larger is better."""
        return record.val[self.select_by], -record.val_loss

    # -- going on ---------------------------------------------------------------------------

    def _identity(self) -> str:
        variables = "\n".join(f"{v.path} {tuple(v.shape)}" for v in self.model.variables)
        return "\n".join(
            [
                f"model {hashlib.sha256(variables.encode()).hexdigest()[:16]}",
                f"data {self.data.fingerprint()}",
                f"seed {self.seed}",
                f"selection by {self.select_by}",
                self.objective.identity,
                *(f"{key} {value!r}" for key, value in asdict(self.settings).items()),
            ]
        )

    def saved(self) -> Checkpoint:
        """Return the checkpoint after the last epoch."""
        about: dict[str, Any] = {
            "history": [asdict(record) for record in self.history],
            "best": self.best[1] if self.best else None,
            "step": int(self.step.numpy()),
            "yardstick": self.yardstick,
            "parts": self.parts,
        }
        made = Checkpoint(self._identity(), about)
        made.put("model", self.model.variables)
        made.put("optimizer", self.optimizer.variables)
        made.put("objective", self.objective.variables())
        made.put("best", self.best[2] if self.best else [])
        for place, hook in enumerate(self.hooks):
            made.arrays |= {f"hook{place}/{key}": v for key, v in hook.state().items()}
        return made

    def _restore(self, stored: Checkpoint) -> None:
        stored.assign("optimizer", self.optimizer.variables)
        stored.assign("objective", self.objective.variables())
        self.step.assign(stored.about["step"])
        self.history = [EpochRecord(**record) for record in stored.about["history"]]
        if stored.about["best"]:
            record = self.history[stored.about["best"] - 1]
            self.best = (self._rank(record), record.epoch, stored.get("best"))


def parts_of_a_batch(
    model: keras.Model,
    batch: int,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    teachers: Sequence[keras.Model] = (),
) -> int:
    """Return the number of parts that a batch is split into so that each part fits into memory.

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
    size = current_budget().batch_size(
        each,
        most=batch,
        what=f"training model '{model.name}'",
        fixed=COPIES * 4 * model.count_params(),
        least=min(batch, LEAST_NORMALIZED if _is_normalized(model) else 1),
    )
    return -(-batch // size)


def _is_normalized(model: keras.Model) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_inside(model))

"""The loop itself: epochs, the best of them, and a checkpoint after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.device import Device
from compress.core.errors import InputError, unknown_name
from compress.data import Dataset
from compress.model.fused_batchnorm import fused_normalization
from compress.model.heads import check_head
from compress.model.logits import logits_view
from compress.model.own_step import own_step_of
from compress.plan import TrainSettings
from compress.train import checkpoint as checkpoints
from compress.train.augment import check_augment
from compress.train.context import TrainContext
from compress.train.micro_batches import note_on_parts, parts_of_a_batch
from compress.train.objective import LabelObjective, Objective
from compress.train.own_step import own_objective
from compress.train.records import EpochRecord, Hook, TrainResult
from compress.train.training import Training

if TYPE_CHECKING:
    import keras


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

"""Training loop: epochs, the best epoch, checkpoints, and batches split to fit into memory."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import list_arrays
from compress.core.device import Device
from compress.core.errors import InputError, TrainingDiverged, build_unknown_name_error
from compress.core.lazy_modules import keras, tf
from compress.core.memory_budget import get_current_budget
from compress.data import Dataset
from compress.model.activations import OVERHEAD, count_activation_bytes
from compress.model.compile_config import find_custom_train_step
from compress.model.heads import check_head
from compress.model.keras_internals import list_layers
from compress.model.layer_patches import use_fused_batch_norm
from compress.model.logits import open_logits_view
from compress.plan import TrainSettings
from compress.train.objective import LabelObjective, Objective, build_optimizer, build_own_objective
from compress.train.predict import Predictor
from compress.train.records import (
    STORED_NAMES,
    Checkpoint,
    EpochRecord,
    Hook,
    TrainResult,
    load_checkpoint,
    read_part_count,
    save_checkpoint,
)
from compress.train.steps import Steps, check_augment

WEIGHT_COPIES = 5
"""Copies of the weights during training: gradients, their sum over the parts, two of the optimizer,
and those of the best epoch."""
MIN_NORMALIZED = 4
"""Minimum number of examples for batch normalization; with fewer the statistics are too noisy."""
BACKWARD_FACTOR = 1.3
"""Memory of a step relative to the tensors that its backward pass needs."""
DIVERGENCE_FACTOR = 10.0
"""Training has diverged if the mean loss of an epoch exceeds this multiple of the baseline loss,
the larger of the loss of a guess and the loss before training."""
STEPS_PER_CALL = 50
"""Steps per call of the compiled function: enough to hide the call's overhead, few enough for
Ctrl-C and progress."""
TRAINING_SHARE = 0.95
"""Share of an epoch's progress after its last step; the rest is the validation."""


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
    on_share: Callable[[float], None] | None = None,
    should_stop: Callable[[EpochRecord], bool] | None = None,
    seconds: float | None = None,
) -> TrainResult:
    """Train a model in place and restore the weights of its best epoch.

    The best epoch is the one with the highest validation metric (ties: the lowest validation loss)
    among those that every hook allows. Batches are drawn without replacement in an order given by
    `seed`; examples that do not fill the last batch of an epoch are skipped in that epoch.

    Args:
        model: A Keras model that fits the task of the data.
        data: Data set; the training part is used for training, the validation part for selection;
            the test part is not used.
        settings: Optimizer, schedule, epochs, batch size, label smoothing, class weights.
        device: A device from `compress.core.device.setup_device`.
        seed: Seed of the batch order and of augmentation.
        objective: Objective to minimize; default: the task's loss with label smoothing, or the
            model's own `train_step` if the settings request it.
        hooks: Hooks that act during training (pruning).
        select_by: Selection metric among `data.task.qualities`; default: the first.
        checkpoint: File that is written after each epoch, with the suffix ".npz"; if it exists,
            training resumes from it. It is kept when training is done.
        on_epoch: Called after each epoch with (epoch, epochs, record).
        on_share: Called at the start and within each epoch with the share of the whole training
            that is done.
        should_stop: Called with the record of each epoch but the last; True stops the training.
            Schedules always span all epochs.
        seconds: Time limit, at which the training ends within an epoch; default: none. It leaves a
            hook's schedule unfinished.

    Returns:
        History and best epoch.

    Raises:
        InputError: The model does not fit the data or has no trainable weights, the memory is too
            small, the checkpoint belongs to another training, or the hooks allow no epoch.
        TrainingDiverged: The loss became NaN, infinite or too large (see `DIVERGENCE_FACTOR`), or
            outputs are not finite; the message names the epoch. The model's weights are then
            unusable.
    """
    settings.require_epochs()
    check_head(model, data)
    check_augment(settings.augment, data)
    if objective is None and settings.own_train_step:
        objective = build_own_objective(find_custom_train_step(model), data, model.name)
    objective = objective or LabelObjective(data.task, settings.label_smoothing)
    select_by = select_by or data.task.qualities[0]
    if select_by not in data.task.qualities:
        raise build_unknown_name_error("quality", select_by, data.task.qualities)
    if not model.trainable_variables:
        raise InputError(f"Model '{model.name}' must have trainable weights. Received: none.")
    training = Training(model, data, settings, objective, hooks, device, seed, select_by)
    parts = read_part_count(checkpoint) if checkpoint else None
    if parts is None:
        parts = count_batch_parts(
            model, training.batch_size, sizes=list(data.input_shapes.values()),
            teachers=getattr(objective, "models", ()),
        )  # fmt: skip
    training.parts, training.on_share = parts, on_share
    if seconds is not None:
        training.deadline = time.perf_counter() + seconds
    if on_share is not None:
        on_share(0.0)  # what was before says nothing about the speed of steps
    with (
        open_logits_view(model, data.task, objective.feature_layers) as view,
        use_fused_batch_norm(model),
    ):
        training.start(view, checkpoint)
        for epoch in range(len(training.history) + 1, training.epochs + 1):
            record = training.run_epoch(epoch)
            if checkpoint is not None:
                save_checkpoint(training.build_checkpoint(), checkpoint)
            if on_epoch:
                on_epoch(epoch, training.epochs, record)
            if training.is_over:
                steps, total = int(training.step.numpy()), training.total_steps
                if steps < total:
                    done = f"{steps:,} of {total:,} steps"
                    training.run.notes.append(
                        f"its time limit of {seconds:.0f} s ended the training after {done}"
                    )
                break
            if should_stop and epoch < training.epochs and should_stop(record):
                break
    if parts > 1:
        note = f"memory holds no batch of {training.batch_size}: it was trained in {parts} parts"
        if _has_batch_norm(model):
            note += ", whose statistics batch normalization used"
        training.run.notes.insert(0, note)
    return training.finish()


@dataclass(eq=False)
class Training:
    """State of a training: its settings, its progress, and the function for the next epoch.

    Attributes:
        model: The model to train.
        data: Data set; the training part is used for training, the validation part for selection.
        settings: Training settings.
        objective: Objective to minimize.
        hooks: Hooks that act during training.
        device: Device of the computation.
        seed: Seed of the batch order and of augmentation.
        select_by: Validation metric that selects the best epoch.
        parts: Number of parts of a batch; see `count_batch_parts`.
        on_share: See `train`.
        deadline: Value of `time.perf_counter` at which the training ends.
        history: One record per epoch.
        best: Rank, number and variables of the best epoch; None: there is none yet.
        baseline_loss: The larger of the loss of a guess and the loss before training; infinite if
            the loss of a guess is unknown. See `DIVERGENCE_FACTOR`.
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
    on_share: Callable[[float], None] | None = None
    deadline: float = math.inf
    history: list[EpochRecord] = field(default_factory=list)
    best: tuple[tuple[float, float], int, list[npt.NDArray[Any]]] | None = None
    baseline_loss: float = 0.0

    @property
    def batch_size(self) -> int:
        """Number of examples per batch, at most those of an epoch."""
        return min(self.settings.batch_size, self.epoch_examples)

    @property
    def epoch_examples(self) -> int:
        """Number of examples per epoch."""
        return self.settings.count_epoch_examples(len(self.data.train))

    @property
    def part_size(self) -> int:
        """Number of examples per step, which is a part of a batch."""
        return -(-self.batch_size // self.parts)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full steps per epoch."""
        return self.epoch_examples // self.part_size

    @property
    def epochs(self) -> int:
        """Number of epochs, which does not depend on the number of parts of a batch."""
        return self.settings.count_epochs(self.settings.count_steps(len(self.data.train)))

    @property
    def total_steps(self) -> int:
        """Number of steps of the training."""
        return self.epochs * self.steps_per_epoch

    @property
    def is_over(self) -> bool:
        """Whether the time limit is reached."""
        return time.perf_counter() >= self.deadline

    def start(self, view: Any, checkpoint: Path | None) -> None:
        """Build the optimizer and the compiled steps, and resume from a checkpoint if it exists.

        Args:
            view: Function from inputs to logits, and to features if the objective needs any.
            checkpoint: File of the checkpoint, or None.
        """
        stored = load_checkpoint(checkpoint, self._describe_identity()) if checkpoint else None
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
        for index, hook in enumerate(self.hooks):
            hook.start(
                self.model,
                self.step,
                self.total_steps,
                self.steps_per_epoch,
                jit=self.device.jit,
                state=stored.read_named(f"hook{index}") if stored else None,
            )
        if stored:
            self._restore(stored)
        self.order = np.random.default_rng(self.seed)
        self.drawn = np.empty(0, np.int64)
        for _ in self.history:
            self._draw_epoch()
        self.run = Steps(
            self,
            view=view,
            variables=variables,
            optimizer=optimizer,
            step=self.step,
            own_step=objective.step(self.model, optimizer),
        )
        self.baseline_loss = self._measure_baseline_loss(stored)
        has_features = bool(objective.feature_layers)
        logits = (lambda x, training: view(x, training=training)[0]) if has_features else view
        self.predict = Predictor(logits, self.data.preprocess, self.model)

    def _measure_baseline_loss(self, stored: Checkpoint | None) -> float:
        """Return `baseline_loss`; a resumed training uses the stored value.

        The loss of a guess is not sufficient: large inputs or penalties may exceed it.
        """
        if stored and "yardstick" in stored.about:
            return float(stored.about["yardstick"])
        chance = self.objective.chance_loss()
        if math.isinf(chance):
            return chance
        first = self.run.measure_first_loss(len(self.data.train))
        return max(chance, first if math.isfinite(first) else 0.0)

    def _draw_epoch(self) -> npt.NDArray[np.int64]:
        """Draw the examples of an epoch; all are drawn before any is drawn again."""
        size = self.steps_per_epoch * self.part_size
        if len(self.drawn) < size:
            self.drawn = self.order.permutation(len(self.data.train))
        drawn, self.drawn = self.drawn[:size], self.drawn[size:]
        return drawn

    def run_epoch(self, epoch: int) -> EpochRecord:
        """Train for one epoch and evaluate on the validation part."""
        start_time = time.perf_counter()
        data, task = self.data, self.data.task
        index = self._draw_epoch().reshape(-1, self.part_size).astype(np.int32)
        total = 0.0
        for start in range(0, len(index), STEPS_PER_CALL):
            total += float(self.run(tf.constant(index[start : start + STEPS_PER_CALL])))
            if not math.isfinite(total):
                raise TrainingDiverged(f"the loss is NaN or infinite in epoch {epoch}")
            if self.is_over:
                index = index[: start + STEPS_PER_CALL]
                break
            if self.on_share is not None:
                share = TRAINING_SHARE * min(1.0, (start + STEPS_PER_CALL) / len(index))
                self.on_share((epoch - 1 + share) / self.epochs)
        loss = total / len(index)
        if loss > DIVERGENCE_FACTOR * self.baseline_loss:
            raise TrainingDiverged(
                f"the mean loss of epoch {epoch} is {loss:.3g}, above {DIVERGENCE_FACTOR:g} times "
                f"that of guessing and that before training ({self.baseline_loss:.3g})"
            )
        logits = self.predict(data.val.x)
        if not all(np.isfinite(output).all() for output in list_arrays(logits)):
            raise TrainingDiverged(f"outputs are not finite after epoch {epoch}")
        labels = data.labels(data.val)
        record = EpochRecord(
            epoch,
            loss,
            task.error(labels, logits),
            task.quality(labels, logits),
            time.perf_counter() - start_time,
            len(index) / self.steps_per_epoch,
        )
        self.history.append(record)
        rank = self._compute_rank(record)
        is_selectable = all(hook.may_select(epoch * self.steps_per_epoch) for hook in self.hooks)
        if is_selectable and (self.best is None or rank > self.best[0]):
            self.best = (rank, epoch, [variable.numpy() for variable in self.model.variables])
        return record

    def finish(self) -> TrainResult:
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

    def _compute_rank(self, record: EpochRecord) -> tuple[float, float]:
        """Return the key that selects the best epoch; larger is better."""
        return record.val[self.select_by], -record.val_loss

    # -- resuming ---------------------------------------------------------------------------

    def _describe_identity(self) -> str:
        """Return the text a checkpoint must match: variables, data, seed, objective, settings."""
        variables = "\n".join(f"{v.path} {tuple(v.shape)}" for v in self.model.variables)
        return "\n".join(
            [
                f"model {hashlib.sha256(variables.encode()).hexdigest()[:16]}",
                f"data {self.data.fingerprint()}",
                f"seed {self.seed}",
                f"selection by {self.select_by}",
                self.objective.identity,
                *(
                    f"{STORED_NAMES.get(key, key)} {value!r}"
                    for key, value in asdict(self.settings).items()
                    if key != "epoch_examples" or value is not None  # older checkpoints have none
                ),
            ]
        )

    def build_checkpoint(self) -> Checkpoint:
        """Return the checkpoint after the last epoch."""
        about: dict[str, Any] = {
            "history": [asdict(record) for record in self.history],
            "best": self.best[1] if self.best else None,
            "step": int(self.step.numpy()),
            "yardstick": self.baseline_loss,
            "parts": self.parts,
        }
        checkpoint = Checkpoint(self._describe_identity(), about)
        checkpoint.store_values("model", self.model.variables)
        checkpoint.store_values("optimizer", self.optimizer.variables)
        checkpoint.store_values("objective", self.objective.variables())
        checkpoint.store_values("best", self.best[2] if self.best else [])
        for index, hook in enumerate(self.hooks):
            checkpoint.arrays |= {f"hook{index}/{key}": v for key, v in hook.state().items()}
        return checkpoint

    def _restore(self, stored: Checkpoint) -> None:
        stored.assign("optimizer", self.optimizer.variables)
        stored.assign("objective", self.objective.variables())
        self.step.assign(stored.about["step"])
        self.history = [EpochRecord(**record) for record in stored.about["history"]]
        if stored.about["best"]:
            record = self.history[stored.about["best"] - 1]
            self.best = (self._compute_rank(record), record.epoch, stored.read_values("best"))


def count_batch_parts(
    model: keras.Model,
    batch: int,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    teachers: Sequence[keras.Model] = (),
) -> int:
    """Return the number of parts into which a batch is split to fit into memory.

    The gradients of the parts are averaged into one optimizer step. Batch normalization uses the
    statistics of the parts; everything else is computed as for the whole batch.

    Args:
        model: The model to train.
        batch: Number of examples.
        sizes: Shape of one example, one per input; default: those of the model.
        teachers: Models that run in every step in inference mode.

    Raises:
        InputError: Even the smallest part does not fit; the message names the memory needed.
    """
    teacher_bytes = sum(count_activation_bytes(teacher, sizes).live for teacher in teachers)
    example_bytes = int(
        BACKWARD_FACTOR * count_activation_bytes(model, sizes).total + OVERHEAD * teacher_bytes
    )
    size = get_current_budget().find_batch_size(
        example_bytes,
        max_examples=batch,
        purpose=f"training model '{model.name}'",
        fixed_bytes=WEIGHT_COPIES * 4 * model.count_params(),
        min_examples=min(batch, MIN_NORMALIZED if _has_batch_norm(model) else 1),
    )
    return -(-batch // size)


def _has_batch_norm(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in list_layers(model))

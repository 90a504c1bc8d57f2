"""The one training loop; search candidates and fine-tuning share it.

The data live in memory as TensorFlow tensors and many steps run in one compiled
function, so no core waits for Python or for an input pipeline between steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.data import Dataset
from compress.device import Device
from compress.errors import InputError, TrainingDiverged
from compress.fused import fused_normalization
from compress.optimizers import build_optimizer
from compress.plan import TrainSettings
from compress.predict import Predictor
from compress.task import (
    CrossEntropy,
    LogitsView,
    Objective,
    check_head,
    cross_entropy,
    logits_view,
    quality,
)

if TYPE_CHECKING:
    import keras

STEPS_PER_CALL = 50
"""Steps in one call of the compiled function: long enough to hide the call, short
enough for Ctrl-C and progress."""
DIVERGED = 10.0
"""An epoch whose mean loss is this many times that of guessing has diverged."""


class Hook(Protocol):
    """Something that acts during training, such as a pruner."""

    def start(
        self,
        model: keras.Model,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
    ) -> None:
        """Called once, before tracing; `step` is the int64 variable that counts steps.

        `jit` tells whether XLA compiles the steps.
        """
        ...

    def before_step(self) -> None:
        """Graph code at the head of every step; called while the step is traced."""
        ...

    def may_select(self, step: int) -> bool:
        """Tells whether the weights after `step` steps are a legitimate result."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss, validation loss and quality, wall seconds."""

    epoch: int
    loss: float
    val_loss: float
    val: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What training did; the model holds the weights of `best_epoch`.

    Attributes:
        history: One record an epoch.
        best_epoch: Its weights were restored (1-based).
        val: Validation quality of these weights.
        steps: Optimizer steps taken.
        notes: What was done other than asked, with the reason.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    val: dict[str, float]
    steps: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return asdict(self)


def train(
    model: keras.Model,
    data: Dataset,
    settings: TrainSettings,
    *,
    device: Device,
    seed: int = 0,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
    select_by: str = "accuracy",
    on_epoch: Callable[[int, int, EpochRecord], None] | None = None,
) -> TrainResult:
    """Trains a classifier in place and leaves it with its best epoch's weights.

    The best epoch is the one with the highest validation quality, ties broken by the
    lower validation loss, among those that every hook allows. Batches are drawn without
    replacement in an order fixed by `seed`; what does not fill the last batch of an
    epoch is left to the next shuffle.

    Args:
        model: A Keras model with one input and one output of (batch, classes).
        data: Training part trains, validation part selects; the test part is not read.
        settings: Optimizer, schedule, epochs, batch size, smoothing, class weights.
        device: From `compress.device.setup`.
        seed: Seed of the batch order.
        objective: What to minimise; default: cross-entropy with label smoothing.
        hooks: Acting during training (pruning).
        select_by: A name in `compress.task.QUALITIES`.
        on_epoch: Called after each epoch with (epoch, epochs, record).

    Returns:
        History and best epoch.

    Raises:
        InputError: The model does not fit the data.
        TrainingDiverged: The loss became NaN or infinite, or exploded; the message says
            when. The model is then left with unusable weights.
    """
    import tensorflow as tf

    check_head(model, data.num_classes, data.input_shape)
    objective = objective or CrossEntropy(data.num_classes, settings.label_smoothing)
    batch = min(settings.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch
    epochs = settings.epochs_for(steps_per_epoch)
    variables = model.trainable_variables
    if not variables:
        raise InputError(f"Model '{model.name}' must have trainable weights. Received: none.")
    optimizer: Any = build_optimizer(settings, epochs * steps_per_epoch, variables)
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    for hook in hooks:
        hook.start(model, step, epochs * steps_per_epoch, steps_per_epoch, jit=device.jit)
    order = np.random.default_rng(seed)
    guessing = objective.guessing()
    history: list[EpochRecord] = []
    best: tuple[tuple[float, float], int, list[npt.NDArray[np.generic]]] | None = None
    with logits_view(model) as view, fused_normalization(model):
        run = _Steps(view, variables, optimizer, data, settings, objective, hooks, step, device)
        predict = Predictor(view, data.preprocess)
        for epoch in range(1, epochs + 1):
            began = time.perf_counter()
            shuffled = order.permutation(len(data.train))[: steps_per_epoch * batch]
            loss = _run_epoch(run, shuffled.reshape(-1, batch).astype(np.int32), epoch)
            if loss > DIVERGED * guessing:
                raise TrainingDiverged(
                    f"the mean loss of epoch {epoch} is {loss:.3g}, above {DIVERGED:g} times "
                    f"that of guessing ({guessing:.3g})"
                )
            logits = predict(data.val.x)
            if not np.isfinite(logits).all():
                raise TrainingDiverged(f"outputs are not finite after epoch {epoch}")
            record = EpochRecord(
                epoch,
                loss,
                cross_entropy(data.val.y, logits),
                quality(data.val.y, logits),
                time.perf_counter() - began,
            )
            history.append(record)
            rank = (record.val[select_by], -record.val_loss)
            if all(hook.may_select(epoch * steps_per_epoch) for hook in hooks) and (
                best is None or rank > best[0]
            ):
                best = (rank, epoch, [variable.numpy() for variable in model.variables])
            if on_epoch:
                on_epoch(epoch, epochs, record)
    if best is None:
        raise InputError(
            f"Training must be long enough for its schedule to end. Received: {epochs} epochs."
        )
    for variable, value in zip(model.variables, best[2], strict=True):
        variable.assign(value)
    chosen = history[best[1] - 1]
    return TrainResult(tuple(history), best[1], chosen.val, int(step.numpy()), tuple(run.notes))


def _run_epoch(run: Callable[[Any], Any], index: npt.NDArray[np.int32], epoch: int) -> float:
    """Runs the steps of one epoch, (steps, batch) indices, and returns the mean loss."""
    import tensorflow as tf

    total = 0.0
    for start in range(0, len(index), STEPS_PER_CALL):
        total += float(run(tf.constant(index[start : start + STEPS_PER_CALL])))
        if not math.isfinite(total):
            raise TrainingDiverged(f"the loss is NaN or infinite in epoch {epoch}")
    return total / len(index)


class _Steps:
    """Runs steps of (steps, batch) indices in one call and returns the sum of their losses."""

    def __init__(
        self,
        view: LogitsView,
        variables: list[Any],
        optimizer: Any,
        data: Dataset,
        settings: TrainSettings,
        objective: Objective,
        hooks: Sequence[Hook],
        step: Any,
        device: Device,
    ) -> None:
        import keras
        import tensorflow as tf

        self.notes: list[str] = []
        self._jit = device.jit
        self._hooks, self._step = hooks, step
        scaled = device.policy == "mixed_float16"
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(variables)
        images, labels = tf.constant(data.train.x), tf.constant(data.train.y)
        extra = {name: tf.constant(array) for name, array in objective.arrays().items()}
        per_class = tf.constant(class_weights(data, settings.class_weights))
        gain, offset = (tf.constant(part) for part in data.preprocess.affine())

        def update(batch: Any) -> Any:
            inputs = tf.cast(tf.gather(images, batch), tf.float32) * gain + offset
            truth = tf.gather(labels, batch)
            rows = {name: tf.gather(array, batch) for name, array in extra.items()}
            with tf.GradientTape() as tape:
                losses = objective.loss(truth, view(inputs, training=True), rows)
                loss = tf.reduce_mean(losses * tf.gather(per_class, truth))
                target = optimizer.scale_loss(loss) if scaled else loss
            gradients = tape.gradient(target, [variable.value for variable in variables])
            optimizer.apply(gradients, variables)
            return loss

        self._update = update
        self._run = self._trace()

    def _trace(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        update = self._update
        if self._jit:
            update = tf.function(update, jit_compile=True, autograph=False)

        def one(position: Any, total: Any, index: Any) -> tuple[Any, Any, Any]:
            for hook in self._hooks:
                hook.before_step()
            total += update(index[position])
            self._step.assign_add(1)
            return position + 1, total, index

        def run(index: Any) -> Any:
            start = (tf.constant(0), tf.constant(0.0), index)
            return tf.while_loop(lambda position, *_: position < tf.shape(index)[0], one, start)[1]

        # no AutoGraph: it cannot read this source on Python 3.13
        signature = [tf.TensorSpec((None, None), tf.int32)]
        traced: Callable[[Any], Any] = tf.function(run, signature, autograph=False)
        return traced

    def __call__(self, index: Any) -> Any:
        import tensorflow as tf

        if not self._jit:
            return self._run(index)
        try:
            return self._run(index)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            # compilation fails before the first step runs, so nothing is done twice
            self._jit = False
            self.notes.append(f"trained without XLA: {str(error).splitlines()[0]}")
            self._run = self._trace()
            return self._run(index)


def class_weights(data: Dataset, mode: str) -> npt.NDArray[np.float32]:
    """Returns the weight of each class's examples, (classes,), mean 1 over the examples.

    Args:
        data: Counts come from the training part.
        mode: "none" (all 1) or "balanced": n / (classes * n_c), scikit-learn's formula.
    """
    if mode == "none":
        return np.ones(data.num_classes, np.float32)
    counts = np.bincount(data.train.y, minlength=data.num_classes)
    return (len(data.train) / (data.num_classes * counts)).astype(np.float32)

"""One training: what it has so far, and how it takes one epoch more."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import arrays
from compress.core.errors import InputError, TrainingDiverged
from compress.train import checkpoint as checkpoints
from compress.train.context import TrainContext
from compress.train.optimizers import build_optimizer
from compress.train.predict import Predictor
from compress.train.records import EpochRecord, TrainResult
from compress.train.steps import Steps

if TYPE_CHECKING:
    import keras


STEPS_PER_CALL = 50
"""Steps in one call of the compiled function: long enough to hide the call, short
enough for Ctrl-C and progress."""
DIVERGED = 10.0
"""An epoch whose mean loss is this many times that of guessing, and that before training, has
diverged."""


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

"""The training settings that a trial samples."""

from __future__ import annotations

from typing import Any

from optuna.trial import BaseTrial

from compress.data import Dataset
from compress.plan import SCHEDULES, TrainSettings
from search.plan import SearchPlan

# Learning rates that train common networks, per optimizer (log scale).
LEARNING_RATES = {
    "sgd": (5e-2, 1.0),
    "momentum": (1e-2, 2e-1),
    "nesterov": (1e-2, 2e-1),
    "adagrad": (1e-2, 2e-1),
    "rmsprop": (5e-4, 5e-3),
    "adam": (1e-3, 1e-2),
    "adamw": (1e-3, 1e-2),
}
BATCH_SIZES = (32, 64, 128, 256)
MIN_STEPS, MAX_STEPS = 8, 1000
"""Range of steps per epoch in which a batch size is worth trying."""


def list_batch_sizes(plan: SearchPlan, data: Dataset) -> tuple[int, ...]:
    """Return the batch sizes to sample from for the number of examples of an epoch, at least one.

    Args:
        plan: The plan of the run.
        data: The data of the run.
    """
    examples = plan.finetune.count_epoch_examples(len(data.train))
    sizes = tuple(size for size in BATCH_SIZES if MIN_STEPS <= examples // size <= MAX_STEPS)
    return sizes or (BATCH_SIZES[0] if examples < 2**16 else BATCH_SIZES[-1],)


def build_baseline(plan: SearchPlan, data: Dataset) -> dict[str, Any]:
    """Return good default settings, which are tried first with the space's baseline.

    Args:
        plan: The plan of the run.
        data: The data of the run.
    """
    name = "adam" if "adam" in plan.search.optimizers else plan.search.optimizers[0]
    low, high = LEARNING_RATES[name]
    sizes = list_batch_sizes(plan, data)
    return {
        "optimizer": name,
        f"learning_rate.{name}": (low * high) ** 0.5,
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "label_smoothing": 0.0,
        "batch_size": 64 if 64 in sizes else sizes[0],
    }


def sample_settings(trial: BaseTrial, plan: SearchPlan, data: Dataset) -> TrainSettings:
    """Sample optimizer, learning rate, schedule, weight decay, batch size and smoothing.

    Each optimizer has its own range of learning rates and so its own parameter name.

    Args:
        trial: The trial.
        plan: The plan of the run.
        data: The data of the run, whose size limits the batch sizes.
    """
    name = trial.suggest_categorical("optimizer", plan.search.optimizers)
    low, high = LEARNING_RATES[name]
    return TrainSettings(
        epochs=plan.search.epochs,
        optimizer=name,
        learning_rate=trial.suggest_float(f"learning_rate.{name}", low, high, log=True),
        learning_rate_schedule=trial.suggest_categorical("schedule", SCHEDULES),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.1, step=0.05),
        batch_size=trial.suggest_categorical("batch_size", list_batch_sizes(plan, data)),
        class_weights=plan.finetune.class_weights,
        augment=plan.finetune.augment,
        epoch_examples=plan.finetune.epoch_examples,
    )


def is_setting(name: str) -> bool:
    """Return whether a parameter is sampled by `sample_settings`."""
    settings = ("optimizer", "schedule", "weight_decay", "label_smoothing", "batch_size")
    return name in settings or name.startswith("learning_rate.")

"""The optimizer's settings that a trial samples."""

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
FINE_TUNING = (0.2, 1.0)
"""Factors on the ends of a range where models come trained. Whole ones need little; those that
lost most of their channels train best at the rates of new ones (measured: docs/methods.md)."""
BATCH_SIZES = (32, 64, 128, 256)
MIN_STEPS, MAX_STEPS = 8, 1000
"""Steps an epoch between which a batch size is worth trying."""


def batch_sizes(data: Dataset) -> tuple[int, ...]:
    """Return the batch sizes to sample from for this much data, at least one."""
    fitting = tuple(
        size for size in BATCH_SIZES if MIN_STEPS <= len(data.train) // size <= MAX_STEPS
    )
    return fitting or (BATCH_SIZES[0] if len(data.train) < 2**16 else BATCH_SIZES[-1],)


def learning_rates(plan: SearchPlan, optimizer: str) -> tuple[float, float]:
    """Return the range of an optimizer's learning rates, for the plan's space."""
    low, high = LEARNING_RATES[optimizer]
    below, above = FINE_TUNING if plan.search.made_space.trained else (1.0, 1.0)
    return low * below, high * above


def baseline(plan: SearchPlan, data: Dataset) -> dict[str, Any]:
    """Return sensible settings, tried first together with the space's baseline.

    Nothing where trials train nothing: nothing is asked for then.
    """
    if plan.search.no_train:
        return {}
    name = "adam" if "adam" in plan.search.optimizers else plan.search.optimizers[0]
    low, high = learning_rates(plan, name)
    sizes = batch_sizes(data)
    return {
        "optimizer": name,
        f"learning_rate.{name}": (low * high) ** 0.5,
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "label_smoothing": 0.0,
        "batch_size": 64 if 64 in sizes else sizes[0],
    }


def sample(trial: BaseTrial, plan: SearchPlan, data: Dataset) -> TrainSettings:
    """Sample optimizer, learning rate, schedule, weight decay, batch size and smoothing.

    The learning rate has a range and so a parameter name of its own per optimizer. Where trials
    train nothing, nothing is sampled: what is trained later is fine-tuned as the plan says.
    """
    if plan.search.no_train:
        return plan.finetune
    name = trial.suggest_categorical("optimizer", plan.search.optimizers)
    low, high = learning_rates(plan, name)
    return TrainSettings(
        epochs=plan.search.epochs,
        optimizer=name,
        learning_rate=trial.suggest_float(f"learning_rate.{name}", low, high, log=True),
        schedule=trial.suggest_categorical("schedule", SCHEDULES),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.1, step=0.05),
        batch_size=trial.suggest_categorical("batch_size", batch_sizes(data)),
        class_weights=plan.finetune.class_weights,
        augment=plan.finetune.augment,
    )


def is_setting(name: str) -> bool:
    """Tell whether a parameter's name is one that `sample` asks for."""
    settings = ("optimizer", "schedule", "weight_decay", "label_smoothing", "batch_size")
    return name in settings or name.startswith("learning_rate.")

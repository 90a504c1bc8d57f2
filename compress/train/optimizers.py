"""Optimizers and learning-rate schedules from `TrainSettings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.core.errors import unknown_name
from compress.plan import OPTIMIZERS, TrainSettings

if TYPE_CHECKING:
    import keras

MOMENTUM = 0.9
EXPONENTIAL_FLOOR = 0.01
"""What the exponential schedule ends at, as a share of the peak learning rate."""


def learning_rate(settings: TrainSettings, total_steps: int) -> Any:
    """Returns the learning rate as a number or a Keras schedule over `total_steps`."""
    import keras

    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, total_steps)
    if settings.schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            settings.learning_rate, total_steps, EXPONENTIAL_FLOOR
        )
    return settings.learning_rate


def build_optimizer(
    settings: TrainSettings, total_steps: int, variables: list[Any], parts: int = 1
) -> keras.optimizers.Optimizer:
    """Builds the optimizer for `variables`.

    Weight decay is decoupled for every optimizer (Loshchilov & Hutter 2019) and spares
    vectors (biases, normalization scales), which it would only push towards zero.

    Args:
        settings: Names and numbers.
        total_steps: Batches that the schedule spans, at least 1 (Keras's schedules count batches,
            of parts too).
        variables: The trainable variables.
        parts: How many batches give one step, by the mean of their gradients.

    Returns:
        A Keras optimizer, built.

    Raises:
        InputError: An unknown optimizer name.
    """
    import keras

    common: dict[str, Any] = {
        "learning_rate": learning_rate(settings, total_steps),
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
    if settings.optimizer not in makers:
        raise unknown_name("optimizer", settings.optimizer, OPTIMIZERS)
    if settings.optimizer == "adamw":
        common["weight_decay"] = settings.weight_decay
    optimizer = makers[settings.optimizer]()
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer

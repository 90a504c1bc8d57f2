"""Schedules of mask updates and sparsity: the plan's times, or a tfmot schedule.

A schedule is a function step -> (update now, sparsity), as tfmot's are; the first step of training
is 1. This module alone imports tfmot.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from compress.core.errors import InputError, MissingDependency
from compress.plan import TrainTime, WeightOptions
from compress.plan.fields import require

_LEGACY = "TF_USE_LEGACY_KERAS"
_SCHEDULES = "tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule"


@dataclass(frozen=True)
class Times:
    """Steps of the first and the last mask update and the distance between; steps begin at 1."""

    begin: int
    end: int
    frequency: int


def update_times(
    options: WeightOptions, total_steps: int, steps_per_epoch: int | None = None
) -> Times:
    """Turn the plan's times into steps, such that the last update has full sparsity.

    A schedule updates when (step - begin) is a multiple of the frequency: the end is moved
    back to the last such step, else the final sparsity would never be reached.

    Args:
        options: Begin, end and frequency: shares of training, epochs or steps.
        total_steps: Steps of the training.
        steps_per_epoch: For times in epochs.

    Raises:
        InputError: Fewer than 2 steps, an end before the beginning or after the training, or
            epochs of unknown length.
    """
    require(total_steps >= 2, "training steps", "be at least 2 to prune", total_steps)

    def steps(time: TrainTime) -> int:
        if time.unit == "share":
            return round(time.value * total_steps)
        if time.unit == "steps":
            return round(time.value)
        if steps_per_epoch is None:
            raise InputError(
                f"Pruning times must be steps or shares where epochs have no known length. "
                f"Received: '{time}'. Give steps_per_epoch=."
            )
        return round(time.value * steps_per_epoch)

    begin, end = 1 + steps(options.begin), 1 + steps(options.end)
    exact = "share" not in (options.begin.unit, options.end.unit)
    if exact and not begin <= end:
        raise _outside(options, total_steps, "begin before it ends")
    if exact and end > total_steps:
        raise _outside(options, total_steps, "end before training does")
    begin = min(begin, total_steps - 1)
    end = min(max(end, begin + 1), total_steps)
    frequency = (
        max(1, steps(options.frequency))
        if options.frequency
        else max(1, -(-(end - begin) // options.updates))
    )
    return Times(begin, begin + max(1, (end - begin) // frequency) * frequency, frequency)


def _outside(options: WeightOptions, total: int, rule: str) -> InputError:
    return InputError(
        f"A pruning schedule must {rule}. Received: begin {options.begin}, end {options.end}, "
        f"{total} training steps."
    )


def planned(options: WeightOptions, times: Times) -> Any:
    """Return the plan's schedule, a tfmot object.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    if options.schedule == "constant":
        kind, config = "ConstantSparsity", {"target_sparsity": options.sparsity}
    else:
        ends = {"initial_sparsity": options.initial_sparsity, "final_sparsity": options.sparsity}
        kind, config = "PolynomialDecay", {**ends, "power": options.power}
    when = {"begin_step": times.begin, "end_step": times.end, "frequency": times.frequency}
    return schedule_from({"class_name": kind, "config": {**config, **when}})


def checked(schedule: Any, total_steps: int | None) -> Any:
    """Check a schedule that a user made.

    Args:
        schedule: tfmot's `ConstantSparsity` or `PolynomialDecay`, or any function from a step
            to (update now, sparsity).
        total_steps: Steps of the training, where known.

    Raises:
        InputError: It cannot be called, or ends after the training.
    """
    if not callable(schedule):
        raise InputError(
            "A pruning schedule must be a tfmot schedule or a function step -> (update, "
            f"sparsity). Received: {type(schedule).__name__}."
        )
    end = getattr(schedule, "end_step", None)
    if total_steps is not None and end is not None and end > total_steps:
        raise InputError(
            f"A pruning schedule must end before training does. Received: end_step {end}, "
            f"{total_steps} training steps."
        )
    return schedule


def final_sparsity(schedule: Any, options: WeightOptions) -> float:
    """Return the sparsity that a schedule comes to."""
    for name in ("final_sparsity", "target_sparsity"):
        value = getattr(schedule, name, None)
        if value is not None:
            return float(value)
    return options.sparsity


def last_update(schedule: Any, total_steps: int | None) -> int | None:
    """Return the step of the last mask update; None: it never ends or nobody knows."""
    end, begin = getattr(schedule, "end_step", None), getattr(schedule, "begin_step", None)
    frequency = getattr(schedule, "frequency", 1)
    if end == -1:
        end = total_steps
    if end is None or begin is None or end < begin:
        return total_steps
    return int(begin + (end - begin) // frequency * frequency)


def schedule_from(config: Mapping[str, Any]) -> Any:
    """Return the schedule that `get_config()` of a tfmot schedule describes.

    Raises:
        InputError: Its class is none of tfmot's.
    """
    kind = getattr(_import_tfmot(), str(config.get("class_name")), None)
    if kind is None:
        raise InputError(
            "A pruning schedule must be one of tfmot's to be read from a file. Received: "
            f"{config.get('class_name')}. Give schedule=."
        )
    return kind(**config["config"])


def _import_tfmot() -> ModuleType:
    """Import tfmot's schedules, and leave the process as it was.

    Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process and its children, and turns
    `tf.keras` into tf_keras where nobody has touched `tf.keras` before. Its wrappers refuse
    Keras 3 models; its schedules are plain TensorFlow and serve as they are.
    """
    import tensorflow as tf

    # resolves the lazy attribute to Keras 3 before tfmot can turn it
    tf.keras.__name__  # noqa: B018
    before = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            # tfmot compares versions with distutils
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(_SCHEDULES)
    except ImportError as error:
        raise MissingDependency(
            f"tensorflow-model-optimization must be importable ({error}). "
            "Install it: pip install tensorflow-model-optimization==0.8.1 tf_keras"
        ) from None
    finally:
        if before is None:
            os.environ.pop(_LEGACY, None)
        else:
            os.environ[_LEGACY] = before

"""Schedules of mask updates and sparsity, from the plan's times or from tfmot.

A schedule is a function step -> (update now, sparsity), as in tfmot. The first training step is 1.
This is the only module that imports tfmot.
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
from compress.plan import WeightOptions
from compress.plan.fields import require

_LEGACY = "TF_USE_LEGACY_KERAS"
_SCHEDULES = "tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule"
UPDATES = 50
"""Largest number of mask updates of the default schedule."""


@dataclass(frozen=True)
class UpdateTimes:
    """Step of the last mask update, and the interval of updates; the first one is at step 1."""

    end: int
    frequency: int


def compute_update_times(
    options: WeightOptions, total_steps: int, steps_per_epoch: int | None = None
) -> UpdateTimes:
    """Convert the plan's times to steps such that the last update has full sparsity.

    The masks are updated at equal intervals from step 1 on. The end is moved back to the last such
    step; otherwise the final sparsity would never be reached.

    Args:
        options: End of the schedule as a share of training, epochs or steps; an end after the
            training is moved to its last step.
        total_steps: Number of training steps, at least 2.
        steps_per_epoch: Number of steps in an epoch; needed for an end in epochs.

    Returns:
        The steps of the updates.

    Raises:
        InputError: There are fewer than 2 steps, or the end is in epochs of unknown length.
    """
    require(total_steps >= 2, "training steps", "be at least 2 to prune", total_steps)
    end = options.sparsity_end
    if end.unit == "epochs" and steps_per_epoch is None:
        raise InputError(
            f"Pruning times must be steps or shares where epochs have no known length. "
            f"Received: '{end}'. Give steps_per_epoch=."
        )
    unit_steps = {"share": total_steps, "epochs": steps_per_epoch or 0, "steps": 1}[end.unit]
    duration = min(max(round(end.value * unit_steps), 1), total_steps - 1)
    frequency = -(-duration // UPDATES)
    return UpdateTimes(1 + duration // frequency * frequency, frequency)


def create_schedule(options: WeightOptions, times: UpdateTimes) -> Any:
    """Return the tfmot schedule of a plan.

    Args:
        options: Final sparsity.
        times: Steps of the mask updates.

    Raises:
        MissingDependency: tfmot is not installed.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    config = {
        "initial_sparsity": 0.0, "final_sparsity": options.sparsity, "power": 3.0,
        "begin_step": 1, "end_step": times.end, "frequency": times.frequency,
    }  # fmt: skip
    return build_schedule({"class_name": "PolynomialDecay", "config": config})


def validate_schedule(schedule: Any, total_steps: int | None) -> None:
    """Check a user-defined schedule.

    Args:
        schedule: tfmot's `ConstantSparsity` or `PolynomialDecay`, or any function from a step to
            (update now, sparsity).
        total_steps: Number of training steps; None if unknown.

    Raises:
        InputError: The schedule is not callable, or ends after the training.
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


def get_final_sparsity(schedule: Any, options: WeightOptions) -> float:
    """Return the final sparsity of a schedule, or that of the options if it has none."""
    for name in ("final_sparsity", "target_sparsity"):
        value = getattr(schedule, name, None)
        if value is not None:
            return float(value)
    return options.sparsity


def find_last_update(schedule: Any, total_steps: int | None) -> int | None:
    """Return the step of the last mask update; `total_steps` if the schedule does not define it."""
    end, begin = getattr(schedule, "end_step", None), getattr(schedule, "begin_step", None)
    frequency = getattr(schedule, "frequency", 1)
    if end == -1:
        end = total_steps
    if end is None or begin is None or end < begin:
        return total_steps
    return int(begin + (end - begin) // frequency * frequency)


def build_schedule(config: Mapping[str, Any]) -> Any:
    """Return a tfmot schedule from the config that its `get_config()` returned.

    Raises:
        InputError: The class is not one of tfmot's schedules.
        MissingDependency: tfmot is not installed.
    """
    kind = getattr(_import_tfmot(), str(config.get("class_name")), None)
    if kind is None:
        raise InputError(
            "A pruning schedule must be one of tfmot's to be read from a file. Received: "
            f"{config.get('class_name')}. Give schedule=."
        )
    return kind(**config["config"])


def _import_tfmot() -> ModuleType:
    """Import tfmot's schedules without side effects on the process.

    Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process and its children. It also turns
    `tf.keras` into tf_keras unless `tf.keras` was accessed before. Its wrappers reject Keras 3
    models, but its schedules are plain TensorFlow and can be used unchanged.
    """
    import tensorflow as tf

    # resolves the lazy attribute to Keras 3 before tfmot can change it
    tf.keras.__name__  # noqa: B018
    before = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            # tfmot compares versions with distutils, which is deprecated
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

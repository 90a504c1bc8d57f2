"""The only module that imports tfmot, and leaves the process as it found it.

Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process and its children, and turns
`tf.keras` into tf_keras where nobody has touched `tf.keras` before. Its wrappers refuse
Keras 3 models; its schedules are plain TensorFlow and serve as they are.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from compress.core.errors import InputError, MissingDependency

_LEGACY = "TF_USE_LEGACY_KERAS"
_MODULES = "tensorflow_model_optimization.python.core.sparsity.keras"


def _import(name: str) -> ModuleType:
    import importlib

    import tensorflow as tf

    # resolves the lazy attribute to Keras 3 before tfmot can turn it
    tf.keras.__name__  # noqa: B018
    before = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            # tfmot compares versions with distutils
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(f"{_MODULES}.{name}")
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


def polynomial_schedule(
    initial: float, final: float, begin: int, end: int, frequency: int, power: float
) -> Any:
    """Returns tfmot's `PolynomialDecay` schedule; the first step of training is 1.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    return _import("pruning_schedule").PolynomialDecay(
        initial, final, begin, end, power=power, frequency=frequency
    )


def constant_schedule(sparsity: float, begin: int, end: int, frequency: int) -> Any:
    """Returns tfmot's `ConstantSparsity` schedule; the first step of training is 1."""
    return _import("pruning_schedule").ConstantSparsity(sparsity, begin, end, frequency)


def schedule_from(config: Mapping[str, Any]) -> Any:
    """Returns the schedule that `get_config()` of a tfmot schedule describes.

    Raises:
        InputError: Its class is none of tfmot's.
    """
    kind = getattr(_import("pruning_schedule"), str(config.get("class_name")), None)
    if kind is None:
        raise InputError(
            "A pruning schedule must be one of tfmot's to be read from a file. Received: "
            f"{config.get('class_name')}. Give schedule=."
        )
    return kind(**config["config"])

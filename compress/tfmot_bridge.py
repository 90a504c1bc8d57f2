"""The only module that imports tfmot, and leaves the process as it found it.

Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process and its children, and turns
`tf.keras` into tf_keras where nobody has touched `tf.keras` before. Its wrappers refuse
Keras 3 models, but its schedules and its mask code work on the `tf.Variable` under a
Keras 3 variable.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from compress.errors import MissingDependency

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
    """Returns tfmot's `PolynomialDecay` schedule; steps count from 0.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    return _import("pruning_schedule").PolynomialDecay(
        initial, final, begin, end, power=power, frequency=frequency
    )


def magnitude_pruning(
    step: Callable[[], Any], variables: Sequence[tuple[Any, Any, Any]], schedule: Any
) -> Any:
    """Returns tfmot's `Pruning` for unstructured magnitude masks.

    Args:
        step: Returns the current training step, a tensor.
        variables: (weight, mask, threshold) as `tf.Variable`s.
        schedule: A tfmot schedule.
    """
    return _import("pruning_impl").Pruning(step, list(variables), schedule, (1, 1), "AVG")

"""Zeros of a pruned model stay zeros while it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.prune.weights.pruner import BEGUN
from compress.prune.weights.targets import find_targets

if TYPE_CHECKING:
    import keras


@contextmanager
def held_zeros(model: keras.Model) -> Iterator[HeldZeros]:
    """Gives the hook that holds a model's zeros in a training, and takes it off again."""
    hook = HeldZeros(model)
    try:
        yield hook
    finally:
        hook.release()


class HeldZeros:
    """Holds the zeros of pruned kernels in a training, by the kernels' constraints.

    Args:
        model: Whose weights are trained.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._before: list[tuple[Any, Any]] = []

    def start(
        self,
        model: keras.Model,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Sets the constraints; one that the user set acts first."""
        for target in find_targets(self._model, include=("ends", "depthwise"))[0]:
            zero = target.variable.numpy() == 0
            if BEGUN < float(np.mean(zero)) < 1:
                self._before.append((target.variable, target.variable.constraint))
                target.variable.constraint = _held(~zero, target.variable.constraint)

    def may_select(self, step: int) -> bool:
        """Allows the weights of any epoch."""
        return True

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Needs nothing to go on: zeros are where they were."""
        return {}

    def release(self) -> None:
        """Gives the constraints back."""
        for variable, constraint in self._before:
            variable.constraint = constraint
        self._before.clear()


def _held(mask: npt.NDArray[np.bool_], own: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    import tensorflow as tf

    held = tf.constant(mask.astype(np.float32))

    def constraint(weight: Any) -> Any:
        value = tf.convert_to_tensor(weight if own is None else own(weight))
        return value * tf.cast(held, value.dtype)

    return constraint

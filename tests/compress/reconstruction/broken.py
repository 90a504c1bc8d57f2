"""Pairs of nets of equal weights, one of them broken in layers without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

L = keras.layers
Break = Callable[..., Any]
"""Makes a layer that scales and shifts in the broken net and does nothing in the other one."""


def pair(
    shape: tuple[int, ...],
    build: Callable[[Any, Break], Any],
    *,
    scale: float = 0.6,
    offset: float = 0.0,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Returns a broken net and the one that it was.

    Args:
        shape: Of inputs.
        build: Takes inputs and `Break`, returns outputs; it names all layers.
        scale, offset: Of what is broken.
        seed: Of the weights.
    """

    def made(scale: float, offset: float) -> Any:
        def breaks(name: str = "broken", times: float = 1.0) -> Any:
            return L.Rescaling(1 + times * (scale - 1), times * offset, name=name)

        inputs = keras.Input(shape)
        return keras.Model(inputs, build(inputs, breaks))

    wrong, right = made(scale, offset), made(1.0, 0.0)
    rng = np.random.default_rng(seed)
    for weight in right.weights:
        values = rng.normal(size=weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            values = np.abs(values) + 0.5
        weight.assign(values)
    wrong.set_weights(right.get_weights())
    return wrong, right


def normal(shape: tuple[int, ...], count: int = 200, seed: int = 1) -> npt.NDArray[np.float32]:
    """Draws examples."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)

"""Gradients against central differences of a float64 function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-5


def check_gradient(
    function: Callable[[Any], float], at: Any, gradient: Any, *, entries: int = 40
) -> None:
    """Checks some entries of a gradient, the same ones each time."""
    scale = np.abs(gradient).max()
    assert scale > 0
    for place in np.random.default_rng(0).permutation(at.size)[:entries]:
        up, down = at.copy(), at.copy()
        up.flat[place] += STEP
        down.flat[place] -= STEP
        expected = (function(up) - function(down)) / (2 * STEP)
        np.testing.assert_allclose(gradient.flat[place], expected, rtol=2e-3, atol=1e-4 * scale)

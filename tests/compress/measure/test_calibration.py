"""Times of whole nets, from the sums of their calls."""

from __future__ import annotations

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.measure.latency_table import (
    calibrate,
)


def test_calibration_finds_what_made_the_times() -> None:
    rng = np.random.default_rng(0)
    sums, held = rng.uniform(1, 3, 12), np.linspace(0, 6.4e6, 12)
    # a threshold that is among those tried: the largest net's bytes in 64 steps
    whole = 0.9 * sums + 3e-8 * np.maximum(0.0, held - 1e6)
    found = calibrate(sums, held, whole)
    assert (found.factor, found.per_byte, found.beyond) == pytest.approx((0.9, 3e-8, 1e6))
    assert found.nets == 12
    assert found.error < 0.01


def test_calibration_makes_up_no_cost_of_weights() -> None:
    """Nets that are faster the more they weigh get a factor and no negative slope."""
    sums, held = np.ones(5), np.arange(1, 6) * 1e6
    found = calibrate(sums, held, 1.0 - 5e-8 * held)
    assert found.per_byte == 0.0
    assert 0.75 < found.factor < 0.95
    exact = calibrate(np.arange(1.0, 5.0), held[:4], 0.5 * np.arange(1.0, 5.0))
    assert (exact.factor, exact.error) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_calibration_needs_nets() -> None:
    with pytest.raises(InputError, match="at least 4 nets"):
        calibrate(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(InputError, match="all above 0"):
        calibrate(np.ones(4), np.ones(4), np.zeros(4))

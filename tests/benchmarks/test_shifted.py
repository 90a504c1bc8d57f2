"""Shifted images, by hand: what is added, how an impulse spreads, what the noise is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.repair_models import PARAMETERS, shifted
from compress.core.errors import InputError


def flat(value: int, count: int = 1, side: int = 9) -> np.ndarray:
    return np.full((count, side, side, 2), value, np.uint8)


@pytest.mark.parametrize(("level", "added"), [(1, 25), (2, 50), (3, 75)])
def test_brightness_is_added_and_ends_at_white(level: int, added: int) -> None:
    x = np.array([0, 100, 179, 180, 181, 255], np.uint8).reshape(1, 2, 3, 1)
    found = shifted(x, "brightness", level)
    expected = [min(value + added, 255) for value in (0, 100, 179, 180, 181, 255)]
    assert found.ravel().tolist() == expected
    assert found.shape == x.shape
    assert found.dtype == np.uint8


def test_blur_spreads_an_impulse_within_its_image_and_channel() -> None:
    x = flat(0, count=2)
    x[0, 4, 4, 0] = 255
    found = shifted(x, "blur", 2)
    # weights exp(-k^2 / 2) of k = 0, 1, 2, each over the sum 2.50663: 0.39894, 0.24197, 0.05399
    row = [round(255 * 0.39894 * weight) for weight in (0.05399, 0.24197, 0.39894)]
    assert row == [5, 25, 41]
    assert found[0, 4, 2:7, 0].tolist() == [5, 25, 41, 25, 5]
    assert found[0, 2:7, 4, 0].tolist() == [5, 25, 41, 25, 5]
    assert found[0, 3, 3, 0] == round(255 * 0.24197**2) == 15
    assert not found[0, :, :, 1].any()
    assert not found[1].any()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_blur_leaves_what_is_even(level: int) -> None:
    assert (shifted(flat(200), "blur", level) == 200).all()


@pytest.mark.parametrize(("level", "deviation"), [(1, 10), (2, 20), (3, 40)])
def test_noise_has_its_deviation_and_no_mean(level: int, deviation: int) -> None:
    x = flat(128, count=100, side=28)  # 156,800 values; 128 is more than three deviations off
    found = shifted(x, "noise", level, seed=3).astype(np.float64) - 128
    assert abs(found.mean()) < 5 * deviation / np.sqrt(x.size)
    # a standard deviation of n values is known to 1 / sqrt(2 n) of itself: 0.2 %
    assert found.std() == pytest.approx(deviation, rel=0.01)


def test_noise_is_cut_not_wrapped() -> None:
    black, white = (shifted(flat(value, 20), "noise", 2) for value in (0, 255))
    assert black.max() < 5 * 20
    assert white.min() > 255 - 5 * 20
    assert 0.4 < (black == 0).mean() < 0.6
    assert 0.4 < (white == 255).mean() < 0.6


def test_noise_is_drawn_by_seed_alone() -> None:
    x = flat(128, count=3)
    found = shifted(x, "noise", 1, seed=1)
    np.testing.assert_array_equal(found, shifted(x, "noise", 1, seed=1))
    np.testing.assert_array_equal(found[:2], shifted(x[:2], "noise", 1, seed=1))
    assert (found != shifted(x, "noise", 1, seed=2)).any()
    # of level 2 the same draws, doubled: apart from rounding
    twice = shifted(x, "noise", 2, seed=1).astype(int) - 128
    assert np.abs(twice - 2 * (found.astype(int) - 128)).max() <= 1


@pytest.mark.parametrize("kind", PARAMETERS)
def test_the_given_images_stay(kind: str) -> None:
    x = flat(7)
    shifted(x, kind, 3)
    assert (x == 7).all()


@pytest.mark.parametrize(
    ("x", "kind", "level", "message"),
    [
        (flat(0), "fog", 1, "Unknown shift 'fog'"),
        (flat(0), "blur", 0, "level must be 1 to 3. Received: 0."),
        (flat(0), "blur", 4, "level must be 1 to 3. Received: 4."),
        (flat(0)[0], "blur", 1, "Received: uint8 of shape (9, 9, 2)."),
        (flat(0) / 255, "blur", 1, "Received: float64 of shape (1, 9, 9, 2)."),
    ],
)
def test_what_is_no_shift_is_told(x: np.ndarray, kind: str, level: int, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        shifted(x, kind, level)

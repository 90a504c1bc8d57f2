"""What an activation cuts off is no error: targets there are free."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.reconstruction.least_squares import Problem, fit_weights
from compress.reconstruction.sums import Clip, Sample

pytestmark = pytest.mark.usefixtures("unrounded")

RELU, RELU6 = Clip(0.0, np.inf), Clip(0.0, 6.0)


def drawn(base: bool, seed: int = 0) -> tuple[Sample, Sample, Any]:
    """Targets need an input that is not there: train and held-back rows, weights before."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(2400, 9))
    kernel = rng.normal(size=(9, 5))
    made = 2 * full @ kernel - 1.0
    added = rng.normal(size=made.shape) if base else np.zeros_like(made)
    rows, targets = full[None, :, :6].astype(np.float32), (made - added).astype(np.float32)
    extra = added.astype(np.float32) if base else None

    def part(where: slice) -> Sample:
        return Sample(rows[:, where], targets[where], None if extra is None else extra[where])

    return part(slice(0, 2000)), part(slice(2000, None)), 0.5 * kernel[None, :6]


def behind(clip: Clip, sample: Sample, weights: Any, shift: Any) -> float:
    """The error behind the activation, in float64."""
    base = 0.0 if sample.base is None else sample.base.astype(np.float64)
    made = sample.rows[0].astype(np.float64) @ weights[0] + shift[0] + base
    made, wanted = (
        np.clip(part, clip.low, clip.high)
        for part in (made, sample.targets.astype(np.float64) + base)
    )
    return float(((made - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())


@pytest.mark.parametrize("base", [False, True], ids=["own", "sum"])
@pytest.mark.parametrize("clip", [RELU, RELU6], ids=["relu", "relu6"])
@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
def test_rounds_lower_the_error_behind_the_activation(base: bool, clip: Clip, free: bool) -> None:
    train, held, before = drawn(base)
    now = np.full((1, 5), -1.0)
    problem = Problem(before, fixed_shift=None if free else now)
    linear = fit_weights(problem, train, [held], now, None)
    fit = fit_weights(problem, train, [held], now, clip)
    errors = [behind(clip, held, side.weights, side.shift) for side in (linear, fit)]
    # without a shift inputs about zero leave hardly anything to gain
    assert errors[1] <= (0.97 if free else 1.0) * errors[0]
    assert fit.is_better
    np.testing.assert_allclose(fit.before[0], behind(clip, held, before, now), rtol=1e-4)
    # rows held back take part in the last solution, which is a little better for it
    assert errors[1] <= fit.after[0] * 1.02
    if not free:
        np.testing.assert_array_equal(fit.shift, now)


def test_free_targets_are_the_nearest_that_look_the_same() -> None:
    rows = np.array([[[1.0], [1.0], [1.0], [1.0], [1.0]]], np.float32)
    sample = Sample(rows, np.array([[-2.0], [3.0], [7.0], [6.0], [0.0]], np.float32))
    made = {-5.0: [-5.0, 3.0, 6.0, 6.0, -5.0], 2.0: [0.0, 3.0, 6.0, 6.0, 0.0],
            9.0: [0.0, 3.0, 9.0, 9.0, 0.0]}  # fmt: skip
    for value, wanted in made.items():
        weights, shift = np.array([[[value]]]), np.zeros((1, 1))
        outputs = sample.predict(weights, shift)
        free = RELU6.compute_targets(RELU6.mark_hidden(sample), outputs)
        np.testing.assert_array_equal(free.ravel(), wanted)
        clipped = [np.clip(part, 0, 6) for part in (free, sample.targets)]
        np.testing.assert_array_equal(*clipped)


def test_what_is_cut_off_is_not_broken() -> None:
    """Below zero everything may be wrong: nothing is reconstructed."""
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(1, 100, 3))).astype(np.float32)
    sample = Sample(rows, (-rows.sum(2).T - 1).astype(np.float32))
    weights, shift = np.full((1, 3, 1), -3.0), np.zeros((1, 1))
    fit = fit_weights(Problem(weights), sample, [sample], shift, RELU)
    assert fit.before == (0.0,)
    assert not fit.is_better
    assert fit.weights is weights

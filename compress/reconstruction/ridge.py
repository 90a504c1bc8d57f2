"""The ridge of a layer, chosen on examples held back, and whether its solution is any better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.reconstruction.least_squares import FIRST, RIDGES, Factored, Problem
from compress.reconstruction.rows import Numbers
from compress.reconstruction.samples import Clip, Sample
from compress.reconstruction.sums import Moments, Sums

ROUNDS = 20
"""Of freeing targets that an activation cuts off."""
EXACT = 1e-10
"""Relative error below which a layer is whole; float32 leaves about 1e-13."""
ENOUGH = 0.005
"""Relative gain below which a round is the last."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights and shift of a layer and what they are worth.

    Attributes:
        weights, shift: Solved on all rows, with the ridge that served best.
        ridge: Relative to the diagonal.
        before, after: Errors on the rows held back, relative to the targets' spread: one a
            call; `after` of the solution without these rows.
    """

    weights: Numbers
    shift: Numbers
    ridge: float
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def better(self) -> bool:
        """No call became worse, and one better."""
        worse = any(a > b for b, a in zip(self.before, self.after, strict=True))
        return not worse and sum(self.after) < sum(self.before)


class Judges:
    """Rows held back, which tell how good a solution is.

    Args:
        held: Call by call.
        like: Sums of the rows that are solved on.

    Attributes:
        sums: Of the rows held back, call by call.
    """

    def __init__(self, held: Sequence[Sample], like: Sums) -> None:
        self.sums = [part.sums(like) for part in held]
        self._units = [float(part.spread().sum()) or 1.0 for part in self.sums]

    def errors(self, weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        """Returns squared errors relative to the targets' spread, one a call."""
        return tuple(
            float(part.errors(weights, shift).sum()) / unit
            for part, unit in zip(self.sums, self._units, strict=True)
        )


def best_ridge(problem: Problem, sums: Sums, judges: Judges) -> tuple[float, tuple[float, ...]]:
    """Returns the ridge whose solution is best on rows held back, and its errors there."""
    tried: dict[int, tuple[float, ...]] = {}
    best = FIRST

    def total(index: int) -> float:
        if index not in tried:
            tried[index] = judges.errors(*problem.solved(sums, RIDGES[index]))
        found = sum(tried[index])
        return found if np.isfinite(found) else np.inf

    for step in (1, -1):
        while 0 <= best + step < len(RIDGES) and total(best + step) < total(best):
            best += step
    return RIDGES[best], tried[best]


def fitted(
    problem: Problem, train: Sample, held: Sequence[Sample], now: Numbers, clip: Clip | None
) -> tuple[Fit, Sums | None]:
    """Solves a problem with the ridge that is best on rows held back.

    Args:
        problem: What is solved.
        train: Rows that are solved on, of all calls.
        held: Rows held back, call by call.
        now: The shift as it is, (systems, outputs).
        clip: The activation behind the layer, where it cuts off: what it hides is no error.

    Returns:
        The fit, and the sums over all rows; None where nothing is broken.
    """
    if _whole(problem, held, now, clip):
        zeros = (0.0,) * len(held)
        return Fit(problem.before, now, 0.0, zeros, zeros), None
    sums = train.sums()
    judges = Judges(held, sums)
    ridge, after = best_ridge(problem, sums, judges)
    everything: Any = sums
    for part in judges.sums:
        everything = everything + part
    if clip is None:
        weights, shift = problem.solved(everything, ridge)
        before = judges.errors(problem.before, now)
        return Fit(weights, shift, ridge, before, after), everything
    return _clipped(problem, train, held, now, clip, ridge, sums, everything), everything


def _whole(problem: Problem, held: Sequence[Sample], now: Numbers, clip: Clip | None) -> bool:
    """Tells whether nothing is broken: on rows held back the layer makes what it should."""
    judge = clip or Clip(-np.inf, np.inf)
    exact = [replace(part, noise=0.0) for part in held]
    return all(judge.error(part, problem.before, now) < EXACT for part in exact)


def _clipped(
    problem: Problem,
    train: Sample,
    held: Sequence[Sample],
    now: Numbers,
    clip: Clip,
    ridge: float,
    sums: Sums,
    everything: Sums,
) -> Fit:
    """Goes on from the linear solution: where the activation cuts off, targets are free.

    As long as the error behind the activation falls on rows held back.
    """

    def errors(weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        return tuple(clip.error(part, weights, shift) for part in held)

    before = errors(problem.before, now)
    weights, shift = problem.solved(sums, ridge)
    after, rounds = errors(weights, shift), 0
    if isinstance(sums, Moments):
        factored = Factored(train.rows, sums, problem, ridge)
        for _ in range(ROUNDS):
            trial = factored.solved(clip.targets(train, weights, shift), weights)
            found = errors(*trial)
            if not sum(found) < sum(after) * (1 - ENOUGH):
                break
            (weights, shift), after, rounds = trial, found, rounds + 1
    weights, shift = problem.solved(everything, ridge)
    if rounds and isinstance(everything, Moments):
        whole = Sample.joined([train, *held])
        factored = Factored(whole.rows, everything, problem, ridge)
        for _ in range(rounds):
            targets = clip.targets(whole, weights, shift)
            weights, shift = factored.solved(targets, weights)
    return Fit(weights, shift, ridge, before, after)

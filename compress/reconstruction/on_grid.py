"""A layer's weights put on a grid: rounded so that its outputs stay, or each to the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.reconstruction.least_squares import Problem
from compress.reconstruction.ridge import Judges, best_ridge
from compress.reconstruction.rounding import nearest, products_of, rounded
from compress.reconstruction.rows import Numbers
from compress.reconstruction.samples import Clip, Sample
from compress.reconstruction.sums import Sums


@dataclass(frozen=True, eq=False)
class GridFit:
    """Weights on a grid, and what they are worth.

    Attributes:
        weights: On the grid, (systems, columns, outputs).
        shift: By output, (systems, outputs).
        ridge: With which weights were solved for before they were rounded.
        before: Errors on rows held back of the nearest values, relative to the targets' spread,
            one a call.
        after: Of `weights`.
        sums: Of the rows on which they were solved.
    """

    weights: Numbers
    shift: Numbers
    ridge: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    sums: Sums

    @property
    def better(self) -> bool:
        """No call is worse than with the nearest values, and one better."""
        worse = any(a > b for b, a in zip(self.before, self.after, strict=True))
        return not worse and sum(self.after) < sum(self.before)


def on_grid(
    problem: Problem,
    train: Sample,
    held: Sequence[Sample],
    now: Numbers,
    clip: Clip | None,
    most: int,
) -> GridFit:
    """Solves for a layer's weights and rounds them.

    Args:
        problem: What is solved.
        train: Rows that are solved on, of all calls.
        held: Rows held back, call by call: they choose the ridge, and judge.
        now: The shift as it is, (systems, outputs).
        clip: The activation behind the layer, where it cuts off: what it hides is no error.
        most: The largest whole number of the grid.
    """
    sums = train.sums()
    judges = Judges(held, sums)
    ridge, _ = best_ridge(problem, sums, judges)
    solved = problem.solved(sums, ridge)[0]
    weights = rounded(products_of(sums, problem.shift is None), solved, most, problem.support)
    shift = problem.shift_of(sums, weights)

    def errors(values: Numbers, constant: Numbers) -> tuple[float, ...]:
        if clip is None:
            return judges.errors(values, constant)
        return tuple(clip.error(part, values, constant) for part in held)

    before = errors(nearest(problem.before, most), now)
    return GridFit(weights, shift, ridge, before, errors(weights, shift), sums)

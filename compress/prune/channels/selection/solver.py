"""Chooses how many units each group keeps: scores, steps, floors and a budget; NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Cost = Callable[[npt.NDArray[np.int64]], Numbers]

TOLERANCE = 0.02
AIM = 0.005
MOVES = 200
PAIRED = 64
COMBINED = 7
DRIFT = 2


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which numbers of units groups may keep, all arrays (groups,).

    Attributes:
        removable: Units that may be removed.
        fixed: Units on the same axes that are frozen.
        step: Kept totals (fixed included) are multiples of this, or everything.
        floor: Smallest total.
        ceiling: Largest total; None: everything.
    """

    removable: Counts
    fixed: Counts
    step: Counts
    floor: Counts
    ceiling: Counts | None = None

    def near(self, totals: Counts) -> Allowed:
        """Returns the same steps within a few steps of some totals."""
        least = np.maximum(self.lowest, totals - DRIFT * self.step)
        most = np.minimum(self.total, totals + DRIFT * self.step)
        return replace(self, floor=np.maximum(self.floor, least), ceiling=most)

    @property
    def highest(self) -> Counts:
        """The largest totals."""
        return self.total if self.ceiling is None else self.ceiling

    @property
    def total(self) -> Counts:
        """All units on the groups' axes."""
        return np.asarray(self.removable + self.fixed)

    @property
    def lowest(self) -> Counts:
        """The smallest allowed totals."""
        least = np.maximum(np.maximum(self.floor, self.fixed), 1)
        return np.asarray(np.minimum(-(-least // self.step) * self.step, self.total))

    def nearest(self, wanted: npt.NDArray[Any]) -> Counts:
        """Rounds totals to allowed ones, (..., groups)."""
        multiple = np.floor(np.asarray(wanted) / self.step + 0.5).astype(np.int64) * self.step
        under = self.total // self.step * self.step
        near = np.minimum(multiple, under)
        # everything is allowed too, even where it is no multiple
        whole = np.abs(self.total - wanted) < np.abs(near - wanted)
        return np.clip(np.where(whole, self.total, near), self.lowest, self.total)

    def up(self, totals: Counts) -> Counts:
        """Returns the next larger allowed totals."""
        return np.asarray(np.minimum((totals // self.step + 1) * self.step, self.highest))

    def down(self, totals: Counts) -> Counts:
        """Returns the next smaller allowed totals."""
        return np.asarray(np.maximum((-(-totals // self.step) - 1) * self.step, self.lowest))


@dataclass(frozen=True, eq=False)
class Choice:
    """A selection: totals per group (fixed units included), its cost, and the error."""

    totals: Counts
    cost: float
    error: float

    @property
    def met(self) -> bool:
        """The target is met within 2 %."""
        return abs(self.error) <= TOLERANCE


def steps_for(
    channels: Counts, width: Counts, heads: npt.NDArray[np.bool_], round_to: int
) -> Counts:
    """Returns the step of each group, in units.

    Args:
        channels: Channels of each group (units x width), frozen ones included.
        width: Channels of one unit.
        heads: Attention heads: any number is as good as another.
        round_to: 0: 16 from 32 channels on, 8 from 8 on, else 4; a number: that, or the
            largest half of it that leaves a choice.
    """
    steps = np.ones(len(channels), np.int64)
    for index, (count, wide, head) in enumerate(zip(channels, width, heads, strict=True)):
        if head:
            continue
        step = (16 if count >= 32 else 8 if count > 8 else 4) if round_to == 0 else round_to
        while round_to and step > 4 and step % 2 == 0 and step >= count:
            step //= 2
        steps[index] = step // math.gcd(step, int(wide))
    return steps


def by_share(allowed: Allowed, keep: float) -> Counts:
    """Keeps the same share of every group."""
    return allowed.nearest(allowed.total * keep)


def by_rank(
    scores: list[Numbers], allowed: Allowed, cost: Cost, target: float, *, uniform: bool = False
) -> Choice:
    """Keeps the best units such that the cost comes to a target.

    One threshold over all scores is found by bisection, the kept numbers are rounded, and
    single steps of single groups then close the gap, those first that cost least score.

    Args:
        scores: One array a group, higher = keep.
        allowed: Steps and floors.
        cost: Removable units kept per group, (..., groups) -> (...).
        target: Cost to come to.
        uniform: Thin all groups by one share instead of by one threshold.

    Returns:
        The choice; `met` tells whether it is within 2 %.
    """

    def priced(totals: Counts) -> Numbers:
        return cost(totals - allowed.fixed)

    totals = (
        _share(allowed, priced, target) if uniform else _threshold(scores, allowed, priced, target)
    )
    best: Choice | None = None
    # near the ranking's own numbers first: cheap groups would pay for every gap else
    for space in (allowed.near(totals), allowed):
        refined = _refined(scores, space, priced, target, totals)
        price = float(priced(refined))
        choice = Choice(refined, price, (price - target) / target)
        if best is None or abs(choice.error) < abs(best.error):
            best = choice
        if choice.met:
            break
    assert best is not None
    return best


def _threshold(scores: list[Numbers], allowed: Allowed, priced: Cost, target: float) -> Counts:
    groups = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    order = groups[np.argsort(np.concatenate(scores), kind="stable")]

    def totals(removed: int) -> Counts:
        gone = np.bincount(order[:removed], minlength=len(scores))
        return allowed.nearest(allowed.total - gone)

    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if priced(totals(middle)) > target:
            low = middle
        else:
            high = middle
    return min((totals(low), totals(high)), key=lambda choice: abs(float(priced(choice)) - target))


def _share(allowed: Allowed, priced: Cost, target: float) -> Counts:
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if priced(by_share(allowed, middle)) > target:
            high = middle
        else:
            low = middle
    return min(
        (by_share(allowed, low), by_share(allowed, high)),
        key=lambda choice: abs(float(priced(choice)) - target),
    )


def _refined(
    scores: list[Numbers], allowed: Allowed, priced: Cost, target: float, totals: Counts
) -> Counts:
    """Moves single groups (then pairs) by single steps while that nears the target."""
    ranked = [np.concatenate([[0.0], np.cumsum(np.sort(part)[::-1])]) for part in scores]
    for _ in range(MOVES):
        error = abs(float(priced(totals)) - target) / target
        if error <= AIM:
            break
        better = _best_move(ranked, allowed, priced, target, totals, error)
        if better is None:
            break
        totals = better
    return totals


def _best_move(
    ranked: list[Numbers],
    allowed: Allowed,
    priced: Cost,
    target: float,
    totals: Counts,
    error: float,
) -> Counts | None:
    over = float(priced(totals)) > target
    singles = np.repeat(totals[None], len(totals), axis=0)
    index = np.arange(len(totals))
    singles[index, index] = (allowed.down if over else allowed.up)(totals)
    found = _improving(singles, ranked, allowed, priced, target, error)
    if found is not None:
        return found
    # a step down in one group and up in another; of many groups a sample is enough
    some = index[:: max(1, len(index) // PAIRED)]
    first, second = (part.ravel() for part in np.meshgrid(some, some))
    first, second = first[first != second], second[first != second]
    pairs = np.repeat(totals[None], len(first), axis=0)
    rows = np.arange(len(first))
    pairs[rows, first] = allowed.down(totals)[first]
    pairs[rows, second] = allowed.up(totals)[second]
    if len(pairs):
        found = _improving(pairs, ranked, allowed, priced, target, error)
        if found is not None:
            return found
    combined = _combinations(allowed, priced, totals)
    return _improving(combined, ranked, allowed, priced, target, error)


def _combinations(allowed: Allowed, priced: Cost, totals: Counts) -> Counts:
    """Returns totals with one step down, none or one up in each of a few groups at once.

    Taken are the groups whose steps cost least: they adjust most finely.
    """
    index = np.arange(len(totals))
    singles = np.repeat(totals[None], len(totals), axis=0)
    singles[index, index] = allowed.down(totals)
    effect = np.abs(priced(singles) - priced(totals))
    few = np.argsort(np.where(effect > 0, effect, np.inf), kind="stable")[:COMBINED]
    choices = np.stack([allowed.down(totals), totals, allowed.up(totals)])[:, few]
    picks = np.stack(np.meshgrid(*[np.arange(3)] * len(few), indexing="ij"), -1)
    picks = picks.reshape(-1, len(few))
    combined = np.repeat(totals[None], len(picks), axis=0)
    combined[:, few] = choices[picks, np.arange(len(few))]
    return np.asarray(combined)


def _improving(
    moves: Counts,
    ranked: list[Numbers],
    allowed: Allowed,
    priced: Cost,
    target: float,
    error: float,
) -> Counts | None:
    """Returns the best move: of those that arrive the one that keeps most score."""
    errors = np.abs(priced(moves) - target) / target
    arrived = np.flatnonzero(errors <= AIM)
    if len(arrived):
        kept = [
            sum(part[count] for part, count in zip(ranked, move - allowed.fixed, strict=True))
            for move in moves[arrived]
        ]
        return np.asarray(moves[arrived[int(np.argmax(kept))]])
    best = int(np.argmin(errors))
    return np.asarray(moves[best]) if errors[best] < error - 1e-9 else None

"""Widths of all groups at once: the least damage for a cost; NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.prune.channels.selection.solver import AIM, Allowed, Choice, Cost, Counts, Numbers

EXCHANGES = 300


@dataclass(frozen=True, eq=False)
class Losses:
    """The damage of every allowed width, group by group.

    Attributes:
        table: (groups, most units + 1): by removed units; behind a group's own, infinity.
    """

    table: Numbers

    @classmethod
    def of(cls, by_count: Sequence[Numbers]) -> Losses:
        """Puts arrays of (units + 1,) side by side."""
        most = max(len(part) for part in by_count)
        table = np.full((len(by_count), most), np.inf)
        for row, part in zip(table, by_count, strict=True):
            row[: len(part)] = part
        return cls(table)

    def __call__(self, removed: Counts) -> Numbers:
        """Returns the damage of each group, (..., groups)."""
        return np.asarray(self.table[np.arange(len(self.table)), removed])


def allocated(losses: Losses, allowed: Allowed, cost: Cost, target: float) -> Choice:
    """Chooses widths: the least sum of damages whose cost comes to a target.

    From the whole model on, that group is thinned by a step which adds least damage for the
    logarithm of the cost that it saves; then pairs of groups exchange steps as long as that
    lowers the damage at no more cost.

    Args:
        losses: Of each group.
        allowed: Steps and floors.
        cost: Removable units kept per group, (..., groups) -> (...).
        target: Cost to come to.
    """

    def priced(totals: Counts) -> Numbers:
        return cost(totals - allowed.fixed)

    def damage(totals: Counts) -> Numbers:
        return losses(allowed.total - totals)

    totals = allowed.total
    index = np.arange(len(totals))
    while float(priced(totals)) > target * (1 + AIM):
        lower = allowed.down(totals)
        moves = np.repeat(totals[None], len(totals), axis=0)
        moves[index, index] = lower
        saved = np.log(float(priced(totals))) - np.log(np.maximum(priced(moves), 1e-9))
        added = damage(lower) - damage(totals)
        possible = (lower < totals) & (saved > 1e-12)
        if not possible.any():
            break
        rate = np.where(possible, added / np.where(possible, saved, 1.0), np.inf)
        totals = moves[int(np.argmin(rate))]
    totals = _exchanged(losses, allowed, priced, target, totals)
    price = float(priced(totals))
    return Choice(totals, price, (price - target) / target)


def _exchanged(
    losses: Losses, allowed: Allowed, priced: Cost, target: float, totals: Counts
) -> Counts:
    """Gives steps back where the cost allows it, and exchanges steps between groups."""
    first, second = (part.ravel() for part in np.meshgrid(*[np.arange(len(totals))] * 2))
    alone = first == second
    for _ in range(EXCHANGES):
        moves = np.repeat(totals[None], len(first), axis=0)
        rows = np.arange(len(first))
        up, down = allowed.up(totals), allowed.down(totals)
        moves[rows, first] = up[first]
        moves[rows[~alone], second[~alone]] = down[second[~alone]]
        fits = priced(moves) <= target * (1 + AIM)
        now = losses(allowed.total - totals).sum()
        after = losses(allowed.total - moves).sum(-1)
        after = np.where(fits, after, np.inf)
        best = int(np.argmin(after))
        if not after[best] < now - 1e-12:
            return totals
        totals = moves[best]
    return totals

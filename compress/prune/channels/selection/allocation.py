"""Widths of all groups and blocks at once: the least damage for a cost; NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.prune.channels.selection.solver import AIM, Allowed, Choice, Counts, Numbers

EXCHANGES = 300
Priced = Callable[[Any, Any], Numbers]
"""Kept removable units (..., groups) and present blocks (..., blocks), 0 or 1 -> cost (...).

Of the second, None says that all stay.
"""


@dataclass(frozen=True, eq=False)
class Losses:
    """The damage of every width of every group, and of every block that leaves.

    Attributes:
        table: (groups, most units + 1): by removed units; behind a group's own, infinity.
        blocks: (blocks,).
        inside: (blocks, groups): a group that lies in a block alone.
        nested: (blocks, blocks): the second lies in the first.
    """

    table: Numbers
    blocks: Numbers
    inside: npt.NDArray[np.bool_]
    nested: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        by_count: Sequence[Numbers],
        blocks: Sequence[float] = (),
        inside: npt.NDArray[np.bool_] | None = None,
        nested: npt.NDArray[np.bool_] | None = None,
    ) -> Losses:
        """Puts arrays of (units + 1,) side by side."""
        most = max(len(part) for part in by_count)
        table = np.full((len(by_count), most), np.inf)
        for row, part in zip(table, by_count, strict=True):
            row[: len(part)] = part
        count = len(blocks)
        return cls(
            table,
            np.asarray(blocks, float),
            np.zeros((count, len(by_count)), bool) if inside is None else inside,
            np.zeros((count, count), bool) if nested is None else nested,
        )

    def __call__(self, removed: Counts, present: Counts) -> Numbers:
        """Returns the sum of damages, (...); what lies in a block that left does none."""
        gone = present == 0
        hidden = (gone[..., :, None] & self.inside).any(-2)
        widths = np.where(hidden, 0.0, self.table[np.arange(len(self.table)), removed])
        covered = (gone[..., :, None] & self.nested).any(-2)
        return np.asarray(widths.sum(-1) + (self.blocks * (gone & ~covered)).sum(-1))


class Allocation(NamedTuple):
    """Widths, and which blocks stay.

    Attributes:
        choice: Totals per group, cost, error against the target.
        present: (blocks,): 1 for those that stay.
    """

    choice: Choice
    present: Counts


def allocated(losses: Losses, allowed: Allowed, cost: Priced, target: float) -> Allocation:
    """Chooses widths and blocks: the least sum of damages whose cost comes to a target.

    From the whole model on, that step is taken (of one group, or of a block) which adds least
    damage for the logarithm of the cost that it saves; then pairs exchange steps as long as that
    lowers the damage at no more cost.

    Args:
        losses: Of each group and block.
        allowed: Steps and floors.
        cost: What a kept set costs.
        target: Cost to come to.
    """
    state = _State(losses, allowed, cost)
    now = np.concatenate([allowed.total, np.ones(len(losses.blocks), np.int64)])
    while float(state.cost(now)) > target * (1 + AIM):
        moves = state.lower(now)
        saved = np.log(float(state.cost(now))) - np.log(np.maximum(state.cost(moves), 1e-9))
        added = state.damage(moves) - state.damage(now)
        possible = (moves != now).any(1) & (saved > 1e-12)
        if not possible.any():
            break
        rate = np.where(possible, added / np.where(possible, saved, 1.0), np.inf)
        # a step that costs nothing is taken at once, the one that saves most first
        rate = np.where(possible & (added <= 0), -saved, rate)
        now = moves[int(np.argmin(rate))]
    now = _exchanged(state, now, target)
    price = float(state.cost(now))
    groups = len(allowed.total)
    return Allocation(Choice(now[:groups], price, (price - target) / target), now[groups:])


@dataclass(frozen=True, eq=False)
class _State:
    """Totals of groups and presence of blocks in one row, (groups + blocks,)."""

    losses: Losses
    allowed: Allowed
    priced: Priced

    def parts(self, state: Counts) -> tuple[Counts, Counts]:
        groups = len(self.allowed.total)
        return state[..., :groups], state[..., groups:]

    def cost(self, state: Counts) -> Numbers:
        totals, present = self.parts(state)
        return self.priced(totals - self.allowed.fixed, present)

    def damage(self, state: Counts) -> Numbers:
        totals, present = self.parts(state)
        return self.losses(self.allowed.total - totals, present)

    def lower(self, state: Counts) -> Counts:
        """Returns one row a step down, (groups + blocks, groups + blocks)."""
        totals, present = self.parts(state)
        return self._steps(state, np.concatenate([self.allowed.down(totals), 0 * present]))

    def upper(self, state: Counts) -> Counts:
        """Returns one row a step up."""
        totals, present = self.parts(state)
        return self._steps(state, np.concatenate([self.allowed.up(totals), 0 * present + 1]))

    @staticmethod
    def _steps(state: Counts, values: Counts) -> Counts:
        rows = np.repeat(state[None], len(state), axis=0)
        index = np.arange(len(state))
        rows[index, index] = values
        return rows


def _exchanged(state: _State, now: Counts, target: float) -> Counts:
    """Gives steps back where the cost allows it, and exchanges steps between two places."""
    size = len(now)
    for _ in range(EXCHANGES):
        up, down = state.upper(now), state.lower(now)
        both = (up - now)[:, None] + (down - now)[None]
        both[np.arange(size), np.arange(size)] = up - now
        moves = now + both.reshape(-1, size)
        fits = state.cost(moves) <= target * (1 + AIM)
        after = np.where(fits, state.damage(moves), np.inf)
        best = int(np.argmin(after))
        if not after[best] < float(state.damage(now)) - 1e-12:
            return now
        now = moves[best]
    return now

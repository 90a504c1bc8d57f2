"""Allowed numbers of units in each group, and the record of a choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import unknown_name
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import HEADS

Counts = npt.NDArray[np.int64]
TOLERANCE = 0.02
"""Share of a target by which a choice may miss it."""
AIM = 0.005
"""Share of a target within which nothing is improved any more."""
DRIFT = 2
"""Steps by which `Allowed.near` lets totals move."""


@dataclass(frozen=True, eq=False)
class Allowed:
    """Allowed numbers of units, all arrays (groups,).

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
        """Return the same steps within a few steps of some totals."""
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
        """Round totals to allowed ones, (..., groups)."""
        multiple = np.floor(np.asarray(wanted) / self.step + 0.5).astype(np.int64) * self.step
        under = self.total // self.step * self.step
        near = np.minimum(multiple, under)
        # everything is allowed too, even where it is no multiple
        whole = np.abs(self.total - wanted) < np.abs(near - wanted)
        return np.clip(np.where(whole, self.total, near), self.lowest, self.total)

    def up(self, totals: Counts) -> Counts:
        """Return the next larger allowed totals."""
        return np.asarray(np.minimum((totals // self.step + 1) * self.step, self.highest))

    def down(self, totals: Counts) -> Counts:
        """Return the next smaller allowed totals."""
        return np.asarray(np.maximum((-(-totals // self.step) - 1) * self.step, self.lowest))


def steps_for(
    channels: Counts, width: Counts, heads: npt.NDArray[np.bool_], round_to: int
) -> Counts:
    """Return the step of each group, in units.

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


def ladder(options: ChannelOptions) -> list[int]:
    """Return the steps of kept numbers that are tried, coarse ones first."""
    return [options.round_to] if options.round_to else [0, 8, 4]


def step_text(round_to: int) -> str:
    """Return a step of kept numbers in words."""
    return str(round_to) if round_to else "16 from 32 channels on, 8 below, else 4"


def allowed_for(coupling: Coupling, options: ChannelOptions, round_to: int) -> Allowed:
    """Return the allowed numbers of units of each group.

    Raises:
        InputError: A pattern matches no layer whose channels can be removed.
    """
    groups = coupling.groups
    fixed = np.array([group.fixed for group in groups])
    width = np.array([group.width for group in groups])
    heads = np.array([group.kind == HEADS for group in groups])
    total = coupling.began
    step = steps_for(total * width, width, heads, round_to)
    floor = np.ceil(total * options.min_kept - 1e-9).astype(np.int64)
    limits = [(limit.pattern, limit.share) for limit in options.limits]
    for pattern, share in [*limits, *((pattern, 0.0) for pattern in options.exclude)]:
        names = [any(fnmatchcase(name, pattern) for name in group.makers) for group in groups]
        if not any(names):
            raise unknown_name(
                "layer or pattern (no removable channels)",
                pattern,
                sorted({name for group in groups for name in group.makers}),
            )
        least = np.ceil(total * (1 - share) - 1e-9).astype(np.int64)
        floor = np.where(names, np.maximum(floor, least), floor)
    return Allowed(coupling.whole, fixed, step, floor)


@dataclass(frozen=True, eq=False)
class Choice:
    """Numbers of units, and their cost.

    Attributes:
        totals: Of each group, fixed units included, (groups,).
        cost: What the target counts.
        error: Distance from the target, as a share of it.
        present: 1 for blocks that stay, (blocks,); None: all stay.
    """

    totals: Counts
    cost: float
    error: float
    present: Counts | None = None

    @property
    def met(self) -> bool:
        """The target is met within 2 %."""
        return abs(self.error) <= TOLERANCE


def choose_nearest(options: ChannelOptions, choose: Callable[[int], Choice]) -> tuple[Choice, int]:
    """Return the choice by the coarsest step that meets the target, else the nearest to it.

    Args:
        options: Name the step, or leave it open.
        choose: Step of kept numbers, see `steps_for` -> the choice.

    Returns:
        The choice, and its step.
    """
    tried: list[tuple[Choice, int]] = []
    for round_to in ladder(options):
        tried.append((choose(round_to), round_to))
        if tried[-1][0].met:
            break
    return min(tried, key=lambda item: abs(item[0].error))


@dataclass(frozen=True, eq=False)
class Selection:
    """A chosen kept set.

    Attributes:
        mask: Kept units.
        choice: Totals per group, cost, error against the target.
        round_to: The step of kept numbers, in words.
        notes: What the user should know.
        dropped: Blocks that are removed.
        method: How channel counts were chosen, where that was decided by comparison.
    """

    mask: Mask
    choice: Choice
    round_to: str
    notes: tuple[str, ...] = ()
    dropped: tuple[Block, ...] = ()
    method: str = ""

    @property
    def key(self) -> tuple[bytes, tuple[int, ...]]:
        """A key that differs between the choices of one coupling."""
        return self.mask.tobytes(), tuple(block.index for block in self.dropped)

    def summary(self) -> str:
        """Return one line: the kept units, their cost and the notes."""
        kept = np.count_nonzero(self.mask)
        text = f"{kept:,} of {len(self.mask):,} units kept, cost {cost_text(self.choice.cost)}"
        return "; ".join([text, *self.notes])


def cost_text(cost: float) -> str:
    """Return a count with commas, and small numbers (milliseconds, say) with four digits."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"

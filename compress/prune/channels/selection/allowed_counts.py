"""Allowed numbers of units in each group, and the records of an allocation and a selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import build_unknown_name_error
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import HEADS

Counts = npt.NDArray[np.int64]
TOLERANCE = 0.02
"""Maximum relative distance from the target for it to count as met."""
TARGET_PRECISION = 0.005
"""Relative distance from the target at which the search stops."""
DRIFT = 2
"""Number of steps by which `AllowedCounts.limit_near` lets totals change."""


@dataclass(frozen=True, eq=False)
class AllowedCounts:
    """Allowed numbers of units; all arrays are (groups,).

    Attributes:
        removable: Units that can be removed.
        fixed: Frozen units on the same axes.
        step: Kept totals (frozen units included) are multiples of this, or all units.
        floor: Smallest total.
        ceiling: Largest total; None: all units.
    """

    removable: Counts
    fixed: Counts
    step: Counts
    floor: Counts
    ceiling: Counts | None = None

    def limit_near(self, totals: Counts) -> AllowedCounts:
        """Return the same steps, limited to a few steps around some totals."""
        lower = np.maximum(self.lowest, totals - DRIFT * self.step)
        upper = np.minimum(self.total, totals + DRIFT * self.step)
        return replace(self, floor=np.maximum(self.floor, lower), ceiling=upper)

    @property
    def highest(self) -> Counts:
        """The largest allowed totals."""
        return self.total if self.ceiling is None else self.ceiling

    @property
    def total(self) -> Counts:
        """The number of units on the groups' axes."""
        return np.asarray(self.removable + self.fixed)

    @property
    def lowest(self) -> Counts:
        """The smallest allowed totals."""
        lower = np.maximum(np.maximum(self.floor, self.fixed), 1)
        return np.asarray(np.minimum(-(-lower // self.step) * self.step, self.total))

    def round_totals(self, totals: npt.NDArray[Any]) -> Counts:
        """Return totals rounded to allowed ones, (..., groups); the ceiling does not apply."""
        multiple = np.floor(np.asarray(totals) / self.step + 0.5).astype(np.int64) * self.step
        largest_multiple = self.total // self.step * self.step
        nearest = np.minimum(multiple, largest_multiple)
        # keeping all units is always allowed, even if their number is not a multiple
        is_total_nearer = np.abs(self.total - totals) < np.abs(nearest - totals)
        return np.clip(np.where(is_total_nearer, self.total, nearest), self.lowest, self.total)

    def step_up(self, totals: Counts) -> Counts:
        """Return the next larger allowed totals."""
        return np.asarray(np.minimum((totals // self.step + 1) * self.step, self.highest))

    def step_down(self, totals: Counts) -> Counts:
        """Return the next smaller allowed totals."""
        return np.asarray(np.maximum((-(-totals // self.step) - 1) * self.step, self.lowest))


def compute_rounding_steps(
    channels: Counts, width: Counts, heads: npt.NDArray[np.bool_], round_to: int
) -> Counts:
    """Return the rounding step of each group, in units.

    Args:
        channels: Channels of each group (units x width), frozen ones included.
        width: Channels of one unit.
        heads: True for groups of attention heads, which are not rounded.
        round_to: Multiple in channels; it is halved, at most down to 4, for groups that are too
            small for it. 0: 16 from 32 channels on, 8 from 9 on, else 4.
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


def list_rounding_steps(options: ChannelOptions) -> list[int]:
    """Return the rounding steps to try, coarse ones first."""
    return [options.round_to] if options.round_to else [0, 8, 4]


def format_rounding_step(round_to: int) -> str:
    """Return a rounding step as text."""
    return str(round_to) if round_to else "16 from 32 channels on, 8 from 9 on, else 4"


def compute_allowed_counts(
    coupling: Coupling, options: ChannelOptions, round_to: int
) -> AllowedCounts:
    """Return the allowed numbers of units of each group.

    Args:
        coupling: Coupling of the model.
        options: Minimum share and excluded layers.
        round_to: Rounding step, see `compute_rounding_steps`.

    Raises:
        InputError: A pattern matches no layer with removable channels.
    """
    groups = coupling.groups
    fixed = np.array([group.fixed for group in groups], np.int64)
    width = np.array([group.width for group in groups])
    heads = np.array([group.kind == HEADS for group in groups])
    total = coupling.removable_counts + fixed
    step = compute_rounding_steps(total * width, width, heads, round_to)
    floor = np.ceil(total * options.min_kept - 1e-9).astype(np.int64)
    for pattern in options.exclude:
        names = [any(fnmatchcase(name, pattern) for name in group.makers) for group in groups]
        if not any(names):
            raise build_unknown_name_error(
                "layer or pattern (no removable channels)",
                pattern,
                sorted({name for group in groups for name in group.makers}),
            )
        floor = np.where(names, total, floor)
    return AllowedCounts(coupling.removable_counts, fixed, step, floor)


@dataclass(frozen=True, eq=False)
class Allocation:
    """Numbers of units, and their cost.

    Attributes:
        totals: Kept units of each group, frozen ones included, (groups,).
        cost: Cost in the metric of the target.
        error: Relative distance from the target, negative below it.
        present: 1 for kept blocks, (blocks,); None: all blocks are kept.
    """

    totals: Counts
    cost: float
    error: float
    present: Counts | None = None

    @property
    def is_on_target(self) -> bool:
        """Whether the target is met within 2 %."""
        return abs(self.error) <= TOLERANCE


def choose_nearest(
    options: ChannelOptions, allocate: Callable[[int], Allocation]
) -> tuple[Allocation, int]:
    """Return the allocation by the coarsest step that meets the target, else the nearest one.

    Args:
        options: Options with the rounding step, or 0 to try several.
        allocate: Function of a rounding step that returns the allocation, see
            `compute_rounding_steps`.

    Returns:
        The allocation, and its rounding step.
    """
    tried: list[tuple[Allocation, int]] = []
    for round_to in list_rounding_steps(options):
        tried.append((allocate(round_to), round_to))
        if tried[-1][0].is_on_target:
            break
    return min(tried, key=lambda item: abs(item[0].error))


@dataclass(frozen=True, eq=False)
class Selection:
    """The selected units and blocks.

    Attributes:
        mask: True for kept units, (units,).
        allocation: Totals of each group, cost, and distance from the target.
        round_to: Rounding step of kept counts, as text.
        notes: Notes for the user.
        removed_blocks: Blocks that are removed; those nested in them may be missing.
        method: Name of the selection method; "" if units were ranked by one criterion.
    """

    mask: Mask
    allocation: Allocation
    round_to: str
    notes: tuple[str, ...] = ()
    removed_blocks: tuple[Block, ...] = ()
    method: str = ""

    @property
    def key(self) -> tuple[bytes, tuple[int, ...]]:
        """A key that identifies a selection among those of one coupling."""
        return self.mask.tobytes(), tuple(block.index for block in self.removed_blocks)

    def summarize(self) -> str:
        """Return one line with the kept units, their cost and the notes."""
        kept = np.count_nonzero(self.mask)
        text = (
            f"{kept:,} of {len(self.mask):,} units kept, cost {format_cost(self.allocation.cost)}"
        )
        return "; ".join([text, *self.notes])


def format_cost(cost: float) -> str:
    """Return a cost as text: from 1,000 on without decimals, else with four digits."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"

"""A chosen kept set, and what there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import ladder
from compress.prune.channels.selection.feasible import infeasible, smallest
from compress.prune.channels.selection.solver import Choice, Cost


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
        """What tells it from others of the same coupling."""
        return self.mask.tobytes(), tuple(block.index for block in self.dropped)

    def summary(self) -> str:
        """Returns one line: what the choice costs and what there is to know about it."""
        kept = int(np.count_nonzero(self.mask))
        text = f"{kept:,} of {len(self.mask):,} units kept, cost {cost_text(self.choice.cost)}"
        return "; ".join([text, *self.notes])


def notes_on(
    coupling: Coupling,
    options: ChannelOptions,
    choice: Choice,
    round_to: int,
    target: float,
    own: Cost | None = None,
) -> list[str]:
    """Says which steps were taken and what was missed.

    Raises:
        FeasibleError: The target is below what is feasible.
    """
    notes = []
    if round_to != ladder(options)[0]:
        notes.append(f"kept numbers are multiples of {round_to}: coarser steps miss the target")
    if not choice.met:
        least = smallest(coupling, options, own)
        if target < least.cost and not options.blocks:
            raise infeasible(coupling, options, least, target, own)
        what = options.target_metric if own is None else "cost"
        wanted, reached = cost_text(target), cost_text(choice.cost)
        notes.append(f"the nearest feasible {what} to {wanted} is {reached} ({choice.error:+.1%})")
    return notes


def of_widths(own: Priced | None) -> Cost | None:
    """Returns the cost of a kept set where all blocks stay."""
    if own is None:
        return None
    priced = own
    return lambda kept: np.asarray(priced(kept, None), np.float64)


def cost_text(cost: float) -> str:
    """Returns a count with commas, and small numbers (milliseconds, say) with four digits."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"

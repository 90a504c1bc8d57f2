"""A chosen set of kept units: what it aims at, and what there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.core.errors import FeasibleError, InputError
from compress.plan import ChannelOptions
from compress.plan.target import Target
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import cost_of, infeasible, ladder, smallest
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


def aimed(options: ChannelOptions, given: dict[str, Any], cost: Priced | None) -> ChannelOptions:
    """Returns options with the target of the keywords.

    Raises:
        InputError: A cost without a share of it, or the other way round, or in steps.
    """
    share = given.get("cost")
    if (cost is None) != (share is None):
        raise InputError(
            "cost= and share= must go together: what to save, and what share of it to keep. "
            f"Received: {'share alone' if cost is None else 'cost alone'}."
        )
    if share is not None:
        if not 0 < share <= 1:
            raise InputError(f"share must be in (0, 1]. Received: {share}.")
        if options.steps > 1:
            raise InputError(
                "cost must go with one step: it is of the model as it is. Received: "
                f"{options.steps} steps."
            )
        return replace(options, target_metric="macs", target=Target(float(share), relative=True))
    for name, value in given.items():
        options = replace(options, target_metric=name, target=value)
    return options


@dataclass(frozen=True)
class Goal:
    """The target as a number, and the targets of the steps on the way.

    Attributes:
        metric: What is counted.
        value: What is to be left of it; of an amount, the share that leaves.
        before: What the model has of it.
    """

    metric: str
    value: float
    before: float

    @classmethod
    def of_options(
        cls, options: ChannelOptions, coupling: Coupling, own: Cost | None = None
    ) -> Goal:
        """Returns the goal of options, for a model.

        Args:
            options: With a target.
            coupling: Of the model.
            own: What the target counts, in place of what options name.

        Raises:
            FeasibleError: It is more than the model has.
        """
        target, metric = options.target, options.target_metric if own is None else "cost"
        assert target is not None, "prune_channels has asked for one"
        if metric == "amount":
            return cls(metric, target.amount, 1.0)
        before = float(cost_of(coupling, options, own)(coupling.whole))
        goal = target.amount * before if target.relative else target.amount
        if goal > before:
            raise FeasibleError(
                f"{metric} must be at most the model's own {cost_text(before)}. Received: "
                f"{cost_text(goal)}."
            )
        return cls(metric, goal, before)

    def at(self, step: int, steps: int) -> float:
        """Returns the target of a step: equal factors from step to step."""
        if self.metric == "amount":
            # each step removes from what the last one left
            return 1.0 - float((1.0 - self.value) ** (1.0 / steps))
        return float(self.before * (self.value / self.before) ** (step / steps))

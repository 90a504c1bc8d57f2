"""Targets as numbers, the smallest feasible cost, and errors of infeasible targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from compress.core.errors import FeasibleError, InputError
from compress.plan import ChannelOptions
from compress.plan.target import Target
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.selection.allowed import (
    Counts,
    Selection,
    allowed_for,
    cost_text,
    ladder,
    step_text,
)
from compress.prune.channels.selection.costs import CostModel

Priced = Callable[[Any, Any], Numbers]
"""Kept removable units (..., groups) and present blocks (..., blocks), 0 or 1 -> cost (...).

Of the second, None says that all stay.
"""
ROUNDING = 1e-9


def aimed(options: ChannelOptions, given: dict[str, Any], cost: Priced | None) -> ChannelOptions:
    """Return options with the target of the keywords.

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
        cls, options: ChannelOptions, coupling: Coupling, own: Priced | None = None
    ) -> Goal:
        """Return the goal of options, for a model.

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
        before = float(cost_of(coupling, options, own)(coupling.whole, None))
        goal = target.amount * before if target.relative else target.amount
        if goal > before:
            raise FeasibleError(
                f"{metric} must be at most the model's own {cost_text(before)}. Received: "
                f"{cost_text(goal)}."
            )
        return cls(metric, goal, before)

    def at(self, step: int, steps: int) -> float:
        """Return the target of a step: equal factors from step to step."""
        if self.metric == "amount":
            # each step removes from what the last one left
            return 1.0 - float((1.0 - self.value) ** (1.0 / steps))
        return float(self.before * (self.value / self.before) ** (step / steps))


def cost_of(coupling: Coupling, options: ChannelOptions, own: Priced | None = None) -> Priced:
    """Return the cost function that the target counts; of an amount, MACs where they can be.

    Args:
        coupling: Of the model.
        options: Name what is counted.
        own: The user's, which goes before it.
    """
    if own is not None:
        return own
    costs = CostModel.of(coupling)
    if options.target_metric == "params" or (
        options.target_metric == "amount" and not costs.has_macs
    ):
        return costs.params
    return costs.macs


@dataclass(frozen=True, eq=False)
class Smallest:
    """Cost of a model when every layer is thinned to its minimum.

    Attributes:
        kept: Removable units that stay in each group, (groups,).
        cost: What the target counts: MACs or parameters.
        full: The same of the whole model.
    """

    kept: Counts
    cost: float
    full: float

    @property
    def share(self) -> float:
        """The cost as a share, rounded up to three digits: a target that is met."""
        share = self.cost / self.full
        digits = 2 - math.floor(math.log10(share))
        scale = 10.0**digits
        return math.ceil(share * scale * (1 - ROUNDING)) / scale


def smallest(coupling: Coupling, options: ChannelOptions, own: Priced | None = None) -> Smallest:
    """Return the smallest feasible cost; a target below it is refused.

    Raises:
        InputError: A pattern matches no layer whose channels can be removed, or MACs are
            asked for and an input size is open.
    """
    allowed = allowed_for(coupling, options, ladder(options)[-1])
    kept, cost = allowed.lowest - allowed.fixed, cost_of(coupling, options, own)
    return Smallest(kept, float(cost(kept, None)), float(cost(allowed.removable, None)))


def check_feasible(coupling: Coupling, options: ChannelOptions, own: Priced | None = None) -> None:
    """Check patterns and target before any work is done.

    Args:
        coupling: Of the model.
        options: Target, steps, floors and limits.
        own: See `cost_of`.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing.
    """
    if not coupling.groups:
        raise nothing_removable(coupling)
    least = smallest(coupling, options, own)
    if options.target is None or options.target_metric == "amount":
        return
    target = options.target.amount * (least.full if options.target.relative else 1.0)
    if target < least.cost * (1 - ROUNDING):
        raise infeasible(coupling, options, least, target, own)


def notes_on(
    coupling: Coupling,
    options: ChannelOptions,
    found: Selection,
    target: float,
    own: Priced | None = None,
) -> tuple[str, ...]:
    """Return notes on the steps that were taken and on a target that was missed.

    Raises:
        FeasibleError: The target is below what is feasible.
    """
    notes = []
    if found.round_to != step_text(ladder(options)[0]):
        notes.append(
            f"kept numbers are multiples of {found.round_to}: coarser steps miss the target"
        )
    if not found.choice.met:
        least = smallest(coupling, options, own)
        if target < least.cost and not options.blocks:
            raise infeasible(coupling, options, least, target, own)
        what = options.target_metric if own is None else "cost"
        wanted, reached = cost_text(target), cost_text(found.choice.cost)
        notes.append(
            f"the nearest feasible {what} to {wanted} is {reached} ({found.choice.error:+.1%})"
        )
    return tuple(notes)


def infeasible(
    coupling: Coupling,
    options: ChannelOptions,
    least: Smallest,
    target: float,
    own: Priced | None = None,
) -> FeasibleError:
    """Return the error of a target below the least cost, with that and the reasons for it."""
    if own is not None:
        return FeasibleError(
            f"cost must be at least {least.cost:.4g} ({least.share:g}x of {least.full:.4g}): that "
            "much is left when every layer is thinned to its minimum "
            f"(min_kept={options.min_kept:g}, multiples of {ladder(options)[-1]}). Received: "
            f"{target:.4g} ({target / least.full:.3g}x). Ask for more, or "
            f"{_relaxed(coupling, options, least, own)}lower min_kept or round_to."
        )
    costs = CostModel.of(coupling)
    counted = costs.params if options.target_metric == "params" else costs.macs
    top = sorted(counted.by_layer(least.kept).items(), key=lambda item: -item[1])[:3]
    layers = ", ".join(f"{name} {value / least.cost:.0%}" for name, value in top)
    return FeasibleError(
        f"{options.target_metric} must be at least {math.ceil(least.cost):,} ({least.share:g}x of "
        f"{least.full:,.0f}): that much is left when every layer is thinned to its minimum "
        f"(min_kept={options.min_kept:g}, multiples of {ladder(options)[-1]}); most of it lies "
        f"in {layers}; {_holders(coupling)} Received: {target:,.0f} ({target / least.full:.3g}x). "
        f"Ask for more, or {_relaxed(coupling, options, least, own)}lower min_kept or round_to."
    )


def nothing_removable(coupling: Coupling) -> FeasibleError:
    """Return the error of a model without channels that can be removed."""
    return FeasibleError(
        f"The model must have channels that can be removed. Received: none; {_holders(coupling)}"
    )


def _relaxed(
    coupling: Coupling, options: ChannelOptions, least: Smallest, own: Priced | None
) -> str:
    """Return the part of an error on the user's own limits, or "": what relaxing them is worth."""
    if not options.limits and not options.exclude:
        return ""
    freer = smallest(coupling, replace(options, limits=(), exclude=()), own)
    if freer.cost >= least.cost:
        return ""
    names = {"channel_limits": options.limits, "channel_exclude": options.exclude}
    texts = " and ".join(
        f"{name} {','.join(map(str, values))}" for name, values in names.items() if values
    )
    return f"relax {texts} (without: {freer.share:g}x), or "


def _holders(coupling: Coupling) -> str:
    held = [f"{row.units} units by {row.reason}" for row in coupling.frozen_report()]
    more = f" and {len(held) - 5} reasons more" if len(held) > 5 else ""
    text = f"held are {', '.join(held[:5]) or 'no units'}{more}."
    # layers that stay whole, with what is in them: a reason once a class
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, (kind, reason) in coupling.graph.unknown.items():
        by_reason.setdefault((kind, reason), []).append(name)
    texts = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} ({kind}): {reason}"
        for (kind, reason), names in by_reason.items()
    ]
    more = f"; and {len(texts) - 5} reasons more" if len(texts) > 5 else ""
    return f"{text} Layers that stay whole: {'; '.join(texts[:5])}{more}." if texts else text

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
from compress.prune.channels.selection.allowed_counts import (
    Counts,
    Selection,
    compute_allowed_counts,
    format_cost,
    format_rounding_step,
    list_rounding_steps,
)
from compress.prune.channels.selection.costs import CostModel

CostFunction = Callable[[Any, Any], Numbers]
"""Function of kept removable units (..., groups) and present blocks (..., blocks) -> cost (...).

Present blocks are 0 or 1; None means that all blocks are kept.
"""
ROUNDING = 1e-9  # relative tolerance for rounding errors of costs


def apply_target(
    options: ChannelOptions, targets: dict[str, Any], cost: CostFunction | None
) -> ChannelOptions:
    """Return the options with the target of the keywords.

    Args:
        options: Channel options.
        targets: Target by metric; at most one.
        cost: Custom cost; its target is the share `targets["cost"]`.

    Raises:
        InputError: A cost without a share or the reverse, or a share outside (0, 1].
    """
    share = targets.get("cost")
    if (cost is None) != (share is None):
        raise InputError(
            "cost= and share= must go together: what to save, and what share of it to keep. "
            f"Received: {'share alone' if cost is None else 'cost alone'}."
        )
    if share is not None:
        if not 0 < share <= 1:
            raise InputError(f"share must be in (0, 1]. Received: {share}.")
        return replace(options, target=Target(float(share), relative=True))
    for target in targets.values():
        options = replace(options, target=target)
    return options


@dataclass(frozen=True)
class Goal:
    """The target as a number.

    Attributes:
        metric: Metric of the target: "macs", "params" or "cost".
        value: Value to reach.
    """

    metric: str
    value: float

    @classmethod
    def from_options(
        cls, options: ChannelOptions, coupling: Coupling, custom_cost: CostFunction | None = None
    ) -> Goal:
        """Return the goal of options for a model.

        Args:
            options: Options with a target.
            coupling: Coupling of the model.
            custom_cost: See `resolve_cost`.

        Raises:
            FeasibleError: The target is above the model's own value.
            InputError: MACs are required and an input size is open.
        """
        target, metric = options.target, name_metric(coupling, custom_cost)
        assert target is not None, "prune_channels has asked for one"
        before = float(resolve_cost(coupling, custom_cost)(coupling.removable_counts, None))
        goal = target.amount * before if target.relative else target.amount
        if goal > before:
            raise FeasibleError(
                f"{metric} must be at most the model's own {format_cost(before)}. Received: "
                f"{format_cost(goal)}."
            )
        return cls(metric, goal)


def resolve_cost(coupling: Coupling, custom_cost: CostFunction | None = None) -> CostFunction:
    """Return the cost function of the target: MACs, or a custom cost.

    Args:
        coupling: Coupling of the model.
        custom_cost: Custom cost, or the parameters of the coupling's `CostModel`.

    Raises:
        InputError: MACs are required and an input size is open.
    """
    return CostModel.from_coupling(coupling).macs if custom_cost is None else custom_cost


def name_metric(coupling: Coupling, custom_cost: CostFunction | None) -> str:
    """Return the name of the target's metric: "macs", "params" or "cost".

    Args:
        coupling: Coupling of the model.
        custom_cost: See `resolve_cost`.
    """
    if custom_cost is None:
        return "macs"
    return "params" if custom_cost is CostModel.from_coupling(coupling).params else "cost"


@dataclass(frozen=True, eq=False)
class SmallestCost:
    """Cost of a model with every layer pruned to its minimum.

    Attributes:
        kept: Kept removable units of each group, (groups,).
        cost: Cost in the metric of the target: MACs, parameters or a custom cost.
        original_cost: Cost of the original model.
    """

    kept: Counts
    cost: float
    original_cost: float

    @property
    def share(self) -> float:
        """The cost as a share of the original, rounded up to three digits: a feasible target."""
        share = self.cost / self.original_cost
        digits = 2 - math.floor(math.log10(share))
        scale = 10.0**digits
        return math.ceil(share * scale * (1 - ROUNDING)) / scale


def find_smallest(
    coupling: Coupling, options: ChannelOptions, custom_cost: CostFunction | None = None
) -> SmallestCost:
    """Return the smallest feasible cost; lower targets are rejected.

    Args:
        coupling: Coupling of the model.
        options: Rounding, floors and excluded layers.
        custom_cost: See `resolve_cost`.

    Raises:
        InputError: A pattern matches no layer with removable channels, or MACs are required and an
            input size is open.
    """
    allowed = compute_allowed_counts(coupling, options, list_rounding_steps(options)[-1])
    kept, cost = allowed.lowest - allowed.fixed, resolve_cost(coupling, custom_cost)
    return SmallestCost(kept, float(cost(kept, None)), float(cost(allowed.removable, None)))


def check_feasible(
    coupling: Coupling, options: ChannelOptions, custom_cost: CostFunction | None = None
) -> None:
    """Check patterns and target before the model is pruned.

    Args:
        coupling: Coupling of the model.
        options: Target, rounding, floors and excluded layers.
        custom_cost: See `resolve_cost`.

    Raises:
        FeasibleError: The target is below the feasible minimum, or nothing can be removed.
        InputError: A pattern matches nothing.
    """
    if not coupling.groups:
        raise build_unprunable_error(coupling)
    if options.target is None:
        compute_allowed_counts(coupling, options, options.round_to)  # patterns
        return
    smallest_cost = find_smallest(coupling, options, custom_cost)
    target = options.target.amount * (
        smallest_cost.original_cost if options.target.relative else 1.0
    )
    if target < smallest_cost.cost * (1 - ROUNDING):
        raise build_infeasible_error(coupling, options, smallest_cost, target, custom_cost)


def list_notes(
    coupling: Coupling,
    options: ChannelOptions,
    selection: Selection,
    target: float,
    custom_cost: CostFunction | None = None,
) -> tuple[str, ...]:
    """Return notes on a finer rounding step and on a missed target.

    Args:
        coupling: Coupling of the model.
        options: Target, rounding, floors and excluded layers.
        selection: The selection.
        target: Cost to reach.
        custom_cost: See `resolve_cost`.

    Raises:
        FeasibleError: The target is below the feasible minimum.
    """
    notes = []
    if selection.round_to != format_rounding_step(list_rounding_steps(options)[0]):
        notes.append(
            f"kept numbers are multiples of {selection.round_to}: coarser steps miss the target"
        )
    if not selection.allocation.is_on_target:
        smallest_cost = find_smallest(coupling, options, custom_cost)
        if target < smallest_cost.cost and not options.blocks:
            raise build_infeasible_error(coupling, options, smallest_cost, target, custom_cost)
        metric = name_metric(coupling, custom_cost)
        target_text, reached_text = format_cost(target), format_cost(selection.allocation.cost)
        notes.append(
            f"the nearest feasible {metric} to {target_text} is {reached_text} "
            f"({selection.allocation.error:+.1%})"
        )
    return tuple(notes)


def build_infeasible_error(
    coupling: Coupling,
    options: ChannelOptions,
    smallest_cost: SmallestCost,
    target: float,
    custom_cost: CostFunction | None = None,
) -> FeasibleError:
    """Return the error of a target below the smallest cost, with that cost and the reasons.

    Args:
        coupling: Coupling of the model.
        options: Target, rounding, floors and excluded layers.
        smallest_cost: The smallest feasible cost.
        target: The infeasible target.
        custom_cost: See `resolve_cost`.
    """
    metric = name_metric(coupling, custom_cost)
    if metric == "cost":
        return FeasibleError(
            f"cost must be at least {smallest_cost.cost:.4g} ({smallest_cost.share:g}x of "
            f"{smallest_cost.original_cost:.4g}): that "
            "much is left when every layer is thinned to its minimum "
            f"(min_kept={options.min_kept:g}, multiples of {list_rounding_steps(options)[-1]}). "
            "Received: "
            f"{target:.4g} ({target / smallest_cost.original_cost:.3g}x). Ask for more, or "
            f"{_describe_relaxation(coupling, options, smallest_cost, custom_cost)}lower min_kept "
            "or round_to."
        )
    costs = CostModel.from_coupling(coupling)
    cost = costs.params if metric == "params" else costs.macs
    top = sorted(cost.compute_by_layer(smallest_cost.kept).items(), key=lambda item: -item[1])[:3]
    layers = ", ".join(f"{name} {value / smallest_cost.cost:.0%}" for name, value in top)
    return FeasibleError(
        f"{metric} must be at least {math.ceil(smallest_cost.cost):,} "
        f"({smallest_cost.share:g}x of {smallest_cost.original_cost:,.0f}): that much is left when "
        f"every layer is thinned to its minimum (min_kept={options.min_kept:g}, multiples of "
        f"{list_rounding_steps(options)[-1]}); most of it lies in {layers}; "
        f"{_describe_protected(coupling)} Received: {target:,.0f} "
        f"({target / smallest_cost.original_cost:.3g}x). Ask for more, or "
        f"{_describe_relaxation(coupling, options, smallest_cost, custom_cost)}lower min_kept or "
        "round_to."
    )


def build_unprunable_error(coupling: Coupling) -> FeasibleError:
    """Return the error of a model without removable channels."""
    return FeasibleError(
        "The model must have channels that can be removed. Received: none; "
        f"{_describe_protected(coupling)}"
    )


def _describe_relaxation(
    coupling: Coupling,
    options: ChannelOptions,
    smallest_cost: SmallestCost,
    custom_cost: CostFunction | None,
) -> str:
    """Return the part of an error message on excluded layers and the cost without them, or ""."""
    if not options.exclude:
        return ""
    freer = find_smallest(coupling, replace(options, exclude=()), custom_cost)
    if freer.cost >= smallest_cost.cost:
        return ""
    return f"relax channel_exclude {','.join(options.exclude)} (without: {freer.share:g}x), or "


def _describe_protected(coupling: Coupling) -> str:
    frozen_texts = [f"{row.units} units by {row.reason}" for row in coupling.list_frozen()]
    more = f" and {len(frozen_texts) - 5} reasons more" if len(frozen_texts) > 5 else ""
    text = f"not prunable: {', '.join(frozen_texts[:5]) or 'no units'}{more}."
    # layers that cannot be pruned, with each reason once per class
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, (kind, reason) in coupling.graph.unknown.items():
        by_reason.setdefault((kind, reason), []).append(name)
    texts = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} ({kind}): {reason}"
        for (kind, reason), names in by_reason.items()
    ]
    more = f"; and {len(texts) - 5} reasons more" if len(texts) > 5 else ""
    return f"{text} Layers that keep all channels: {'; '.join(texts[:5])}{more}." if texts else text

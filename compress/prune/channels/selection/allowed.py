"""Which numbers of units each group may keep, and whether a target can be met by them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from compress.core.errors import FeasibleError, unknown_name
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import HEADS
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.solver import Allowed, Cost, Counts, steps_for

DEFAULT_STEPS = "16 from 32 channels on, 8 below, else 4"

ROUNDING = 1e-9


def ladder(options: ChannelOptions) -> list[int]:
    """Returns the steps of kept numbers that are tried, coarse ones first."""
    return [options.round_to] if options.round_to else [0, 8, 4]


def cost_of(coupling: Coupling, options: ChannelOptions, own: Cost | None = None) -> Cost:
    """Returns the cost function that the target counts; of an amount, MACs where they can be.

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


def allowed_for(coupling: Coupling, options: ChannelOptions, round_to: int) -> Allowed:
    """Returns which numbers of units each group may keep.

    Raises:
        InputError: A pattern matches no layer whose channels can be removed.
    """
    groups = coupling.groups
    removable = coupling.whole
    fixed = np.array([group.fixed for group in groups])
    width = np.array([group.width for group in groups])
    heads = np.array([group.kind == HEADS for group in groups])
    total = coupling.began
    step = steps_for(total * width, width, heads, round_to)
    floor = np.ceil(total * options.min_kept - 1e-9).astype(np.int64)
    for pattern, share in _limits(options):
        names = [any(fnmatchcase(name, pattern) for name in group.makers) for group in groups]
        if not any(names):
            choices = sorted({name for group in groups for name in group.makers})
            raise unknown_name("layer or pattern (no removable channels)", pattern, choices)
        least = np.ceil(total * (1 - share) - 1e-9).astype(np.int64)
        floor = np.where(names, np.maximum(floor, least), floor)
    return Allowed(removable, fixed, step, floor)


def _limits(options: ChannelOptions) -> list[tuple[str, float]]:
    limits = [(limit.pattern, limit.share) for limit in options.limits]
    return [*limits, *((pattern, 0.0) for pattern in options.exclude)]


def step_text(round_to: int) -> str:
    """Returns a step of kept numbers in words."""
    return DEFAULT_STEPS if round_to == 0 else str(round_to)


def check_feasible(coupling: Coupling, options: ChannelOptions, own: Cost | None = None) -> None:
    """Checks patterns and target before any work is done.

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


@dataclass(frozen=True, eq=False)
class Smallest:
    """What a model costs when every layer is thinned to its minimum.

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


def smallest(coupling: Coupling, options: ChannelOptions, own: Cost | None = None) -> Smallest:
    """Returns the least that can be asked for; a target below its cost is refused.

    Raises:
        InputError: A pattern matches no layer whose channels can be removed, or MACs are
            asked for and an input size is open.
    """
    allowed = allowed_for(coupling, options, ladder(options)[-1])
    kept, cost = allowed.lowest - allowed.fixed, cost_of(coupling, options, own)
    return Smallest(kept, float(cost(kept)), float(cost(allowed.removable)))


def infeasible(
    coupling: Coupling,
    options: ChannelOptions,
    least: Smallest,
    target: float,
    own: Cost | None = None,
) -> FeasibleError:
    """Returns the error of a target below the least: what that is and what holds it."""
    if own is not None:
        return FeasibleError(
            f"cost must be at least {least.cost:.4g} ({least.share:g}x of {least.full:.4g}): that "
            "much is left when every layer is thinned to its minimum "
            f"(min_kept={options.min_kept:g}, multiples of {ladder(options)[-1]}). Received: "
            f"{target:.4g} ({target / least.full:.3g}x). Ask for more, or "
            f"{_relaxed(coupling, options, least, own)}lower min_kept or round_to."
        )
    shares = (
        CostModel.of(coupling).params_by_layer(least.kept)
        if options.target_metric == "params"
        else CostModel.of(coupling).macs_by_layer(least.kept)
    )
    top = sorted(shares.items(), key=lambda item: -item[1])[:3]
    layers = ", ".join(f"{name} {value / least.cost:.0%}" for name, value in top)
    return FeasibleError(
        f"{options.target_metric} must be at least {math.ceil(least.cost):,} ({least.share:g}x of "
        f"{least.full:,.0f}): that much is left when every layer is thinned to its minimum "
        f"(min_kept={options.min_kept:g}, multiples of {ladder(options)[-1]}); most of it lies "
        f"in {layers}; {_holders(coupling)} Received: {target:,.0f} ({target / least.full:.3g}x). "
        f"Ask for more, or {_relaxed(coupling, options, least, own)}lower min_kept or round_to."
    )


def _relaxed(coupling: Coupling, options: ChannelOptions, least: Smallest, own: Cost | None) -> str:
    """Return what the user's own limits are worth: "relax *=0, ... (0.2x without), or "; or ""."""
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


def nothing_removable(coupling: Coupling) -> FeasibleError:
    """Returns the error of a model without channels that can be removed."""
    return FeasibleError(
        f"The model must have channels that can be removed. Received: none; {_holders(coupling)}"
    )


def _holders(coupling: Coupling) -> str:
    held = [f"{row.units} units by {row.reason}" for row in coupling.frozen_report()]
    more = f" and {len(held) - 5} reasons more" if len(held) > 5 else ""
    return f"held are {', '.join(held[:5]) or 'no units'}{more}.{_closed(coupling)}"


def _closed(coupling: Coupling) -> str:
    """Return which layers stay whole, with what is in them, and why: a reason once a class."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, (kind, reason) in coupling.graph.unknown.items():
        by_reason.setdefault((kind, reason), []).append(name)
    texts = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} ({kind}): {reason}"
        for (kind, reason), names in by_reason.items()
    ]
    more = f"; and {len(texts) - 5} reasons more" if len(texts) > 5 else ""
    return f" Layers that stay whole: {'; '.join(texts[:5])}{more}." if texts else ""

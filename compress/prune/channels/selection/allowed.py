"""Which numbers of units each group may keep, and what a target counts."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from compress.core.errors import unknown_name
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import HEADS
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.solver import Allowed, Cost, steps_for

DEFAULT_STEPS = "16 from 32 channels on, 8 below, else 4"


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

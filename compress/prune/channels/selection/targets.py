"""From options to a kept set: targets, steps, floors and exclusions on a coupling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from compress.core.errors import FeasibleError, InputError, unknown_name
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import HEADS
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.sensitivity import SensitivityMap
from compress.prune.channels.selection.solver import (
    Allowed,
    Choice,
    Cost,
    Counts,
    by_rank,
    by_share,
    steps_for,
)

ROUNDING = 1e-9
DEFAULT_STEPS = "16 from 32 channels on, 8 below, else 4"


@dataclass(frozen=True, eq=False)
class Selection:
    """A chosen kept set.

    Attributes:
        mask: Kept units.
        choice: Totals per group, cost, error against the target.
        round_to: The step of kept numbers, in words.
        notes: What the user should know.
    """

    mask: Mask
    choice: Choice
    round_to: str
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Returns one line: what the choice costs and what there is to know about it."""
        kept = int(np.count_nonzero(self.mask))
        text = f"{kept:,} of {len(self.mask):,} units kept, cost {self.choice.cost:,.0f}"
        return "; ".join([text, *self.notes])


def check_feasible(coupling: Coupling, options: ChannelOptions) -> None:
    """Checks patterns and target before any work is done.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing.
    """
    if not coupling.groups:
        raise _nothing_removable(coupling)
    least = smallest(coupling, options)
    value, share = options.parsed()
    if options.of == "amount":
        return
    target = value * least.full if share else value
    if target < least.cost * (1 - ROUNDING):
        raise _infeasible(coupling, options, least, target)


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


def smallest(coupling: Coupling, options: ChannelOptions) -> Smallest:
    """Returns the least that can be asked for; a target below its cost is refused.

    Raises:
        InputError: A pattern matches no layer whose channels can be removed, or MACs are
            asked for and an input size is open.
    """
    allowed = allowed_for(coupling, options, _ladder(options)[-1])
    kept, cost = allowed.lowest - allowed.fixed, cost_of(coupling, options)
    return Smallest(kept, float(cost(kept)), float(cost(allowed.removable)))


def _ladder(options: ChannelOptions) -> list[int]:
    """Returns the steps of kept numbers that are tried, coarse ones first."""
    return [options.round_to] if options.round_to else [0, 8, 4]


def select(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    sensitivity: SensitivityMap | None = None,
) -> Selection:
    """Chooses what to keep.

    Args:
        coupling: Of the model.
        options: Scope, rounding, floors, limits.
        criterion: Scores units.
        context: What it sees.
        target: MACs or parameters to come to; with `of="amount"` the share removed.
        sensitivity: Ranks groups against each other by predicted loss of quality.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing, or the criterion returned something else than
            one finite number a unit.
    """
    scores = [_checked(criterion(group, context), group.name, len(group.units))
              for group in coupling.groups]  # fmt: skip
    if not coupling.groups:
        raise _nothing_removable(coupling)
    if options.of == "amount":
        allowed = allowed_for(coupling, options, options.round_to)
        totals = by_share(allowed, 1.0 - target)
        cost = float(cost_of(coupling, options)(totals - allowed.fixed))
        choice, words = Choice(totals, cost, 0.0), _words(options.round_to)
        notes: tuple[str, ...] = ()
    else:
        ranks = (
            _ranks(coupling, options, scores)
            if sensitivity is None
            else _by_loss(coupling, sensitivity, scores)
        )
        choice, words, notes = _to_target(coupling, options, ranks, target)
        allowed = allowed_for(coupling, options, options.round_to)
    mask = keep_best(coupling, scores, choice.totals - allowed.fixed)
    return Selection(mask, choice, words, notes)


def cost_of(coupling: Coupling, options: ChannelOptions) -> Cost:
    """Returns the cost function that the target counts; of an amount, MACs where they can be."""
    costs = CostModel.of(coupling)
    if options.of == "params" or (options.of == "amount" and not costs.has_macs):
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
    limits = [options.parsed_limit(limit) for limit in options.limits]
    return [*limits, *((pattern, 0.0) for pattern in options.exclude)]


def _to_target(
    coupling: Coupling, options: ChannelOptions, scores: list[Scores], target: float
) -> tuple[Choice, str, tuple[str, ...]]:
    """Tries coarse steps first, finer ones where they cannot meet the target."""
    cost = cost_of(coupling, options)
    ladder = _ladder(options)
    best: tuple[Choice, int] | None = None
    for round_to in ladder:
        allowed = allowed_for(coupling, options, round_to)
        choice = by_rank(scores, allowed, cost, target, uniform=options.scope == "layer")
        if best is None or abs(choice.error) < abs(best[0].error):
            best = choice, round_to
        if choice.met:
            break
    assert best is not None
    choice, round_to = best
    notes = []
    if round_to != ladder[0]:
        notes.append(f"kept numbers are multiples of {round_to}: coarser steps miss the target")
    if not choice.met:
        least = smallest(coupling, options)
        if target < least.cost:
            raise _infeasible(coupling, options, least, target)
        notes.append(
            f"the nearest feasible {options.of} to {target:,.0f} is {choice.cost:,.0f} "
            f"({choice.error:+.1%})"
        )
    return choice, _words(round_to), tuple(notes)


def _infeasible(
    coupling: Coupling, options: ChannelOptions, least: Smallest, target: float
) -> FeasibleError:
    shares = (
        CostModel.of(coupling).params_by_layer(least.kept)
        if options.of == "params"
        else CostModel.of(coupling).macs_by_layer(least.kept)
    )
    top = sorted(shares.items(), key=lambda item: -item[1])[:3]
    layers = ", ".join(f"{name} {value / least.cost:.0%}" for name, value in top)
    return FeasibleError(
        f"{options.of} must be at least {math.ceil(least.cost):,} ({least.share:g}x of "
        f"{least.full:,.0f}): that is left when every layer is thinned to its minimum "
        f"(min_kept={options.min_kept:g}, multiples of {_ladder(options)[-1]}); most of it lies "
        f"in {layers}; {_holders(coupling)} Received: {target:,.0f} ({target / least.full:.3g}x). "
        "Ask for more, or lower min_kept or round_to."
    )


def _nothing_removable(coupling: Coupling) -> FeasibleError:
    return FeasibleError(
        f"The model must have channels that can be removed. Received: none; {_holders(coupling)}"
    )


def _holders(coupling: Coupling) -> str:
    held = [f"{row.units} units by {row.reason}" for row in coupling.frozen_report()]
    more = f" and {len(held) - 5} reasons more" if len(held) > 5 else ""
    return f"held are {', '.join(held[:5]) or 'no units'}{more}."


def _ranks(coupling: Coupling, options: ChannelOptions, scores: Sequence[Scores]) -> list[Scores]:
    """Makes the scores of different groups comparable."""
    ranks = [part / _scale(part, options.normalize) for part in scores]
    if options.cost_aware:
        ranks = [part / cost for part, cost in zip(ranks, _unit_costs(coupling), strict=True)]
    return ranks


def _scale(scores: Scores, normalize: str) -> float:
    if normalize == "none":
        return 1.0
    size = np.abs(scores)
    return max(float(size.max() if normalize == "max" else size.mean()), 1e-12)


def _unit_costs(coupling: Coupling) -> Scores:
    """MACs that one unit of each group costs in the whole model, relative to their mean."""
    full = coupling.whole
    cost = CostModel.of(coupling).macs
    saved = cost(full) - cost(full[None] - np.eye(len(full), dtype=np.int64))
    return np.asarray(np.maximum(saved, 1.0) / max(float(saved.mean()), 1.0))


def _by_loss(
    coupling: Coupling, sensitivity: SensitivityMap, scores: Sequence[Scores]
) -> list[Scores]:
    """Ranks units by the loss of quality that their removal adds, per MAC saved."""
    ranks = []
    for group, part, cost in zip(coupling.groups, scores, _unit_costs(coupling), strict=True):
        losses = sensitivity.losses(group.index, group.name, len(part))
        rank = np.empty(len(part))
        rank[np.argsort(part, kind="stable")] = losses
        ranks.append(rank / cost)
    return ranks


def keep_best(coupling: Coupling, scores: Sequence[Scores], kept: npt.NDArray[np.int64]) -> Mask:
    """Returns the mask that keeps so many removable units of each group, those of highest score.

    Args:
        coupling: Of the model.
        scores: One array a group, higher = keep.
        kept: Removable units to keep, (groups,).
    """
    mask = np.ones(coupling.units, bool)
    for group, part, count in zip(coupling.groups, scores, kept, strict=True):
        order = np.argsort(-part, kind="stable")  # of equal scores the first is kept
        mask[group.units[order[count:]]] = False
    return mask


def _checked(scores: object, name: str, size: int) -> Scores:
    array = np.asarray(scores, np.float64)
    if array.shape != (size,) or not np.all(np.isfinite(array)):
        raise InputError(
            f"A channel criterion must return {size} finite numbers for group '{name}'. "
            f"Received: shape {array.shape}"
            + ("." if array.shape != (size,) else ", some not finite.")
        )
    return array


def _words(round_to: int) -> str:
    return DEFAULT_STEPS if round_to == 0 else str(round_to)

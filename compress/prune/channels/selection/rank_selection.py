"""Channel selection by rank: as many of the highest-scoring units as the target allows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.selection.allowed_counts import (
    TARGET_PRECISION,
    Allocation,
    AllowedCounts,
    Counts,
    Selection,
    choose_nearest,
    compute_allowed_counts,
    format_rounding_step,
)
from compress.prune.channels.selection.target import (
    CostFunction,
    build_unprunable_error,
    list_notes,
    resolve_cost,
)

MAX_MOVES = 200
"""Maximum number of moves of an allocation towards its target."""
PAIRED_GROUPS = 64
"""From twice this number of groups on, only a sample of them is tried in pairs."""
COMBINED_GROUPS = 7
"""Number of groups whose steps are tried in all combinations."""


def select_by_rank(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    custom_cost: CostFunction | None = None,
) -> Selection:
    """Select the highest-ranking units for a target.

    Args:
        coupling: Coupling of the model.
        options: Scope ("layer", else one ranking over all layers), rounding, floors and excluded
            layers.
        criterion: Function that scores units.
        context: Context of the criterion.
        target: Cost to reach.
        custom_cost: Cost of kept units and present blocks; default: MACs.

    Raises:
        FeasibleError: The target is below the feasible minimum, or nothing can be removed.
        InputError: A pattern matches nothing, or the criterion did not return one finite number for
            each unit.
    """
    if not coupling.groups:
        raise build_unprunable_error(coupling)
    scores = [context.score(criterion, group) for group in coupling.groups]
    cost = resolve_cost(coupling, custom_cost)
    # scores of different groups are compared relative to the mean of their group
    ranks = [part / max(float(np.abs(part).mean()), 1e-12) for part in scores]
    uniform = options.scope == "layer"

    def allocate(step: int) -> Allocation:
        allowed = compute_allowed_counts(coupling, options, step)
        return allocate_by_rank(ranks, allowed, cost, target, uniform=uniform)

    allocation, round_to = choose_nearest(options, allocate)
    fixed = compute_allowed_counts(coupling, options, round_to).fixed
    mask = keep_best(coupling, scores, allocation.totals - fixed)
    selection = Selection(mask, allocation, format_rounding_step(round_to))
    return replace(selection, notes=list_notes(coupling, options, selection, target, custom_cost))


def keep_best(coupling: Coupling, scores: Sequence[Scores], kept: npt.NDArray[np.int64]) -> Mask:
    """Return the mask that keeps the highest-scoring units of each group.

    Args:
        coupling: Coupling of the model.
        scores: One array for each group, higher = keep.
        kept: Number of removable units to keep, (groups,).
    """
    mask = np.ones(coupling.unit_count, bool)
    for group, part, count in zip(coupling.groups, scores, kept, strict=True):
        order = np.argsort(-part, kind="stable")  # if scores are equal, the first is kept
        mask[group.units[order[count:]]] = False
    return mask


def allocate_by_share(allowed: AllowedCounts, keep: float) -> Counts:
    """Return the totals that keep the same share of every group."""
    return allowed.round_totals(allowed.total * keep)


def allocate_by_rank(
    scores: list[Scores],
    allowed: AllowedCounts,
    cost: CostFunction,
    target: float,
    *,
    uniform: bool = False,
) -> Allocation:
    """Return the totals of the highest-scoring units whose cost is nearest to a target.

    A threshold on all scores is found by bisection, and the kept numbers are rounded. Then steps of
    single groups, of pairs or of a few groups close the gap to the target. Each time the step that
    comes nearest is taken; among those that reach the target, the one that keeps most score.

    Args:
        scores: One array for each group, higher = keep.
        allowed: Rounding steps and floors.
        cost: Function of the removable units kept in each group, (..., groups), and None, that
            returns (...).
        target: Cost to reach.
        uniform: Whether to keep the same share of all groups instead of using a threshold.

    Returns:
        The allocation; `is_on_target` is True if it is within 2 %.
    """

    def compute_cost(totals: Counts) -> Scores:
        return np.asarray(cost(totals - allowed.fixed, None), np.float64)

    bisected = (
        _search_share(allowed, compute_cost, target)
        if uniform
        else _search_threshold(scores, allowed, compute_cost, target)
    )
    tried: list[Allocation] = []
    # near the ranking first, because otherwise cheap groups would close every gap
    for space in (allowed.limit_near(bisected), allowed):
        totals = _refine_totals(scores, space, compute_cost, target, bisected)
        total_cost = float(compute_cost(totals))
        tried.append(Allocation(totals, total_cost, (total_cost - target) / target))
        if tried[-1].is_on_target:
            break
    return min(tried, key=lambda allocation: abs(allocation.error))


def _search_threshold(
    scores: list[Scores],
    allowed: AllowedCounts,
    compute_cost: Callable[[Counts], Scores],
    target: float,
) -> Counts:
    groups = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    order = groups[np.argsort(np.concatenate(scores), kind="stable")]

    def count_totals(kept: int) -> Counts:
        removed_counts = np.bincount(order[: len(order) - kept], minlength=len(scores))
        return allowed.round_totals(allowed.total - removed_counts)

    kept = bisect_left(
        range(len(order)),
        True,
        lo=1,
        key=lambda kept: bool(compute_cost(count_totals(kept)) > target),
    )
    return min(
        (count_totals(kept), count_totals(kept - 1)),
        key=lambda totals: abs(float(compute_cost(totals)) - target),
    )


def _search_share(
    allowed: AllowedCounts, compute_cost: Callable[[Counts], Scores], target: float
) -> Counts:
    share = bisect_left(
        range(2**30), True, lo=1,
        key=lambda part: bool(compute_cost(allocate_by_share(allowed, part / 2**30)) > target),
    ) / 2**30  # fmt: skip
    return min(
        (allocate_by_share(allowed, share - 1 / 2**30), allocate_by_share(allowed, share)),
        key=lambda totals: abs(float(compute_cost(totals)) - target),
    )


def _refine_totals(
    scores: list[Scores],
    allowed: AllowedCounts,
    compute_cost: Callable[[Counts], Scores],
    target: float,
    totals: Counts,
) -> Counts:
    """Move single groups (then pairs, then more) by single steps towards the target.

    Among the moves that reach the target, the one that keeps most score is chosen.
    """
    ranked = [np.concatenate([[0.0], np.cumsum(np.sort(part)[::-1])]) for part in scores]
    for _ in range(MAX_MOVES):
        error = abs(float(compute_cost(totals)) - target) / target
        if error <= TARGET_PRECISION:
            break
        for moves in _list_moves(allowed, compute_cost, target, totals):
            errors = np.abs(compute_cost(moves) - target) / target
            on_target = np.flatnonzero(errors <= TARGET_PRECISION)
            best = int(np.argmin(errors))
            if len(on_target):
                kept = [
                    sum(part[count] for part, count in zip(ranked, counts, strict=True))
                    for counts in moves[on_target] - allowed.fixed
                ]
                best = int(on_target[int(np.argmax(kept))])
            if len(on_target) or errors[best] < error - 1e-9:
                totals = moves[best]
                break
        else:
            break
    return totals


def _list_moves(
    allowed: AllowedCounts, compute_cost: Callable[[Counts], Scores], target: float, totals: Counts
) -> Iterator[Counts]:
    """Yield neighbouring totals, (moves, groups): of one group, of two, then of a few at once."""
    index = np.arange(len(totals))
    down, up = allowed.step_down(totals), allowed.step_up(totals)
    singles = np.repeat(totals[None], len(totals), axis=0)
    np.fill_diagonal(singles, down if float(compute_cost(totals)) > target else up)
    yield singles
    # a step down in one group and up in another; a sample if there are many groups
    sampled = index[:: max(1, len(index) // PAIRED_GROUPS)]
    first, second = (part.ravel() for part in np.meshgrid(sampled, sampled))
    first, second = first[first != second], second[first != second]
    pairs = np.repeat(totals[None], len(first), axis=0)
    rows = np.arange(len(first))
    pairs[rows, first] = down[first]
    pairs[rows, second] = up[second]
    if len(pairs):
        yield pairs
    # one step down, none or one up in the groups with the cheapest steps, for fine adjustment
    lower = np.repeat(totals[None], len(totals), axis=0)
    np.fill_diagonal(lower, down)
    effect = np.abs(compute_cost(lower) - compute_cost(totals))
    cheapest = np.argsort(np.where(effect > 0, effect, np.inf), kind="stable")[:COMBINED_GROUPS]
    picks = np.stack(np.meshgrid(*[np.arange(3)] * len(cheapest), indexing="ij"), -1)
    picks = picks.reshape(-1, len(cheapest))
    combined = np.repeat(totals[None], len(picks), axis=0)
    combined[:, cheapest] = np.stack([down, totals, up])[picks, cheapest]
    yield combined

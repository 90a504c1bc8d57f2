"""Channels by rank: the units of the highest scores are kept, as many as the target allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.selection.allowed import (
    AIM,
    Allowed,
    Choice,
    Counts,
    Selection,
    allowed_for,
    choose_nearest,
    step_text,
)
from compress.prune.channels.selection.target import Priced, cost_of, notes_on, nothing_removable

MOVES = 200
"""Steps by which a choice is moved towards its target, at most."""
PAIRED = 64
"""Groups of which all pairs of steps are tried."""
COMBINED = 7
"""Groups of which all combinations of steps are tried."""


def select_by_rank(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    own: Priced | None = None,
) -> Selection:
    """Select the channels that rank highest until the cost comes to a target.

    Args:
        coupling: Of the model.
        options: Scope ("layer", else one ranking of all layers), rounding, floors, limits.
        criterion: Scores units.
        context: What it sees.
        target: What the cost comes to; with `target_metric="amount"` the share removed.
        own: What a kept set and present blocks cost, in place of what `options` name.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing, or the criterion returned something else than
            one finite number a unit.
    """
    if not coupling.groups:
        raise nothing_removable(coupling)
    scores = [context.scored(criterion, group) for group in coupling.groups]
    cost = cost_of(coupling, options, own)
    whole = allowed_for(coupling, options, options.round_to)
    if options.target_metric == "amount":
        totals = by_share(whole, 1.0 - target)
        choice = Choice(totals, float(cost(totals - whole.fixed, None)), 0.0)
        round_to = options.round_to
    else:
        ranks = [part / _scale(part, options.normalize) for part in scores]
        uniform = options.scope == "layer"

        def choose(step: int) -> Choice:
            allowed = allowed_for(coupling, options, step)
            return by_rank(ranks, allowed, cost, target, uniform=uniform)

        choice, round_to = choose_nearest(options, choose)
    mask = keep_best(coupling, scores, choice.totals - whole.fixed)
    found = Selection(mask, choice, step_text(round_to))
    if options.target_metric == "amount":
        return found
    return replace(found, notes=notes_on(coupling, options, found, target, own))


def _scale(scores: Scores, normalize: str) -> float:
    if normalize == "none":
        return 1.0
    size = np.abs(scores)
    return max(float(size.max() if normalize == "max" else size.mean()), 1e-12)


def keep_best(coupling: Coupling, scores: Sequence[Scores], kept: npt.NDArray[np.int64]) -> Mask:
    """Return the mask that keeps so many removable units of each group, those of highest score.

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


def by_share(allowed: Allowed, keep: float) -> Counts:
    """Keep the same share of every group."""
    return allowed.nearest(allowed.total * keep)


def by_rank(
    scores: list[Scores], allowed: Allowed, cost: Priced, target: float, *, uniform: bool = False
) -> Choice:
    """Keep the best units such that the cost comes to a target.

    One threshold over all scores is found by bisection, the kept numbers are rounded, and
    single steps of single groups then close the gap, those first that cost least score.

    Args:
        scores: One array a group, higher = keep.
        allowed: Steps and floors.
        cost: Removable units kept per group, (..., groups), and None -> (...).
        target: Cost to come to.
        uniform: Thin all groups by one share instead of by one threshold.

    Returns:
        The choice; `met` tells whether it is within 2 %.
    """

    def priced(totals: Counts) -> Scores:
        return np.asarray(cost(totals - allowed.fixed, None), np.float64)

    bisected = (
        _share(allowed, priced, target) if uniform else _threshold(scores, allowed, priced, target)
    )
    tried: list[Choice] = []
    # near the ranking's own numbers first: cheap groups would pay for every gap else
    for space in (allowed.near(bisected), allowed):
        totals = _refined(scores, space, priced, target, bisected)
        price = float(priced(totals))
        tried.append(Choice(totals, price, (price - target) / target))
        if tried[-1].met:
            break
    return min(tried, key=lambda choice: abs(choice.error))


def _threshold(
    scores: list[Scores], allowed: Allowed, priced: Callable[[Counts], Scores], target: float
) -> Counts:
    groups = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    order = groups[np.argsort(np.concatenate(scores), kind="stable")]

    def totals(removed: int) -> Counts:
        gone = np.bincount(order[:removed], minlength=len(scores))
        return allowed.nearest(allowed.total - gone)

    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if priced(totals(middle)) > target:
            low = middle
        else:
            high = middle
    return min((totals(low), totals(high)), key=lambda choice: abs(float(priced(choice)) - target))


def _share(allowed: Allowed, priced: Callable[[Counts], Scores], target: float) -> Counts:
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if priced(by_share(allowed, middle)) > target:
            high = middle
        else:
            low = middle
    return min(
        (by_share(allowed, low), by_share(allowed, high)),
        key=lambda choice: abs(float(priced(choice)) - target),
    )


def _refined(
    scores: list[Scores],
    allowed: Allowed,
    priced: Callable[[Counts], Scores],
    target: float,
    totals: Counts,
) -> Counts:
    """Move single groups (then pairs, then more) by single steps while that nears the target.

    Of the moves that arrive the one is taken that keeps most score.
    """
    ranked = [np.concatenate([[0.0], np.cumsum(np.sort(part)[::-1])]) for part in scores]
    for _ in range(MOVES):
        error = abs(float(priced(totals)) - target) / target
        if error <= AIM:
            break
        for moves in _list_moves(allowed, priced, target, totals):
            errors = np.abs(priced(moves) - target) / target
            arrived = np.flatnonzero(errors <= AIM)
            best = int(np.argmin(errors))
            if len(arrived):
                kept = [
                    sum(part[count] for part, count in zip(ranked, counts, strict=True))
                    for counts in moves[arrived] - allowed.fixed
                ]
                best = int(arrived[int(np.argmax(kept))])
            if len(arrived) or errors[best] < error - 1e-9:
                totals = moves[best]
                break
        else:
            break
    return totals


def _list_moves(
    allowed: Allowed, priced: Callable[[Counts], Scores], target: float, totals: Counts
) -> Iterator[Counts]:
    """Yield totals nearby, (moves, groups): of one group, of two, of a few at once."""
    index = np.arange(len(totals))
    down, up = allowed.down(totals), allowed.up(totals)
    singles = np.repeat(totals[None], len(totals), axis=0)
    np.fill_diagonal(singles, down if float(priced(totals)) > target else up)
    yield singles
    # a step down in one group and up in another; of many groups a sample is enough
    some = index[:: max(1, len(index) // PAIRED)]
    first, second = (part.ravel() for part in np.meshgrid(some, some))
    first, second = first[first != second], second[first != second]
    pairs = np.repeat(totals[None], len(first), axis=0)
    rows = np.arange(len(first))
    pairs[rows, first] = down[first]
    pairs[rows, second] = up[second]
    if len(pairs):
        yield pairs
    # one step down, none or one up in each group whose steps cost least: they adjust most finely
    lower = np.repeat(totals[None], len(totals), axis=0)
    np.fill_diagonal(lower, down)
    effect = np.abs(priced(lower) - priced(totals))
    few = np.argsort(np.where(effect > 0, effect, np.inf), kind="stable")[:COMBINED]
    picks = np.stack(np.meshgrid(*[np.arange(3)] * len(few), indexing="ij"), -1)
    picks = picks.reshape(-1, len(few))
    combined = np.repeat(totals[None], len(picks), axis=0)
    combined[:, few] = np.stack([down, totals, up])[picks, few]
    yield combined

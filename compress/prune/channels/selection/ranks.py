"""Channels by rank: scores of different groups made comparable, and the best that fit a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import allowed_for, cost_of, ladder, step_text
from compress.prune.channels.selection.chosen import Selection, notes_on, of_widths
from compress.prune.channels.selection.solver import Choice, Cost, by_rank, by_share


def by_score(options: ChannelOptions, scores: Sequence[Scores]) -> list[Scores]:
    """Makes the scores of different groups comparable."""
    return [part / _scale(part, options.normalize) for part in scores]


def _scale(scores: Scores, normalize: str) -> float:
    if normalize == "none":
        return 1.0
    size = np.abs(scores)
    return max(float(size.max() if normalize == "max" else size.mean()), 1e-12)


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
        FeasibleError: The target is below what is feasible.
        InputError: A pattern matches nothing, or the criterion returned something else than
            one finite number a unit.
    """
    scores = [context.scored(criterion, group) for group in coupling.groups]
    if options.target_metric == "amount":
        allowed = allowed_for(coupling, options, options.round_to)
        totals = by_share(allowed, 1.0 - target)
        cost = float(cost_of(coupling, options)(totals - allowed.fixed))
        choice, words = Choice(totals, cost, 0.0), step_text(options.round_to)
        notes: tuple[str, ...] = ()
    else:
        ranks = by_score(options, scores)
        choice, words, notes = _to_target(coupling, options, ranks, target, of_widths(own))
        allowed = allowed_for(coupling, options, options.round_to)
    mask = keep_best(coupling, scores, choice.totals - allowed.fixed)
    return Selection(mask, choice, words, notes)


def _to_target(
    coupling: Coupling,
    options: ChannelOptions,
    scores: list[Scores],
    target: float,
    own: Cost | None,
) -> tuple[Choice, str, tuple[str, ...]]:
    """Try coarse steps first, finer ones where they cannot meet the target."""
    cost = cost_of(coupling, options, own)
    steps = ladder(options)
    best: tuple[Choice, int] | None = None
    for round_to in steps:
        allowed = allowed_for(coupling, options, round_to)
        choice = by_rank(scores, allowed, cost, target, uniform=options.scope == "layer")
        if best is None or abs(choice.error) < abs(best[0].error):
            best = choice, round_to
        if choice.met:
            break
    assert best is not None
    choice, round_to = best
    notes = notes_on(coupling, options, choice, round_to, target, own)
    return choice, step_text(round_to), tuple(notes)

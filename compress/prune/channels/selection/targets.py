"""From options to a kept set: targets, steps, floors and exclusions on a coupling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.core.errors import InputError
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import allowed_for, cost_of, ladder, step_text
from compress.prune.channels.selection.feasible import infeasible, nothing_removable, smallest
from compress.prune.channels.selection.judging import Judge
from compress.prune.channels.selection.ranks import by_loss, by_score, keep_best
from compress.prune.channels.selection.refining import refined
from compress.prune.channels.selection.sensitivity import SensitivityMap
from compress.prune.channels.selection.solver import Choice, Cost, by_rank, by_share
from compress.prune.channels.selection.weighed import OnProgress, Weighed, Weights, by_damage, weigh


@dataclass(frozen=True, eq=False)
class Selection:
    """A chosen kept set.

    Attributes:
        mask: Kept units.
        choice: Totals per group, cost, error against the target.
        round_to: The step of kept numbers, in words.
        notes: What the user should know.
        dropped: Blocks that leave.
    """

    mask: Mask
    choice: Choice
    round_to: str
    notes: tuple[str, ...] = ()
    dropped: tuple[Block, ...] = ()

    def summary(self) -> str:
        """Returns one line: what the choice costs and what there is to know about it."""
        kept = int(np.count_nonzero(self.mask))
        text = f"{kept:,} of {len(self.mask):,} units kept, cost {cost_text(self.choice.cost)}"
        return "; ".join([text, *self.notes])


def select(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    sensitivity: SensitivityMap | None = None,
    on_progress: OnProgress | None = None,
    own: Priced | None = None,
) -> Selection:
    """Chooses what to keep.

    Args:
        coupling: Of the model.
        options: Scope, rounding, floors, limits.
        criterion: Scores units.
        context: What it sees.
        target: MACs or parameters to come to; with `target_metric="amount"` the share removed.
        sensitivity: Ranks groups against each other by predicted loss of quality.
        on_progress: Called with (text, share) while damages are measured.
        own: What a kept set and present blocks cost, in place of what `options` name.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing, or the criterion returned something else than
            one finite number a unit.
    """
    if options.scope == "damage" and coupling.groups:
        return _weighed(coupling, options, criterion, context, target, on_progress, own)
    scores = [_checked(criterion(group, context), group.name, len(group.units))
              for group in coupling.groups]  # fmt: skip
    if not coupling.groups:
        raise nothing_removable(coupling)
    if options.target_metric == "amount":
        allowed = allowed_for(coupling, options, options.round_to)
        totals = by_share(allowed, 1.0 - target)
        cost = float(cost_of(coupling, options)(totals - allowed.fixed))
        choice, words = Choice(totals, cost, 0.0), step_text(options.round_to)
        notes: tuple[str, ...] = ()
    else:
        ranks = (
            by_score(coupling, options, scores)
            if sensitivity is None
            else by_loss(coupling, sensitivity, scores)
        )
        choice, words, notes = _to_target(coupling, options, ranks, target, of_widths(own))
        allowed = allowed_for(coupling, options, options.round_to)
    mask = keep_best(coupling, scores, choice.totals - allowed.fixed)
    return Selection(mask, choice, words, notes)


def _weighed(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    on_progress: OnProgress | None,
    own: Priced | None,
) -> Selection:
    """Chooses widths and blocks by their damage."""
    judge = Judge(coupling, context)
    weights = weigh(
        coupling, context, criterion, judge, blocks=options.blocks, on_progress=on_progress
    )

    def choose(scaled: Weights) -> Weighed:
        return by_damage(coupling, options, scaled, target, own)

    told = []
    if options.tries:
        best = refined(weights, choose, judge, options.tries, context.seed, on_progress)
        found, told = best.found, [best.note()]
    else:
        found = choose(weights)
    notes = [*(f"block '{block.name}' left" for block in found.dropped), *told]
    notes += _told(coupling, options, found.choice, found.round_to, target, of_widths(own))
    words = step_text(found.round_to)
    return Selection(found.mask, found.choice, words, tuple(notes), found.dropped)


def _to_target(
    coupling: Coupling,
    options: ChannelOptions,
    scores: list[Scores],
    target: float,
    own: Cost | None,
) -> tuple[Choice, str, tuple[str, ...]]:
    """Tries coarse steps first, finer ones where they cannot meet the target."""
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
    notes = _told(coupling, options, choice, round_to, target, own)
    return choice, step_text(round_to), tuple(notes)


def _told(
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


def _checked(scores: object, name: str, size: int) -> Scores:
    array = np.asarray(scores, np.float64)
    if array.shape != (size,) or not np.all(np.isfinite(array)):
        raise InputError(
            f"A channel criterion must return {size} finite numbers for group '{name}'. "
            f"Received: shape {array.shape}"
            + ("." if array.shape != (size,) else ", some not finite.")
        )
    return array

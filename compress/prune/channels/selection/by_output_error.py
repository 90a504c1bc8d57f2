"""Channel counts and blocks by output error: the least sum, then configurations near it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from compress.core.summary import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.selection.allowed import (
    AIM,
    TOLERANCE,
    Allowed,
    Choice,
    Counts,
    Selection,
    allowed_for,
    choose_nearest,
    step_text,
)
from compress.prune.channels.selection.by_rank import keep_best
from compress.prune.channels.selection.damage import Judge
from compress.prune.channels.selection.sensitivity import Losses, SensitivityMap
from compress.prune.channels.selection.target import Priced, cost_of

OUTPUT_ERROR = "output error"
"""Name of this method in reports."""
EXCHANGES = 300
"""Exchanges of steps between two groups or blocks, at most."""
SPREAD = 0.3
"""Standard deviation of the logarithm of the factors that are drawn."""
OF_BLOCKS = (1.5, 2.0, 3.0, 5.0)
"""Factors of all blocks that are tried first: two that leave harm more than each alone."""
DRAWS = 3
"""A try, at most: several draws may lead to one choice, which is judged once."""


def by_damage(
    coupling: Coupling,
    options: ChannelOptions,
    sensitivity: SensitivityMap,
    target: float,
    cost: Priced | None = None,
) -> Selection:
    """Choose channel counts and blocks for a target.

    Args:
        coupling: Of the model.
        options: Steps, floors and limits.
        sensitivity: Of this model.
        target: What the cost comes to.
        cost: Of a kept set; default: what `options` count.
    """
    counted, losses = cost_of(coupling, options, cost), sensitivity.losses(coupling)

    def priced(kept: Any, present: Any) -> Numbers:
        # of a model whose blocks all stay nothing is known of them
        return np.asarray(counted(kept, present if sensitivity.blocks else None), np.float64)

    def choose(round_to: int) -> Choice:
        return allocated(losses, allowed_for(coupling, options, round_to), priced, target)

    choice, round_to = choose_nearest(options, choose)
    fixed = allowed_for(coupling, options, round_to).fixed
    scores = [np.array(group.scores) for group in sensitivity.groups]
    gone = np.flatnonzero(choice.present == 0)
    blocks = blocks_of(coupling) if len(gone) else ()
    outer = {inner for index in gone for inner in blocks[index].inner}
    return Selection(
        keep_best(coupling, scores, choice.totals - fixed),
        choice,
        step_text(round_to),
        dropped=tuple(blocks[index] for index in gone if index not in outer),
        method=OUTPUT_ERROR,
    )


def allocated(losses: Losses, allowed: Allowed, cost: Priced, target: float) -> Choice:
    """Choose the channel counts and blocks of the least sum of output errors for a target.

    From the whole model on, that step is taken (of one group, or of a block) which adds least
    damage for the logarithm of the cost that it saves; then pairs exchange steps as long as that
    lowers the damage at no more cost.

    Args:
        losses: Of each group and block.
        allowed: Steps and floors.
        cost: What a kept set costs.
        target: Cost to come to.
    """
    state = _State(losses, allowed, cost)
    now = np.concatenate([allowed.total, np.ones(len(losses.blocks), np.int64)])
    while float(state.cost(now)) > target * (1 + AIM):
        moves = state.steps(now, up=False)
        saved = np.log(float(state.cost(now))) - np.log(np.maximum(state.cost(moves), 1e-9))
        added = state.damage(moves) - state.damage(now)
        possible = (moves != now).any(1) & (saved > 1e-12)
        if not possible.any():
            break
        rate = np.where(possible, added / np.where(possible, saved, 1.0), np.inf)
        # a step that costs nothing is taken at once, the one that saves most first
        rate = np.where(possible & (added <= 0), -saved, rate)
        now = moves[int(np.argmin(rate))]
    now = _exchanged(state, now, target)
    price = float(state.cost(now))
    groups = len(allowed.total)
    return Choice(now[:groups], price, (price - target) / target, now[groups:])


@dataclass(frozen=True, eq=False)
class _State:
    """Costs and damages of rows of totals and presence, (..., groups + blocks)."""

    losses: Losses
    allowed: Allowed
    priced: Priced

    def cost(self, state: Counts) -> Numbers:
        groups = len(self.allowed.total)
        return self.priced(state[..., :groups] - self.allowed.fixed, state[..., groups:])

    def damage(self, state: Counts) -> Numbers:
        groups = len(self.allowed.total)
        return self.losses(self.allowed.total - state[..., :groups], state[..., groups:])

    def steps(self, state: Counts, *, up: bool) -> Counts:
        """Return all single steps down, or up, (groups + blocks, groups + blocks)."""
        groups = len(self.allowed.total)
        totals = (self.allowed.up if up else self.allowed.down)(state[:groups])
        rows = np.repeat(state[None], len(state), axis=0)
        np.fill_diagonal(rows, [*totals, *[int(up)] * (len(state) - groups)])
        return rows


def _exchanged(state: _State, now: Counts, target: float) -> Counts:
    """Give steps back where the cost allows it, and exchanges steps between two places."""
    for _ in range(EXCHANGES):
        up, down = state.steps(now, up=True) - now, state.steps(now, up=False) - now
        both = up[:, None] + down[None]
        index = np.arange(len(now))
        both[index, index] = up
        moves = now + both.reshape(-1, len(now))
        fits = state.cost(moves) <= target * (1 + AIM)
        after = np.where(fits, state.damage(moves), np.inf)
        best = int(np.argmin(after))
        if not after[best] < float(state.damage(now)) - 1e-12:
            return now
        now = moves[best]
    return now


class Refined(NamedTuple):
    """The best of several allocations.

    Attributes:
        found: What is kept.
        sensitivity: The output errors that led to it.
        damage: What it is worth.
        first: What the first one is worth.
        tried: How many others were judged.
    """

    found: Selection
    sensitivity: SensitivityMap
    damage: float
    first: float
    tried: int

    def note(self) -> str:
        """Return the result of the search in one line."""
        return (
            f"damage of the first choice, all layers repaired: {self.first:.3g}; of the best of "
            f"{self.tried} near it: {self.damage:.3g}"
        )


def refined(
    sensitivity: SensitivityMap,
    choose: Callable[[SensitivityMap], Selection],
    judge: Judge,
    tries: int,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Refined:
    """Search around an allocation for one whose outputs are nearer, all layers repaired.

    Factors of the damages of groups and blocks are drawn about the best found so far; each set
    leads to the least sum of damages for the same target. What misses it by more than the first
    does is not judged.

    Args:
        sensitivity: As measured, one group or block at a time.
        choose: Output errors -> what is kept for the target.
        judge: Tells what it is worth.
        tries: Allocations that are judged beside the first.
        seed: Of what is drawn.
        on_progress: Called with (text, share that is done).

    Returns:
        The best; the first one where no other is better.
    """
    rng = np.random.default_rng(seed)
    # of groups, and of blocks
    best = [np.ones(len(sensitivity.groups)), np.ones(len(sensitivity.blocks))]
    ahead = [[best[0], factor * best[1]] for factor in OF_BLOCKS if sensitivity.blocks]
    led, found = sensitivity, choose(sensitivity)
    first = least = judge.damage(found.mask, found.dropped)
    seen, off = {found.key}, max(TOLERANCE, abs(found.choice.error))
    for _ in range(len(ahead) + DRAWS * tries):
        factors = (
            ahead.pop(0)
            if ahead
            else [part * np.exp(SPREAD * rng.standard_normal(len(part))) for part in best]
        )
        scaled = sensitivity.scaled(*factors)
        near = choose(scaled)
        if near.key in seen or abs(near.choice.error) > off:
            continue
        if on_progress is not None:
            on_progress("choices near the first one", (len(seen) - 1) / tries)
        seen.add(near.key)
        damage = judge.damage(near.mask, near.dropped)
        if damage < least:
            least, found, led, best = damage, near, scaled, factors
        if len(seen) > tries:
            break
    return Refined(found, led, least, first, len(seen) - 1)

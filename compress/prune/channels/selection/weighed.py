"""Channel counts and blocks by output error: a first choice, then its neighbours, judged whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.summary import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.selection.allocation import Allocation, Priced, allocated
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.damage import Judge
from compress.prune.channels.selection.ranks import keep_best
from compress.prune.channels.selection.sensitivity import SensitivityMap
from compress.prune.channels.selection.solver import TOLERANCE, Allowed, Choice

SPREAD = 0.3
"""Standard deviation of the logarithm of the factors that are drawn."""
OF_BLOCKS = (1.5, 2.0, 3.0, 5.0)
"""Factors of all blocks that are tried first: two that leave harm more than each alone."""
DRAWS = 3
"""A try, at most: several draws may lead to one choice, which is judged once."""
Factors = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Of groups and of blocks."""


class Weighed(NamedTuple):
    """What was chosen by output errors.

    Attributes:
        choice: Totals per group, cost, error against the target.
        mask: Kept units.
        round_to: The step of kept numbers that was used.
        dropped: Blocks that are removed.
    """

    choice: Choice
    mask: Mask
    round_to: int
    dropped: tuple[Block, ...]


def by_damage(
    coupling: Coupling,
    options: ChannelOptions,
    sensitivity: SensitivityMap,
    target: float,
    cost: Priced | None = None,
) -> Weighed:
    """Choose channel counts and blocks for a target.

    Args:
        coupling: Of the model.
        options: Steps, floors and limits.
        sensitivity: Of this model.
        target: What the cost comes to.
        cost: Of a kept set; default: what `options` count.
    """
    costs = CostModel.of(coupling)
    counted = cost or (costs.params if options.target_metric == "params" else costs.macs)

    def priced(kept: npt.NDArray[Any], present: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        # of a model whose blocks all stay nothing is known of them
        return np.asarray(counted(kept, present if sensitivity.blocks else None), np.float64)

    losses = sensitivity.losses(coupling)
    best: tuple[Allocation, Allowed, int] | None = None
    for round_to in ladder(options):
        allowed = allowed_for(coupling, options, round_to)
        found = allocated(losses, allowed, priced, target)
        if best is None or abs(found.choice.error) < abs(best[0].choice.error):
            best = found, allowed, round_to
        if found.choice.met:
            break
    assert best is not None
    (choice, present), allowed, round_to = best
    scores = [np.array(group.scores) for group in sensitivity.groups]
    mask = keep_best(coupling, scores, choice.totals - allowed.fixed)
    gone = np.flatnonzero(present == 0)
    blocks = blocks_of(coupling) if len(gone) else ()
    outer = {inner for index in gone for inner in blocks[index].inner}
    dropped = tuple(blocks[index] for index in gone if index not in outer)
    return Weighed(choice, mask, round_to, dropped)


class Refined(NamedTuple):
    """The best of several allocations.

    Attributes:
        found: What is kept.
        sensitivity: The output errors that led to it.
        damage: What it is worth.
        first: What the first one is worth.
        tried: How many others were judged.
    """

    found: Weighed
    sensitivity: SensitivityMap
    damage: float
    first: float
    tried: int

    def note(self) -> str:
        """Returns one line that says what the search came to."""
        return (
            f"damage of the first choice, all layers repaired: {self.first:.3g}; of the best of "
            f"{self.tried} near it: {self.damage:.3g}"
        )


def refined(
    sensitivity: SensitivityMap,
    choose: Callable[[SensitivityMap], Weighed],
    judge: Judge,
    tries: int,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Refined:
    """Searches around an allocation for one whose outputs are nearer, all layers repaired.

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
    best: Factors = np.ones(len(sensitivity.groups)), np.ones(len(sensitivity.blocks))
    led = sensitivity
    ahead: list[Factors] = [
        (best[0], factor * best[1]) for factor in OF_BLOCKS if sensitivity.blocks
    ]
    found = choose(sensitivity)
    first = least = judge.damage(found.mask, found.dropped)
    seen, off = {_key(found)}, max(TOLERANCE, abs(found.choice.error))
    for _ in range(len(ahead) + DRAWS * tries):
        factors = ahead.pop(0) if ahead else _near(best, rng)
        scaled = sensitivity.scaled(*factors)
        near = choose(scaled)
        if _key(near) in seen or abs(near.choice.error) > off:
            continue
        if on_progress is not None:
            on_progress("choices near the first one", (len(seen) - 1) / tries)
        seen.add(_key(near))
        damage = judge.damage(near.mask, near.dropped)
        if damage < least:
            least, found, led, best = damage, near, scaled, factors
        if len(seen) > tries:
            break
    return Refined(found, led, least, first, len(seen) - 1)


def _near(best: Factors, rng: np.random.Generator) -> Factors:
    groups, blocks = (part * np.exp(SPREAD * rng.standard_normal(len(part))) for part in best)
    return groups, blocks


def _key(found: Weighed) -> tuple[bytes, tuple[int, ...]]:
    return found.mask.tobytes(), tuple(block.index for block in found.dropped)

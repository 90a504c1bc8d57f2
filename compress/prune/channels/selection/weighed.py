"""Widths and blocks by what the outputs lose when one of them is thinned and repaired."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.progress import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.criteria.reconstruction import all_readers
from compress.prune.channels.selection.allocation import Allocation, Losses, Priced, allocated
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.damage import Damage, Numbers, damages
from compress.prune.channels.selection.judging import Judge
from compress.prune.channels.selection.ranks import keep_best
from compress.prune.channels.selection.solver import Allowed, Choice


@dataclass(frozen=True, eq=False)
class Weights:
    """What groups and blocks of a model are worth, measured once and used for any target.

    Attributes:
        groups: Damage of each group's widths.
        blocks: Damage of each block that leaves; (): blocks stay.
    """

    groups: tuple[Damage, ...]
    blocks: tuple[float, ...] = ()

    def losses(self, coupling: Coupling) -> Losses:
        """Returns them as the allocation takes them."""
        by_count = [
            damage.by_count(len(group.units))
            for damage, group in zip(self.groups, coupling.groups, strict=True)
        ]
        if not self.blocks:
            return Losses.of(by_count)
        blocks = blocks_of(coupling)
        inside = np.array(
            [[set(group.layers) <= set(block.layers) for group in coupling.groups]
             for block in blocks]
        )  # fmt: skip
        nested = np.array([[other.index in block.inner for other in blocks] for block in blocks])
        return Losses.of(by_count, self.blocks, inside, nested)

    def tempered(self, power: float) -> Weights:
        """Returns them to a power: above 1, what harms little is told less apart from nothing."""
        return Weights(
            tuple(
                replace(damage, damage=tuple(max(0.0, value) ** power for value in damage.damage))
                for damage in self.groups
            ),
            tuple(max(0.0, value) ** power for value in self.blocks),
        )

    def scaled(self, groups: Numbers, blocks: Numbers) -> Weights:
        """Returns them with a factor for each group and each block."""
        return Weights(
            tuple(
                replace(damage, damage=tuple(factor * value for value in damage.damage))
                for damage, factor in zip(self.groups, groups.tolist(), strict=True)
            ),
            tuple(np.multiply(self.blocks, blocks).tolist()),
        )


class Weighed(NamedTuple):
    """What was chosen by damages.

    Attributes:
        choice: Totals per group, cost, error against the target.
        mask: Kept units.
        round_to: The step of kept numbers that was used.
        dropped: Blocks that leave.
    """

    choice: Choice
    mask: Mask
    round_to: int
    dropped: tuple[Block, ...]


def weigh(
    coupling: Coupling,
    context: Context,
    criterion: Criterion,
    judge: Judge,
    *,
    blocks: bool = False,
    on_progress: OnProgress | None = None,
) -> Weights:
    """Measures what the outputs lose when one group is thinned, or one block leaves.

    One pass collects what kernels read; then a partial pass for each width of each group, from
    the first layer on that reads it, with these layers solved for. A block is judged by a repair
    of the model without it.

    Args:
        coupling: Of the model, whose weights are as before when this returns.
        context: Data and what the criterion sees.
        criterion: Chooses units within a group.
        judge: Of the same model and data.
        blocks: Judge blocks too.
        on_progress: Called with (text, share that is done).
    """
    readers = context.of_all(all_readers)

    def told(text: str, share: float) -> None:
        if on_progress is not None:
            on_progress(text, share)

    groups = damages(coupling, judge.program, readers, context, criterion, judge.judged, told)
    if not blocks:
        return Weights(tuple(groups))
    leaving = blocks_of(coupling)
    losses = []
    for block in leaving:
        told(f"damage without {block.name}", block.index / len(leaving))
        losses.append(judge.damage(np.ones(coupling.units, bool), [block]))
    return Weights(tuple(groups), tuple(losses))


def by_damage(
    coupling: Coupling,
    options: ChannelOptions,
    weights: Weights,
    target: float,
    cost: Priced | None = None,
) -> Weighed:
    """Chooses widths and blocks for a target.

    Args:
        coupling: Of the model.
        options: Steps, floors and limits.
        weights: Of this model.
        target: What the cost comes to.
        cost: Of a kept set; default: what `options` count.
    """
    costs = CostModel.of(coupling)
    counted = cost or (costs.params if options.target_metric == "params" else costs.macs)

    def priced(kept: npt.NDArray[Any], present: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        # of a model whose blocks all stay nothing is known of them
        return np.asarray(counted(kept, present if weights.blocks else None), np.float64)

    losses = weights.losses(coupling)
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
    scores = [damage.scores for damage in weights.groups]
    mask = keep_best(coupling, scores, choice.totals - allowed.fixed)
    gone = np.flatnonzero(present == 0)
    blocks = blocks_of(coupling) if len(gone) else ()
    outer = {inner for index in gone for inner in blocks[index].inner}
    dropped = tuple(blocks[index] for index in gone if index not in outer)
    return Weighed(choice, mask, round_to, dropped)

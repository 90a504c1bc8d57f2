"""Widths and blocks by what the outputs lose when one of them is thinned and repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import drawn_inputs
from compress.model.flattening import flat
from compress.model.program import Program
from compress.model.recording import record
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.criteria.reconstruction import readers_of
from compress.prune.channels.selection.allocation import Allocation, Losses, Priced, allocated
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.damage import Damage, damages, distances
from compress.prune.channels.surgery import kept_indices, sliced_model
from compress.reconstruction import repair
from compress.reconstruction.matching import opens
from compress.reconstruction.observing import observe

JUDGED = 500
"""Examples on which outputs are compared."""
BLOCK_EXAMPLES = 256
"""Of a repair that tells what a block is worth."""
OnProgress = Callable[[str, float], None]


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


def weigh(
    coupling: Coupling,
    context: Context,
    criterion: Criterion,
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
        blocks: Judge blocks too.
        on_progress: Called with (text, share that is done).

    Raises:
        InputError: There are no data, or the model takes several inputs.
    """
    if context.data is None:
        raise InputError("Channel scope 'damage' must have data to look at. Give data=.")
    program = flat(record(coupling.program.model, opens))
    if len(program.inputs) != 1:
        raise InputError(
            "Channel scope 'damage' must be of a model with one input. Received: "
            f"{len(program.inputs)} inputs."
        )
    x = drawn_inputs(context.data, context.examples, context.seed)
    readers = readers_of(context, observe(program, [x], seed=context.seed))

    def told(text: str, share: float) -> None:
        if on_progress is not None:
            on_progress(text, share)

    groups = damages(coupling, program, readers, context, criterion, [x[:JUDGED]], told)
    return Weights(groups, _blocks(coupling, program, x, context.seed, told) if blocks else ())


def _blocks(
    coupling: Coupling, program: Program, x: npt.NDArray[Any], seed: int, told: OnProgress
) -> tuple[float, ...]:
    """Returns the damage of each block: of the model without it, repaired."""
    model, whole = coupling.program.model, np.ones(coupling.units, bool)
    wanted = program.run([x[:JUDGED]])
    found = []
    blocks = blocks_of(coupling)
    for block in blocks:
        told(f"damage without {block.name}", block.index / len(blocks))
        without = sliced_model(coupling, whole, [block])
        kept = kept_indices(coupling, whole, [block])
        repair(without, model, x, kept=kept, examples=BLOCK_EXAMPLES, seed=seed)
        made = record(without).run([x[:JUDGED]])
        found.append(distances(wanted, made))
    return tuple(found)


def by_damage(
    coupling: Coupling,
    options: ChannelOptions,
    weights: Weights,
    target: float,
    cost: Priced | None = None,
) -> tuple[Allocation, int, list[Block]]:
    """Chooses widths and blocks for a target.

    Args:
        coupling: Of the model.
        options: Steps, floors and limits.
        weights: Of this model.
        target: What the cost comes to.
        cost: Of a kept set; default: what `options` count.

    Returns:
        The allocation, the step of kept numbers that was used, and the blocks that leave.
    """
    costs = CostModel.of(coupling)
    counted = costs.params if options.target_metric == "params" else costs.macs

    def own(kept: npt.NDArray[Any], present: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if not weights.blocks:
            return counted(kept)
        return np.asarray(counted(kept, present), np.float64)

    losses = weights.losses(coupling)
    best: tuple[Allocation, int] | None = None
    for round_to in ladder(options):
        found = allocated(losses, allowed_for(coupling, options, round_to), cost or own, target)
        if best is None or abs(found.choice.error) < abs(best[0].choice.error):
            best = found, round_to
        if found.choice.met:
            break
    assert best is not None
    gone = np.flatnonzero(best[0].present == 0)
    blocks = blocks_of(coupling) if len(gone) else ()
    outer = {inner for index in gone for inner in blocks[index].inner}
    return *best, [blocks[index] for index in gone if index not in outer]

"""Widths and blocks by what the outputs lose when one of them is thinned and repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.criteria.reconstruction import all_readers
from compress.prune.channels.selection.allocation import Allocation, Losses, Priced, allocated
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.damage import Damage, damages, distances
from compress.prune.channels.surgery import kept_indices, sliced_model
from compress.reconstruction import repair
from compress.reconstruction.matching import opens

JUDGED = 500
"""Examples on which outputs are compared."""
FEW_EXAMPLES = 300
FEW_SAMPLES = 4000
"""Of a repair that tells what a group or block is worth."""
CALIBRATED = 2
"""Place among the measured shares at which all layers are repaired."""
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
    readers = context.of_all(all_readers)

    def told(text: str, share: float) -> None:
        if on_progress is not None:
            on_progress(text, share)

    groups = damages(coupling, program, readers, context, criterion, [x[:JUDGED]], told)
    judge = _Judge(coupling, program, x, context.seed)
    found = []
    for group, damage in zip(coupling.groups, groups, strict=True):
        told(f"damage of {group.name}, all layers repaired", group.index / len(groups))
        found.append(judge.calibrated(group, damage))
    if not blocks:
        return Weights(tuple(found))
    leaving = blocks_of(coupling)
    losses = []
    for block in leaving:
        told(f"damage without {block.name}", block.index / len(leaving))
        losses.append(judge.damage(np.ones(coupling.units, bool), [block]))
    return Weights(tuple(found), tuple(losses))


class _Judge:
    """Repairs thinner models on a few examples and compares their outputs."""

    def __init__(
        self, coupling: Coupling, program: Program, x: npt.NDArray[Any], seed: int
    ) -> None:
        self.coupling = coupling
        self.x = x
        self.seed = seed
        self.wanted = program.run([x[:JUDGED]])

    def damage(self, mask: Mask, blocks: Sequence[Block] = ()) -> float:
        """Returns how far the outputs are when only this is kept, all layers repaired."""
        small = sliced_model(self.coupling, mask, blocks)
        repair(
            small,
            self.coupling.program.model,
            self.x,
            kept=kept_indices(self.coupling, mask, blocks),
            examples=FEW_EXAMPLES,
            samples=FEW_SAMPLES,
            joint=False,
            seed=self.seed,
        )
        return distances(self.wanted, record(small).run([self.x[:JUDGED]]))

    def calibrated(self, group: Group, damage: Damage) -> Damage:
        """Scales a group's damages by what repairing all layers makes of one of them."""
        place = min(len(damage.removed) - 1, CALIBRATED)
        count = damage.removed[place]
        mask = np.ones(self.coupling.units, bool)
        mask[group.units[np.argsort(damage.scores, kind="stable")[:count]]] = False
        share = min(1.0, self.damage(mask) / max(damage.damage[place], 1e-12))
        return replace(damage, damage=tuple(share * value for value in damage.damage))


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
    counted = cost or (costs.params if options.target_metric == "params" else costs.macs)

    def priced(kept: npt.NDArray[Any], present: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        # of a model whose blocks all stay nothing is known of them
        return np.asarray(counted(kept, present if weights.blocks else None), np.float64)

    losses = weights.losses(coupling)
    best: tuple[Allocation, int] | None = None
    for round_to in ladder(options):
        found = allocated(losses, allowed_for(coupling, options, round_to), priced, target)
        if best is None or abs(found.choice.error) < abs(best[0].choice.error):
            best = found, round_to
        if found.choice.met:
            break
    assert best is not None
    gone = np.flatnonzero(best[0].present == 0)
    blocks = blocks_of(coupling) if len(gone) else ()
    outer = {inner for index in gone for inner in blocks[index].inner}
    return *best, [blocks[index] for index in gone if index not in outer]

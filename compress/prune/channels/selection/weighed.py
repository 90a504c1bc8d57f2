"""Channel counts and blocks by the output errors of a sensitivity map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.selection.allocation import Allocation, Priced, allocated
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.ranks import keep_best
from compress.prune.channels.selection.sensitivity import SensitivityMap
from compress.prune.channels.selection.solver import Allowed, Choice


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

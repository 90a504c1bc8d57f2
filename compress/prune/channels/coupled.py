"""`coupled_groups`: which channels and blocks of a model belong together, for people to read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import HeldBlock, depth_of
from compress.prune.channels.coupling.groups import Frozen
from compress.prune.channels.report import (
    BlockRow,
    GroupRow,
    block_rows,
    row_of,
    unknown_layers,
)
from compress.prune.channels.selection.allowed import smallest
from compress.prune.channels.selection.costs import CostModel, Numbers

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Coupled:
    """Which channels belong together, for reading; see `coupled_groups`.

    Attributes:
        groups: The groups, all units kept.
        frozen: Units that cannot be removed, by reason.
        unknown: Layers without a rule: (name, class, reason).
        opened: Layers that were opened into the layers inside.
        macs: MACs at batch 1, as the cost model counts them; None where an input size is open
            and none was given.
        params: Parameters.
        shares: For each group the share of all MACs that its channels take part in; () where
            they are not known.
        least: The smallest MACs that can be asked for, with the plan's default minimum; None
            likewise.
        least_share: The same as a share of all, rounded up to three digits.
        layers: (name, MACs, parameters) of every layer that has any; MACs are 0 where they
            are not known.
        blocks: Residual branches that could leave as a whole, inner ones before those that they
            are in.
        held_blocks: Branches and sums that could not, with the reason.
    """

    groups: tuple[GroupRow, ...]
    frozen: tuple[Frozen, ...]
    unknown: tuple[tuple[str, str, str], ...]
    opened: tuple[str, ...]
    macs: int | None
    params: int
    shares: tuple[float, ...]
    least: int | None
    least_share: float | None
    layers: tuple[tuple[str, int, int], ...]
    blocks: tuple[BlockRow, ...]
    held_blocks: tuple[HeldBlock, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return asdict(self)


@check_arguments()
def coupled_groups(model: keras.Model | str | Path, *, input_shape: Any = None) -> Coupled:
    """Analyses which channels of a model must be kept or removed together.

    Args:
        model: Any Keras model, or the path of its file; it stays as it is.
        input_shape: Of one example, where the model's own has open sizes (without it MACs
            are not known); of a subclassed model that was never called, with the batch axis.

    Returns:
        Groups with their layers, frozen units with reasons, layers without a rule, residual
        blocks.

    Raises:
        InputError: The model can neither be read as a graph nor traced, or the shape does not
            fit it.

    Example:
        >>> groups = coupled_groups(model).groups
        >>> [(group.name, group.total, group.layers) for group in groups]
        [('hidden', 16, ('hidden', 'last'))]

    Reference:
        Fang et al. 2023, "DepGraph", section 3.2.
    """
    coupling = coupling_of(as_model(model), input_shape)
    full, costs = coupling.whole, CostModel.of(coupling)
    by_params, by_macs = costs.params_by_layer(full), dict[str, Numbers]()
    macs, least, shares = None, None, (0.0,) * len(full)
    if costs.has_macs:
        total = float(costs.macs(full))
        without = costs.macs(full[None] * (1 - np.eye(len(full), dtype=np.int64)))
        by_macs, macs = costs.macs_by_layer(full), int(total)
        shares = tuple((1.0 - without / total).tolist()) if total else shares
        least = smallest(coupling, ChannelOptions()) if total else None
    return Coupled(
        tuple(row_of(coupling, group, len(group.units) + group.fixed) for group in coupling.groups),
        coupling.frozen_report(),
        unknown_layers(coupling),
        tuple(coupling.program.opened),
        macs,
        int(costs.params(full)),
        shares if costs.has_macs else (),
        math.ceil(least.cost) if least else macs,
        least.share if least else None,
        tuple(
            (name, int(by_macs.get(name, 0)), int(by_params.get(name, 0)))
            for name in dict.fromkeys([*by_params, *by_macs])
        ),
        block_rows(coupling),
        depth_of(coupling).held,
    )

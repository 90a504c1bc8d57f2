"""The records of a coupling (`coupled_groups`) and of a pruning: groups, blocks, what is frozen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.summary import Summary
from compress.measure import formats
from compress.model.internals import variable_paths
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import HeldBlock, blocks_of
from compress.prune.channels.coupling.groups import Coupling, Frozen, Group, Mask
from compress.prune.channels.coupling.slots import Ids, Numbers
from compress.prune.channels.selection.allowed import TOLERANCE, Selection
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.target import Goal, cost_of, smallest
from compress.prune.channels.surgery import KeptIndices

if TYPE_CHECKING:
    import keras

    from compress.reconstruction import RepairReport


@dataclass(frozen=True)
class GroupRow:
    """One group before and after.

    Attributes:
        name: The first layer that makes its channels.
        kind: "channels" or "heads".
        makers: All layers that make them.
        layers: All layers whose weights were sliced.
        total: Channels (or heads) before; of frozen ones too.
        kept: After.
        reason: Why some could not be removed; empty where all could.
    """

    name: str
    kind: str
    makers: tuple[str, ...]
    layers: tuple[str, ...]
    total: int
    kept: int
    reason: str = ""


@dataclass(frozen=True)
class BlockRow:
    """A residual branch that could leave as a whole.

    Attributes:
        name: Of the sum that it ends in.
        layers: Its layers with weights.
        inner: Names of the blocks inside, which would leave with it.
        macs_share: Share of all MACs that would leave; None where they are not known.
        params_share: The same of the parameters.
    """

    name: str
    layers: tuple[str, ...]
    inner: tuple[str, ...]
    macs_share: float | None
    params_share: float


@dataclass(frozen=True)
class ChannelReport:
    """The record of a pruning.

    Attributes:
        groups: In the order of the model.
        frozen: Units that stay whatever is asked, by reason.
        unknown: Layers without a rule: (name, class, reason).
        opened: Layers that were opened into the layers inside.
        macs: (before, after) at batch 1, from channel counts; None where an input size is
            open and none was given.
        params: (before, after).
        target: What was asked: "macs 0.5x".
        error: Relative distance of the result from the target.
        criterion: What ranked the units.
        round_to: The step of kept numbers that was used, in words.
        notes: What the user should know.
        repair: What was solved for afterwards; None: nothing was.
    """

    groups: tuple[GroupRow, ...]
    frozen: tuple[Frozen, ...]
    unknown: tuple[tuple[str, str, str], ...]
    opened: tuple[str, ...]
    macs: tuple[int, int] | None
    params: tuple[int, int]
    target: str
    error: float
    criterion: str
    round_to: str
    notes: tuple[str, ...] = ()
    repair: RepairReport | None = None

    @property
    def macs_ratio(self) -> float | None:
        """MACs before over MACs after; None where they are not known."""
        return self.macs[0] / max(1, self.macs[1]) if self.macs else None

    @property
    def label(self) -> str:
        """The target as a part of file names: "0.5x", "60kparams", "0.5amount".

        The target; what was reached, as a share, where that is off by more than 2 %.
        """
        of, _, target = self.target.partition(" ")
        if abs(self.error) > TOLERANCE:
            counts = self.params if of == "params" else self.macs
            assert counts is not None, "a target in MACs had them counted"
            target = f"{counts[1] / counts[0]:.2g}x"
        return target if of == "macs" else f"{target}{of}"

    def screen(self) -> Summary:
        """Return a summary for the screen: costs, and the kept units of each group."""
        counts = [] if self.macs is None else [f"{_change(self.macs)} MACs"]
        lines = [f"asked for {self.target}; ranked by {self.criterion}; kept {self.round_to}"]
        held = sum(row.kept == row.total for row in self.groups)
        if held:
            lines.append(f"{held} of {len(self.groups)} groups are whole")
        if self.repair is not None:
            lines.append(self.repair.line())
        rows = [
            (row.name, row.kind, f"{row.total:,}", f"{row.kept:,}")
            for row in self.groups
            if row.kept < row.total
        ]
        unknown = [f"{name} ({kind}): {reason}" for name, kind, reason in self.unknown]
        return Summary(
            ", ".join([*counts, f"{_change(self.params)} parameters"]),
            tuple(lines),
            ("Layer", "what", "before", "after"),
            tuple(rows),
            (*self.notes, *unknown),
            "groups",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Coupled:
    """Groups, frozen units and blocks of a model; see `coupled_groups`.

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
        """Return the record as JSON."""
        return asdict(self)


@check_arguments()
def coupled_groups(model: keras.Model | str | Path, *, input_shape: Any = None) -> Coupled:
    """Analyse which channels of a model must be kept or removed together.

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
    by_params, by_macs = costs.params.by_layer(full), dict[str, Numbers]()
    macs, least, shares = None, None, (0.0,) * len(full)
    if costs.has_macs:
        total = float(costs.macs(full))
        without = costs.macs(full[None] * (1 - np.eye(len(full), dtype=np.int64)))
        by_macs, macs = costs.macs.by_layer(full), int(total)
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
        coupling.depth.held,
    )


def make_report(
    coupling: Coupling,
    kept: KeptIndices,
    options: ChannelOptions,
    goal: Goal,
    selection: Selection,
    repair: RepairReport | None,
) -> ChannelReport:
    """Make the record of a pruning.

    Args:
        coupling: Of the original.
        kept: Of the original's weights.
        options: What was asked.
        goal: As a number.
        selection: The last one, with all notes.
        repair: What was solved for afterwards.
    """
    mask = _mask_of(coupling, kept)
    counts = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
    present, costs = _present(coupling, kept), CostModel.of(coupling)
    macs = costs.macs(counts, present) if costs.has_macs else None
    params = costs.params(counts, present)
    # a cost of the user's is of the units that were chosen: nothing else is counted for it
    own = goal.metric == "cost"
    reached = selection.choice.cost if own else float(cost_of(coupling, options)(counts, present))
    return ChannelReport(
        tuple(
            row_of(coupling, group, int(count) + group.fixed)
            for group, count in zip(coupling.groups, counts, strict=True)
        ),
        coupling.frozen_report(),
        unknown_layers(coupling),
        tuple(coupling.program.opened),
        None if macs is None else (int(costs.macs(coupling.whole)), int(macs)),
        (int(costs.params(coupling.whole)), int(params)),
        f"{goal.metric} {options.target}",
        0.0 if goal.metric == "amount" else reached / goal.value - 1.0,
        selection.method,
        selection.round_to,
        selection.notes,
        repair,
    )


def row_of(coupling: Coupling, group: Group, kept: int) -> GroupRow:
    """Describe a group of which `kept` units stay, frozen ones included."""
    return GroupRow(
        group.name,
        group.kind,
        group.makers,
        group.layers,
        group.channels,
        kept * group.width,
        "; ".join(coupling.reasons_of(group) if group.fixed else ()),
    )


def block_rows(coupling: Coupling) -> tuple[BlockRow, ...]:
    """Describe the blocks of a model with what each of them costs."""
    blocks, costs = blocks_of(coupling), CostModel.of(coupling)
    without = 1 - np.eye(len(blocks))

    def shares(cost: Callable[..., Numbers]) -> list[float]:
        total = max(1.0, float(cost(coupling.whole)))
        return [1.0 - float(left) / total for left in cost(coupling.whole, without)]

    by_macs = shares(costs.macs) if costs.has_macs else [None] * len(blocks)
    return tuple(
        BlockRow(block.name, block.layers, tuple(blocks[at].name for at in block.inner), macs, own)
        for block, macs, own in zip(blocks, by_macs, shares(costs.params), strict=True)
    )


def unknown_layers(coupling: Coupling) -> tuple[tuple[str, str, str], ...]:
    """List the layers without a rule."""
    return tuple((name, kind, reason) for name, (kind, reason) in coupling.graph.unknown.items())


def _mask_of(coupling: Coupling, kept: KeptIndices) -> Mask:
    """Return the kept units of the original from the kept indices of its weights."""
    mask = np.ones(coupling.units, bool)
    paths = {id(variable): path for path, variable in variable_paths(coupling.program.model)}
    for binding in coupling.bindings:
        indices = kept[paths[id(binding.variable)]][binding.axis]
        # a weight that left whole says nothing of channels that others still have
        if indices is not None and len(indices):
            mask[coupling.unit[np.delete(binding.ids, indices)]] = False
    return mask


def _present(coupling: Coupling, kept: KeptIndices) -> Ids:
    """Return 1 for blocks of which a weight is left, (blocks,)."""
    gone = {
        id(variable)
        for path, variable in variable_paths(coupling.program.model)
        if any(axis is not None and len(axis) == 0 for axis in kept[path])
    }
    present = [
        any(
            id(weight) not in gone
            for node in block.nodes
            for weight in getattr(node.operation, "weights", ())
        )
        for block in blocks_of(coupling)
    ]
    return np.array(present, np.int64)


def _change(ends: tuple[int, int]) -> str:
    """Return "40.8 M -> 20.4 M (2.00x fewer)"."""
    before, after = ends
    fewer = f" ({before / max(1, after):.2f}x fewer)" if after < before else ""
    return f"{formats.count(before)} -> {formats.count(after)}{fewer}"

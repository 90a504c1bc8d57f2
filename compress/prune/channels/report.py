"""Reports of a coupling (`coupled_groups`) and of channel pruning: groups, blocks, frozen units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.summary import Summary
from compress.measure import formatting
from compress.model.io import as_model
from compress.model.keras_internals import list_named_weights
from compress.plan import ChannelOptions
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import ProtectedBlock, list_blocks
from compress.prune.channels.coupling.groups import Coupling, FrozenUnits, Group, Mask
from compress.prune.channels.coupling.slots import Ids, Numbers
from compress.prune.channels.selection.allowed_counts import TOLERANCE, Selection
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.target import Goal, find_smallest
from compress.prune.channels.surgery import KeptIndices

if TYPE_CHECKING:
    import keras

    from compress.reconstruction import RepairReport


@dataclass(frozen=True)
class GroupRow:
    """One group before and after pruning.

    Attributes:
        name: First layer that produces its channels.
        kind: "channels" or "heads".
        makers: All layers that produce its channels.
        layers: All layers whose weights its channels have entries in.
        total: Channels (or heads) before pruning, frozen ones included.
        kept: Channels (or heads) after pruning.
        reason: Reason why some cannot be removed; empty if all can.
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
    """A residual branch that can be removed as a whole.

    Attributes:
        name: Name of the sum that the branch ends in.
        layers: Its layers with weights.
        inner: Names of the nested blocks, which are removed with it.
        macs_share: Share of all MACs that its removal saves; None if MACs are unknown.
        params_share: Share of all parameters that its removal saves.
    """

    name: str
    layers: tuple[str, ...]
    inner: tuple[str, ...]
    macs_share: float | None
    params_share: float


@dataclass(frozen=True)
class ChannelReport:
    """Report of channel pruning.

    Attributes:
        groups: Groups in the order of the model.
        frozen: Units that cannot be removed, by reason.
        unknown: Layers without a rule: (name, class, reason).
        opened: Composite layers that were opened.
        macs: (before, after) at batch 1, from channel counts; None if an input size is open and no
            input shape was given.
        params: (before, after).
        target: The requested target: "macs 0.5x".
        error: Relative distance of the result from the target.
        criterion: Selection method; if units were ranked by one criterion, its name.
        round_to: Rounding step of kept channel counts, as text.
        notes: Notes for the user.
        repair: Report of the weight reconstruction; None if there was none.
    """

    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenUnits, ...]
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
        """MACs before divided by MACs after; None if they are unknown."""
        return self.macs[0] / max(1, self.macs[1]) if self.macs else None

    @property
    def label(self) -> str:
        """The target as a part of file names: "0.5x", "60kparams".

        If the result misses the target by more than 2 %, the reached share is used instead.
        """
        metric, _, target = self.target.partition(" ")
        if abs(self.error) > TOLERANCE:
            counts = self.params if metric == "params" else self.macs
            assert counts is not None, "a target in MACs had them counted"
            target = f"{counts[1] / counts[0]:.2g}x"
        return target if metric == "macs" else f"{target}{metric}"

    def build_summary(self) -> Summary:
        """Return a summary for the screen: costs, and the kept units of each group."""
        counts = [] if self.macs is None else [f"{_format_change(self.macs)} MACs"]
        lines = [
            f"target: {self.target}; chosen by {self.criterion}; counts rounded to {self.round_to}"
        ]
        unpruned_count = sum(row.kept == row.total for row in self.groups)
        if unpruned_count:
            lines.append(f"{unpruned_count} of {len(self.groups)} groups keep all channels")
        if self.repair is not None:
            lines.append(self.repair.summarize())
        rows = [
            (row.name, row.kind, f"{row.total:,}", f"{row.kept:,}")
            for row in self.groups
            if row.kept < row.total
        ]
        unknown = [f"{name} ({kind}): {reason}" for name, kind, reason in self.unknown]
        return Summary(
            ", ".join([*counts, f"{_format_change(self.params)} parameters"]),
            tuple(lines),
            ("Layer", "what", "before", "after"),
            tuple(rows),
            (*self.notes, *unknown),
            "groups",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CouplingReport:
    """Groups, frozen units and blocks of a model; see `coupled_groups`.

    Attributes:
        groups: The groups, with all units kept.
        frozen: Units that cannot be removed, by reason.
        unknown: Layers without a rule: (name, class, reason).
        opened: Composite layers that were opened.
        macs: MACs at batch 1; None if an input size is open and no input shape was given.
        params: Number of parameters.
        shares: For each group, the share of all MACs that its channels take part in; () if MACs are
            unknown.
        least: Smallest feasible target in MACs, with the plan's default minimum; None if MACs are
            unknown.
        least_share: The same as a share of all MACs, rounded up to three digits.
        layers: (name, MACs, parameters) of every layer that has any; MACs are 0 if they are
            unknown.
        blocks: Residual branches that can be removed as a whole, inner ones before outer ones.
        held_blocks: Branches and sums that cannot be removed, with reasons.
    """

    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenUnits, ...]
    unknown: tuple[tuple[str, str, str], ...]
    opened: tuple[str, ...]
    macs: int | None
    params: int
    shares: tuple[float, ...]
    least: int | None
    least_share: float | None
    layers: tuple[tuple[str, int, int], ...]
    blocks: tuple[BlockRow, ...]
    held_blocks: tuple[ProtectedBlock, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


@check_arguments()
def coupled_groups(model: keras.Model | str | Path, *, input_shape: Any = None) -> CouplingReport:
    """Return the groups of channels that must be kept or removed together.

    Args:
        model: Any Keras model, or the path of its file. It is not modified.
        input_shape: Shape of one example, if the model's input has open sizes (without it MACs are
            unknown). For a subclassed model that was never called, with the batch axis.

    Returns:
        Groups with their layers, frozen units with reasons, layers without a rule, and residual
        blocks.

    Raises:
        InputError: The model can be neither read as a graph nor traced, or the shape does not fit
            it.

    Example:
        >>> groups = coupled_groups(model).groups
        >>> [(group.name, group.total, group.layers) for group in groups]
        [('hidden', 16, ('hidden', 'last'))]

    Reference:
        Fang et al. 2023, "DepGraph", section 3.2.
    """
    coupling = analyze_coupling(as_model(model), input_shape)
    full, costs = coupling.removable_counts, CostModel.from_coupling(coupling)
    by_params, by_macs = costs.params.compute_by_layer(full), dict[str, Numbers]()
    macs, smallest_cost, shares = None, None, (0.0,) * len(full)
    if costs.has_macs:
        total = float(costs.macs(full))
        without = costs.macs(full[None] * (1 - np.eye(len(full), dtype=np.int64)))
        by_macs, macs = costs.macs.compute_by_layer(full), int(total)
        shares = tuple((1.0 - without / total).tolist()) if total else shares
        smallest_cost = find_smallest(coupling, ChannelOptions()) if total else None
    return CouplingReport(
        tuple(
            build_group_row(coupling, group, len(group.units) + group.fixed)
            for group in coupling.groups
        ),
        coupling.list_frozen(),
        list_unknown_layers(coupling),
        tuple(coupling.program.opened_layers),
        macs,
        int(costs.params(full)),
        shares if costs.has_macs else (),
        math.ceil(smallest_cost.cost) if smallest_cost else macs,
        smallest_cost.share if smallest_cost else None,
        tuple(
            (name, int(by_macs.get(name, 0)), int(by_params.get(name, 0)))
            for name in dict.fromkeys([*by_params, *by_macs])
        ),
        build_block_rows(coupling),
        coupling.block_dependencies.protected,
    )


def make_report(
    coupling: Coupling,
    kept: KeptIndices,
    options: ChannelOptions,
    goal: Goal,
    selection: Selection,
    repair: RepairReport | None,
) -> ChannelReport:
    """Return the report of channel pruning.

    Args:
        coupling: Coupling of the original model.
        kept: Kept indices of the original's weights.
        options: Channel options with the target.
        goal: The target as a number.
        selection: The selection, with all notes.
        repair: Report of the weight reconstruction; None if there was none.
    """
    mask = _build_mask(coupling, kept)
    counts = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
    present, costs = _find_present_blocks(coupling, kept), CostModel.from_coupling(coupling)
    macs = costs.macs(counts, present) if costs.has_macs else None
    params = costs.params(counts, present)
    # a custom cost is that of the selected units; it is not computed again
    reached = {"macs": macs, "params": params, "cost": selection.allocation.cost}[goal.metric]
    assert reached is not None, "a target in MACs had them counted"
    return ChannelReport(
        tuple(
            build_group_row(coupling, group, int(count) + group.fixed)
            for group, count in zip(coupling.groups, counts, strict=True)
        ),
        coupling.list_frozen(),
        list_unknown_layers(coupling),
        tuple(coupling.program.opened_layers),
        None if macs is None else (int(costs.macs(coupling.removable_counts)), int(macs)),
        (int(costs.params(coupling.removable_counts)), int(params)),
        f"{goal.metric} {options.target}",
        float(reached) / goal.value - 1.0,
        selection.method,
        selection.round_to,
        selection.notes,
        repair,
    )


def build_group_row(coupling: Coupling, group: Group, kept: int) -> GroupRow:
    """Return the row of a group.

    Args:
        coupling: Coupling of the model.
        group: The group.
        kept: Number of kept units, frozen ones included.
    """
    return GroupRow(
        group.name,
        group.kind,
        group.makers,
        group.layers,
        group.channels,
        kept * group.width,
        "; ".join(coupling.list_frozen_reasons(group) if group.fixed else ()),
    )


def build_block_rows(coupling: Coupling) -> tuple[BlockRow, ...]:
    """Return the rows of a model's blocks, with the MACs and parameters that each one saves."""
    blocks, costs = list_blocks(coupling), CostModel.from_coupling(coupling)
    without = 1 - np.eye(len(blocks))

    def compute_shares(cost: Callable[..., Numbers]) -> list[float]:
        total = max(1.0, float(cost(coupling.removable_counts)))
        return [
            1.0 - float(cost_without) / total
            for cost_without in cost(coupling.removable_counts, without)
        ]

    by_macs = compute_shares(costs.macs) if costs.has_macs else [None] * len(blocks)
    return tuple(
        BlockRow(
            block.name,
            block.layers,
            tuple(blocks[index].name for index in block.inner),
            macs_share,
            params_share,
        )
        for block, macs_share, params_share in zip(
            blocks, by_macs, compute_shares(costs.params), strict=True
        )
    )


def list_unknown_layers(coupling: Coupling) -> tuple[tuple[str, str, str], ...]:
    """Return the layers without a rule: (name, class, reason)."""
    return tuple((name, kind, reason) for name, (kind, reason) in coupling.graph.unknown.items())


def _build_mask(coupling: Coupling, kept: KeptIndices) -> Mask:
    """Return the kept units of the original from the kept indices of its weights."""
    mask = np.ones(coupling.unit_count, bool)
    path_by_id = {
        id(variable): path for path, variable in list_named_weights(coupling.program.model)
    }
    for binding in coupling.bindings:
        indices = kept[path_by_id[id(binding.variable)]][binding.axis]
        # a weight removed with its block does not determine the channels of other weights
        if indices is not None and len(indices):
            mask[coupling.unit_of_slot[np.delete(binding.ids, indices)]] = False
    return mask


def _find_present_blocks(coupling: Coupling, kept: KeptIndices) -> Ids:
    """Return 1 for each block that still has a weight, else 0, (blocks,)."""
    removed_weights = {
        id(variable)
        for path, variable in list_named_weights(coupling.program.model)
        if any(axis is not None and len(axis) == 0 for axis in kept[path])
    }
    present = [
        any(
            id(weight) not in removed_weights
            for node in block.nodes
            for weight in getattr(node.operation, "weights", ())
        )
        for block in list_blocks(coupling)
    ]
    return np.array(present, np.int64)


def _format_change(counts: tuple[int, int]) -> str:
    """Return "40.8 M -> 20.4 M (2.00x fewer)"."""
    before, after = counts
    fewer = f" ({before / max(1, after):.2f}x fewer)" if after < before else ""
    return f"{formatting.format_count(before)} -> {formatting.format_count(after)}{fewer}"

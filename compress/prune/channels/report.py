"""What channel pruning did: one row a group, what was frozen and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compress.core.summary import Summary
from compress.measure import formats
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling, Frozen, Group
from compress.prune.channels.selection.costs import CostModel, Numbers
from compress.prune.channels.selection.solver import TOLERANCE
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
        """What was kept, as names of files tell it: "0.5x", "60kparams", "0.5amount".

        The target; what was reached, as a share, where that is off by more than 2 %.
        """
        of, _, target = self.target.partition(" ")
        if abs(self.error) > TOLERANCE:
            counts = self.params if of == "params" else self.macs
            assert counts is not None, "a target in MACs had them counted"
            target = f"{counts[1] / counts[0]:.2g}x"
        return target if of == "macs" else f"{target}{of}"

    def screen(self) -> Summary:
        """Returns what is worth a screen: costs, and what each group lost."""
        counts = [] if self.macs is None else [f"{_change(self.macs)} MACs"]
        title = ", ".join([*counts, f"{_change(self.params)} parameters"])
        lines = [f"asked for {self.target}; ranked by {self.criterion}; kept {self.round_to}"]
        held = sum(row.kept == row.total for row in self.groups)
        if held:
            lines.append(f"{held} of {len(self.groups)} groups are whole")
        if self.repair is not None:
            lines.append(self.repair.line())
        changed = [row for row in self.groups if row.kept < row.total]
        rows = [(row.name, row.kind, f"{row.total:,}", f"{row.kept:,}") for row in changed]
        unknown = [f"{name} ({kind}): {reason}" for name, kind, reason in self.unknown]
        return Summary(
            title,
            tuple(lines),
            ("Layer", "what", "before", "after"),
            tuple(rows),
            (*self.notes, *unknown),
            "groups",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return asdict(self)


def _change(ends: tuple[int, int]) -> str:
    """Returns "40.8 M -> 20.4 M (2.00x fewer)"."""
    before, after = ends
    fewer = f" ({before / max(1, after):.2f}x fewer)" if after < before else ""
    return f"{formats.count(before)} -> {formats.count(after)}{fewer}"


def row_of(coupling: Coupling, group: Group, kept: int) -> GroupRow:
    """Describes a group of which `kept` units stay, frozen ones included."""
    reasons = coupling.reasons_of(group) if group.fixed else ()
    return GroupRow(
        group.name,
        group.kind,
        group.makers,
        group.layers,
        group.channels,
        kept * group.width,
        "; ".join(reasons),
    )


def block_rows(coupling: Coupling) -> tuple[BlockRow, ...]:
    """Describes the blocks of a model with what each of them costs."""
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
    """Lists the layers without a rule."""
    found = coupling.graph.unknown.items()
    return tuple((name, kind, reason) for name, (kind, reason) in found)

"""What choices of widths and blocks cost in one format, before any file of them is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.selection.allocation import Priced

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling, Mask

Numbers = npt.NDArray[np.float64]
EXACT = ("macs", "params")
"""Costs that are counted: nothing is to be put right."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What stays, as costs count it.

    Attributes:
        kept: Removable units of each group, (groups,).
        present: 1 for blocks that stay, (blocks,); None: all stay.
    """

    kept: npt.NDArray[np.int64]
    present: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, coupling: Coupling, mask: Mask, dropped: tuple[Block, ...] = ()) -> Choice:
        """Counts kept units; what lies in a block that leaves is gone with it."""
        kept = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
        return cls(kept, presence(coupling, dropped) if dropped else None)


def presence(coupling: Coupling, dropped: Sequence[Block]) -> npt.NDArray[np.int64]:
    """Returns 1 for each block that stays, (blocks,); what lies in one that leaves is gone too."""
    present = np.ones(len(blocks_of(coupling)), np.int64)
    for block in dropped:
        present[[block.index, *block.inner]] = 0
    return present


@dataclass(frozen=True, eq=False)
class Estimates:
    """Costs of choices, by name, put right by what was measured.

    Attributes:
        of: Functions of kept units and present blocks: ms, bytes or counts.
        factors: What was measured over what was estimated, of costs that were measured.
    """

    of: Mapping[str, Priced]
    factors: Mapping[str, float] = field(default_factory=dict)

    def at(self, choice: Choice) -> dict[str, float]:
        """Returns what a choice costs, by name."""
        return {
            name: self.factors.get(name, 1.0) * float(cost(choice.kept, choice.present))
            for name, cost in self.of.items()
        }

    def share_of(self, goals: Mapping[str, float]) -> Priced:
        """Returns the cost that several goals come to: the largest share of one that is used.

        Args:
            goals: What must not be passed, by name.

        Returns:
            A function of kept units and present blocks; 1 meets all goals, one of them just so.
        """
        parts = [
            (self.of[name], self.factors.get(name, 1.0) / goal) for name, goal in goals.items()
        ]

        def share(kept: Any, present: Any) -> Numbers:
            found = [np.asarray(cost(kept, present)) * scale for cost, scale in parts]
            return np.asarray(np.max(np.broadcast_arrays(*found), axis=0), np.float64)

        return share

    def put_right(self, choice: Choice, measured: Mapping[str, float]) -> Estimates:
        """Returns estimates that are right about one choice; what is counted stays."""
        own = {
            name: measured[name] / float(self.of[name](choice.kept, choice.present))
            for name in measured
            if name not in EXACT
        }
        return replace(self, factors={**self.factors, **own})

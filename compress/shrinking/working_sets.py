"""How much memory choices need: the largest working set of one call, before any file is made."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.measure.latency_table import CallKey, CallTime, LatencyTable
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.timed_calls import TimedCalls

if TYPE_CHECKING:
    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.solver import Allowed


def working_sets(coupling: Coupling, allowed: Allowed, blocks: Sequence[Block]) -> Priced:
    """Returns what grows with the arena: the most numbers that one call reads and makes.

    Inputs and outputs of a call are in memory together, so no arena is smaller. What waits
    meanwhile (the other side of a sum) and what kernels need beside is not in it: the arena of a
    file puts that right.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Residual branches that may leave.

    Returns:
        A function of kept units and present blocks -> numbers.

    Raises:
        InputError: An input size is unknown.
    """
    calls = TimedCalls(coupling, allowed, blocks)
    # the same interpolation between widths as for times: sums over shapes are linear in each
    rows = tuple(CallTime(key, _numbers(key), 0.0, 1, 0, 0) for key in calls.models())
    model = calls.times(LatencyTable("", "", 1, "", 0.0, 0.0, rows))

    def largest(kept: Any, present: Any = None) -> npt.NDArray[np.float64]:
        found = model.by_layer(kept, present)
        sets = [values for name, values in found.items() if name != "(run)"]
        return np.asarray(np.max(np.broadcast_arrays(*sets), axis=0), np.float64)

    return largest


def _numbers(key: CallKey) -> float:
    return float(sum(prod(shape) for shape in (*key.inputs, *key.outputs)))

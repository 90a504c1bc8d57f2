"""What choices of widths and blocks cost in one format, before any file of them is made.

Sizes are fitted to some files, memory follows from working sets, times come from a device's table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.devices import DeviceTimes
from compress.measure.latency_table import CallTime, LatencyTable
from compress.measure.latency_table.measuring import Convert
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import TimedCalls, some_choices, thinner_nets
from compress.prune.channels.selection.target import Priced

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling, Mask
    from compress.prune.channels.selection.allowed import Allowed
    from compress.prune.channels.selection.times import TimeModel
    from compress.shrinking.case import Case
    from compress.shrinking.net import DenseFiles

Numbers = npt.NDArray[np.float64]
EXACT = ("macs", "params")
"""Costs that are counted: nothing is to be put right."""
NETS = 6
"""Files that are made for the fit: what they tell has three unknowns,"""
SHALLOW = 3
"""and so many more where blocks may leave: there are four then."""


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
        """Count kept units; what lies in a block that leaves is gone with it."""
        kept = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
        return cls(kept, presence(coupling, dropped) if dropped else None)


def presence(coupling: Coupling, dropped: Sequence[Block]) -> npt.NDArray[np.int64]:
    """Return 1 for each block that stays, (blocks,); what lies in one that leaves is gone too."""
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
        """Return what a choice costs, by name."""
        return {
            name: self.factors.get(name, 1.0) * float(cost(choice.kept, choice.present))
            for name, cost in self.of.items()
        }

    def share_of(self, goals: Mapping[str, float]) -> Priced:
        """Return the cost that several goals come to: the largest share of one that is used.

        Args:
            goals: What must not be passed, by name.

        Returns:
            A function of kept units and present blocks; 1 meets all goals, one of them just so.
        """
        scales = {name: self.factors.get(name, 1.0) / goal for name, goal in goals.items()}

        def share(kept: Any, present: Any) -> Numbers:
            return _largest(
                np.asarray(self.of[name](kept, present)) * scale for name, scale in scales.items()
            )

        return share

    def put_right(self, choice: Choice, measured: Mapping[str, float]) -> Estimates:
        """Return estimates that are right about one choice; what is counted stays."""
        own = {
            name: measured[name] / float(self.of[name](choice.kept, choice.present))
            for name in measured
            if name not in EXACT
        }
        return replace(self, factors={**self.factors, **own})


def file_sizes_of(
    coupling: Coupling,
    allowed: Allowed,
    blocks: Sequence[Block],
    convert: Convert,
    format: str,
    dense: DenseFiles,
    seed: int,
) -> Priced:
    """Fit the bytes of a file: so many, and a share of each parameter, channel and weight tensor.

    Channels are counted by the weights that have one entry each (biases, normalizations); tensors
    because each has a record in the file, however small it becomes, until its block leaves.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Those that may leave.
        convert: Writes files of models.
        format: Of the files.
        dense: The model's own files: the fit is right about the one of the format.
        seed: Of the nets that are drawn.

    Returns:
        A function of kept units and present blocks -> bytes.

    Raises:
        RunFailed: A net could not be converted.
    """
    costs = CostModel.of(coupling)
    kept = some_choices(allowed, NETS, seed)
    dropped: list[tuple[Block, ...]] = [()] * NETS
    if blocks:
        kept = np.concatenate([kept, some_choices(allowed, SHALLOW, seed)])
        # all of the blocks leave, then about half of them
        leaves = np.random.default_rng(seed).random((SHALLOW, len(blocks))) < 0.5
        leaves[0] = True
        dropped += [tuple(blocks[int(place)] for place in np.flatnonzero(row)) for row in leaves]
    present = np.stack([presence(coupling, left) for left in dropped])
    with tempfile.TemporaryDirectory() as folder:
        files = convert(thinner_nets(coupling, kept, dropped), Path(folder), format)
        missing = [item for item in files if isinstance(item, str)]
        if missing:
            raise RunFailed(f"A thinner net could not be converted to {format}: {missing[0]}")
        sizes = np.array([Path(item).stat().st_size for item in files], np.float64)
    sizes += [dense.beside_of(format, int(count)) for count in costs.variables(kept, present)]
    counted = [costs.params, costs.vectors, *([costs.variables] if blocks else [])]

    def columns(counts: Any, present: Any) -> Numbers:
        found = [np.asarray(count(counts, present)) for count in counted]
        return np.stack([np.ones_like(found[0]), *found], -1)

    from scipy.optimize import nnls

    design = columns(kept, present)
    # a column may be all zeros: a model without biases
    scale = np.maximum(design.max(0), 1.0)
    found = nnls(design / scale, sizes)[0] / scale
    error = dense.sizes[format] - float(columns(coupling.whole, None) @ found)

    def size(counts: Any, present: Any = None) -> Numbers:
        return np.asarray(columns(counts, present) @ found + error)

    return size


def working_sets(coupling: Coupling, allowed: Allowed, blocks: Sequence[Block]) -> Priced:
    """Return what grows with the arena: the most numbers that one call reads and makes.

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
    rows = tuple(
        CallTime(key, float(sum(map(prod, (*key.inputs, *key.outputs)))), 0.0, 1, 0, 0)
        for key in calls.models()
    )
    model = calls.times(LatencyTable("", "", 1, "", 0.0, 0.0, rows))

    def largest(kept: Any, present: Any = None) -> Numbers:
        sets = model.by_layer(kept, present)
        return _largest(values for name, values in sets.items() if name != "(run)")

    return largest


def _largest(values: Iterable[Any]) -> Numbers:
    return np.asarray(np.max(np.broadcast_arrays(*values), axis=0), np.float64)


def device_times(case: Case) -> DeviceTimes | None:
    """Return the times of the device that a latency is of; None: it is of this machine.

    Args:
        case: The model, and the plan that names the table.

    Raises:
        InputError: The file is no such table, or not of this model and these formats.
    """
    plan = case.plan
    if plan.goal.latency_table is None:
        return None
    found = DeviceTimes.load(plan.goal.latency_table)
    for format in dict.fromkeys([plan.first, *plan.export.steering]):
        time_model(found, case, format)
    return found


def time_model(device: DeviceTimes, case: Case, format: str) -> TimeModel:
    """Return how a model's time on a device follows from what stays of it.

    Args:
        device: What was timed there.
        case: The model, and the plan that says which widths and blocks may leave.
        format: Of the files.

    Raises:
        InputError: Files of this format, or calls of this model, were not timed.
    """
    return device.times(case.coupling, *choices_of(case), format)


def choices_of(case: Case) -> tuple[Allowed, Sequence[Block]]:
    """Return which channel counts the groups of a model may have, and which blocks may leave."""
    options = case.plan.channels
    allowed = allowed_for(case.coupling, options, ladder(options)[-1])
    return allowed, blocks_of(case.coupling) if options.blocks else ()


def device_error(case: Case) -> float | None:
    """Return the mean relative error of estimates on whole models that a table had not seen.

    None where no whole models were timed on the device, or it is this machine.
    """
    if case.device is None:
        return None
    found = time_model(case.device, case, case.plan.first).calibration
    return found.error if found.nets else None

"""Cost estimates of pruning configurations in one format, before a file is written.

Sizes are fitted to a few files, memory is estimated from working sets, and latencies come from a
table of layer times.
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
from compress.measure.latency_table.measurement import Convert
from compress.prune.channels.coupling.blocks import Block, list_blocks
from compress.prune.channels.selection.allowed_counts import (
    AllowedCounts,
    Selection,
    compute_allowed_counts,
    list_rounding_steps,
)
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.latency_measurement import (
    TimedCalls,
    build_pruned_models,
    sample_kept_counts,
)
from compress.prune.channels.selection.target import CostFunction

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.latency_model import LatencyModel
    from compress.shrinking.candidate import OriginalFiles
    from compress.shrinking.compression_job import CompressionJob

Numbers = npt.NDArray[np.float64]
EXACT = ("macs", "params")
"""Costs that are counted exactly and need no calibration."""
FIT_FILES = 6
"""Number of files for the size fit, which has three unknowns."""
BLOCK_FIT_FILES = 3
"""Number of additional files if blocks may be removed: the fit then has four unknowns."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """Pruning configuration, as cost functions take it.

    Attributes:
        kept: Number of kept removable units of each group, (groups,).
        present: 1 for each kept block, 0 for removed ones, (blocks,); None: all are kept.
    """

    kept: npt.NDArray[np.int64]
    present: npt.NDArray[np.int64] | None

    @classmethod
    def from_selection(cls, coupling: Coupling, selection: Selection) -> Configuration:
        """Return the configuration of a selection, with the blocks nested in removed ones.

        Args:
            coupling: Coupling groups of the model.
            selection: Its kept units and removed blocks.
        """
        mask, blocks = selection.mask, selection.removed_blocks
        kept = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
        return cls(kept, encode_present_blocks(coupling, blocks) if blocks else None)


def encode_present_blocks(
    coupling: Coupling, removed_blocks: Sequence[Block]
) -> npt.NDArray[np.int64]:
    """Return 1 for each kept block, else 0, (blocks,); blocks in a removed one are removed, too.

    Args:
        coupling: Coupling groups of the model.
        removed_blocks: Blocks that are removed.
    """
    present = np.ones(len(list_blocks(coupling)), np.int64)
    for block in removed_blocks:
        present[[block.index, *block.inner]] = 0
    return present


@dataclass(frozen=True, eq=False)
class CostEstimates:
    """Cost estimates of pruning configurations, by name, calibrated with measurements.

    Attributes:
        cost_functions: Functions of kept units and present blocks: ms, bytes or counts.
        factors: Measured cost divided by estimated cost, for costs that were measured.
    """

    cost_functions: Mapping[str, CostFunction]
    factors: Mapping[str, float] = field(default_factory=dict)

    def estimate_costs(self, configuration: Configuration) -> dict[str, float]:
        """Return the estimated costs of a configuration, by name.

        Args:
            configuration: The configuration.
        """
        return {
            name: self.factors.get(name, 1.0)
            * float(cost(configuration.kept, configuration.present))
            for name, cost in self.cost_functions.items()
        }

    def combine_goals(self, goals: Mapping[str, float]) -> CostFunction:
        """Return a combined cost of several goals: the largest used share of a goal.

        Args:
            goals: Limit of each cost, by name.

        Returns:
            A function of kept units and present blocks. Up to 1 all goals are met; at 1 one of them
            is met exactly.
        """
        scales = {name: self.factors.get(name, 1.0) / goal for name, goal in goals.items()}

        def compute_share(kept: Any, present: Any) -> Numbers:
            return _take_largest(
                np.asarray(self.cost_functions[name](kept, present)) * scale
                for name, scale in scales.items()
            )

        return compute_share

    def calibrate(
        self, configuration: Configuration, measured: Mapping[str, float]
    ) -> CostEstimates:
        """Return estimates that match the measured costs of one configuration.

        Args:
            configuration: The configuration.
            measured: Its measured costs, by name; counted ones are ignored.
        """
        corrections = {
            name: measured[name]
            / float(self.cost_functions[name](configuration.kept, configuration.present))
            for name in measured
            if name not in EXACT
        }
        return replace(self, factors={**self.factors, **corrections})


def fit_file_sizes(
    coupling: Coupling,
    allowed: AllowedCounts,
    blocks: Sequence[Block],
    convert: Convert,
    format: str,
    original_files: OriginalFiles,
    seed: int,
) -> CostFunction:
    """Fit the size of a file: a constant plus a share of parameters, channels and weight tensors.

    Channels are counted by weights with one entry per channel (biases, normalizations). Tensors
    count because each has an entry in the file, whatever its size, until its block is removed.

    Args:
        coupling: Coupling groups of the model.
        allowed: Allowed channel counts of the groups.
        blocks: Removable blocks.
        convert: Function that writes files of models.
        format: Format of the files.
        original_files: Files of the original model; the fit matches its file in this format.
        seed: Seed of the sampled configurations.

    Returns:
        A function of kept units and present blocks -> bytes.

    Raises:
        RunFailed: A pruned model could not be converted.
    """
    costs = CostModel.from_coupling(coupling)
    kept = sample_kept_counts(allowed, FIT_FILES, seed)
    dropped: list[tuple[Block, ...]] = [()] * FIT_FILES
    if blocks:
        kept = np.concatenate([kept, sample_kept_counts(allowed, BLOCK_FIT_FILES, seed)])
        # one configuration without any of the blocks, the others without about half of them
        is_removed = np.random.default_rng(seed).random((BLOCK_FIT_FILES, len(blocks))) < 0.5
        is_removed[0] = True
        dropped += [
            tuple(blocks[int(index)] for index in np.flatnonzero(row)) for row in is_removed
        ]
    present = np.stack(
        [encode_present_blocks(coupling, removed_blocks) for removed_blocks in dropped]
    )
    with tempfile.TemporaryDirectory() as folder:
        files = convert(build_pruned_models(coupling, kept, dropped), Path(folder), format)
        missing = [item for item in files if isinstance(item, str)]
        if missing:
            raise RunFailed(f"A pruned model could not be converted to {format}: {missing[0]}")
        sizes = np.array([Path(item).stat().st_size for item in files], np.float64)
    sizes += [
        original_files.estimate_overhead(format, int(count))
        for count in costs.variables(kept, present)
    ]
    counters = [costs.params, costs.vectors, *([costs.variables] if blocks else [])]

    def build_design(counts: Any, present: Any) -> Numbers:
        coefficients = [np.asarray(count(counts, present)) for count in counters]
        return np.stack([np.ones_like(coefficients[0]), *coefficients], -1)

    from scipy.optimize import nnls

    design = build_design(kept, present)
    # a column may be all zeros: a model without biases
    scale = np.maximum(design.max(0), 1.0)
    coefficients = nnls(design / scale, sizes)[0] / scale
    error = original_files.sizes[format] - float(
        build_design(coupling.removable_counts, None) @ coefficients
    )

    def predict_size(counts: Any, present: Any = None) -> Numbers:
        return np.asarray(build_design(counts, present) @ coefficients + error)

    return predict_size


def build_memory_cost(
    coupling: Coupling, allowed: AllowedCounts, blocks: Sequence[Block]
) -> CostFunction:
    """Return a proxy of the arena size: the largest number of values read and written by a call.

    Inputs and outputs of a call are in memory together, so this is a lower bound. It excludes
    tensors that are kept for later calls (the other side of a sum) and the scratch memory of
    kernels. Calibration with the arena of a file corrects for these.

    Args:
        coupling: Coupling groups of the model.
        allowed: Allowed channel counts of the groups.
        blocks: Removable residual branches.

    Returns:
        A function of kept units and present blocks -> number of values.

    Raises:
        InputError: An input size is unknown.
    """
    calls = TimedCalls(coupling, allowed, blocks)
    # interpolated between channel counts as latencies are: tensor sizes are linear in each count
    rows = tuple(
        CallTime(key, float(sum(map(prod, (*key.inputs, *key.outputs)))), 0.0, 1, 0, 0)
        for key in calls.list_model_makers()
    )
    model = calls.build_latency_model(LatencyTable("", "", 1, "", 0.0, 0.0, rows))

    def find_largest(kept: Any, present: Any = None) -> Numbers:
        sets = model.predict_by_layer(kept, present)
        return _take_largest(values for name, values in sets.items() if name != "(run)")

    return find_largest


def _take_largest(values: Iterable[Any]) -> Numbers:
    return np.asarray(np.max(np.broadcast_arrays(*values), axis=0), np.float64)


def load_device_times(job: CompressionJob) -> DeviceTimes | None:
    """Return the layer times of a remote device, or None if the latency is of this machine.

    Args:
        job: The model, and the plan with the path of the latency table.

    Raises:
        InputError: The file is not a latency table, or not of this model and these formats.
    """
    plan = job.plan
    if plan.goal.latency_table is None:
        return None
    times = DeviceTimes.load(plan.goal.latency_table)
    for format in dict.fromkeys([plan.float_format, *plan.export.candidate_formats]):
        build_latency_model(times, job, format)
    return times


def build_latency_model(device: DeviceTimes, job: CompressionJob, format: str) -> LatencyModel:
    """Return a latency model of pruned models on a device.

    Args:
        device: Times measured on the device.
        job: The model, and the plan with the allowed channel counts and removable blocks.
        format: Format of the files.

    Raises:
        InputError: Files of this format, or calls of this model, were not timed.
    """
    return device.times(job.coupling, *find_allowed_counts(job), format)


def find_allowed_counts(job: CompressionJob) -> tuple[AllowedCounts, Sequence[Block]]:
    """Return the allowed channel counts of the groups of a model, and the removable blocks.

    Args:
        job: The model, and the plan with the section channels.
    """
    options = job.plan.channels
    allowed = compute_allowed_counts(job.coupling, options, list_rounding_steps(options)[-1])
    return allowed, list_blocks(job.coupling) if options.blocks else ()


def read_device_error(job: CompressionJob) -> float | None:
    """Return the mean relative error of a latency table's estimates on held-out whole models.

    None without whole models timed on the device, or if the latency is of this machine.

    Args:
        job: The model, with its latency table.
    """
    if job.device_times is None:
        return None
    calibration = build_latency_model(job.device_times, job, job.plan.float_format).calibration
    return calibration.error if calibration.nets else None

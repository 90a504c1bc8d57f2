"""Search for a pruning configuration that meets a goal, corrected by measuring its file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.counting import count_macs
from compress.measure.footprint import measure_arena_bytes
from compress.measure.latency import Entry, time_entries
from compress.plan.output import ONNX_FORMATS
from compress.prune.channels.criteria import Context, resolve_criterion
from compress.prune.channels.selection.allowed_counts import TOLERANCE, Selection
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.latency_measurement import (
    TimedCalls,
    measure_local_latencies,
)
from compress.prune.channels.selection.latency_model import LatencyModel
from compress.prune.channels.selection.selector import ChannelSelector
from compress.prune.channels.surgery import build_pruned_model
from compress.run.directory import LOG
from compress.shrinking.candidate import OriginalFiles, write_candidate_file
from compress.shrinking.estimates import (
    Configuration,
    CostEstimates,
    build_latency_model,
    build_memory_cost,
    find_allowed_counts,
    fit_file_sizes,
)
from compress.shrinking.goals import FILES, build_goal_error
from compress.shrinking.variations import RECIPE, Variation

if TYPE_CHECKING:
    import keras

    from compress.shrinking.compression_job import CompressionJob

NEAR = 0.03
"""Tolerance: a file within this share below its goal is close enough."""
AIM = 0.99
"""Share of a goal to aim at after the estimates are calibrated, because latencies vary."""
ROUNDS = 5
MORE_ROUNDS = 7
"""Further rounds if no file has met the goal."""
OTHERS = ("float16", "dynamic", "int8")
"""Alternative formats to suggest if a size is missed: those with fast conversion."""
OTHERS_ONNX = ("onnx_int8",)
"""Alternative formats of ONNX files."""
PRECISION = 0.01
"""Relative half-width of the confidence interval at which timing stops."""
SECONDS = 15.0
REACH_MARGIN = 0.1
"""Share by which the smallest model must exceed a latency to refuse it without timing layers."""
ONNX_SPREAD = 0.005
"""Relative spread in size of ONNX files of one model: their names contain counters."""


def _compute_aim(missed: int) -> float:
    """Return the share of a goal to aim at after a number of files above the goal.

    Calibration by a factor converges slowly if much of a cost does not depend on channel counts,
    so each further miss lowers the aim.
    """
    return AIM * (1 - NEAR) ** max(0, missed - 1)


@dataclass(frozen=True)
class FittedSelection:
    """Pruning configuration whose file meets the goals.

    Attributes:
        selection: Kept channels and removed blocks.
        estimates: Calibrated estimates that selected it.
        costs: Measured and counted costs of its file.
        used_share: Largest used share of a goal.
        rounds: Number of files that were measured.
    """

    selection: Selection
    estimates: CostEstimates
    costs: dict[str, float]
    used_share: float
    rounds: int


@dataclass(eq=False)
class GoalFitter:
    """Search for pruning configurations; measurements are shared by all goals and formats.

    Attributes:
        job: The model.
        original_files: Files of the original model, against which other files are timed.
        folder: Folder of these files.
    """

    job: CompressionJob
    original_files: OriginalFiles
    folder: Path
    _estimates: dict[str, CostEstimates] = field(default_factory=dict)
    _selectors: dict[str, ChannelSelector] = field(default_factory=dict)

    def build_estimates(self, format: str, latency: float = math.inf) -> CostEstimates:
        """Return the cost estimates of files in a format; times and sizes are measured once.

        Args:
            format: Format of the files.
            latency: Limit in ms that is checked before layers are timed; default: none.

        Raises:
            OutOfReach: The smallest model is clearly slower than the limit.
        """
        if format not in self._estimates:
            job, plan, coupling = self.job, self.job.plan, self.job.coupling
            costs = CostModel.from_coupling(coupling)
            cost_functions: dict[str, Any] = {"params": costs.params}
            if costs.has_macs:
                cost_functions["macs"] = costs.macs
            goals = plan.goal
            allowed, blocks = find_allowed_counts(job)
            if goals.size is not None:
                cost_functions["size"] = fit_file_sizes(
                    coupling,
                    allowed,
                    blocks,
                    write_latency_files,
                    format,
                    self.original_files,
                    plan.seed,
                )
            if goals.peak_memory is not None:
                cost_functions["peak_memory"] = build_memory_cost(coupling, allowed, blocks)
            if job.device_times is not None:
                cost_functions["latency"] = build_latency_model(job.device_times, job, format)
            elif goals.latency is not None or not goals.costs:
                job.context.on_progress(f"timing layers, {format}", 0.0)
                calls = TimedCalls(coupling, allowed, blocks)
                times = measure_local_latencies(
                    calls,
                    coupling,
                    allowed,
                    write_latency_files,
                    runtime=plan.runtime,
                    format=format,
                    threads=plan.latency.threads,
                    seed=plan.seed,
                    # without a block a model may be faster than the smallest that is timed
                    check_models=None if blocks else partial(self._check_reach, format, latency),
                    on_progress=job.context.on_progress,
                ).build_latency_model(calls)
                for text in times.estimated:
                    LOG.info("note: time of %s", text)
                cost_functions["latency"] = times
            self._estimates[format] = CostEstimates(cost_functions)
        return self._estimates[format]

    def _check_reach(self, format: str, latency: float, model_ms: npt.NDArray[np.float64]) -> None:
        """Check that the smallest model is not clearly slower than a limit.

        Args:
            format: Format of the files.
            latency: Limit in ms.
            model_ms: Latency of models in ms, the smallest first and the original last.
        """
        least = self.original_files.times[format] * float(model_ms[0] / model_ms[-1])
        if least > (1 + REACH_MARGIN) * latency:
            raise build_goal_error(
                format, {"latency": latency}, {"latency": least}, self.job.plan.channels
            )

    def estimate_device_ms(self, selection: Selection, formats: Sequence[str]) -> dict[str, float]:
        """Return the estimated ms by format on the device of a latency table; {} without one.

        Args:
            selection: Pruning configuration.
            formats: Formats of the files.
        """
        if self.job.device_times is None:
            return {}
        configuration = Configuration.from_selection(self.job.coupling, selection)
        return {
            name: self.build_estimates(name).estimate_costs(configuration)["latency"]
            for name in formats
        }

    def estimate_layer_ms(self, selection: Selection, format: str) -> dict[str, dict[str, float]]:
        """Return the milliseconds of each layer before and after; {} without a latency model.

        Args:
            selection: Pruning configuration.
            format: Format of the files.
        """
        times = self.build_estimates(format).cost_functions.get("latency")
        if not isinstance(times, LatencyModel):
            return {}
        unit_counts = np.array([len(group.units) for group in self.job.coupling.groups])
        configurations = {
            "before": Configuration(unit_counts, None),
            "after": Configuration.from_selection(self.job.coupling, selection),
        }
        return {
            side: {
                name: float(ms)
                for name, ms in times.predict_by_layer(item.kept, item.present).items()
            }
            for side, item in configurations.items()
        }

    def build_selector(
        self, goals: Mapping[str, float], estimates: CostEstimates, variation: Variation
    ) -> ChannelSelector:
        """Return the selector of channel counts for a criterion, created once per criterion.

        With the plan's criterion, configurations near the first selected one are evaluated as whole
        models. With the criterion of a variation they are not: its candidate is evaluated anyway.

        Args:
            goals: Limit of each cost, by name.
            estimates: Cost estimates.
            variation: Changes to the default recipe.
        """
        name = variation.criterion or self.job.plan.channels.ranking_criterion
        if name not in self._selectors:
            job, options = self.job, self.job.plan.channels
            criterion_context = Context(job.coupling, data=job.context.data, seed=job.plan.seed)
            selector = ChannelSelector.from_measurement(
                job.coupling,
                options,
                resolve_criterion(name)[1],
                criterion_context,
                job.context.on_progress,
            )
            if name == options.ranking_criterion:
                selector = selector.refine(
                    1.0, estimates.combine_goals(goals), job.context.on_progress
                )
            self._selectors[name] = selector
        if variation.temperature == 1.0:
            return self._selectors[name]
        return self._selectors[name].apply_power(variation.temperature)

    def fit(
        self, format: str, goals: Mapping[str, float], variation: Variation = RECIPE
    ) -> FittedSelection:
        """Select channel counts and blocks, measure the file, and correct until it meets the goal.

        Args:
            format: Format whose file must meet the goals.
            goals: Limit of each cost of the file, by name.
            variation: Changes to the default recipe.

        Raises:
            OutOfReach: No configuration meets the goals.
            RunFailed: A pruned model could not be converted, or no call could be timed.
        """
        estimates = self.build_estimates(format, goals.get("latency", math.inf))
        selector = self.build_selector(goals, estimates, variation)
        # files cannot be timed on a remote device, so its latency is only estimated
        estimated_costs = goals.keys() & (set() if self.job.device_times is None else {"latency"})
        best: FittedSelection | None = None
        nearest_costs: dict[str, float] = {}
        measured: set[tuple[bytes, tuple[int, ...]]] = set()
        aim, missed, is_thinnest, nearest_share = 1.0, 0, False, np.inf
        for count in range(1, ROUNDS + MORE_ROUNDS + 1):
            if count > ROUNDS and best is not None:
                break
            # how many files it takes is not known: a constant share shows no time left
            self.job.context.on_progress(f"choosing for {format}, file {count}", 0.5)
            share = estimates.combine_goals(goals)
            selection = selector.select(aim, share)
            # the configuration closest to the aim may exceed it although smaller ones exist
            is_thinnest = (
                selection.allocation.cost > aim * (1 + TOLERANCE)
                and selector.select(aim / 2, share).key == selection.key
            )
            if selection.key in measured:
                if best is not None or is_thinnest:
                    break  # channel counts are discrete: no other configuration is closer
                missed += 1
                aim = _compute_aim(missed)
                continue
            measured.add(selection.key)
            small = build_pruned_model(self.job.coupling, selection.mask, selection.removed_blocks)
            configuration = Configuration.from_selection(self.job.coupling, selection)
            costs = self._measure_costs(small, format, goals.keys() - estimated_costs)
            costs |= {key: estimates.estimate_costs(configuration)[key] for key in estimated_costs}
            used_share = max(costs[key] / goal for key, goal in goals.items())
            if used_share <= 1.0 and (best is None or used_share > best.used_share):
                best = FittedSelection(selection, estimates, costs, used_share, count)
            if 1 - NEAR <= used_share <= 1.0:
                break
            if used_share > 1.0:
                if used_share < nearest_share:
                    nearest_costs, nearest_share, nearest_model = costs, used_share, small
                if is_thinnest:
                    break
                missed += 1
            estimates, aim = estimates.calibrate(configuration, costs), _compute_aim(missed)
        if best is None:
            tried = None if is_thinnest else len(measured)
            raise build_goal_error(
                format,
                goals,
                nearest_costs,
                self.job.plan.channels,
                tried,
                self._measure_other_formats(nearest_model, format, goals, nearest_costs),
            )
        return replace(best, rounds=len(measured))

    def _measure_other_formats(
        self, model: Any, format: str, goals: Mapping[str, float], costs: Mapping[str, float]
    ) -> dict[str, dict[str, float]]:
        """Return the missed costs of a model in other file formats.

        Args:
            model: The model closest to the goals.
            format: Format of its file.
            goals: Limit of each cost, by name.
            costs: Costs of its file.

        Returns:
            The missed costs by format; {} if one of them does not depend on the format or is a
            latency, which would have to be measured.
        """
        missed = [key for key, goal in goals.items() if costs[key] > goal]
        if not set(missed) <= {"size", "peak_memory"}:
            return {}
        costs_by_format = {}
        for other_format in OTHERS_ONNX if format in ONNX_FORMATS else OTHERS:
            if other_format != format:
                try:
                    costs_by_format[other_format] = self._measure_costs(model, other_format, missed)
                except (RunFailed, MissingDependency) as error:
                    LOG.info("note: no %s file of the nearest model: %s", other_format, error)
        return costs_by_format

    def _measure_costs(
        self, model: keras.Model, format: str, names: Collection[str]
    ) -> dict[str, float]:
        """Return costs of a model, counted or measured on its file.

        Args:
            model: A model; its weights do not affect costs.
            format: Format of the file.
            names: Costs among "latency" (ms, from the ratio to the original file), "size" and
                "peak_memory" (bytes), "macs" and "params".

        Raises:
            RunFailed: The model could not be converted, or its file cannot be run.
        """
        measured: dict[str, float] = {}
        if {"macs", "params"} & set(names):
            counted = count_macs(model, self.job.input_shape)
            measured = {"macs": float(counted.macs), "params": float(counted.params)}
        if FILES & set(names):
            with tempfile.TemporaryDirectory() as folder:
                file = write_candidate_file(model, format, Path(folder), shipped="size" in names)
                spread = ONNX_SPREAD if format in ONNX_FORMATS else 0.0
                measured["size"] = (1 + spread) * file.stat().st_size
                try:
                    if "peak_memory" in names:
                        measured["peak_memory"] = float(measure_arena_bytes(file))
                    if "latency" in names:
                        measured["latency"] = self.original_files.ms / self._measure_ratio(file)
                except InputError as error:  # not the user's file
                    raise RunFailed(
                        f"A pruned model's {format} file cannot be run: {error}"
                    ) from None
        return {name: measured[name] for name in names}

    def _measure_ratio(self, file: Path) -> float:
        """Return the latency of the original float32 file divided by that of a file."""
        plan = self.job.plan
        latencies = time_entries(
            {
                "dense": Entry(
                    self.folder / self.original_files.file, plan.runtime, plan.latency.threads
                ),
                "small": Entry(file, plan.runtime, plan.latency.threads),
            },
            precision=PRECISION,
            budget=min(SECONDS, plan.latency.budget),
            seed=plan.seed,
        )
        return latencies["small"].ratio

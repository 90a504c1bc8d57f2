"""Choice of the file to deploy: costs of all files, and which file meets the goal best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.statistics import Floats
from compress.data.tasks import has_unit
from compress.measure import formatting
from compress.measure.latency_record import Latency
from compress.measure.verdict import (
    MET,
    MISSED,
    STATES,
    WITHIN_NOISE,
    FileCandidate,
    find_worst_state,
    select_file,
)
from compress.run.compressed_model import Artifact
from compress.shrinking.goals import TITLES, MetricConstraint, format_cost

SLACK = 0.03
"""Tolerance of a latency target relative to the original's: ratios vary by as much. A target in
milliseconds has no tolerance."""


@dataclass(frozen=True)
class FileChoice:
    """Selection of the file to deploy.

    Attributes:
        chosen: The selected file.
        state: Whether its costs meet the goal, see `compress.measure.verdict`.
        lines: One line per cost goal, with the limit and the result.
        used_share: Largest share of a cost goal that the file uses; 1 without cost goals.
    """

    chosen: Artifact
    state: str
    lines: tuple[str, ...]
    used_share: float = 1.0


@dataclass(frozen=True)
class RemoteTimes:
    """Latencies on a remote device.

    Attributes:
        device: Name of the device, given by the user.
        original_ms: Measured latency of the original's float32 file.
        ms: Latencies by file id: measured for the original's files, else estimated.
        measured_ids: Ids of the files with measured latencies.
        error: Mean relative error of the estimates on held-out whole models; None: unknown.
    """

    device: str
    original_ms: float
    ms: Mapping[str, float]
    measured_ids: frozenset[str]
    error: float | None = None

    def describe_time(self, file: str) -> str:
        """Return the latency of a file, with its source.

        Args:
            file: Id of the file.
        """
        source = "estimated, not compared with whole models"
        if file in self.measured_ids:
            source = "measured"
        elif self.error is not None:
            source = f"estimated, {100 * self.error:.1f} % off on held-out models"
        return f"{format_cost('latency', self.ms[file])} on {self.device} ({source})"

    def estimate_worst_ms(self, file: str) -> float:
        """Return the upper bound of a file's latency: estimate plus error; infinity if unknown.

        Args:
            file: Id of the file.
        """
        if file in self.measured_ids:
            return self.ms[file]
        return math.inf if self.error is None else self.ms[file] * (1 + self.error)


@dataclass(frozen=True)
class Measurements:
    """Measurements of files, all from one session.

    Attributes:
        times: Latencies of all timed files; ratios refer to the original's file, see
            `compress.shrinking.file_evaluation.measure_stage`.
        memory: Bytes of LiteRT's arena by file, if known.
        relative: Whether the latency goal is relative. Then paired ratios are compared, which do
            not depend on the processor's clock rate.
        remote_times: Latencies on a remote device; None: the goal is for this machine.
        values: Validation metric per example by file, if known.
    """

    times: Mapping[str, Latency]
    memory: Mapping[str, int]
    relative: bool
    remote_times: RemoteTimes | None = None
    values: Mapping[str, Floats] = field(default_factory=dict)

    def collect_costs(self, artifact: Artifact) -> dict[str, float]:
        """Return the costs of a file: latency (ms, or relative to the original), bytes, counts.

        Args:
            artifact: The file.
        """
        costs = {
            "size": float(artifact.size_bytes),
            "macs": float(artifact.macs),
            "params": float(artifact.params),
        }
        if artifact.id in self.memory:
            costs["peak_memory"] = float(self.memory[artifact.id])
        if self.remote_times is not None:
            if artifact.id in self.remote_times.ms:
                ms = self.remote_times.ms[artifact.id]
                costs["latency"] = ms / self.remote_times.original_ms if self.relative else ms
        elif artifact.id in self.times:
            time = self.times[artifact.id]
            costs["latency"] = 1.0 / time.ratio if self.relative else time.median_ms
        return costs

    def check_cost(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return whether a cost is "met", "met within noise" or "missed".

        Args:
            name: Name of the cost.
            artifact: The file.
            limit: Limit: a share or milliseconds for latency, else bytes or counts.
        """
        value = self.collect_costs(artifact).get(name, math.inf)
        if name != "latency":
            return MET if value <= limit else MISSED
        if self.relative:
            return MET if value <= limit * (1 + SLACK) else MISSED
        if value > limit:
            return MISSED
        remote_times = self.remote_times
        worst = (
            self.times[artifact.id].high_ms
            if remote_times is None
            else remote_times.estimate_worst_ms(artifact.id)
        )
        return MET if worst <= limit else WITHIN_NOISE

    def describe_cost(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return a line with a cost, its limit, and whether the limit is met.

        Args:
            name: Name of the cost.
            artifact: The file.
            limit: See `check_cost`.
        """
        value = self.collect_costs(artifact).get(name)
        if value is None:
            return f"{TITLES[name]}: not known, {MISSED}"
        value_text, limit_text = format_cost(name, value), format_cost(name, limit)
        if name == "latency":
            value_text = (
                formatting.format_latency(self.times[artifact.id])
                if self.remote_times is None
                else self.remote_times.describe_time(artifact.id)
            )
            if self.relative:
                value_text, limit_text = (
                    f"{value_text}, {value:.3g}x of the original's",
                    f"{limit:.3g}x",
                )
        state = self.check_cost(name, artifact, limit)
        return f"{TITLES[name]}: {value_text}, limit {limit_text}: {state}"


def choose_file(
    files: Sequence[Artifact],
    original: Artifact,
    measured: Measurements,
    limits: Mapping[str, float],
    constraint: MetricConstraint,
) -> FileChoice:
    """Choose the file to deploy, based on validation data and measured costs.

    Among the files that meet the cost goals (or, if none does, the closest file), the file is
    chosen by the rule of `compress.measure.verdict.select_file`.

    Args:
        files: Files of the original model and of all candidates.
        original: File that is the reference for drops.
        measured: Measurements of the files.
        limits: Limit of each cost, by name; a share for a relative latency goal.
        constraint: Constraint on the selection metric.
    """
    metric = constraint.metric
    order = tuple(dict.fromkeys((*limits, "latency", "size")))

    def to_candidate(item: Artifact) -> FileCandidate:
        costs = measured.collect_costs(item)
        known_costs = {name: costs.get(name, math.inf) for name in order}
        return FileCandidate(item.id, item.val[metric], known_costs, measured.values.get(item.id))

    def compute_used_share(item: Artifact) -> float:
        costs = measured.collect_costs(item)
        return max(
            (costs.get(name, math.inf) / limit for name, limit in limits.items()), default=1.0
        )

    states = {
        item.id: find_worst_state(
            [measured.check_cost(name, item, limit) for name, limit in limits.items()]
        )
        for item in files
    }
    best = next(state for state in STATES if state in states.values())
    eligible = (
        [min(files, key=compute_used_share)]
        if best == MISSED
        else [item for item in files if states[item.id] == best]
    )
    selected = select_file(
        [to_candidate(item) for item in eligible],
        original=to_candidate(original),
        limit=constraint.limit,
        unit=math.inf if has_unit(metric) else 1.0,
    )
    (chosen,) = (item for item in eligible if item.id == selected.id)
    lines = (measured.describe_cost(name, chosen, limit) for name, limit in limits.items())
    return FileChoice(chosen, best, tuple(lines), compute_used_share(chosen))

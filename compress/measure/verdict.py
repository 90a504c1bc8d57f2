"""Verdict on a smaller file, and selection of the file to ship.

A verdict compares the main metric of a file with the original's on test data, by the interval of
the difference. The selection uses validation data, with the same rule in `shrink`, `run` and
`compress`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.statistics import Difference, Floats, compare_examples, compute_mean_interval
from compress.measure import formatting
from compress.run.compressed_model import Artifact, read_example_values
from compress.run.directory import RunFolder
from compress.run.records import Record, find_unknown_value

MET, WITHIN_NOISE, MISSED = "met", "met within noise", "missed"
STATES = (MET, WITHIN_NOISE, MISSED)
TEST = "test"
_ROUNDING = 1e-9
NEAR = 0.005
"""A cheaper file may be this much worse than the best one: half a percentage point."""
SAME_TIME = 0.02
"""Latencies within this relative distance are equal: instances of one file differ as much."""


@dataclass(frozen=True)
class MetricLimit:
    """Limit of the main metric: a maximum drop from the original, or a minimum.

    Attributes:
        max_drop: Maximum drop in the unit of the metric (0.01: one percentage point). None: `floor`
            applies.
        floor: Minimum of the metric. None: `max_drop` applies.
    """

    max_drop: float | None = None
    floor: float | None = None

    def compute_margins(
        self, after: float, values: Floats | None, change: Difference | None
    ) -> Difference | None:
        """Return the distance of a file's metric from the limit with its 95 % interval.

        Positive values are better than the limit.

        Args:
            after: Metric of the file.
            values: Metric per example, see `compare_examples`, (n,); None: unknown.
            change: Difference from the original, see `compare_files`; None: unknown.

        Returns:
            None if the interval is unknown.
        """
        difference, shift = change, self.max_drop or 0.0
        if self.floor is not None:
            ends = compute_mean_interval(values) if values is not None else None
            difference, shift = None if ends is None else Difference(after, *ends), -self.floor
        if difference is None:
            return None
        return Difference(
            difference.estimate + shift, difference.low + shift, difference.high + shift
        )

    def can_be_proven(self, before: float, original: Floats | None) -> bool:
        """Return whether there are enough examples to prove that another file meets the limit.

        Args:
            before: Metric of the original.
            original: Metric of the original per example, (n,); None: unknown.
        """
        if original is None:
            return False
        no_change = compare_examples(original, original)
        margins = self.compute_margins(before, original, no_change)
        return margins is not None and margins.low >= -_ROUNDING

    def evaluate_state(self, after: float, before: float, margins: Difference | None) -> str:
        """Return "met", "met within noise" or "missed".

        Args:
            after, before: Metric of the file and of the original.
            margins: Result of `compute_margins`; None: the limit cannot be met with certainty.
        """
        if margins is not None and margins.low >= -_ROUNDING:
            return MET
        least = self.floor if self.floor is not None else before - (self.max_drop or 0.0)
        return WITHIN_NOISE if after >= least - _ROUNDING else MISSED

    def describe(self, metric: str) -> str:
        """Return the limit for reports: "limit -1 pp", "at least 92.00 %"."""
        if self.floor is not None:
            return f"at least {formatting.format_metric(metric, self.floor)}"
        return f"limit {formatting.format_change(metric, 0.0 - (self.max_drop or 0.0), short=True)}"


def compare_files(
    values: Floats | None, original: Floats | None, comparisons: int = 1
) -> Difference | None:
    """Return the difference of a file's metric from the original's on the same examples.

    Args:
        values, original: Metric per example, (n,), see `compress.core.statistics.compare_examples`.
            If both are the same object, the file is the original and the difference is 0.
        comparisons: Number of differences for which the interval must hold.

    Returns:
        None if values are unknown or belong to other examples.
    """
    if values is None or original is None or values.shape != original.shape:
        return None
    if values is original:
        return Difference(0.0, 0.0, 0.0)
    return compare_examples(values, original, comparisons=comparisons)


@dataclass(frozen=True)
class Verdict(Record):
    """The main metric of a file and of the original on test data.

    Test data were not used to select the file.

    Attributes:
        metric: Name of the metric.
        examples: Number of test examples.
        before, after: Metric of the original's file and of this file.
        low, high: 95 % interval of after - before on the same examples; None: unknown.
        limit: Requested limit as text; empty if there was none.
        state: One of `STATES`; empty if there was no limit.
    """

    metric: str
    examples: int
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    limit: str = ""
    state: str = ""

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        return find_unknown_value("state", self.state, STATES) if self.state else ""

    @property
    def line(self) -> str:
        """The verdict in one line."""
        change = formatting.format_change(self.metric, self.after - self.before)
        if self.low is not None and self.high is not None:
            low, high = (
                formatting.format_change(self.metric, end, unit=False)
                for end in (self.low, self.high)
            )
            change += f" [{low}, {high}]"
        text = (
            f"test {self.metric}: {formatting.format_metric(self.metric, self.before)} -> "
            f"{formatting.format_metric(self.metric, self.after)}, {change}"
        )
        return f"{text}, {self.limit}: {self.state}" if self.state else text


def build_verdict(
    metric: str,
    after: float,
    before: float,
    *,
    values: Floats | None,
    original: Floats | None,
    examples: int,
    limit: MetricLimit | None = None,
) -> Verdict:
    """Return the verdict on a file, from the difference of its metric from the original's.

    Args:
        metric: Name of the main metric.
        after, before: Metric of the file and of the original's file.
        values, original: Metric of both per example, (n,), see `compare_files`. None: unknown; then
            the state is never "met".
        examples: Number of test examples.
        limit: Requested limit.

    Example:
        >>> import numpy as np
        >>> original = np.ones(1000)
        >>> values = np.where(np.arange(1000) < 4, 0.0, 1.0)
        >>> verdict = build_verdict(
        ...     "accuracy", 0.996, 1.0, values=values, original=original, examples=1000,
        ...     limit=MetricLimit(max_drop=0.01),
        ... )
        >>> verdict.line
        'test accuracy: 100.00 % -> 99.60 %, -0.40 pp [-0.88, +0.08], limit -1 pp: met'
    """
    change = compare_files(values, original)
    low, high = (change.low, change.high) if change is not None else (None, None)
    state = shown = ""
    if limit is not None:
        state = limit.evaluate_state(after, before, limit.compute_margins(after, values, change))
        shown = limit.describe(metric)
    return Verdict(metric, examples, before, after, low, high, shown, state)


def build_artifact_verdict(
    folder: RunFolder, after: Artifact, before: Artifact, metric: str, limit: MetricLimit | None
) -> Verdict:
    """Return the verdict on an exported file of a run, on test data.

    Args:
        folder: The run's folder, which stores the metric per example.
        after, before: The file and the original's file; the same one if the file is the original.
        metric: Name of the main metric.
        limit: Requested limit; None: there was none.
    """
    original = read_example_values(folder, before.id, TEST)
    same = after.id == before.id
    return build_verdict(
        metric,
        after.test[metric],
        before.test[metric],
        values=original if same else read_example_values(folder, after.id, TEST),
        original=original,
        examples=after.tested or 0,
        limit=limit,
    )


@dataclass(frozen=True)
class Outcome(Record):
    """Result of a goal, as stored by `shrink` and shown in reports.

    Attributes:
        goal: The requested goal.
        met: Whether all parts of the goal were met beyond noise.
        chosen: Id of the file to ship.
        lines: One line per part of the goal: the request and the result.
        file: Path of the file to use, in the run's folder.
        notes: Further remarks.
        verdict: Metric before and after; None in records of older versions.
        state: One of `STATES`, of all parts together; empty in records of older versions.
    """

    goal: str
    met: bool
    chosen: str
    lines: tuple[str, ...]
    file: str
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = field(default=None)
    state: str = ""

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        if self.state and (wrong := find_unknown_value("state", self.state, STATES)):
            return wrong
        return "" if self.lines else "lines must say what came of the goal; received: none"

    @property
    def title(self) -> str:
        """The goal, and whether it was met."""
        state = self.state or (MET if self.met else MISSED)
        return f"{'GOAL MISSED' if state == MISSED else f'goal {state}'}: {self.goal}"


def find_worst_state(states: list[str]) -> str:
    """Return the worst of several states; "met" if there are none.

    Example:
        >>> find_worst_state(["met", "missed", "met within noise"])
        'missed'
    """
    return max((state for state in states if state), key=STATES.index, default=MET)


@dataclass(frozen=True)
class FileCandidate:
    """One exported file in the selection.

    Attributes:
        id: Id of the file.
        metric: Main metric on validation data.
        costs: Costs by name, the most important first; lower is better, infinity for an unknown
            cost.
        values: Metric per example, see `compress.data.tasks.Task.example_values`; None: unknown.
    """

    id: str
    metric: float
    costs: Mapping[str, float] = field(default_factory=dict)
    values: Floats | None = None


def select_file(
    candidates: Sequence[FileCandidate],
    *,
    original: FileCandidate | None = None,
    limit: MetricLimit | None = None,
    unit: float = 1.0,
) -> FileCandidate:
    """Return the file to ship, selected on validation data.

    With a limit it is the cheapest file whose 95 % interval lies within the limit, or the best file
    if no file other than the original has such an interval. Without a limit it is the cheapest of
    the files whose metric is at most `NEAR` below the best one and not significantly worse.

    Args:
        candidates: Files to choose from, at least one.
        original: The file that the limit compares with; None: each file is compared with itself.
        limit: Limit of the metric.
        unit: Scale of the metric: 1 for shares. Infinity for errors in their own unit, for which a
            fixed tolerance has no meaning: then only significance counts.

    Returns:
        One of the candidates.

    Example:
        >>> small = FileCandidate("small", 0.926, {"latency": 1.0})
        >>> large = FileCandidate("large", 0.930, {"latency": 4.0})
        >>> select_file([small, large]).id
        'small'
    """
    best = max(candidates, key=lambda item: (item.metric, *_negate_costs(item), item.id))
    if limit is not None:
        within_limit = [item for item in candidates if is_within_limit(item, original, limit)]
        proven = any(original is None or item.id != original.id for item in within_limit)
        return select_cheapest(within_limit) if proven else best
    close_candidates = [
        item
        for item in candidates
        if best.metric - item.metric <= NEAR * unit + 1e-9
        and not is_worse(item.values, best.values, len(candidates) - 1)
    ]
    return select_cheapest(close_candidates)


def is_within_limit(
    candidate: FileCandidate, original: FileCandidate | None, limit: MetricLimit
) -> bool:
    """Return whether the interval of a file's validation metric lies within a limit.

    Args:
        candidate: The file.
        original: The file that the limit compares with; None: the candidate itself.
        limit: Limit of the metric.
    """
    before = original or candidate
    values = candidate.values if candidate.id != before.id else before.values
    change = compare_files(values, before.values)
    margins = limit.compute_margins(candidate.metric, values, change)
    return limit.evaluate_state(candidate.metric, before.metric, margins) == MET


def select_cheapest(candidates: Sequence[FileCandidate]) -> FileCandidate:
    """Return the file with the lowest first cost; ties are broken by the next costs.

    Args:
        candidates: Files with the same costs, at least one. Latencies within `SAME_TIME` are equal.
            If all costs are equal, the file with the better metric is returned.
    """
    remaining = list(candidates)
    for name in candidates[0].costs:
        least = min(item.costs[name] for item in remaining)
        slack = SAME_TIME if name == "latency" else 0.0
        remaining = [item for item in remaining if item.costs[name] <= least * (1 + slack)]
    return max(remaining, key=lambda item: (item.metric, *_negate_costs(item), item.id))


def is_worse(values: Floats | None, best_values: Floats | None, comparisons: int) -> bool:
    """Return whether a file is significantly worse than another on the same examples.

    Args:
        values, best_values: Metric per example of both files, (n,), see
            `compress.core.statistics.compare_examples`; None: unknown. The answer is no if either
            is unknown or if they are of different examples.
        comparisons: Number of differences for which the interval must hold.
    """
    difference = compare_files(values, best_values, comparisons)
    return difference is not None and difference.high < 0


def _negate_costs(candidate: FileCandidate) -> list[float]:
    return [-cost for cost in candidate.costs.values()]

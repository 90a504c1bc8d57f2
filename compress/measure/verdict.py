"""Whether a smaller file is good enough, and which of several files ships.

A verdict compares the main metric of a file with the original's on test data, by an interval of the
change. The choice of a file, one rule for `shrink`, `run` and `compress`, sees validation data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.statistics import Difference, Floats, bound_mean, compare_examples
from compress.measure import formats
from compress.run.compressed import Artifact, read_example_values
from compress.run.directory import RunFolder
from compress.run.records import Record, unknown_value

MET, WITHIN_NOISE, MISSED = "met", "met within noise", "missed"
STATES = (MET, WITHIN_NOISE, MISSED)
TEST = "test"
_ROUNDING = 1e-9
NEAR = 0.005
"""A cheaper file may be estimated this much worse than the best one: half a percentage point."""
SAME_TIME = 0.02
"""Latencies closer than this count as equal: instances of one file differ as much."""


@dataclass(frozen=True)
class QualityLimit:
    """How good a file must stay: so much below the original at most, or at least so good.

    Attributes:
        max_drop: What the metric may lose, in its own unit (0.01: one percentage point); None:
            `floor` counts.
        floor: The least value of the metric; None: `max_drop` counts.
    """

    max_drop: float | None = None
    floor: float | None = None

    def margins(
        self, after: float, values: Floats | None, change: Difference | None
    ) -> Difference | None:
        """Return by how much a file is better than the limit asks, with the 95 % interval.

        Args:
            after: The metric of the file.
            values: The same by example, see `compare_examples`; None: not known.
            change: See `compare_files`.

        Returns:
            None where the interval is not known.
        """
        found, shift = change, self.max_drop or 0.0
        if self.floor is not None:
            ends = bound_mean(values) if values is not None else None
            found, shift = None if ends is None else Difference(after, *ends), -self.floor
        if found is None:
            return None
        return Difference(found.estimate + shift, found.low + shift, found.high + shift)

    def can_be_shown(self, before: float, original: Floats | None) -> bool:
        """Return whether there are examples enough to show that any other file is inside.

        Args:
            before: The metric of the original.
            original: The same by example; None: not known.
        """
        if original is None:
            return False
        alike = compare_examples(original, original)
        margins = self.margins(before, original, alike)
        return margins is not None and margins.low >= -_ROUNDING

    def state(self, after: float, before: float, margins: Difference | None) -> str:
        """Return "met", "met within noise" or "missed".

        Args:
            after, before: The metric of the file and of the original.
            margins: See `margins`; None: nothing can be said for sure.
        """
        if margins is not None and margins.low >= -_ROUNDING:
            return MET
        least = self.floor if self.floor is not None else before - (self.max_drop or 0.0)
        return WITHIN_NOISE if after >= least - _ROUNDING else MISSED

    def text(self, metric: str) -> str:
        """Return the limit as results show it: "limit -1 pp", "at least 92.00 %"."""
        if self.floor is not None:
            return f"at least {formats.quality(metric, self.floor)}"
        return f"limit {formats.change(metric, 0.0 - (self.max_drop or 0.0), short=True)}"


def compare_files(values: Floats | None, original: Floats | None) -> Difference | None:
    """Compare a file's metric with the original's on the same examples.

    Args:
        values, original: By example, see `compress.core.statistics.compare_examples`. The same
            object: the file is the original, and nothing changed.

    Returns:
        None where values are not known, or are of other examples.
    """
    if values is None or original is None or values.shape != original.shape:
        return None
    return Difference(0.0, 0.0, 0.0) if values is original else compare_examples(values, original)


@dataclass(frozen=True)
class Verdict(Record):
    """The main metric of a file beside that of the original, on test data, which selected neither.

    Attributes:
        metric: Its name.
        examples: Test examples.
        before, after: The metric of the original's file and of this one.
        low, high: 95 % interval of after - before on the same examples; None: not known.
        limit: What was asked for, as text; empty: nothing was.
        state: One of `STATES`; empty where nothing was asked for.
    """

    metric: str
    examples: int
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    limit: str = ""
    state: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return unknown_value("state", self.state, STATES) if self.state else ""

    @property
    def line(self) -> str:
        """The verdict in one line, the same wherever it is shown."""
        change = formats.change(self.metric, self.after - self.before)
        if self.low is not None and self.high is not None:
            low, high = (
                formats.change(self.metric, end, unit=False) for end in (self.low, self.high)
            )
            change += f" [{low}, {high}]"
        text = (
            f"test {self.metric}: {formats.quality(self.metric, self.before)} -> "
            f"{formats.quality(self.metric, self.after)}, {change}"
        )
        return f"{text}, {self.limit}: {self.state}" if self.state else text


def judge_file(
    metric: str,
    after: float,
    before: float,
    *,
    values: Floats | None,
    original: Floats | None,
    examples: int,
    limit: QualityLimit | None = None,
) -> Verdict:
    """Judge a file by the difference of its metric from the original's.

    Args:
        metric: Name of the main metric.
        after, before: The metric of the file and of the original's.
        values, original: The same by example, see `compare_files`; None where they are not known:
            nothing is then met for sure.
        examples: Test examples.
        limit: What was asked for.

    Example:
        >>> import numpy as np
        >>> original = np.ones(1000)
        >>> values = np.where(np.arange(1000) < 4, 0.0, 1.0)
        >>> verdict = judge_file(
        ...     "accuracy", 0.996, 1.0, values=values, original=original, examples=1000,
        ...     limit=QualityLimit(max_drop=0.01),
        ... )
        >>> verdict.line
        'test accuracy: 100.00 % -> 99.60 %, -0.40 pp [-0.87, +0.07], limit -1 pp: met'
    """
    change = compare_files(values, original)
    low, high = (change.low, change.high) if change is not None else (None, None)
    state = shown = ""
    if limit is not None:
        state = limit.state(after, before, limit.margins(after, values, change))
        shown = limit.text(metric)
    return Verdict(metric, examples, before, after, low, high, shown, state)


def judge_artifact(
    folder: RunFolder, after: Artifact, before: Artifact, metric: str, limit: QualityLimit | None
) -> Verdict:
    """Judge an exported file of a run beside the original's, on the test part.

    Args:
        folder: The run's, in which the metric by example is kept.
        after, before: The file, and that of the original; the same one where it is the original.
        metric: Name of the main metric.
        limit: What was asked for; None: nothing was.
    """
    original = read_example_values(folder, before.id, TEST)
    same = after.id == before.id
    return judge_file(
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
    """What came of a goal, as `shrink` writes it and reports show it.

    Attributes:
        goal: What was asked for.
        met: Whether all of it was met beyond noise.
        chosen: Id of the file that is shipped.
        lines: What was asked for and what came of it, one a goal.
        file: The file to use, in the run's folder.
        notes: What there is to know.
        verdict: The metric before and after; None in records of older versions.
        state: One of `STATES`: of all goals together; empty in records of older versions.
    """

    goal: str
    met: bool
    chosen: str
    lines: tuple[str, ...]
    file: str
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = field(default=None)
    state: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if self.state and (wrong := unknown_value("state", self.state, STATES)):
            return wrong
        return "" if self.lines else "lines must say what came of the goal; received: none"

    @property
    def title(self) -> str:
        """The goal, and whether it was met."""
        state = self.state or (MET if self.met else MISSED)
        head = "GOAL MISSED" if state == MISSED else f"goal {state}"
        return f"{head}: {self.goal}"


def worst_state(states: list[str]) -> str:
    """Return the worst of several states; "met" where there are none.

    Example:
        >>> worst_state(["met", "missed", "met within noise"])
        'missed'
    """
    return max((state for state in states if state), key=STATES.index, default=MET)


@dataclass(frozen=True)
class FileCandidate:
    """One exported file, as the choice sees it.

    Attributes:
        id: Of the file.
        quality: The main metric on validation data.
        costs: What it costs by name, the one that counts first in front; less is better. Where a
            cost is not known it is infinite.
        values: The metric by example, see `compress.data.tasks.Task.example_values`; None: unknown.
    """

    id: str
    quality: float
    costs: Mapping[str, float] = field(default_factory=dict)
    values: Floats | None = None


def select_file(
    candidates: Sequence[FileCandidate],
    *,
    original: FileCandidate | None = None,
    limit: QualityLimit | None = None,
    unit: float = 1.0,
) -> FileCandidate:
    """Select the file to ship by validation data.

    With a limit: the cheapest file whose 95 % interval lies inside it; where that is of none but
    the original itself, the best file. Without: the cheapest of the files that are estimated at
    most `NEAR` worse than the best one and cannot be told apart from it.

    Args:
        candidates: Files to choose from, at least one.
        original: The file that a limit compares with.
        limit: How good the file must stay.
        unit: Of the metric: 1 for shares; for errors in units of their own, which no half point
            means anything of, infinity (only what cannot be told apart counts).

    Returns:
        One of the candidates.

    Example:
        >>> small = FileCandidate("small", 0.926, {"latency": 1.0})
        >>> large = FileCandidate("large", 0.930, {"latency": 4.0})
        >>> select_file([small, large]).id
        'small'
    """
    best = max(candidates, key=lambda item: (item.quality, *_cheaper(item), item.id))
    if limit is not None:
        inside = [item for item in candidates if is_inside(item, original, limit)]
        proven = any(original is None or item.id != original.id for item in inside)
        return select_cheapest(inside) if proven else best
    near = [
        item
        for item in candidates
        if best.quality - item.quality <= NEAR * unit + 1e-9
        and not _is_worse(item, best, len(candidates) - 1)
    ]
    return select_cheapest(near)


def is_inside(
    candidate: FileCandidate, original: FileCandidate | None, limit: QualityLimit
) -> bool:
    """Return whether the interval of a file's validation metric lies inside a limit."""
    before = original or candidate
    values = candidate.values if candidate.id != before.id else before.values
    change = compare_files(values, before.values)
    margins = limit.margins(candidate.quality, values, change)
    return limit.state(candidate.quality, before.quality, margins) == MET


def select_cheapest(candidates: Sequence[FileCandidate]) -> FileCandidate:
    """Return the file that costs least by its first cost; of equal ones the next cost decides.

    Args:
        candidates: Files with the same costs, at least one. Latencies within `SAME_TIME` are equal;
            of files that cost the same in all the better one is taken.
    """
    left = list(candidates)
    for name in candidates[0].costs:
        least = min(item.costs[name] for item in left)
        slack = SAME_TIME if name == "latency" else 0.0
        left = [item for item in left if item.costs[name] <= least * (1 + slack)]
    return max(left, key=lambda item: (item.quality, *_cheaper(item), item.id))


def _is_worse(candidate: FileCandidate, best: FileCandidate, comparisons: int) -> bool:
    """Return whether validation data tell a file apart from the best one."""
    one, other = candidate.values, best.values
    if candidate is best or one is None or other is None or one.shape != other.shape:
        return False
    return compare_examples(one, other, comparisons=comparisons).high < 0


def _cheaper(candidate: FileCandidate) -> list[float]:
    return [-cost for cost in candidate.costs.values()]

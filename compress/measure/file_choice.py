"""Which of several exported files ships: one rule for `shrink`, `run` and `compress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.statistics import Floats, compare_examples
from compress.measure.verdict import MET, QualityLimit, compare_files

NEAR = 0.005
"""A cheaper file may be estimated this much worse than the best one: half a percentage point."""
SAME_TIME = 0.02
"""Latencies closer than this count as equal: instances of one file differ as much."""


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

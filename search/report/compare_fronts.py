"""Two runs against each other: hypervolume of both fronts, and where which one is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.pareto import Losses, front_mask, hypervolume, log_costs
from compress.core.statistics import Difference
from compress.report.live.charts import Axis
from search.study.front import MARGIN


@dataclass(frozen=True)
class Stretch:
    """Part of a cost in which the same run is better, or neither.

    Attributes:
        low, high: Of the cost, in its unit; `high` is infinity at the end.
        better: Place of the run, 0 or 1; None: neither is told apart from the other.
        most: By how much at most, in the quality's unit; infinity where the other has nothing
            that costs so little.
    """

    low: float
    high: float
    better: int | None
    most: float


@dataclass(frozen=True)
class Duel:
    """Two runs in one cost.

    Attributes:
        quality, cost: Axes.
        shares: Hypervolume of each front, as a share of the box that holds both.
        fronts: (cost, quality) of each front, by rising cost.
        stretches: By rising cost.
    """

    quality: Axis
    cost: Axis
    shares: tuple[float, float]
    fronts: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]
    stretches: tuple[Stretch, ...]


Compare = Callable[[str, str, int], Difference | None]
"""(id of a point of the first run, of the second, how many pairs are compared) -> the difference of
their qualities, first minus second; None: its error is not known."""


@dataclass(frozen=True, order=True)
class Point:
    """A point of a front.

    Attributes:
        cost: Above 0.
        quality: By which it is on the front.
        id: Of the file or candidate.
    """

    cost: float
    quality: float
    id: str = ""


def duel(
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    quality: Axis,
    cost: Axis,
    compare: Compare | None = None,
) -> Duel | None:
    """Compare two runs.

    Args:
        rows: `values` of the points of each run, and "id" of each.
        quality: What is better the higher it is.
        cost: What is better the lower it is, above 0.
        compare: Compares two points; what it cannot tell apart is a tie. None: only equal
            qualities are.

    Returns:
        The comparison; None where one of them has no point with both figures.

    Reference:
        Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms" (hypervolume). Costs count
        as logarithms; the reference lies a tenth of the range beyond the worst of both fronts.
    """
    first, second = (_select_front(part, quality.key, cost.key) for part in rows)
    if not first or not second:
        return None
    shares = _measure_shares(first, second)
    fronts = tuple(tuple((point.cost, point.quality) for point in part) for part in (first, second))
    stretches = _find_stretches(first, second, compare)
    return Duel(quality, cost, shares, (fronts[0], fronts[1]), stretches)


def _select_front(rows: Sequence[Mapping[str, Any]], quality: str, cost: str) -> tuple[Point, ...]:
    known = {
        Point(float(row[cost]), float(row[quality]), str(row.get("id", "")))
        for row in rows
        if row.get(cost) is not None and row.get(quality) is not None and row[cost] > 0
    }
    if not known:
        return ()
    points = sorted(known)
    kept = front_mask(np.array([(point.cost, -point.quality) for point in points]))
    front, seen = [], set()
    for point, keep in zip(points, kept, strict=True):
        if keep and (point.cost, point.quality) not in seen:  # of equal ones one is enough
            seen.add((point.cost, point.quality))
            front.append(point)
    return tuple(front)


def _measure_shares(first: Sequence[Point], second: Sequence[Point]) -> tuple[float, float]:
    each = [_losses(part) for part in (first, second)]
    both = np.concatenate(each)
    best, spread = both.min(0), np.ptp(both, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    edge = np.full(2, 1 + MARGIN)
    found = [hypervolume((part - best) / scale, edge) / float(edge.prod()) for part in each]
    return found[0], found[1]


def _losses(front: Sequence[Point]) -> Losses:
    costs = log_costs([point.cost for point in front])
    return np.stack([costs, [-point.quality for point in front]], axis=1)


def _find_stretches(
    first: Sequence[Point], second: Sequence[Point], compare: Compare | None
) -> tuple[Stretch, ...]:
    edges = sorted({point.cost for point in (*first, *second)})
    pairs = [(_find_best(first, low), _find_best(second, low)) for low in edges]
    comparisons = len({pair for pair in pairs if None not in pair})
    found: list[Stretch] = []
    for low, high, (a, b) in zip(edges, [*edges[1:], math.inf], pairs, strict=True):
        better, most = _find_better(a, b, compare, comparisons)
        if found and (found[-1].better, math.isinf(found[-1].most)) == (better, math.isinf(most)):
            found[-1] = Stretch(found[-1].low, high, better, max(found[-1].most, most))
        else:
            found.append(Stretch(low, high, better, most))
    return tuple(found)


def _find_best(front: Sequence[Point], cost: float) -> Point | None:
    """Return the best point for a cost; None where nothing costs so little."""
    reached = [point for point in front if point.cost <= cost]
    return max(reached, key=lambda point: point.quality, default=None)


def _find_better(
    a: Point | None, b: Point | None, compare: Compare | None, comparisons: int
) -> tuple[int | None, float]:
    if a is None or b is None:
        return (1 if a is None else 0), math.inf
    found = compare(a.id, b.id, comparisons) if compare is not None else None
    if found is None:
        gap = a.quality - b.quality
        found = Difference(gap, gap, gap)
    if found.is_tie:
        return None, abs(found.estimate)
    return (0 if found.low > 0 else 1), abs(found.estimate)

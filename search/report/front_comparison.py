"""Comparison of the fronts of two runs: hypervolumes, and the better run by cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from compress.core.pareto import Losses, compute_front_mask, compute_log_costs, measure_hypervolume
from compress.core.statistics import Difference
from compress.report.live.charts import Axis
from search.study.front import MARGIN


@dataclass(frozen=True)
class CostRange:
    """A range of costs in which the same run is better, or neither.

    Attributes:
        low, high: Bounds of the range, in the unit of the cost; `high` is infinity at the end.
        better_run: Index of the better run, 0 or 1; None: a tie.
        max_gap: Largest difference of the metric, in its unit; infinity if the other run has no
            point at such a low cost.
    """

    low: float
    high: float
    better_run: int | None
    max_gap: float


@dataclass(frozen=True)
class FrontComparison:
    """The comparison of two runs for one cost.

    Attributes:
        metric, cost: Axes.
        shares: Hypervolume of each front, as a share of the box around both.
        cost_ranges: Ranges in ascending order of cost.
    """

    metric: Axis
    cost: Axis
    shares: tuple[float, float]
    cost_ranges: tuple[CostRange, ...]


ComparePoints = Callable[[str, str, int], Difference | None]
"""Function from (id in the first run, id in the second run, number of compared pairs) to the
difference of their metrics, first minus second; None: its error is unknown."""


@dataclass(frozen=True, order=True)
class Point:
    """A point of a front.

    Attributes:
        cost: Cost, above 0.
        metric_value: Value of the metric that defines the front.
        id: Id of the file or candidate.
    """

    cost: float
    metric_value: float
    id: str = ""


def compare_fronts(
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    metric: Axis,
    cost: Axis,
    compare: ComparePoints | None = None,
) -> FrontComparison | None:
    """Return the comparison of the fronts of two runs.

    Args:
        rows: `values` of the points of each run, with the "id" of each.
        metric: Axis of the metric, higher is better.
        cost: Axis of the cost, lower is better, above 0.
        compare: Compares two points; differences that are not significant are ties. None: only
            equal metrics are ties.

    Returns:
        The comparison; None if a run has no point with both values.

    Reference:
        Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms" (hypervolume). Costs count
        as logarithms; the reference lies a tenth of the range beyond the worst of both fronts.
    """
    first, second = (_select_front(part, metric.key, cost.key) for part in rows)
    if not first or not second:
        return None
    shares = _measure_shares(first, second)
    return FrontComparison(metric, cost, shares, _find_cost_ranges(first, second, compare))


def _select_front(rows: Sequence[Mapping[str, Any]], metric: str, cost: str) -> tuple[Point, ...]:
    """Return the Pareto front by ascending cost; a point needs a metric and a cost above 0."""
    points = sorted(
        Point(float(row[cost]), float(row[metric]), str(row.get("id", "")))
        for row in rows
        if row.get(cost) is not None and row.get(metric) is not None and row[cost] > 0
    )
    # equal points are drawn once
    distinct = [next(equal) for _, equal in groupby(points, attrgetter("cost", "metric_value"))]
    losses = np.array([(point.cost, -point.metric_value) for point in distinct]).reshape(-1, 2)
    is_member = compute_front_mask(losses)
    return tuple(point for point, keep in zip(distinct, is_member, strict=True) if keep)


def _measure_shares(first: Sequence[Point], second: Sequence[Point]) -> tuple[float, float]:
    """Return each front's hypervolume as a share of the box around both, costs as logarithms."""
    losses = [_compute_losses(part) for part in (first, second)]
    all_losses = np.concatenate(losses)
    best, spread = all_losses.min(0), np.ptp(all_losses, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    edge = np.full(2, 1 + MARGIN)
    shares = [
        measure_hypervolume((part - best) / scale, edge) / float(edge.prod()) for part in losses
    ]
    return shares[0], shares[1]


def _compute_losses(front: Sequence[Point]) -> Losses:
    costs = compute_log_costs([point.cost for point in front])
    return np.stack([costs, [-point.metric_value for point in front]], axis=1)


def _find_cost_ranges(
    first: Sequence[Point], second: Sequence[Point], compare: ComparePoints | None
) -> tuple[CostRange, ...]:
    """Return ranges from the lowest cost to infinity, adjacent ones of one winner merged."""
    edges = sorted({point.cost for point in (*first, *second)})
    pairs = [(_find_best(first, low), _find_best(second, low)) for low in edges]
    comparisons = len({pair for pair in pairs if None not in pair})
    cost_ranges = [
        CostRange(low, high, *_find_better(a, b, compare, comparisons))
        for low, high, (a, b) in zip(edges, [*edges[1:], math.inf], pairs, strict=True)
    ]
    merged = []
    for _, group in groupby(cost_ranges, lambda item: (item.better_run, math.isinf(item.max_gap))):
        alike = list(group)
        max_gap = max(item.max_gap for item in alike)
        merged.append(replace(alike[0], high=alike[-1].high, max_gap=max_gap))
    return tuple(merged)


def _find_best(front: Sequence[Point], cost: float) -> Point | None:
    """Return the best point up to a cost; None if all points cost more."""
    affordable = [point for point in front if point.cost <= cost]
    return max(affordable, key=lambda point: point.metric_value, default=None)


def _find_better(
    a: Point | None, b: Point | None, compare: ComparePoints | None, comparisons: int
) -> tuple[int | None, float]:
    """Return which point is better (0, 1; None: a tie) and the gap, infinite if one is missing."""
    if a is None or b is None:
        return (1 if a is None else 0), math.inf
    difference = compare(a.id, b.id, comparisons) if compare is not None else None
    if difference is None:
        gap = a.metric_value - b.metric_value
        difference = Difference(gap, gap, gap)
    if difference.is_tie:
        return None, abs(difference.estimate)
    return (0 if difference.low > 0 else 1), abs(difference.estimate)

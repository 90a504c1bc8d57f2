"""Two runs against each other: hypervolume of both fronts, and where which one is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.pareto import Losses, front_mask, hypervolume, log_costs
from compress.report.live.points import Axis
from search.study.hypervolume import MARGIN


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


def duel(
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    quality: Axis,
    cost: Axis,
    examples: tuple[int, int] | None,
) -> Duel | None:
    """Compares two runs.

    Args:
        rows: `values` of the points of each run.
        quality: What is better the higher it is.
        cost: What is better the lower it is, above 0.
        examples: How many judged the quality of each run, where it is a share of them: what
            differs by less than one standard error of the difference is a tie. None: only equal
            ones are.

    Returns:
        The comparison; None where one of them has no point with both figures.

    Reference:
        Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms" (hypervolume). Costs count
        as logarithms; the reference lies a tenth of the range beyond the worst of both fronts.
    """
    first, second = (_front(part, quality.key, cost.key) for part in rows)
    if not first or not second:
        return None
    shares = _shares(first, second)
    return Duel(quality, cost, shares, (first, second), _stretches(first, second, examples))


def _front(
    rows: Sequence[Mapping[str, Any]], quality: str, cost: str
) -> tuple[tuple[float, float], ...]:
    known = {
        (float(row[cost]), float(row[quality]))
        for row in rows
        if row.get(cost) is not None and row.get(quality) is not None and row[cost] > 0
    }
    if not known:
        return ()
    points = sorted(known)
    kept = front_mask(np.array([(c, -q) for c, q in points]))
    return tuple(point for point, keep in zip(points, kept, strict=True) if keep)


def _shares(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    each = [_losses(part) for part in (first, second)]
    both = np.concatenate(each)
    best, spread = both.min(0), np.ptp(both, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    edge = np.full(2, 1 + MARGIN)
    found = [hypervolume((part - best) / scale, edge) / float(edge.prod()) for part in each]
    return found[0], found[1]


def _losses(front: Sequence[tuple[float, float]]) -> Losses:
    costs = log_costs([cost for cost, _ in front])
    return np.stack([costs, [-quality for _, quality in front]], axis=1)


def _stretches(
    first: Sequence[tuple[float, float]],
    second: Sequence[tuple[float, float]],
    examples: tuple[int, int] | None,
) -> tuple[Stretch, ...]:
    edges = sorted({cost for cost, _ in (*first, *second)})
    found: list[Stretch] = []
    for low, high in zip(edges, [*edges[1:], math.inf], strict=True):
        a, b = (_reached(front, low) for front in (first, second))
        better, most = _better(a, b, examples)
        if found and (found[-1].better, math.isinf(found[-1].most)) == (better, math.isinf(most)):
            found[-1] = Stretch(found[-1].low, high, better, max(found[-1].most, most))
        else:
            found.append(Stretch(low, high, better, most))
    return tuple(found)


def _reached(front: Sequence[tuple[float, float]], cost: float) -> float:
    """Returns the best quality for a cost; minus infinity where nothing costs so little."""
    return max((quality for own, quality in front if own <= cost), default=-math.inf)


def _better(a: float, b: float, examples: tuple[int, int] | None) -> tuple[int | None, float]:
    if math.isinf(a) or math.isinf(b):
        return (0 if a > b else 1), math.inf
    gap = abs(a - b)
    error = 0.0
    if examples is not None:
        spreads = (q * (1 - q) / max(1, n) for q, n in zip((a, b), examples, strict=True))
        error = math.sqrt(sum(spreads))
    if gap <= error:
        return None, gap
    return (0 if a > b else 1), gap

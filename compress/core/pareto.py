"""Pareto dominance: fronts, ranks, crowding and hypervolume of trade-offs.

In all functions a row is one candidate and a column is one objective. Lower is better, and NaN is
not allowed. A row dominates another if it is nowhere worse and somewhere better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]
Choice = tuple[int, ...]
"""Index of the level of each unit."""


def compute_log_costs(costs: npt.ArrayLike) -> Losses:
    """Return decimal logarithms of costs, which span orders of magnitude.

    Args:
        costs: Any shape, at least 0; values below 0.001 count as 0.001.
    """
    return np.asarray(np.log10(np.maximum(np.asarray(costs, np.float64), 1e-3)))


def compute_front_mask(losses: Losses) -> npt.NDArray[np.bool_]:
    """Mark the non-dominated rows.

    Equal rows are all marked.

    Args:
        losses: (n, objectives), lower is better.

    Returns:
        (n,), True for rows on the Pareto front.

    Reference:
        Kung, Luccio & Preparata 1975, "On Finding the Maxima of a Set of Vectors": in
        lexicographic order a row is only dominated by earlier rows.
    """
    rows, inverse = np.unique(losses, axis=0, return_inverse=True)
    if len(rows) == 0:
        return np.zeros(0, np.bool_)
    if rows.shape[1] <= 2:
        lowest = np.minimum.accumulate(rows[:, -1])
        is_front = np.concatenate([[True], rows[1:, -1] < lowest[:-1]])
    else:
        is_front, front = np.zeros(len(rows), np.bool_), rows[:0]
        for index, row in enumerate(rows):
            if not (front <= row).all(axis=1).any():
                is_front[index] = True
                front = np.concatenate([front, row[np.newaxis]])
    return np.asarray(is_front[inverse.ravel()], np.bool_)


def rank_nondominated(losses: Losses) -> npt.NDArray[np.int64]:
    """Rank rows by non-dominated sorting: 0 is the front, 1 the front of the other rows, ...

    Equal rows have the same rank.

    Args:
        losses: (n, objectives), lower is better.

    Returns:
        (n,) ranks from 0.

    Reference:
        Deb, Pratap, Agarwal & Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
        Algorithm: NSGA-II", section III.A (there the first front is 1).
    """
    ranks = np.full(len(losses), -1, np.int64)
    rank = 0
    while len(rest := np.flatnonzero(ranks < 0)):
        ranks[rest[compute_front_mask(losses[rest])]] = rank
        rank += 1
    return ranks


def compute_crowding_distance(losses: Losses) -> Losses:
    """Return the crowding distance of each row of a front.

    The outermost rows of an objective get infinity. An objective in which all rows are equal
    adds nothing and has no outermost rows.

    Args:
        losses: (n, objectives), finite.

    Returns:
        (n,) distances, at least 0; larger is less crowded.

    Reference:
        Deb et al. 2002, section III.B. Deviation: objectives without spread are ignored,
        because their quotient would be 0 / 0.
    """
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        if len(losses) == 0 or ordered[0] == ordered[-1]:
            continue
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
    return distance


def measure_hypervolume(losses: Losses, reference: npt.ArrayLike) -> float:
    """Return the exact hypervolume dominated by the rows, up to the reference point.

    Rows that are not better than the reference in every objective add nothing.

    Args:
        losses: (n, objectives), lower is better.
        reference: (objectives,), the worst point that counts.

    Returns:
        The volume, 0 for no rows.

    Raises:
        ValueError: The shapes do not fit.

    Reference:
        Two objectives: by sorting. More: While, Bradstreet & Barone 2012, "A Fast Way of
        Calculating Exact Hypervolumes" (WFG): the sum of exclusive volumes of rows ordered
        from worst to best in the last objective, in which all limit sets are then flat.
    """
    point = np.asarray(reference, np.float64)
    if losses.ndim != 2 or point.shape != losses.shape[1:] or not point.size:
        raise ValueError(
            "losses must be (n, objectives) and reference (objectives,). "
            f"Received: {losses.shape} and {point.shape}."
        )
    return _compute_volume(losses[(losses < point).all(axis=1)], point)


class ParetoFront:
    """Pareto front that grows row by row, with its hypervolume.

    A dominated row costs one comparison with the front. A row that enters the front costs the
    computation of its exclusive volume. Removed rows are not needed again.

    Args:
        reference: (objectives,), the worst point that counts.

    Attributes:
        rows: (n, objectives), the current front; only the first of equal rows.
        volume: `measure_hypervolume` of all added rows, up to rounding; it never decreases.
    """

    def __init__(self, reference: npt.ArrayLike) -> None:
        self._reference = np.asarray(reference, np.float64)
        self.rows: Losses = np.empty((0, *self._reference.shape))
        self.volume = 0.0

    def add(self, row: npt.ArrayLike) -> None:
        """Add a row unless it is dominated, or not better than the reference in every objective.

        Args:
            row: (objectives,), lower is better.
        """
        point = np.asarray(row, np.float64)
        if (point >= self._reference).any() or (self.rows <= point).all(axis=1).any():
            return
        # the part of this row's box that the front already covers
        shared = _compute_volume(np.maximum(self.rows, point), self._reference)
        self.volume += max(0.0, float((self._reference - point).prod()) - shared)
        nondominated = self.rows[~(point <= self.rows).all(axis=1)]
        self.rows = np.concatenate([nondominated, point[np.newaxis]])


def _compute_volume(losses: Losses, reference: Losses) -> float:
    """Return the hypervolume of rows that are nowhere worse than the reference."""
    if len(losses) == 0:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - losses.min())
    if len(reference) == 2:
        x, y = losses[np.lexsort(losses.T[::-1])].T
        ceiling = np.minimum.accumulate(np.concatenate([reference[1:], y]))
        return float(((reference[0] - x) * (ceiling[:-1] - ceiling[1:])).sum())
    rows = np.unique(losses[compute_front_mask(losses)], axis=0)
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    total = 0.0
    for index, row in enumerate(rows):
        # later rows are no worse in the last objective: what they cover has this row's height there
        limited = np.maximum(rows[index + 1 :, :-1], row[:-1])
        base = float((reference[:-1] - row[:-1]).prod()) - _compute_volume(limited, reference[:-1])
        total += float(reference[-1] - row[-1]) * base
    return total


def trace_convex_hull(losses: Losses, costs: Losses) -> list[Choice]:
    """Return choices of one level per unit, from the cheapest on, each with a smaller loss.

    Losses and costs of units are assumed to add up. Each step raises one unit to the level with the
    largest loss reduction per cost. The choices are the corners of the lower convex hull of all
    (cost, loss) pairs.

    Args:
        losses: Loss of each unit (rows) at each level (columns), at least 0; infinite for levels
            that a unit does not support.
        costs: Cost of each unit (rows) at each level (columns); infinite for unsupported levels.

    Returns:
        The choices; the first is the cheapest one (with equal costs, the one with less loss).

    Reference:
        Linear relaxation of the multiple-choice knapsack problem: Sinha and Zoltners 1979, "The
        Multiple-Choice Knapsack Problem"; for precisions: Dong et al. 2020, "HAWQ-V2", section 3.2,
        where losses are estimated with Hessians instead of measured.
    """
    units = np.arange(len(losses))
    levels = np.lexsort((losses, costs))[:, 0]
    choices = [tuple(levels.tolist())]
    while True:
        saved = losses[units, levels][:, None] - losses
        spent = costs - costs[units, levels][:, None]
        better = (saved > 0) & (spent > 0)
        gain = np.divide(saved, spent, out=np.zeros_like(saved), where=better)
        unit, level = np.unravel_index(gain.argmax(), gain.shape)
        if gain[unit, level] == 0:
            return choices
        levels[unit] = level
        choices.append(tuple(levels.tolist()))

"""Non-domination: fronts, ranks, spread and hypervolume of trade-offs.

Everywhere a row is one candidate, a column one objective, lower is better and NaN is not
allowed. A row dominates another when it is nowhere worse and somewhere better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]


def log_costs(costs: npt.ArrayLike) -> Losses:
    """Return decimal logarithms of costs, which span orders of magnitude.

    Args:
        costs: Any shape, at least 0; what is below 0.001 counts as 0.001.
    """
    return np.asarray(np.log10(np.maximum(np.asarray(costs, np.float64), 1e-3)))


def front_mask(losses: Losses) -> npt.NDArray[np.bool_]:
    """Mark the rows that no other row dominates.

    Of equal rows all are marked.

    Args:
        losses: (n, objectives), lower is better.

    Returns:
        (n,), True on the front.

    Reference:
        Kung, Luccio & Preparata 1975, "On Finding the Maxima of a Set of Vectors": in
        lexicographic order a row is dominated by earlier ones alone.
    """
    rows, places = np.unique(losses, axis=0, return_inverse=True)
    if len(rows) == 0:
        return np.zeros(0, np.bool_)
    if rows.shape[1] <= 2:
        lowest = np.minimum.accumulate(rows[:, -1])
        alone = np.concatenate([[True], rows[1:, -1] < lowest[:-1]])
    else:
        alone, front = np.zeros(len(rows), np.bool_), rows[:0]
        for place, row in enumerate(rows):
            if not (front <= row).all(axis=1).any():
                alone[place] = True
                front = np.concatenate([front, row[np.newaxis]])
    return np.asarray(alone[places.ravel()], np.bool_)


def nondominated_ranks(losses: Losses) -> npt.NDArray[np.int64]:
    """Rank rows by the front they are on: 0 is the front, 1 the front without it, ...

    Equal rows have the same rank.

    Args:
        losses: (n, objectives), lower is better.

    Returns:
        (n,) ranks from 0.

    Reference:
        Deb, Pratap, Agarwal & Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
        Algorithm: NSGA-II", section III.A (there the first front is 1).
    """
    dominates = _domination(losses)
    dominators = dominates.sum(axis=0)  # (n,): how many not yet ranked rows dominate it
    ranks = np.full(len(losses), -1, np.int64)
    rank = 0
    while (ranks < 0).any():
        front = (ranks < 0) & (dominators == 0)
        ranks[front] = rank
        dominators = dominators - dominates[front].sum(axis=0)
        rank += 1
    return ranks


def crowding_distance(losses: Losses) -> Losses:
    """Measure how far each row's neighbours are, objective by objective.

    The rows are meant to be of one front. The outermost rows of an objective get infinity;
    an objective in which all rows are equal adds nothing and has no outermost rows.

    Args:
        losses: (n, objectives), finite.

    Returns:
        (n,) distances from 0, larger is less crowded.

    Reference:
        Deb et al. 2002, section III.B. Deviation: objectives without spread are left out,
        there the quotient would be 0 / 0.
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


def hypervolume(losses: Losses, reference: npt.ArrayLike) -> float:
    """Measure the space that the rows dominate, up to the reference point; exact.

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
    return _volume(losses[(losses < point).all(axis=1)], point)


class Frontier:
    """A front that takes row after row, and its hypervolume, kept up to date.

    A row that the front dominates costs one comparison with the front; one that enters it
    costs the volume that it alone adds. Rows that left are never looked at again.

    Args:
        reference: (objectives,), the worst point that counts.

    Attributes:
        rows: (n, objectives), the front so far; of equal rows the first.
        volume: `hypervolume` of all rows that were added, up to rounding; never falls.
    """

    def __init__(self, reference: npt.ArrayLike) -> None:
        self._reference = np.asarray(reference, np.float64)
        self.rows: Losses = np.empty((0, *self._reference.shape))
        self.volume = 0.0

    def add(self, row: npt.ArrayLike) -> None:
        """Add a row.

        Args:
            row: (objectives,), lower is better.
        """
        point = np.asarray(row, np.float64)
        if (point >= self._reference).any() or (self.rows <= point).all(axis=1).any():
            return
        # what the front already has of this row's box
        shared = _volume(np.maximum(self.rows, point), self._reference)
        self.volume += max(0.0, float((self._reference - point).prod()) - shared)
        staying = self.rows[~(point <= self.rows).all(axis=1)]
        self.rows = np.concatenate([staying, point[np.newaxis]])


def _domination(losses: Losses) -> npt.NDArray[np.bool_]:
    """Return (n, n): does row i dominate row j?"""
    no_worse = (losses[:, np.newaxis, :] <= losses[np.newaxis, :, :]).all(axis=-1)
    better = (losses[:, np.newaxis, :] < losses[np.newaxis, :, :]).any(axis=-1)
    return np.asarray(no_worse & better, np.bool_)


def _volume(losses: Losses, reference: Losses) -> float:
    """Return the hypervolume of rows none of which is worse than the reference."""
    if len(losses) == 0:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - losses.min())
    if len(reference) == 2:
        x, y = losses[np.lexsort(losses.T[::-1])].T
        ceiling = np.minimum.accumulate(np.concatenate([reference[1:], y]))
        return float(((reference[0] - x) * (ceiling[:-1] - ceiling[1:])).sum())
    rows = np.unique(losses[front_mask(losses)], axis=0)
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    total = 0.0
    for index, row in enumerate(rows):
        # what later rows take from this one's box: as flat as the box in the last objective
        limited = np.maximum(rows[index + 1 :, :-1], row[:-1])
        base = float((reference[:-1] - row[:-1]).prod()) - _volume(limited, reference[:-1])
        total += float(reference[-1] - row[-1]) * base
    return total

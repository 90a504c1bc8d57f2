"""How much hypervolume a candidate promises whose costs are known and whose quality is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Numbers = npt.NDArray[np.float64]
POINTS = 1024
"""At which volumes of several costs are measured."""


def expected_improvement(
    mean: Numbers, spread: Numbers, costs: Numbers, front: Numbers, reference: Numbers
) -> Numbers:
    """Returns the expected growth of the front's hypervolume by each candidate.

    Between two qualities of the front, a candidate adds the same volume of costs all the way:
    that which no member of at least the upper quality has. So the expectation is a sum, over
    these steps, of that volume times what of the step a normal quality is expected to reach:

        sum_i V_i(c) (E max(0, q - h_i) - E max(0, q - h_(i+1)))

    exact for one cost; volumes of several are measured at quasi-random points.

    Args:
        mean, spread: Of the predicted quality, higher is better, (candidates,).
        costs: Known, lower is better, (candidates, costs); no column: quality alone counts.
        front: Members as (quality, *costs), (members, 1 + costs).
        reference: The worst (quality, *costs) that counts.

    Returns:
        (candidates,), at least 0.

    Reference:
        Emmerich, Deutz & Klinkenberg 2011, "Hypervolume-based expected improvement: Monotonicity
        properties and exact computation"; here only one objective is random, which leaves the
        sum above.
    """
    members = front[front[:, 0] > reference[0]]
    levels = np.concatenate([reference[:1], np.sort(members[:, 0])])
    # (steps, candidates): what of all above a level is expected
    above = np.array([_reached(mean, spread, level) for level in levels])
    steps = above - np.concatenate([above[1:], np.zeros((1, len(mean)))])
    return np.asarray((steps * _volumes(costs, members, levels, reference[1:])).sum(0))


def _reached(mean: Numbers, spread: Numbers, level: float) -> Numbers:
    """Returns E max(0, q - level) of normal q."""
    gap, wide = mean - level, np.maximum(spread, 1e-12)
    z = gap / wide
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(gap * ndtr(z) + wide * density)


def _volumes(costs: Numbers, members: Numbers, levels: Numbers, worst: Numbers) -> Numbers:
    """Returns the volume of costs that a candidate alone has above each level, (levels, n)."""
    if costs.shape[1] == 0:
        # a member of a quality has all there is up to it
        free = np.array([not (members[:, 0] > level).any() for level in levels], float)
        return np.repeat(free[:, None], len(costs), 1)
    if costs.shape[1] == 1:
        own = costs[:, 0]
        found = []
        for level in levels:
            better = members[members[:, 0] > level, 1]
            found.append(np.maximum(0, min(worst[0], *better, np.inf) - own))
        return np.array(found)
    from scipy.stats import qmc

    low = np.minimum(costs.min(0), members[:, 1:].min(0, initial=np.inf))
    size = np.maximum(worst - low, 0)
    points = low + qmc.Sobol(costs.shape[1], seed=0).random(POINTS) * size
    inside = (costs[:, None] <= points).all(2)
    found = []
    for level in levels:
        better = members[members[:, 0] > level, 1:]
        taken = (better[:, None] <= points).all(2).any(0)
        found.append(np.count_nonzero(inside & ~taken, axis=1) * (size.prod() / POINTS))
    return np.array(found)

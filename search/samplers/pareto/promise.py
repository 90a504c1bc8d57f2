"""What each candidate of a pool promises: the hypervolume that it is expected to add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from compress.core.device import one_blas_thread
from search.samplers._base import Losses
from search.samplers.pareto.predictor import Encoding, Predictor
from search.samplers.pareto.questions import Choices

Numbers = npt.NDArray[np.float64]
MARGIN = 0.1
"""The worst point that counts lies so far behind the worst of the front, in its ranges."""
POINTS = 1024
"""At which volumes of several costs are measured."""


@dataclass(frozen=True, eq=False)
class Priced:
    """Choices and what they cost.

    Attributes:
        choices: Complete.
        costs: Lower is better, (choices, costs); NaN where it is not known.
    """

    choices: Sequence[Choices]
    costs: Losses


@dataclass(frozen=True, eq=False)
class Told:
    """Choices and what came of them, or was to be expected.

    Attributes:
        priced: The choices; those of ended trials have all costs.
        quality: Higher is better, (choices,).
        noise: Variance of the quality beyond that of every training, (choices,).
    """

    priced: Priced
    quality: Numbers
    noise: Numbers


@dataclass(frozen=True, eq=False)
class Promise:
    """Of a pool of candidates.

    Attributes:
        gains: Expected growth of the hypervolume, (candidates,).
        correlation: How well told trials foretell each other: a rank correlation.
    """

    gains: Numbers
    correlation: float


@one_blas_thread()  # several would wait for each other longer than these matrices take
def promise(
    encoding: Encoding,
    pool: Priced,
    ended: Told,
    stopped: Told,
    running: Priced,
    front: int,
    rng: np.random.Generator,
) -> Promise:
    """Predicts what candidates are worth, and what they would add to the front.

    Args:
        encoding: Of the choices.
        pool: Candidates.
        ended: Told trials, at least two; those on the front come first.
        stopped: Trials of which only the beginning is known.
        running: What is being tried.
        front: How many of the ended trials are on the front.
        rng: Draws.
    """
    each = [pool, ended.priced, stopped.priced, running]
    costs = [part.costs.copy() for part in each]
    # what a candidate costs is known of all, or it tells nothing of its quality
    known = ~np.any([np.isnan(part).any(0) for part in costs], axis=0)
    rows = _scaled(
        [np.concatenate([encoding.rows(part.choices), item[:, known]], 1)
         for part, item in zip(each, costs, strict=True)], int(known.sum()),
    )  # fmt: skip
    for column in np.flatnonzero(~known):
        predict = Predictor(rows[1], costs[1][:, column], np.zeros(len(rows[1])), rng)
        for item, row in zip(costs, rows, strict=True):
            gaps = np.isnan(item[:, column])
            if gaps.any():
                item[gaps, column] = predict(row[gaps])[0]
    quality = np.concatenate([ended.quality, stopped.quality])
    noise = np.concatenate([ended.noise, stopped.noise])
    predict = Predictor(np.concatenate(rows[1:3]), quality, noise, rng)
    mean, spread = predict(rows[0])
    # smoothed: of equal nets the lucky one is not the better one
    reached, _ = predict(np.concatenate([rows[1], rows[3]]))
    points = np.column_stack([reached, np.concatenate([costs[1], costs[3]])])
    reference = _reference(points[:front], points)
    return Promise(
        expected_improvement(mean, spread, costs[0], points, reference), predict.correlation()
    )


def _scaled(parts: Sequence[Numbers], known: int) -> list[Numbers]:
    """Returns rows with mean 0 and spread 1 in the first part, and squares of the last columns.

    Args:
        parts: Rows; NaN becomes 0.
        known: Columns at the end that have squares besides.
    """
    first = parts[0]
    missing = np.isnan(first)
    filled, count = np.where(missing, 0.0, first), np.maximum(1, (~missing).sum(0))
    mean = filled.sum(0) / count
    spread = np.sqrt((np.where(missing, 0.0, first - mean) ** 2).sum(0) / count)
    found = []
    for part in parts:
        rows = (part - mean) / np.where(spread > 1e-12, spread, np.inf)
        rows = np.where(np.isnan(rows), 0.0, rows)
        found.append(np.concatenate([rows, rows[:, rows.shape[1] - known :] ** 2], 1))
    return found


def _reference(front: Numbers, points: Numbers) -> Numbers:
    """Returns the worst (quality, *costs) that counts."""
    low, high = front[:, 0].min(), front[:, 0].max()
    spread = max(float(high - low), float(points[:, 0].std()), 1e-9)
    costs = points[:, 1:]
    worst = costs.max(0) + MARGIN * (costs.max(0) - costs.min(0))
    return np.concatenate([[low - MARGIN * spread], worst])


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

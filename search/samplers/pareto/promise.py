"""What each candidate of a pool promises, by what a study has told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.blas import one_blas_thread
from search.samplers.pareto.encoding import Encoding
from search.samplers.pareto.history import History, Numbers
from search.samplers.pareto.improvement import expected_improvement
from search.samplers.pareto.predictor import Predictor
from search.samplers.pareto.questions import Choices, Questions

MOST = 300
"""Told trials that are predicted from: the front, and others at random."""
MARGIN = 0.1
"""The worst point that counts lies so far behind the worst of the front, in its ranges."""


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
    questions: Questions,
    history: History,
    front: Any,
    pool: Sequence[Choices],
    costs: Numbers,
    costs_of: Callable[[Sequence[Choices], int], Numbers],
    rng: np.random.Generator,
) -> Promise:
    """Predicts what candidates are worth, and what they would add to the front.

    Args:
        questions: What is asked.
        history: What was told; at least two trials have ended.
        front: Places of ended trials on the front.
        pool: Candidates.
        costs: Theirs, as the study knows them, NaN where they are not known.
        costs_of: Gives those of others.
        rng: Draws.
    """
    others = np.setdiff1d(np.arange(len(history.ended)), front)
    kept = np.concatenate([front, rng.permutation(others)])[:MOST]
    foretold = history.foretold()[-MOST // 2 :]
    ended = [history.ended[place].params for place in kept]
    stopped = [trial.params for trial, _, _ in foretold]
    running = [trial.params for trial in history.running]
    count = costs.shape[1]
    told_costs = history.costs[kept]
    each = [
        history.scaled(costs),
        told_costs,
        *(history.scaled(costs_of(some, count)) for some in (stopped, running)),
    ]
    encoding = Encoding(questions.distributions)
    rows = [encoding.rows(some) for some in (pool, ended, stopped, running)]
    # what a candidate costs is known for all, or it tells nothing of its quality
    known = [column for column in range(count)
             if not any(np.isnan(item[:, column]).any() for item in each)]  # fmt: skip
    scaled = _scaled([np.concatenate([row, item[:, known]], 1)
                      for row, item in zip(rows, each, strict=True)], len(known))  # fmt: skip
    for column in set(range(count)) - set(known):
        predict = Predictor(scaled[1], told_costs[:, column], np.zeros(len(kept)), rng)
        for item, row in zip(each, scaled, strict=True):
            gaps = np.isnan(item[:, column])
            if gaps.any():
                item[gaps, column] = predict(row[gaps])[0]
    values = np.concatenate([history.qualities[kept], [value for _, value, _ in foretold]])
    noise = np.concatenate([np.zeros(len(kept)), [variance for *_, variance in foretold]])
    predict = Predictor(np.concatenate(scaled[1:3]), values, noise, rng)
    mean, spread = predict(scaled[0])
    # smoothed: of equal nets the lucky one is not the better one
    reached = np.concatenate([predict(row)[0] for row in (scaled[1], scaled[3]) if len(row)])
    points = np.concatenate([reached[:, None], np.concatenate([each[1], each[3]])], 1)
    reference = _reference(points[: len(front)], points)
    return Promise(
        expected_improvement(mean, spread, each[0], points, reference), predict.correlation()
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

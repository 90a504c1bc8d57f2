"""How a search went on: the front's hypervolume after each trial, and the epochs it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from compress.pareto import Losses, hypervolume, log_costs
from compress.records import COMPLETE, STOPPED, Candidate

MARGIN = 0.1
"""The reference lies this share of the range beyond the worst: the worst counts a little."""
GROWTH = 1e-4
"""The front has grown when its hypervolume has by more than this share."""


@dataclass(frozen=True)
class Progress:
    """The front's hypervolume over the trials, in the order in which they ended.

    Trials that were rejected or repeat others cost no training and are left out.

    Attributes:
        ids: Of the trials.
        timed: Whether that order is known; else they are in the order of their numbers.
        seconds: Wall time of building and training, summed over the trials up to each one.
        share: Hypervolume after each trial, as a share of the box between `reference` and
            `best`; never falls.
        reference: The worst point that counts, by objective.
        best: The best of each objective, not of one candidate.
    """

    ids: tuple[str, ...]
    timed: bool
    seconds: tuple[float, ...]
    share: tuple[float, ...]
    reference: dict[str, float]
    best: dict[str, float]

    @property
    def last_growth(self) -> int:
        """The number of trials after which the front has not grown any more."""
        last, volume = 0, 0.0
        for number, share in enumerate(self.share, start=1):
            if share > volume * (1 + GROWTH):
                last, volume = number, share
        return last

    def to_json(self) -> dict[str, Any]:
        """Returns the record as dictionaries, lists and numbers."""
        return {
            "order": "ended" if self.timed else "number",
            "trials": list(self.ids),
            "seconds": list(self.seconds),
            "share": list(self.share),
            "reference": self.reference,
            "best": self.best,
            "last_growth": self.last_growth,
        }


def progress(candidates: Sequence[Candidate], objectives: Sequence[str]) -> Progress | None:
    """Measures the front of finished candidates after each trial.

    Each objective (costs as logarithms) is scaled to 0 for the best and 1 for the worst
    finished candidate; the reference point lies at 1.1 in each. An objective in which all
    are equal is 0 for all.

    Args:
        candidates: In any order.
        objectives: Quality on validation data (up), then costs (down), by field name.

    Returns:
        None where fewer than two candidates have all objectives.
    """
    trials, timed = in_order(candidates)
    rows = [losses_of(item, objectives) for item in trials]
    finished = np.array([row for row in rows if row is not None]).reshape(-1, len(objectives))
    if len(finished) < 2:
        return None
    best, spread = finished.min(axis=0), np.ptp(finished, axis=0)
    scaled = (finished - best) / np.where(spread > 0, spread, 1.0)
    corner = np.full(len(objectives), 1 + MARGIN)
    count, share = 0, []
    for row in rows:
        count += row is not None
        share.append(hypervolume(scaled[:count], corner) / float(corner.prod()))
    # a difference of sums may fall by a rounding error; the volume of more points does not
    share = list(accumulate(share, max))
    return Progress(
        tuple(item.id for item in trials),
        timed,
        tuple(accumulate(item.seconds for item in trials)),
        tuple(share),
        _named(best + spread * (1 + MARGIN), objectives),
        _named(best, objectives),
    )


def in_order(candidates: Sequence[Candidate]) -> tuple[list[Candidate], bool]:
    """Returns the trials that cost training in the order in which they ended.

    Returns:
        The trials, and whether all say when they ended; else they are in the order of
        their numbers.
    """
    trials = [item for item in candidates if item.is_trial]
    timed = bool(trials) and all(item.ended is not None for item in trials)
    return sorted(trials, key=lambda item: (item.ended or 0.0 if timed else 0.0, item.id)), timed


def losses_of(candidate: Candidate, objectives: Sequence[str]) -> list[float] | None:
    """Returns -quality and the costs' logarithms; None without a finished training."""
    quality, *costs = objectives
    values: list[Any] = [candidate.val.get(quality)]
    values += [getattr(candidate, cost, None) for cost in costs]
    if candidate.state != COMPLETE or not all(map(is_finite, values)):
        return None
    return [-float(values[0]), *log_costs(values[1:]).tolist()]


def is_finite(value: object) -> bool:
    """Tells whether a figure is there and a number."""
    return isinstance(value, int | float) and math.isfinite(value)


def epochs_trained(candidates: Sequence[Candidate], epochs: int) -> tuple[int, int]:
    """Counts the epochs of the trials that were trained, in whole or in part.

    Failed ones are left out: how far they came is not on record.

    Args:
        candidates: Any; those without a history are left out.
        epochs: Of a full training.

    Returns:
        (those trained, those that full training of the same trials would have taken).
    """
    counted = [
        len(item.history)
        for item in candidates
        if item.state in (COMPLETE, STOPPED) and item.history
    ]
    return sum(counted), epochs * len(counted)


def _named(point: Losses, objectives: Sequence[str]) -> dict[str, float]:
    """Returns a point's quality and costs in their own units."""
    quality, *costs = objectives
    named = {quality: -float(point[0])}
    return named | {cost: float(10**value) for cost, value in zip(costs, point[1:], strict=True)}

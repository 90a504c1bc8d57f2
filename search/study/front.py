"""The Pareto front of a search, its hypervolume over the trials, and the stopping conditions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from compress.core.arguments import convert_json
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.pareto import (
    Losses,
    ParetoFront,
    compute_front_mask,
    compute_log_costs,
    measure_hypervolume,
)
from search.plan import SearchPlan
from search.study.directory import COMPLETE, STOPPED, Candidate, SearchFolder

MARGIN = 0.1
"""Distance of the reference point beyond the worst values, as a share of the range.

The worst values then still contribute to the hypervolume.
"""
GROWTH = 1e-4
"""Smallest relative increase of the hypervolume that counts as growth of the front."""


def select_front(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Return the non-dominated candidates in ascending order of the first cost.

    Args:
        candidates: Candidates in any state; only complete ones are considered.
        objectives: Metric on validation data, then costs, by field name.

    Raises:
        InputError: A complete candidate lacks an objective.
    """
    trained = [candidate for candidate in candidates if candidate.state == COMPLETE]
    if not trained:
        return []
    metric, *costs = objectives
    for item in trained:
        values = {metric: item.val.get(metric), **{c: getattr(item, c, None) for c in costs}}
        missing = [name for name, value in values.items() if not isinstance(value, int | float)]
        if missing:
            raise InputError(
                f"Candidate '{item.id}' must have {', '.join(objectives)}. Received: no "
                f"{missing[0]}."
            )
    losses = np.asarray(
        [[-item.val[metric], *(getattr(item, cost) for cost in costs)] for item in trained], float
    )
    front = [
        item
        for item, is_member in zip(trained, compute_front_mask(losses), strict=True)
        if is_member
    ]
    return sorted(front, key=lambda item: (getattr(item, costs[0]), item.id))


def select_final_candidates(candidates: Sequence[Candidate], plan: SearchPlan) -> list[Candidate]:
    """Return the candidates of the front for final training and compression.

    Args:
        candidates: See `select_front`.
        plan: Objectives and the maximum number of models.

    Raises:
        InputError: See `select_front`.
    """
    objectives = plan.search.resolved_objectives
    return select_hypervolume_subset(
        select_front(candidates, objectives), objectives, plan.final.models
    )


def select_hypervolume_subset(
    front: list[Candidate], objectives: Sequence[str], max_count: int | None
) -> list[Candidate]:
    """Return a subset of the front with a large hypervolume, in the order of the front.

    The candidate with the best metric is selected first. Each further step adds the candidate that
    increases the hypervolume of the subset most. Each objective (costs as logarithms) is scaled to
    [0, 1] over the front; the reference point lies at 1.1.

    Args:
        front: Result of `select_front`.
        objectives: Metric, then costs, by field name.
        max_count: Maximum number of candidates, at least 1; None: all.

    Reference:
        Guerreiro et al. 2016, "Greedy hypervolume subset selection in low dimensions": the greedy
        subset has at least 1 - 1/e of the best subset's hypervolume. Starting with the best metric
        is our addition.
    """
    if max_count is None or len(front) <= max_count:
        return front
    metric, *costs = objectives
    rows = np.array(
        [[-item.val[metric], *compute_log_costs([getattr(item, cost) for cost in costs])]
         for item in front], float,
    )  # fmt: skip
    span = np.ptp(rows, axis=0)
    scaled: Losses = (rows - rows.min(axis=0)) / np.where(span > 0, span, 1.0)
    reference = np.full(len(objectives), 1 + MARGIN)
    selected = [int(np.argmin(scaled[:, 0]))]
    while len(selected) < max_count:
        remaining = [index for index in range(len(front)) if index not in selected]
        selected.append(
            max(
                remaining,
                key=lambda index: measure_hypervolume(scaled[[*selected, index]], reference),
            )
        )
    return [front[index] for index in sorted(selected)]


@dataclass(frozen=True)
class FrontProgress:
    """Hypervolumes of the front over the trials, in the order of their end times.

    Rejected trials and duplicates took no training and are left out.

    Attributes:
        ids: Ids of the trials.
        seconds: Cumulative wall time of building and training, for each trial.
        shares: Hypervolume after each trial, as a share of the box between `reference` and
            `best`; never decreases.
        reference: The reference point, by objective.
        best: The best value of each objective, over all candidates.
        last_growth: Number of trials up to the last growth of the front.
    """

    ids: tuple[str, ...]
    seconds: tuple[float, ...]
    shares: tuple[float, ...]
    reference: dict[str, float]
    best: dict[str, float]
    last_growth: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
        return {
            "trials": list(self.ids),
            "seconds": list(self.seconds),
            "share": list(self.shares),
            "reference": self.reference,
            "best": self.best,
            "last_growth": self.last_growth,
        }


def measure_progress(
    candidates: Sequence[Candidate], objectives: Sequence[str]
) -> FrontProgress | None:
    """Measure the hypervolume of the front after each trial.

    Each objective (costs as logarithms) is scaled to 0 for the best and 1 for the worst complete
    candidate; the reference point lies at 1.1 in each. An objective in which all candidates are
    equal is 0 for all.

    Args:
        candidates: Candidates in any order.
        objectives: Metric on validation data (maximized), then costs (minimized), by field name.

    Returns:
        The progress; None if fewer than two candidates have all objectives.
    """
    trials = sort_by_end(candidates)
    rows = [compute_losses(item, objectives) for item in trials]
    finished = np.array([row for row in rows if row is not None])
    if len(finished) < 2:
        return None
    best, worst = finished.min(axis=0), finished.max(axis=0)
    spread = worst - best
    front = ParetoFront(np.full(len(objectives), 1 + MARGIN))
    shares: list[float] = []
    last_growth, last_share = 0, 0.0
    for row in rows:
        if row is not None:
            front.add((np.array(row) - best) / np.where(spread > 0, spread, 1.0))
        shares.append(front.volume / (1 + MARGIN) ** len(objectives))
        if shares[-1] > last_share * (1 + GROWTH):
            last_growth, last_share = len(shares), shares[-1]
    return FrontProgress(
        tuple(item.id for item in trials),
        tuple(accumulate(item.seconds for item in trials)),
        tuple(shares),
        _to_objectives(best + spread * (1 + MARGIN), objectives),
        _to_objectives(best, objectives),
        last_growth,
    )


def sort_by_end(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the trials that took training, sorted by end time, then by number."""
    trials = [item for item in candidates if item.is_trial]
    return sorted(trials, key=lambda item: (item.ended or 0.0, item.id))


def compute_losses(candidate: Candidate, objectives: Sequence[str]) -> list[float] | None:
    """Return the negated metric and the costs' decimal logarithms.

    It is None unless the candidate is complete and all of its objectives are finite.

    Args:
        candidate: A candidate in any state.
        objectives: Metric, then costs, by field name.
    """
    metric, *costs = objectives
    values: list[Any] = [candidate.val.get(metric)]
    values += [getattr(candidate, cost, None) for cost in costs]
    if candidate.state != COMPLETE or not all(map(is_finite, values)):
        return None
    return [-float(values[0]), *compute_log_costs(values[1:]).tolist()]


def is_finite(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def count_epochs(candidates: Sequence[Candidate], epochs: int) -> tuple[int, int]:
    """Count the epochs of complete and stopped trials.

    Failed trials are left out, because their number of epochs is not recorded.

    Args:
        candidates: Candidates in any state; those without a history are left out.
        epochs: Epochs of a full training.

    Returns:
        (trained epochs, epochs that full trainings of the same trials would have taken).
    """
    epoch_counts = [
        len(item.history)
        for item in candidates
        if item.state in (COMPLETE, STOPPED) and item.history
    ]
    return sum(epoch_counts), epochs * len(epoch_counts)


def _to_objectives(point: Losses, objectives: Sequence[str]) -> dict[str, float]:
    metric, *costs = objectives
    values = {metric: -float(point[0])}
    return values | {cost: float(10**value) for cost, value in zip(costs, point[1:], strict=True)}


class Budget:
    """The stopping conditions of a search: trials and time.

    Time of earlier, interrupted runs in the same folder counts; time between runs does not.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
    """

    def __init__(self, folder: SearchFolder, plan: SearchPlan) -> None:
        self._plan, self._file = plan, folder.path / "search_seconds.json"
        self._earlier_seconds = 0.0
        if self._file.exists():
            seconds = read_json(self._file).get("seconds")
            self._earlier_seconds = convert_json(seconds, float, f"'{self._file}': seconds")
        self._start_time = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds searched so far, including earlier runs."""
        return self._earlier_seconds + time.monotonic() - self._start_time

    def save(self) -> None:
        """Save the search time so far, for resumed runs."""
        write_json(self._file, {"seconds": self.seconds})

    def find_stop_reason(self, candidates: Sequence[Candidate], running_count: int = 0) -> str:
        """Return the reason for not starting further trials; empty: another may start.

        Args:
            candidates: Candidates that ended.
            running_count: Number of running trials.
        """
        options = self._plan.search
        if sum(item.is_trial for item in candidates) + running_count >= self._plan.max_trials:
            return f"{self._plan.max_trials} trials"
        if options.max_minutes is not None and self.seconds >= 60 * options.max_minutes:
            return f"{options.max_minutes:g} minutes are over"
        return ""

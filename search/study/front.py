"""The front of a search, its hypervolume over the trials, and the end of the search."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from compress.core.arguments import conform
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.pareto import Frontier, Losses, front_mask, hypervolume, log_costs
from search.plan import SearchPlan
from search.study.directory import COMPLETE, STOPPED, Candidate, SearchFolder

MARGIN = 0.1
"""The reference lies this share of the range beyond the worst: the worst counts a little."""
GROWTH = 1e-4
"""The front has grown when its hypervolume has by more than this share."""


def front_of(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Return the non-dominated candidates by rising first cost.

    Args:
        candidates: Any; only those that were trained to the end count.
        objectives: Quality on validation data, then costs, by field name.

    Raises:
        InputError: One of them lacks an objective.
    """
    trained = [candidate for candidate in candidates if candidate.state == COMPLETE]
    if not trained:
        return []
    quality, *costs = objectives
    for item in trained:
        found = {quality: item.val.get(quality), **{c: getattr(item, c, None) for c in costs}}
        missing = [name for name, value in found.items() if not isinstance(value, int | float)]
        if missing:
            raise InputError(
                f"Candidate '{item.id}' must have {', '.join(objectives)}. Received: no "
                f"{missing[0]}."
            )
    losses = np.asarray(
        [[-item.val[quality], *(getattr(item, cost) for cost in costs)] for item in trained], float
    )
    front = [item for item, on in zip(trained, front_mask(losses), strict=True) if on]
    return sorted(front, key=lambda item: (getattr(item, costs[0]), item.id))


def going_on(candidates: Sequence[Candidate], plan: SearchPlan) -> list[Candidate]:
    """Return the models of the front that are trained once more and compressed.

    Args:
        candidates: See `front_of`.
        plan: Objectives, and how many models at most.

    Raises:
        InputError: See `front_of`.
    """
    return spread_out(
        front_of(candidates, plan.search.objectives), plan.search.objectives, plan.final_models
    )


def spread_out(
    front: list[Candidate], objectives: Sequence[str], most: int | None
) -> list[Candidate]:
    """Return at most so many members that dominate most, in the order of the front.

    The best is the first to be among them; then comes, each time, the one that adds most to the
    hypervolume of those that were taken. Each objective (costs as logarithms) is scaled to [0, 1]
    over the front; the reference lies at 1.1.

    Args:
        front: As `front_of` returns it.
        objectives: Quality, then costs, by field name.
        most: How many; None: all.

    Reference:
        Guerreiro et al. 2016, "Greedy hypervolume subset selection in low dimensions": it misses
        at most 1/e of the best subset's; that the best comes first is ours.
    """
    if most is None or len(front) <= most:
        return front
    if most == 0:
        return []
    quality, *costs = objectives
    rows = np.array(
        [[-item.val[quality], *log_costs([getattr(item, cost) for cost in costs])]
         for item in front], float,
    )  # fmt: skip
    span = np.ptp(rows, axis=0)
    scaled: Losses = (rows - rows.min(axis=0)) / np.where(span > 0, span, 1.0)
    reference = np.full(len(objectives), 1 + MARGIN)
    taken = [int(np.argmin(scaled[:, 0]))]
    while len(taken) < most:
        left = [place for place in range(len(front)) if place not in taken]
        taken.append(max(left, key=lambda place: hypervolume(scaled[[*taken, place]], reference)))
    return [front[place] for place in sorted(taken)]


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
        last_growth: The number of trials after which the front has not grown any more.
    """

    ids: tuple[str, ...]
    timed: bool
    seconds: tuple[float, ...]
    share: tuple[float, ...]
    reference: dict[str, float]
    best: dict[str, float]
    last_growth: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
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
    """Measure the front of finished candidates after each trial.

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
    course = Course(objectives)
    course.extend(trials)
    if course.finished < 2:
        return None
    return Progress(
        tuple(item.id for item in trials),
        timed,
        tuple(accumulate(item.seconds for item in trials)),
        tuple(course.share),
        _named(course.best + (course.worst - course.best) * (1 + MARGIN), objectives),
        _named(course.best, objectives),
        course.last_growth,
    )


class Course:
    """The measures of `progress`, kept up to date as trials end.

    A new trial costs one comparison with the front. All are measured anew only when one is
    the best or the worst so far in an objective: the scale is another then.

    Args:
        objectives: See `progress`.

    Attributes:
        finished: Trials that have all objectives.
        best, worst: Of these, by objective: the lowest and the highest.
        share, last_growth: See `Progress`; of all trials so far.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._rows: list[list[float] | None] = []
        self.best = np.full(len(self._objectives), np.inf)
        self.worst = -self.best
        self.finished = 0
        self._restart()

    def extend(self, trials: Sequence[Candidate]) -> None:
        """Add further trials, in the order in which they ended."""
        rows = [losses_of(item, self._objectives) for item in trials]
        self._rows += rows
        new = [np.array(row) for row in rows if row is not None]
        self.finished += len(new)
        best = np.min([self.best, *new], axis=0)
        worst = np.max([self.worst, *new], axis=0)
        if (best != self.best).any() or (worst != self.worst).any():
            self.best, self.worst = best, worst
            self._restart()
            rows = self._rows
        for row in rows:
            self._add(row)

    def _restart(self) -> None:
        self._frontier = Frontier(np.full(len(self._objectives), 1 + MARGIN))
        self.share: list[float] = []
        self.last_growth, self._grown = 0, 0.0

    def _add(self, row: list[float] | None) -> None:
        if row is not None:
            spread = self.worst - self.best
            self._frontier.add((np.array(row) - self.best) / np.where(spread > 0, spread, 1.0))
        share = self._frontier.volume / (1 + MARGIN) ** len(self._objectives)
        self.share.append(share)
        if share > self._grown * (1 + GROWTH):
            self.last_growth, self._grown = len(self.share), share


def in_order(candidates: Sequence[Candidate]) -> tuple[list[Candidate], bool]:
    """Return the trials that cost training in the order in which they ended.

    Returns:
        The trials, and whether all say when they ended; else they are in the order of
        their numbers.
    """
    trials = [item for item in candidates if item.is_trial]
    timed = bool(trials) and all(item.ended is not None for item in trials)
    if timed:
        return sorted(trials, key=lambda item: (item.ended or 0.0, item.id)), True
    return sorted(trials, key=lambda item: item.id), False


def losses_of(candidate: Candidate, objectives: Sequence[str]) -> list[float] | None:
    """Return -quality and the costs' logarithms; None without a finished training."""
    quality, *costs = objectives
    values: list[Any] = [candidate.val.get(quality)]
    values += [getattr(candidate, cost, None) for cost in costs]
    if candidate.state != COMPLETE or not all(map(is_finite, values)):
        return None
    return [-float(values[0]), *log_costs(values[1:]).tolist()]


def is_finite(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def epochs_trained(candidates: Sequence[Candidate], epochs: int) -> tuple[int, int]:
    """Count the epochs of the trials that were trained, in whole or in part.

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
    quality, *costs = objectives
    named = {quality: -float(point[0])}
    return named | {cost: float(10**value) for cost, value in zip(costs, point[1:], strict=True)}


class Convergence:
    """The number of trials since the front's hypervolume last grew, as trials end.

    Reference point and order are those of the report: see `search.study.front`.

    Args:
        objectives: Quality, then costs.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._course, self._seen = Course(self._objectives), list[str]()

    def stale(self, candidates: Sequence[Candidate]) -> int:
        """Return how many trials ended since the front last grew.

        Args:
            candidates: All so far. Only what is new is looked at, unless it ended before one that
                is known already.
        """
        trials, _ = in_order(candidates)
        ids = [item.id for item in trials]
        if ids[: len(self._seen)] != self._seen:
            self._course, self._seen = Course(self._objectives), []
        self._course.extend(trials[len(self._seen) :])
        self._seen = ids
        return len(ids) - self._course.last_growth if self._course.finished > 1 else 0


class Budget:
    """The limits that end a search: trials, time, a target, convergence.

    The time of earlier, interrupted runs of the same folder counts; the time between not.

    Args:
        folder: The run's folder.
        plan: Trials, minutes, target, convergence.
    """

    def __init__(self, folder: SearchFolder, plan: SearchPlan) -> None:
        self._plan, self._file = plan, folder.path / "search_seconds.json"
        self._convergence = Convergence(plan.search.objectives)
        self._earlier = 0.0
        if self._file.exists():
            seconds = read_json(self._file).get("seconds")
            self._earlier = conform(seconds, float, f"'{self._file}': seconds")
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds searched so far, earlier runs included."""
        return self._earlier + time.monotonic() - self._began

    def save(self) -> None:
        """Keep the searched time for a run that goes on."""
        write_json(self._file, {"seconds": self.seconds})

    def over(self, candidates: Sequence[Candidate], running: int = 0) -> str:
        """Return the reason for which no further trial begins; empty: one may.

        Args:
            candidates: Those that ended.
            running: Trials in hand.
        """
        plan, budget = self._plan, self._plan.budget
        if sum(item.is_trial for item in candidates) + running >= plan.search.trials:
            return f"{plan.search.trials} trials"
        if budget.minutes is not None and self.seconds >= 60 * budget.minutes:
            return f"{budget.minutes:g} minutes are over"
        for item in candidates:
            if budget.target and self._meets(item):
                return f"candidate {item.id} meets {','.join(map(str, budget.target))}"
        stale = self._convergence.stale(candidates) if budget.converged else 0
        if budget.converged and stale >= budget.converged:
            return f"converged: the front has not grown for {stale} trials"
        return ""

    def _meets(self, item: Candidate) -> bool:
        values = {**vars(item), **item.val}
        return item.state == COMPLETE and all(
            values.get(condition.name) is not None
            and condition.holds(float(values[condition.name]))
            for condition in self._plan.budget.target
        )

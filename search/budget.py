"""When a search ends: trials, time, a target, or a front that grows no more."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from compress.files import read_json, write_json
from compress.pareto import Losses, hypervolume
from compress.records import COMPLETE, DUPLICATE, REJECTED, Candidate
from compress.runfolder import RunFolder
from search.plan import SearchPlan

GROWTH = 1e-4
"""A front has grown when its hypervolume has by more than this share."""
UNTRAINED = (REJECTED, DUPLICATE)


def counts(candidate: Candidate) -> bool:
    """Tells whether a candidate counts as a trial: rejected ones and repeats cost nothing."""
    return candidate.state not in UNTRAINED


def losses_of(candidates: Sequence[Candidate], objectives: Sequence[str]) -> Losses:
    """Returns (trained, objectives): -quality, then costs on a log scale."""
    quality, *costs = objectives
    rows = [
        [-item.val[quality], *(np.log10(max(1e-3, getattr(item, cost))) for cost in costs)]
        for item in candidates
        if item.state == COMPLETE
    ]
    return np.array(rows, float).reshape(-1, len(objectives))


def since_growth(candidates: Sequence[Candidate], objectives: Sequence[str]) -> int:
    """Returns how many trials ended since the front's hypervolume last grew.

    The reference point lies a tenth of the range below the worst quality, and at ten times the
    largest cost seen; so it is the same for all prefixes that are compared.
    """
    losses = losses_of(candidates, objectives)
    if len(losses) < 2:
        return 0
    reference = losses.max(axis=0) + 1.0
    reference[0] = losses[:, 0].max() + 0.1 * np.ptp(losses[:, 0]) + 1e-9
    last, best, trained, ended = 0, 0.0, 0, 0
    for item in candidates:
        if not counts(item):
            continue
        ended += 1
        if item.state != COMPLETE:
            continue
        trained += 1
        volume = hypervolume(losses[:trained], reference)
        if volume > best * (1 + GROWTH):
            best, last = volume, ended
    return ended - last


class Budget:
    """Says when a search is over, and why.

    The time of earlier, interrupted runs of the same folder counts; the time between not.

    Args:
        folder: The run's folder.
        plan: Trials, minutes, target, convergence.
    """

    def __init__(self, folder: RunFolder, plan: SearchPlan) -> None:
        self._plan, self._file = plan, folder.path / "search_seconds.json"
        self._earlier = float(read_json(self._file)["seconds"]) if self._file.exists() else 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds searched so far, earlier runs included."""
        return self._earlier + time.monotonic() - self._began

    def save(self) -> None:
        """Keeps the time for a run that goes on."""
        write_json(self._file, {"seconds": self.seconds})

    def over(self, candidates: Sequence[Candidate], running: int = 0) -> str:
        """Returns why no further trial begins, or nothing.

        Args:
            candidates: Those that ended, in the order in which they did.
            running: Trials in hand.
        """
        plan, budget = self._plan, self._plan.budget
        if sum(map(counts, candidates)) + running >= plan.search.trials:
            return f"{plan.search.trials} trials"
        if budget.minutes is not None and self.seconds >= 60 * budget.minutes:
            return f"{budget.minutes:g} minutes are over"
        for item in candidates:
            if self._meets(item):
                return f"candidate {item.id} meets {','.join(budget.target)}"
        stale = since_growth(candidates, plan.search.objectives) if budget.converged else 0
        if budget.converged and stale >= budget.converged:
            return f"converged: the front has not grown for {stale} trials"
        return ""

    def _meets(self, item: Candidate) -> bool:
        conditions = self._plan.budget.parsed_target()
        if item.state != COMPLETE or not conditions:
            return False
        for condition in conditions:
            value = item.val.get(condition.name, getattr(item, condition.name, None))
            if value is None or not condition.holds(float(value)):
                return False
        return True

"""When a search ends: trials, time, a target, or a front that grows no more."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from compress.core.arguments import conform
from compress.core.atomic_files import read_json, write_json
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from search.study.front import Course, ended_key, in_order
from search.study.records import COMPLETE, Candidate


class Convergence:
    """Says for how many trials the front's hypervolume has not grown, as trials end.

    Reference point and order are those of the report: see `search.study.front`.

    Args:
        objectives: Quality, then costs.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._restart()

    def _restart(self) -> None:
        self._course, self._seen, self._timed = Course(self._objectives), 0, True
        self._last: tuple[float, str] = (-math.inf, "")

    def stale(self, candidates: Sequence[Candidate]) -> int:
        """Returns how many trials ended since the front last grew.

        Args:
            candidates: All so far: those of the last call first. Only what is new is looked
                at, unless it ended before one that is known already.
        """
        trials, timed = in_order(candidates[self._seen :])
        if not self._timed:  # an earlier one does not say when it ended
            trials.sort(key=lambda item: ended_key(item, False))
        if trials and (timed < self._timed or ended_key(trials[0], self._timed) < self._last):
            self._restart()
            trials, self._timed = in_order(candidates)
        self._course.extend(trials)
        self._seen = len(candidates)
        if trials:
            self._last = ended_key(trials[-1], self._timed)
        count = len(self._course.share)
        return count - self._course.last_growth if self._course.finished > 1 else 0


class Budget:
    """Says when a search is over, and why.

    The time of earlier, interrupted runs of the same folder counts; the time between not.

    Args:
        folder: The run's folder.
        plan: Trials, minutes, target, convergence.
    """

    def __init__(self, folder: SearchFolder, plan: SearchPlan) -> None:
        self._plan, self._file = plan, folder.path / "search_seconds.json"
        self._target = plan.budget.target
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
        """Keeps the time for a run that goes on."""
        write_json(self._file, {"seconds": self.seconds})

    def over(self, candidates: Sequence[Candidate], running: int = 0) -> str:
        """Returns why no further trial begins, or nothing.

        Args:
            candidates: Those that ended; those of the last call first.
            running: Trials in hand.
        """
        plan, budget = self._plan, self._plan.budget
        if sum(item.is_trial for item in candidates) + running >= plan.search.trials:
            return f"{plan.search.trials} trials"
        if budget.minutes is not None and self.seconds >= 60 * budget.minutes:
            return f"{budget.minutes:g} minutes are over"
        for item in candidates:
            if self._meets(item):
                return f"candidate {item.id} meets {','.join(map(str, budget.target))}"
        stale = self._convergence.stale(candidates) if budget.converged else 0
        if budget.converged and stale >= budget.converged:
            return f"converged: the front has not grown for {stale} trials"
        return ""

    def _meets(self, item: Candidate) -> bool:
        if item.state != COMPLETE or not self._target:
            return False
        for condition in self._target:
            value = item.val.get(condition.name, getattr(item, condition.name, None))
            if value is None or not condition.holds(float(value)):
                return False
        return True

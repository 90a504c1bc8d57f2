"""When a search ends: trials, time, a target, or a front that grows no more."""

from __future__ import annotations

import time
from collections.abc import Sequence

from compress.core.atomic_files import read_json, write_json
from compress.core.typed import conform
from search.plan import SearchPlan
from search.study.directory import COMPLETE, Candidate, SearchFolder
from search.study.front import Course, in_order


class Convergence:
    """Says for how many trials the front's hypervolume has not grown, as trials end.

    Reference point and order are those of the report: see `search.study.front`.

    Args:
        objectives: Quality, then costs.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._course, self._seen = Course(self._objectives), list[str]()

    def stale(self, candidates: Sequence[Candidate]) -> int:
        """Returns how many trials ended since the front last grew.

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
    """Says when a search is over, and why.

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

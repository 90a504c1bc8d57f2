"""When a search ends: trials, time, a target, or a front that grows no more."""

from __future__ import annotations

import time
from collections.abc import Sequence

from compress.files import read_json, write_json
from compress.records import COMPLETE, Candidate
from compress.report.progress import progress
from compress.runfolder import RunFolder
from search.plan import SearchPlan


def since_growth(candidates: Sequence[Candidate], objectives: Sequence[str]) -> int:
    """Returns how many trials ended since the front's hypervolume last grew.

    Reference point and order are those of the report: see `compress.report.progress`.
    """
    found = progress(candidates, objectives)
    return 0 if found is None else len(found.ids) - found.last_growth


class Budget:
    """Says when a search is over, and why.

    The time of earlier, interrupted runs of the same folder counts; the time between not.

    Args:
        folder: The run's folder.
        plan: Trials, minutes, target, convergence.
    """

    def __init__(self, folder: RunFolder, plan: SearchPlan) -> None:
        self._plan, self._file = plan, folder.path / "search_seconds.json"
        self._target = plan.budget.parsed_target()
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
            candidates: Those that ended.
            running: Trials in hand.
        """
        plan, budget = self._plan, self._plan.budget
        if sum(item.is_trial for item in candidates) + running >= plan.search.trials:
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
        if item.state != COMPLETE or not self._target:
            return False
        for condition in self._target:
            value = item.val.get(condition.name, getattr(item, condition.name, None))
            if value is None or not condition.holds(float(value)):
                return False
        return True

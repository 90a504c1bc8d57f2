"""The jobs of a search: trials until enough are trained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from compress.errors import RunFailed
from compress.records import COMPLETE, FAILED, STOPPED, Candidate
from compress.runfolder import LOG, RunFolder
from search import study as studies
from search.budget import Budget
from search.display import Display, Shown
from search.engines import OVERDUE, Job, messages
from search.objective import candidate_id
from search.plan import SearchPlan
from search.samplers.grid import exhausted

if TYPE_CHECKING:
    import optuna


MAX_UNCLAIMED = 3
"""Deaths of workers without a trial in hand after which a run gives up."""


class SearchJobs(Shown):
    """Gives out trials until enough are trained, and keeps account of them."""

    def __init__(
        self, folder: RunFolder, plan: SearchPlan, study: optuna.Study, display: Display
    ) -> None:
        super().__init__(display, plan.search.trials)
        self._folder, self._plan, self._study = folder, plan, study
        self.candidates = folder.read_candidates()
        self._budget = Budget(folder, plan)
        self._running = 0
        self._unclaimed = 0
        self._max_untrained = max(100, 20 * plan.search.trials)
        self.over = ""

    @property
    def ended(self) -> int:
        """Trials that count: trained, in whole or in part, or failed."""
        return sum(item.is_trial for item in self.candidates)

    def next_job(self) -> Job | None:
        """Returns a trial while the budget lasts; `over` says why there is none."""
        untrained = len(self.candidates) - self.ended
        self.over = self._budget.over(self.candidates, self._running)
        if not self.over and untrained >= self._max_untrained:
            self.over = f"{untrained} candidates exceeded the limits or repeated others"
        if not self.over and self._plan.search.sampler == "grid" and exhausted(self._study):
            self.over = "every point of the grid has been tried"
        if self.over:
            return None
        self._running += 1
        limit = self._plan.budget.trial_minutes
        return {"kind": messages.TRIAL, **({} if limit is None else {"seconds": 60 * limit})}

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a candidate."""
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        self._count(Candidate.from_json(message["candidate"]))

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Fails the trial of a worker that died; it is not tried again."""
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        if claimed is None:
            self._unclaimed += 1
            if self._unclaimed >= MAX_UNCLAIMED:
                raise RunFailed(
                    f"Workers keep dying before they begin a trial ({how}). See "
                    f"'{self._folder.path / 'workers.log'}'."
                )
            return
        number = claimed["number"]
        trial = next(t for t in self._study.get_trials(deepcopy=False) if t.number == number)
        # it may have died after its work was done: what is on disk in full is never lost
        candidate = self._folder.read_candidate(candidate_id(number))
        if candidate is None:
            reason = how if how.startswith(OVERDUE) else f"its worker died ({how})"
            candidate = Candidate(
                candidate_id(number), FAILED, trial.params, claimed["seed"], reason,
                ended=time.time(),
            )  # fmt: skip
            self._folder.write_candidate(candidate)
        if not trial.state.is_finished():
            studies.tell(self._study, number, candidate, self._plan)
        self._count(candidate)

    def _count(self, item: Candidate) -> None:
        self.candidates.append(item)
        self._budget.save()
        quality = self._plan.search.objectives[0]
        outcome = f"{item.state}: {item.reason}" if item.state != COMPLETE else ""
        if item.state in (COMPLETE, STOPPED):
            outcome = f"validation {quality} {item.val[quality]:.4f}" + (outcome and f", {outcome}")
        LOG.info(
            "candidate %s: %s, %s MACs, %s parameters, %.1f s",
            item.id, outcome, f"{item.macs or 0:,}", f"{item.params or 0:,}", item.seconds,
        )  # fmt: skip
        self._display.advance(self.ended, self._plan.search.trials)

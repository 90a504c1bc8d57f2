"""The jobs of a run: trials until enough are trained, then the front's models to compress."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from compress.errors import RunFailed
from compress.options import from_nested, to_nested
from compress.pipeline import command_line
from compress.plan import Plan
from compress.records import COMPLETE, FAILED, STOPPED, Candidate
from compress.runfolder import LOG, RunFolder
from search import study as studies
from search.budget import Budget, counts
from search.engines import OVERDUE, Job, messages
from search.objective import candidate_id
from search.plan import SearchPlan
from search.samplers.grid import exhausted

if TYPE_CHECKING:
    import optuna


MAX_UNCLAIMED = 3
"""Deaths of workers without a trial in hand after which a run gives up."""


class Display(Protocol):
    """Shows how far a run is."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Begins a phase of `total` jobs, `done` of which are finished."""
        ...

    def advance(self, done: int, total: int) -> None:
        """Says how many jobs of the phase are finished."""
        ...

    def worker(self, index: int, text: str, share: float) -> None:
        """Says what a worker does and how far it is, in [0, 1]; empty text: idle."""
        ...


class NoDisplay:
    """Shows nothing."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Ignores it."""

    def advance(self, done: int, total: int) -> None:
        """Ignores it."""

    def worker(self, index: int, text: str, share: float) -> None:
        """Ignores it."""


class SearchJobs:
    """Gives out trials until enough are trained, and keeps account of them."""

    def __init__(
        self, folder: RunFolder, plan: SearchPlan, study: optuna.Study, display: Display
    ) -> None:
        self._folder, self._plan, self._study, self._display = folder, plan, study, display
        self.candidates = folder.read_candidates()
        self._budget = Budget(folder, plan)
        self._running = 0
        self._unclaimed = 0
        self._max_untrained = max(100, 20 * plan.search.trials)
        self.over = ""

    @property
    def ended(self) -> int:
        """Trials that count: trained, in whole or in part, or failed."""
        return sum(map(counts, self.candidates))

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

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Shows progress."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

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
                candidate_id(number), FAILED, trial.params, claimed["seed"], reason
            )
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


class CompressJobs:
    """Gives out the models to compress, largest first, and collects failures."""

    def __init__(
        self, folder: RunFolder, plan: SearchPlan, names: list[str], teacher: str, display: Display
    ) -> None:
        # largest first: the last jobs to end are then short, and no worker idles for long
        self._pending = list(reversed(names))
        self._folder, self._plan, self._teacher, self._display = folder, plan, teacher, display
        self._total, self._done = len(names), 0
        self.failures: list[str] = []

    def next_job(self) -> Job | None:
        """Returns the next model's job."""
        if not self._pending:
            return None
        name = self._pending.pop(0)
        return {
            "kind": messages.COMPRESS,
            "name": name,
            "teacher": self._teacher,
            "command": command_line(self._own_plan(), self._folder.model_file(name)),
        }

    def _own_plan(self) -> Plan:
        """Returns the compress part of the plan with the teacher's file in place of "auto"."""
        own = {field.name for field in fields(Plan)}
        nested = {key: value for key, value in to_nested(self._plan).items() if key in own}
        nested["distill"]["teacher"] = self._teacher or "none"
        return from_nested(Plan, nested)

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Shows progress."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a model, or notes why it failed."""
        if "error" in message:
            self.failures.append(f"{message['name']}: {message['error']}")
            LOG.info("compressing %s failed: %s", message["name"], message["error"])
        else:
            quality = self._plan.search.objectives[0]
            before, after = (message["val"][key][quality] for key in ("dense", "pruned"))
            LOG.info(
                "compressed %s: validation %s %.4f -> %.4f",
                message["name"], quality, before, after,
            )  # fmt: skip
        self._end(worker)

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Notes a model whose worker died."""
        self.failures.append(f"{job['name']}: its worker died ({how})")
        self._end(worker)

    def _end(self, worker: int) -> None:
        self._done += 1
        self._display.worker(worker, "", 0.0)
        self._display.advance(self._done, self._total)

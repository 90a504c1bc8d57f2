"""The steps of a run and their jobs: trials, final trainings of the front, its compression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from compress.core.errors import RunFailed
from compress.data import Dataset
from compress.run.directory import LOG
from compress.shrinking.job import command_line
from search.engines import KILLED, LOST, MAX_LOST, OVERDUE, Display, Job, JobQueue, messages
from search.engines.pool import Pool
from search.plan import SearchPlan
from search.samplers.grid import exhausted
from search.study import study as studies
from search.study.checks import Past
from search.study.costs import NAMES, limits
from search.study.directory import COMPLETE, FAILED, STOPPED, Candidate, SearchFolder
from search.study.front import Budget, going_on
from search.study.objective import candidate_id
from search.study.recovery import recover
from search.study.retrain import promote_best

AGAIN = {
    studies.TRIES_ATTR: (3, "it seems to need more memory than there is"),
    studies.LOST_ATTR: (MAX_LOST, "it may be what takes nodes down"),
}
"""What ends a trial that is begun again -> how often it is begun, what the last time means."""
MAX_UNCLAIMED = 3
"""Deaths of workers without a trial in hand after which a run gives up."""


def search_front(
    folder: SearchFolder, plan: SearchPlan, data: Dataset, pool: Pool, display: Display
) -> None:
    """Give out trials until the search is over.

    Raises:
        RunFailed: No candidate could be trained.
    """
    options = plan.search
    LOG.info(
        "1 define the space: '%s' on '%s'; limits: %s",
        options.space, data.name,
        ", ".join(f"{limit:,} {NAMES[name]}" for name, limit in limits(options).items()) or "none",
    )  # fmt: skip
    LOG.info(
        "2 sample with %s; 3 %s and evaluate %s against %s; 4 update the strategy; "
        "5 repeat until %d candidates are %s",
        options.strategy, "repair" if options.no_train else f"train {options.epochs} epochs",
        options.objectives[0], ", ".join(options.costs), options.trials,
        "judged" if options.no_train else f"trained; stopping: {plan.stopping.rule}",
    )  # fmt: skip
    candidates = folder.read_candidates()
    lost = recover(folder, plan, data, candidates)
    study = studies.open_study(folder, plan)
    again = studies.close_orphans(study, folder, plan)
    if again:
        LOG.info("%d interrupted trial(s) will run again", again)
    studies.enqueue_first(study, plan, data, lost)
    handler = SearchJobs(folder, plan, study, display, candidates)
    if handler.ended:
        LOG.info("going on: %d candidates are finished", handler.ended)
    display.phase("Searching", handler.ended, options.trials)
    pool.run(handler)
    # of workers that were lost before they could say which trial they had begun
    studies.close_orphans(study, folder, plan)
    if not any(item.state == COMPLETE for item in handler.candidates):
        raise RunFailed(nothing_trained(handler.candidates, plan))
    LOG.info("search over after %d trials: %s", handler.ended, handler.over)


def nothing_trained(candidates: list[Candidate], plan: SearchPlan) -> str:
    """Explain why no candidate was trained: the first failure, or limits that none met."""
    failed = [item for item in candidates if item.state == FAILED]
    if failed:
        return f"No candidate could be trained. The first failed: {failed[0].reason}."
    smallest = {
        name: min((getattr(item, name) or 0 for item in candidates), default=0)
        for name in limits(plan.search)
    }
    given = ", ".join(f"{limit:,} {NAMES[name]}" for name, limit in limits(plan.search).items())
    least = ", ".join(f"{value:,} {NAMES[name]}" for name, value in smallest.items())
    return (
        f"All {len(candidates)} candidates exceed the limits ({given}). The smallest have {least}. "
        "Raise the limits."
    )


def train_finally(folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display) -> None:
    """Train the front's candidates anew, and choose the training of each that goes on."""
    front = [item.id for item in going_on(folder.read_candidates(), plan)]
    handler = FinalJobs(folder, plan, front, display, _teachers_of_parts(plan))
    LOG.info(
        "final trainings of the front (%s): %d epochs, %d seed(s)%s",
        ", ".join(front), plan.final_epochs, plan.final.seeds,
        ", validation part included" if plan.final.on_validation else "",
    )  # fmt: skip
    display.phase("Training the front", handler.done, handler.total)
    pool.run(handler)
    if handler.failures:
        raise RunFailed(
            f"Final trainings failed: {'; '.join(handler.failures)}. The same command tries them "
            "again."
        )
    for name in front:
        promote_best(name, folder, plan.search.objectives[0])


def _teachers_of_parts(plan: SearchPlan) -> tuple[Path, ...]:
    """Return the teachers of sub-networks that were judged untrained; default: the whole model."""
    if not plan.search.no_train:
        return ()
    if not plan.distill.teacher.automatic:
        return plan.distill.teacher.files
    whole = plan.search.made_space.whole()
    assert whole is not None, "the space is around a model"
    return (whole[0],)


def compress_front(
    folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display, past: Past
) -> list[str]:
    """Compress the candidates of the front, and return the failures with their reasons."""
    members = going_on(folder.read_candidates(), plan)
    front = [item.id for item in members]
    teachers = list(plan.distill.teacher.files)
    if plan.distill.teacher.automatic:
        quality = plan.search.objectives[0]
        best = max(members, key=lambda item: item.val[quality])
        teachers = [folder.shipped_file(best.id)]
    pending = [name for name in front if not folder.is_compressed(name)]
    LOG.info(
        "compressing the front (%s), weights %s, teacher: %s",
        ", ".join(front), plan.weights.label,
        " and ".join(map(str, teachers)) or "none",
    )  # fmt: skip
    handler = CompressJobs(folder, plan, pending, teachers, display, past)
    display.phase("Compressing", 0, len(pending), steps=True)
    pool.run(handler)
    return handler.failures


class SearchJobs(JobQueue):
    """Trials: given out until enough are trained, ended in the study, and counted.

    Args:
        folder: The run's.
        plan: Its plan.
        study: Its study.
        display: Shows progress.
        candidates: The folder's, where they were read already.
    """

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        study: optuna.Study,
        display: Display,
        candidates: list[Candidate] | None = None,
    ) -> None:
        super().__init__(display, ())
        self._folder, self._plan, self._study = folder, plan, study
        self.candidates = folder.read_candidates() if candidates is None else candidates
        self._budget = Budget(folder, plan)
        self._running = 0
        self._unclaimed = 0
        # numbers of trials that wait until no other runs, and whether one of them does
        self._alone: list[int] = []
        self._is_alone = False
        self._max_untrained = max(100, 20 * plan.search.trials)
        self.over = ""

    @property
    def ended(self) -> int:
        """Trials that count: trained, in whole or in part, or failed."""
        return sum(item.is_trial for item in self.candidates)

    def next_job(self) -> Job | None:
        """Return a trial while the budget lasts; `over` says why there is none."""
        untrained = len(self.candidates) - self.ended
        self.over = self._budget.over(self.candidates, self._running)
        if not self.over and untrained >= self._max_untrained:
            self.over = f"{untrained} candidates exceeded the limits or repeated others"
        grid = self._plan.search.strategy == "grid"
        if not self.over and not self._alone and grid and exhausted(self._study):
            self.over = "every point of the grid has been tried"
        if self.over:
            return None
        if self._running and (self._alone or self._is_alone):
            return None
        self._is_alone = bool(self._alone)
        self._running += 1
        limit = self._plan.budget.trial_minutes
        return {
            "kind": messages.TRIAL,
            **({} if limit is None else {"seconds": 60 * limit}),
            **({"number": self._alone.pop(0)} if self._is_alone else {}),
        }

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Tell the study of a candidate, or queue it again where memory was short."""
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        if "fault" in message:
            number, seed = message["number"], message["seed"]
            self._begin_again(number, seed, message["fault"], studies.TRIES_ATTR)
        elif "given_up" in message:
            LOG.info("a worker came too late: %s", message["given_up"])
        else:
            self._tell(Candidate.from_json(message["candidate"]))

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Fail the trial of a worker that died.

        One that was killed is tried again: systems that run out of memory kill. So is one whose
        node was lost.
        """
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        if claimed is None:
            if how != LOST:
                self._unclaimed += 1
            if self._unclaimed >= MAX_UNCLAIMED:
                raise RunFailed(
                    f"Workers keep dying before they begin a trial ({how}). See "
                    f"'{self._folder.path / 'workers.log'}'."
                )
            return
        number, seed, reason = claimed["number"], claimed["seed"], f"its worker died ({how})"
        if how == LOST:
            self._begin_again(number, seed, LOST, studies.LOST_ATTR)
        elif how == KILLED:
            self._begin_again(number, seed, reason, studies.TRIES_ATTR)
        else:
            self._tell(self._failed(number, seed, how if how.startswith(OVERDUE) else reason))

    def _begin_again(self, number: int, seed: int, reason: str, count: str) -> None:
        """Queue a trial again, or count it: as failed, or by the record that it has by now.

        One for which memory was short runs with no other beside it. A candidate that is too big for
        the machine fails alone, too; one that was only unlucky in its company does not.

        Args:
            number, seed: The trial's.
            reason: What ended it.
            count: The attribute that counts how often that was.
        """
        trial = self._study.get_trials(deepcopy=False)[number]
        times = 1 + trial.user_attrs.get(count, 0)
        most, why = AGAIN[count]
        if times >= most:
            self._tell(self._failed(number, seed, f"{reason}, {times} times; {why}"))
            return
        again = studies.try_again(self._study, self._folder, trial, reason, **{count: times})
        if again is None:
            candidate = self._folder.read_candidate(candidate_id(number))
            assert candidate is not None, "that is why it is not tried again"
            self._tell(candidate)
            return
        LOG.info(
            "candidate %s: %s; it runs again as %s",
            candidate_id(number), reason, candidate_id(again),
        )  # fmt: skip
        if count == studies.TRIES_ATTR:
            self._alone.append(again)
            LOG.info("candidate %s will run with nothing beside it", candidate_id(again))

    def _failed(self, number: int, seed: int, reason: str) -> Candidate:
        """Record a failure, and return the candidate's record: an earlier one stays."""
        choices = dict(self._study.get_trials(deepcopy=False)[number].params)
        candidate = Candidate(
            candidate_id(number), FAILED, choices, seed, reason, ended=time.time()
        )
        return self._folder.write_candidate(candidate)

    def _tell(self, item: Candidate) -> None:
        """End a recorded candidate's trial in the study, and count it: nobody else does."""
        studies.tell(self._study, item, self._plan)
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


class FinalJobs(JobQueue):
    """Final trainings of the front, all seeds of the largest model first.

    Args:
        folder: The run's folder.
        plan: Section `final`.
        names: Candidates, by rising cost.
        display: Shows progress.
        teachers: Files of those who teach; none: labels alone do.
    """

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        names: list[str],
        display: Display,
        teachers: Sequence[Path] = (),
    ) -> None:
        done = {(record.model, record.place) for record in folder.read_finals()}
        wanted = [(name, place) for name in reversed(names) for place in range(plan.final.seeds)]
        self._quality = plan.search.objectives[0]
        files = [str(path) for path in teachers]
        jobs = [
            {"kind": messages.FINAL, "name": name, "place": place, "teachers": files}
            for name, place in wanted
            if (name, place) not in done
        ]
        super().__init__(display, jobs, len(wanted) - len(jobs))

    def _say(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        record = message["final"]
        shown = record["val"].get(self._quality)
        LOG.info(
            "final training %d of %s: %s, %.1f s",
            record["place"] + 1, record["model"],
            "with validation data" if shown is None else f"validation {self._quality} {shown:.4f}",
            record["seconds"],
        )  # fmt: skip

    def _fail(self, job: Job, reason: str, diverged: bool = False) -> None:
        self.failures.append(f"{job['name']} (training {job['place'] + 1}): {reason}")
        LOG.info("final training of %s failed: %s", job["name"], reason)


class CompressJobs(JobQueue):
    """Models to compress, largest first, and their failures."""

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        names: list[str],
        teachers: Sequence[Path],
        display: Display,
        past: Past,
    ) -> None:
        self._quality = plan.search.objectives[0]
        files = [str(path) for path in teachers]
        shown = plan.to_goal(files) or plan.compression(files)
        # largest first: the last jobs to end are then short, and no worker idles for long
        models = [(name, folder.shipped_file(name)) for name in reversed(names)]
        jobs = [
            {
                "kind": messages.COMPRESS,
                "name": name,
                "teachers": files,
                "val_learnt": past.val_learnt,
                "told": past.notes,
                "file": str(file),
                "command": command_line(shown, file),
            }
            for name, file in models
        ]
        super().__init__(display, jobs)

    def _say(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        before, after = (message["val"][key][self._quality] for key in ("dense", "pruned"))
        LOG.info(
            "compressed %s: validation %s %.4f -> %.4f after %d more epochs of training%s",
            message["name"], self._quality, before, after, message["finetuned"],
            " (it was learnt)" if job["val_learnt"] else "",
        )  # fmt: skip

    def _fail(self, job: Job, reason: str, diverged: bool = False) -> None:
        self.failures.append(f"{job['name']}: {reason}")
        LOG.info("compressing %s failed: %s", job["name"], reason)

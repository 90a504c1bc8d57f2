"""The stages of a run and their jobs: trials, final trainings and compression of the front."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from compress.core.errors import RunFailed
from compress.data import Dataset
from compress.run.directory import LOG
from compress.shrinking.job_runner import format_command
from search.engines import KILLED, MAX_LOST, NODE_LOST, TIMED_OUT, Display, Job, JobQueue, messages
from search.engines.pool import Pool
from search.plan import SearchPlan
from search.samplers.grid import is_exhausted
from search.study import study as studies
from search.study.costs import NAMES, get_limits
from search.study.directory import COMPLETE, FAILED, STOPPED, Candidate, SearchFolder
from search.study.front import Budget, select_final_candidates
from search.study.objective import format_candidate_id
from search.study.recovery import recover
from search.study.retrain import promote_final

MAX_ATTEMPTS = {
    studies.TRIES_ATTR: (3, "it seems to need more memory than there is"),
    studies.LOST_ATTR: (MAX_LOST, "it may be what takes nodes down"),
}
"""Attribute that counts a cause of retries -> (maximum number of starts, likely explanation)."""
MAX_UNCLAIMED_DEATHS = 3
"""Number of deaths of workers without a trial after which the run fails."""


def search_front(
    folder: SearchFolder, plan: SearchPlan, data: Dataset, pool: Pool, display: Display
) -> None:
    """Run trials until a stopping condition of the search is met.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        data: The data of the run.
        pool: The pool of workers.
        display: Display of the progress.

    Raises:
        RunFailed: No candidate could be trained.
    """
    options = plan.search
    LOG.info(
        "1 define the space: '%s' on '%s'; limits: %s",
        options.space,
        data.name,
        ", ".join(f"{limit:,} {NAMES[name]}" for name, limit in get_limits(options).items())
        or "none",
    )
    LOG.info(
        "2 sample with %s; 3 train %d epochs and evaluate %s against %s; 4 update the strategy; "
        "5 repeat until %d candidates are trained; stopping: %s",
        options.sampler_name, options.epochs, options.objectives[0], ", ".join(options.costs),
        plan.max_trials, options.stopping,
    )  # fmt: skip
    study, candidates = prepare_search(folder, plan, data)
    jobs = SearchJobs(folder, plan, study, display, candidates)
    if jobs.ended_count:
        LOG.info("going on: %d candidates are finished", jobs.ended_count)
    display.start_phase("Searching", jobs.ended_count, plan.max_trials)
    pool.run(jobs)
    # a lost worker may have begun a trial without reporting its number
    studies.close_orphans(study, folder, plan)
    if not any(item.state == COMPLETE for item in jobs.candidates):
        raise RunFailed(explain_no_training(jobs.candidates, plan))
    LOG.info("search over after %d trials: %s", jobs.ended_count, jobs.stop_reason)


def prepare_search(
    folder: SearchFolder, plan: SearchPlan, data: Dataset
) -> tuple[optuna.Study, list[Candidate]]:
    """Return the study, ready for trials, and the candidates that ended in earlier processes.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        data: The data of the run.
    """
    candidates = folder.read_candidates()
    has_lost_trials = recover(folder, plan, data, candidates)
    study = studies.open_study(folder, plan)
    requeued_count = studies.close_orphans(study, folder, plan)
    if requeued_count:
        LOG.info("%d interrupted trial(s) will run again", requeued_count)
    studies.enqueue_first_trials(study, plan, data, has_lost_trials)
    return study, candidates


def explain_no_training(candidates: list[Candidate], plan: SearchPlan) -> str:
    """Explain the lack of trained candidates: the first failure, or limits that all exceed.

    Args:
        candidates: All candidates, none of which is complete.
        plan: The plan of the run, with its limits.
    """
    failed = [item for item in candidates if item.state == FAILED]
    if failed:
        return f"No candidate could be trained. The first failed: {failed[0].reason}."
    smallest = {
        name: min((getattr(item, name) or 0 for item in candidates), default=0)
        for name in get_limits(plan.search)
    }
    limits_text = ", ".join(
        f"{limit:,} {NAMES[name]}" for name, limit in get_limits(plan.search).items()
    )
    smallest_text = ", ".join(f"{value:,} {NAMES[name]}" for name, value in smallest.items())
    return (
        f"All {len(candidates)} candidates exceed the limits ({limits_text}). The smallest have "
        f"{smallest_text}. "
        "Raise the limits."
    )


def train_front(folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display) -> None:
    """Run the final trainings of the front, and promote their models.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        pool: The pool of workers.
        display: Display of the progress.

    Raises:
        RunFailed: A final training failed.
    """
    front = [item.id for item in select_final_candidates(folder.read_candidates(), plan)]
    jobs = create_final_jobs(folder, plan, front, display)
    LOG.info("final trainings of the front (%s): %d epochs", ", ".join(front), plan.final.epochs)
    display.start_phase("Training the front", jobs.done, jobs.total)
    pool.run(jobs)
    if jobs.failures:
        raise RunFailed(
            f"Final trainings failed: {'; '.join(jobs.failures)}. The same command tries them "
            "again."
        )
    for name in front:
        promote_final(name, folder)


def compress_front(
    folder: SearchFolder, plan: SearchPlan, pool: Pool, display: Display, notes: tuple[str, ...]
) -> list[str]:
    """Compress the candidates of the front, and return the failures with their reasons.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        pool: The pool of workers.
        display: Display of the progress.
        notes: Notes on the teachers for the reports.
    """
    members = select_final_candidates(folder.read_candidates(), plan)
    front = [item.id for item in members]
    teachers = list(plan.distill.teacher.files)
    if plan.distill.teacher.automatic:
        metric = plan.search.objectives[0]
        best = max(members, key=lambda item: item.val[metric])
        teachers = [folder.get_shipped_path(best.id)]
    pending = [name for name in front if not folder.is_compressed(name)]
    LOG.info(
        "compressing the front (%s), weights %s, teacher: %s",
        ", ".join(front), plan.weights.label,
        " and ".join(map(str, teachers)) or "none",
    )  # fmt: skip
    jobs = create_compress_jobs(folder, plan, pending, teachers, display, notes)
    display.start_phase("Compressing", 0, len(pending), is_stepwise=True)
    pool.run(jobs)
    return jobs.failures


class SearchJobs(JobQueue):
    """Trials as jobs, which are ended in the study and counted until the search stops.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        study: The study of the run.
        display: Display of the progress.
        candidates: The folder's candidates, if they have been read; None: they are read.

    Attributes:
        candidates: All candidates that ended.
        stop_reason: Reason for not starting further trials; empty: the search continues.
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
        self._unclaimed_deaths = 0
        # numbers of waiting trials that must run alone, and whether such a trial is running
        self._exclusive_trials: list[int] = []
        self._is_exclusive = False
        self._max_untrained = max(100, 20 * plan.max_trials)
        self.stop_reason = ""

    @property
    def ended_count(self) -> int:
        """Number of trials that count: trained, stopped or failed."""
        return sum(item.is_trial for item in self.candidates)

    @property
    def progress(self) -> tuple[int, int]:
        """Number of trials that count, and of all trials."""
        return self.ended_count, self._plan.max_trials

    def take_job(self) -> Job | None:
        """Return a trial while the budget lasts; None otherwise, with the reason in `stop_reason`.

        It is also None, without a reason, while a trial must run alone.
        """
        untrained = len(self.candidates) - self.ended_count
        self.stop_reason = self._budget.find_stop_reason(self.candidates, self._running)
        if not self.stop_reason and untrained >= self._max_untrained:
            self.stop_reason = f"{untrained} candidates exceeded the limits or repeated others"
        grid = self._plan.search.sampler_name == "grid"
        if (
            not self.stop_reason
            and not self._exclusive_trials
            and grid
            and is_exhausted(self._study)
        ):
            self.stop_reason = "every point of the grid has been tried"
        if self.stop_reason:
            return None
        if self._running and (self._exclusive_trials or self._is_exclusive):
            return None
        self._is_exclusive = bool(self._exclusive_trials)
        self._running += 1
        limit = self._plan.search.trial_minutes
        return {
            "kind": messages.TRIAL,
            **({} if limit is None else {"seconds": 60 * limit}),
            **({"number": self._exclusive_trials.pop(0)} if self._is_exclusive else {}),
        }

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Finish a candidate's trial in the study, or queue it again if memory was short."""
        self._running -= 1
        self._display.update_worker(worker, "", 0.0)
        if "fault" in message:
            number, seed = message["number"], message["seed"]
            self._retry_trial(number, seed, message["fault"], studies.TRIES_ATTR)
        elif "given_up" in message:
            LOG.info("a worker came too late: %s", message["given_up"])
        else:
            self._finish_trial(Candidate.from_json(message["candidate"]))

    def on_death(
        self, worker: int, job: Job, claimed_trial: dict[str, Any] | None, cause: str
    ) -> None:
        """Fail the trial of a worker that died, or queue it again.

        Killed trials are queued again, because systems that run out of memory kill processes. So
        are trials of a lost node.
        """
        self._running -= 1
        self._display.update_worker(worker, "", 0.0)
        if claimed_trial is None:
            if cause != NODE_LOST:
                self._unclaimed_deaths += 1
            if self._unclaimed_deaths >= MAX_UNCLAIMED_DEATHS:
                raise RunFailed(
                    f"Workers keep dying before they begin a trial ({cause}). See "
                    f"'{self._folder.path / 'workers.log'}'."
                )
            return
        number, seed, reason = (
            claimed_trial["number"],
            claimed_trial["seed"],
            f"its worker died ({cause})",
        )
        if cause == NODE_LOST:
            self._retry_trial(number, seed, NODE_LOST, studies.LOST_ATTR)
        elif cause == KILLED:
            self._retry_trial(number, seed, reason, studies.TRIES_ATTR)
        else:
            self._finish_trial(
                self._record_failed_trial(
                    number, seed, cause if cause.startswith(TIMED_OUT) else reason
                )
            )

    def _retry_trial(self, number: int, seed: int, reason: str, counter_attr: str) -> None:
        """Queue a trial again; after too many retries, finish it as failed.

        A trial that lacked memory runs again with no other trial in parallel. A candidate that is
        too large for the machine then fails again, while one that only lacked memory because of the
        other trials succeeds. A trial whose record has been written meanwhile is finished with it.

        Args:
            number: Number of the trial.
            seed: Seed of the trial.
            reason: Reason of the retry.
            counter_attr: Trial attribute that counts retries for this reason.
        """
        trial = self._study.get_trials(deepcopy=False)[number]
        times = 1 + trial.user_attrs.get(counter_attr, 0)
        max_times, explanation = MAX_ATTEMPTS[counter_attr]
        if times >= max_times:
            self._finish_trial(
                self._record_failed_trial(number, seed, f"{reason}, {times} times; {explanation}")
            )
            return
        retry_number = studies.retry_trial(
            self._study, self._folder, trial, reason, **{counter_attr: times}
        )
        if retry_number is None:
            candidate = self._folder.read_candidate(format_candidate_id(number))
            assert candidate is not None, "that is why it is not tried again"
            self._finish_trial(candidate)
            return
        LOG.info(
            "candidate %s: %s; it runs again as %s",
            format_candidate_id(number), reason, format_candidate_id(retry_number),
        )  # fmt: skip
        if counter_attr == studies.TRIES_ATTR:
            self._exclusive_trials.append(retry_number)
            LOG.info(
                "candidate %s will run with nothing beside it", format_candidate_id(retry_number)
            )

    def _record_failed_trial(self, number: int, seed: int, reason: str) -> Candidate:
        """Write a failed candidate's record and return it; an existing record is kept."""
        choices = dict(self._study.get_trials(deepcopy=False)[number].params)
        candidate = Candidate(
            format_candidate_id(number), FAILED, choices, seed, reason, ended=time.time()
        )
        return self._folder.write_candidate(candidate)

    def _finish_trial(self, candidate: Candidate) -> None:
        """End a recorded candidate's trial in the study, and count it.

        No other code ends trials of a running search.
        """
        studies.finish_trial(self._study, candidate, self._plan)
        self.candidates.append(candidate)
        self._budget.save()
        metric = self._plan.search.objectives[0]
        outcome = f"{candidate.state}: {candidate.reason}" if candidate.state != COMPLETE else ""
        if candidate.state in (COMPLETE, STOPPED):
            outcome = f"validation {metric} {candidate.val[metric]:.4f}" + (
                outcome and f", {outcome}"
            )
        LOG.info(
            "candidate %s: %s, %s MACs, %s parameters, %.1f s",
            candidate.id,
            outcome,
            f"{candidate.macs or 0:,}",
            f"{candidate.params or 0:,}",
            candidate.seconds,
        )
        self._display.advance(*self.progress)


def create_final_jobs(
    folder: SearchFolder, plan: SearchPlan, names: list[str], display: Display
) -> JobQueue:
    """Return the final trainings of the front, the largest model first.

    Args:
        folder: The folder of the run.
        plan: The plan, with section `final`.
        names: Names of the candidates, in ascending order of cost.
        display: Display of the progress.
    """
    finished = {record.model for record in folder.read_finals()}
    metric = plan.search.objectives[0]
    jobs = [
        {"kind": messages.FINAL, "name": name} for name in reversed(names) if name not in finished
    ]

    def log_result(_: int, __: Job, message: dict[str, Any]) -> None:
        record = message["final"]
        LOG.info(
            "final training of %s: validation %s %.4f, %.1f s",
            record["model"], metric, record["val"][metric], record["seconds"],
        )  # fmt: skip

    done = len(names) - len(jobs)
    return JobQueue(display, jobs, done, activity="final training of", log_result=log_result)


def create_compress_jobs(
    folder: SearchFolder,
    plan: SearchPlan,
    names: list[str],
    teachers: Sequence[Path],
    display: Display,
    notes: tuple[str, ...],
) -> JobQueue:
    """Return the compression jobs for the front, the largest model first.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        names: Names of the candidates, in ascending order of cost.
        teachers: Files of the teachers.
        display: Display of the progress.
        notes: Notes on the teachers for the reports.
    """
    metric, files = plan.search.objectives[0], [str(path) for path in teachers]
    command_plan = plan.build_shrink_plan(files) or plan.build_compression_plan(files)
    # with the largest first, the last jobs are short and no worker idles for long
    models = [(name, folder.get_shipped_path(name)) for name in reversed(names)]
    jobs = [
        {
            "kind": messages.COMPRESS,
            "name": name,
            "teachers": files,
            "told": notes,
            "file": str(file),
            "command": format_command(command_plan, file),
        }
        for name, file in models
    ]

    def log_result(_: int, __: Job, message: dict[str, Any]) -> None:
        before, after = (message["val"][key][metric] for key in ("dense", "pruned"))
        LOG.info(
            "compressed %s: validation %s %.4f -> %.4f after %d more epochs of training",
            message["name"], metric, before, after, message["finetuned"],
        )  # fmt: skip

    return JobQueue(display, jobs, activity="compressing", log_result=log_result)

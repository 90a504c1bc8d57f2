"""The jobs of a run with a time budget, in the order that the scheduler decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from compress.core.errors import RunFailed
from compress.data import Dataset
from compress.exporting.files import get_file_path
from compress.run.directory import LOG
from search.engines import NODE_LOST, Display, Job, JobQueue, messages
from search.engines.jobs import SearchJobs, explain_no_training, prepare_search
from search.engines.pool import Pool
from search.engines.steps import RECORD, name_size
from search.plan import SearchPlan
from search.scheduler.log import ScheduleLog, describe_schedule
from search.scheduler.records import (
    CONTINUE,
    EXPORT,
    PRUNE,
    TRIAL,
    TUNE,
    SizeResult,
    Step,
    StepResult,
)
from search.scheduler.scheduler import Scheduler
from search.study import study as studies
from search.study.directory import COMPLETE, Candidate, SearchFolder

FINISHING_SECONDS, FINISHING_SHARE, TIMING_SHARE = 10.0, 0.04, 0.06
"""Time that is kept for test data and report (seconds, and a share of the budget), and largest
share for the latency measurement of all files."""
TUNED_EPOCHS = 2
"""Epochs of a fine-tuning over those of a trial, or passes over all examples if a trial sees only
some of them, as far as they fit."""
TRIAL_SHARE, LEAST_TRIAL_SECONDS, TRAINING_SHARE = 0.2, 30.0, 0.75
"""Time limit of a trial: a share of the time for all steps, but at least these seconds; and the
share of it after which its training ends, so that what was trained so far counts."""
CONTINUED_SLACK = 1.25
"""Time limit of further training, over its expected time."""
REPORT_SECONDS, REPORT_SHARE = 60.0, 0.02
"""Shortest time between two reports of an unfinished run, and their largest share of the time."""


def compute_working_seconds(plan: SearchPlan) -> float:
    """Return the seconds of a budget in which steps may run.

    Args:
        plan: Plan with a budget.
    """
    budget = plan.goal.budget
    assert budget is not None
    finishing = FINISHING_SECONDS + FINISHING_SHARE * budget
    return max(0.5 * budget, budget - finishing - limit_timing(plan).latency.budget)


def limit_timing(plan: SearchPlan) -> SearchPlan:
    """Return a plan whose latency measurement of all files fits into its budget, if it has one."""
    if plan.goal.budget is None:
        return plan
    seconds = min(plan.latency.budget, TIMING_SHARE * plan.goal.budget)
    return replace(plan, latency=replace(plan.latency, budget=seconds))


def run_scheduled(
    folder: SearchFolder,
    plan: SearchPlan,
    data: Dataset,
    pool: Pool,
    display: Display,
    notes: tuple[str, ...],
    command: str,
    began: float,
    write_report: Callable[[], object],
) -> list[str]:
    """Spend a time budget on the steps that the front of files gains most from, and record it.

    An interruption (Ctrl-C) ends the steps: what is finished is recorded, as at the end.

    Args:
        folder: Folder of the run.
        plan: Plan with a budget.
        data: Data of the run.
        pool: Pool of workers.
        display: Display of the progress.
        notes: Notes on the teachers for the reports.
        command: Command that repeats the run.
        began: Start of this process's work, by `time.monotonic`.
        write_report: Writes the report of what the folder holds.

    Returns:
        Failures of recorded models, with reasons.

    Raises:
        RunFailed: No candidate could be trained, or none could be exported.
    """
    study, candidates = prepare_search(folder, plan, data)
    labels = data.labels(data.val)
    examples = len(data.train)
    epochs = (
        TUNED_EPOCHS
        * max(plan.search.epochs, examples // plan.finetune.count_epoch_examples(examples))
        if plan.rewinds_training
        else plan.finetune.count_epochs(plan.finetune.count_steps(examples))
    )
    formats = plan.export.candidate_formats
    scheduler = Scheduler(
        formats,
        float(data.task.chance(labels)),
        epochs,
        compute_working_seconds(plan),
        counts_macs=plan.front_cost == "macs",
    )
    jobs = ScheduledJobs(
        folder, plan, study, display, candidates, scheduler, notes, began, write_report
    )
    display.start_phase("Searching and compressing, seconds", *jobs.progress)
    try:
        pool.run(jobs)
    except KeyboardInterrupt:
        if not scheduler.list_points():
            raise  # there is nothing to record
        LOG.info("interrupted: what is finished is recorded")
        pool.stop()
    studies.close_orphans(study, folder, plan)
    if not scheduler.models:
        raise RunFailed(explain_no_training(jobs.candidates, plan))
    for line in describe_schedule(scheduler.ended):
        LOG.info("%s", line)
    record_jobs = create_record_jobs(folder, plan, scheduler, display, notes, command)
    display.start_phase("Recording the best", record_jobs.done, record_jobs.total)
    pool.run(record_jobs)
    if not folder.read_compressed():
        raise RunFailed(f"No model could be recorded: {'; '.join(record_jobs.failures)}.")
    return record_jobs.failures


class ScheduledJobs(SearchJobs):
    """Trials, exports, prunings and fine-tunings, in the order of their expected gain per second.

    Each decision and each result is a line of schedule.jsonl, from which a resumed run continues.

    Args:
        folder, plan, study, display, candidates: See `SearchJobs`.
        scheduler: Scheduler without any step.
        notes: Notes on the teachers for the reports.
        began: Start of this process's work, by `time.monotonic`.
        write_report: Writes the report of what the folder holds.
    """

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        study: Any,
        display: Display,
        candidates: list[Candidate],
        scheduler: Scheduler,
        notes: tuple[str, ...],
        began: float,
        write_report: Callable[[], object],
    ) -> None:
        super().__init__(folder, plan, study, display, candidates)
        self.scheduler, self._notes = scheduler, notes
        self._write_report, self._next_report = write_report, REPORT_SECONDS
        self._log = ScheduleLog(folder.path)
        self._earlier_seconds = self._log.replay(scheduler)
        self._began = began
        self._interrupted = [step for step in scheduler.running if step.kind != TRIAL]
        for step in [step for step in scheduler.running if step.kind == TRIAL]:
            scheduler.cancel(step)
        self._started: dict[int, float] = {}
        known = {result.model for step, result, _ in scheduler.ended if step.kind == TRIAL}
        for candidate in candidates:
            if candidate.id not in known and candidate.is_trial:
                step = scheduler.add_trial(self.seconds)
                self._log.write("begun", step.to_json())
                self._finish_step(step, self._describe_trial(candidate))

    @property
    def seconds(self) -> float:
        """Seconds of the run, with those of earlier processes."""
        return self._earlier_seconds + time.monotonic() - self._began

    @property
    def progress(self) -> tuple[int, int]:
        """Seconds of the run, and seconds for all steps."""
        return round(self.seconds), round(self.scheduler.seconds)

    def take_job(self) -> Job | None:
        """Return the job of the step that the scheduler chooses; None: none can start now."""
        while True:
            step = (
                self._interrupted.pop(0)
                if self._interrupted
                else self.scheduler.choose(self.seconds, may_search=not self.stop_reason)
            )
            if step is None:
                return None
            if self.seconds >= self.scheduler.seconds:  # of a process that was killed late
                self.scheduler.cancel(step)
                continue
            job = super().take_job() if step.kind == TRIAL else self._build_job(step)
            if job is None:
                self.scheduler.cancel(step)
                if not self.stop_reason:
                    return None  # a trial that must run alone waits for the others
                continue
            self._log.write("begun", step.to_json())
            self._started[step.number] = time.monotonic()
            # a step that takes much longer than expected must not cost the finished ones
            left = self.scheduler.seconds - self.seconds
            limit = min(job.get("seconds", float("inf")), max(15.0, 1.1 * left + 5.0))
            if step.kind == TRIAL:  # one model must not cost what many others would take
                limit = min(limit, max(LEAST_TRIAL_SECONDS, TRIAL_SHARE * self.scheduler.seconds))
                job["training_seconds"] = TRAINING_SHARE * limit
            if step.kind in (CONTINUE, TUNE):  # what was trained when the time is over is exported
                rest = left - self.scheduler.estimate_seconds(EXPORT)
                slack = CONTINUED_SLACK * step.seconds if step.kind == CONTINUE else rest
                job["training_seconds"] = min(rest, slack)
            elif step.kind == PRUNE:  # one of the sizes can be fine-tuned afterwards
                job["training_seconds"] = left - step.reserved
            return {**job, "seconds": limit, "number_of_step": step.number}

    def _build_job(self, step: Step) -> Job:
        teachers = [str(path) for path in self._plan.distill.teacher.files]
        if self._plan.distill.teacher.automatic and step.kind == TUNE:
            teachers = [str(self._folder.get_shipped_path(step.teacher))]
        return build_step_job(
            step.model, step.kind, teachers, self._notes,
            share=step.share, epochs=step.epochs, reference=self._find_reference(),
        )  # fmt: skip

    def _find_reference(self) -> list[Any] | None:
        """Return path and cost of the first exported file, which others are timed against."""
        for step, result, _ in self.scheduler.ended:
            if step.kind == EXPORT and result.sizes:
                file = result.sizes[0].files[0]
                stem = self._folder.path / "shrunk" / step.model / "exports" / step.model
                return [str(get_file_path(stem, file.format)), file.cost]
        return None

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Finish the step of a job."""
        step = self._pop_step(job)
        if step.kind == TRIAL:
            before = len(self.candidates)
            super().on_done(worker, job, message)
            new = self.candidates[before:]
            result = (
                self._describe_trial(new[0])
                if new
                else StepResult("", self._measure_seconds(step), reason="it runs again")
            )
        else:
            self._display.update_worker(worker, "", 0.0)
            result = StepResult(
                step.model,
                self._measure_seconds(step),
                tuple(map(SizeResult.from_json, message.get("sizes", ()))),
                message.get("epochs", 0),
                message.get("error", ""),
            )
        self._finish_step(step, result)

    def on_death(
        self, worker: int, job: Job, claimed_trial: dict[str, Any] | None, cause: str
    ) -> None:
        """Fail the step of a worker that died; a step of a lost node runs again."""
        step = self._pop_step(job)
        if step.kind == TRIAL:
            super().on_death(worker, job, claimed_trial, cause)
            self._finish_step(step, StepResult("", self._measure_seconds(step), reason=cause))
            return
        self._display.update_worker(worker, "", 0.0)
        if cause == NODE_LOST:
            self._interrupted.append(step)
            return
        self._finish_step(step, StepResult(step.model, self._measure_seconds(step), reason=cause))

    def _pop_step(self, job: Job) -> Step:
        (step,) = (item for item in self.scheduler.running if item.number == job["number_of_step"])
        return step

    def _measure_seconds(self, step: Step) -> float:
        return time.monotonic() - self._started[step.number]

    def _describe_trial(self, candidate: Candidate) -> StepResult:
        metric = self._plan.search.objectives[0]
        sizes = (
            (SizeResult(1.0, candidate.val[metric], float(candidate.macs or 1)),)
            if candidate.state == COMPLETE
            else ()
        )
        return StepResult(
            candidate.id, candidate.seconds, sizes,
            sum(record.get("share", 1.0) for record in candidate.history),
            "" if sizes else candidate.reason or candidate.state,
        )  # fmt: skip

    def _finish_step(self, step: Step, result: StepResult) -> None:
        gain = self.scheduler.finish(step, result)
        self._log.write(
            "ended", {"number": step.number, "at": self.seconds, "gain": gain, **result.to_json()}
        )
        if step.kind != TRIAL:
            qualities = ", ".join(f"{item.quality:.4f} at {item.share:g}x" for item in result.sizes)
            LOG.info(
                "%s: %s; %.0f s (%.0f expected), hypervolume +%.4f (%.4f expected)",
                step.describe(), result.reason or qualities or "nothing", result.seconds,
                step.seconds, gain, step.gain,
            )  # fmt: skip
        self._display.advance(*self.progress)
        if self.seconds >= self._next_report:
            began = self.seconds
            self._write_report()
            pause = (self.seconds - began) / REPORT_SHARE
            self._next_report = self.seconds + max(REPORT_SECONDS, pause)


def create_record_jobs(
    folder: SearchFolder,
    plan: SearchPlan,
    scheduler: Scheduler,
    display: Display,
    notes: tuple[str, ...],
    command: str,
) -> JobQueue:
    """Return the jobs that record the candidates with a file on the front, and these files.

    Args:
        folder: Folder of the run.
        plan: Plan of the run.
        scheduler: Scheduler at the end.
        display: Display of the progress.
        notes: Notes on the teachers for the reports.
        command: Command that repeats the run.
    """
    sizes: dict[str, list[str]] = {}
    for name, share, file in scheduler.list_front():
        own = sizes.setdefault(name, [])
        original = scheduler.models[name].original
        if original is not None and file in original.files:
            continue  # every record has the files of the original
        if name_size(name, share) not in own:
            own.append(name_size(name, share))
    teachers = [str(path) for path in plan.distill.teacher.files]
    # a run that was interrupted and continued may have made more sizes of a recorded model
    recorded = {record.model: record.each.keys() for record in folder.read_compressed()}
    jobs = [
        {
            **build_step_job(name, RECORD, teachers, notes),
            "sizes": own,
            "command": command,
        }
        for name, own in sizes.items()
        if name not in recorded or not set(own) <= recorded[name]
    ]

    def log_result(_: int, job: Job, __: dict[str, Any]) -> None:
        LOG.info("recorded %s with %s", job["name"], ", ".join(job["sizes"]) or "its own files")

    return JobQueue(
        display, jobs, len(sizes) - len(jobs), activity="recording", log_result=log_result
    )


def build_step_job(
    name: str, kind: str, teachers: list[str], notes: tuple[str, ...], *,
    share: float = 1.0, epochs: int = 0, reference: list[Any] | None = None,
) -> Job:  # fmt: skip
    """Return the job of a step; see `search.engines.steps.StepRunner.run`."""
    return {
        "kind": messages.STEP, "name": name, "step": kind, "share": share, "epochs": epochs,
        "teachers": teachers, "reference": reference, "told": notes,
    }  # fmt: skip

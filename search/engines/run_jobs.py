"""The jobs of workers: trials, final trainings, compressions, candidate models of a `shrink`."""

from __future__ import annotations

import sys
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

from compress.core.atomic_files import read_json
from compress.core.credentials import hide_passwords
from compress.core.device import setup_device, silence_tensorflow
from compress.core.errors import InputError, TrainingDiverged
from compress.core.faults import MEMORY, SPACE, ServiceTimeout, explain_fault, find_fault
from compress.data import Dataset, Preprocessing, load_data
from compress.data.dataset import open_shared_dataset
from compress.model.io import load_model
from compress.plan import Plan
from compress.plan.nesting import from_nested
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.candidate import ShrinkFolder
from compress.shrinking.candidate_builder import CandidateBuilder, create_builder
from compress.shrinking.compression import compress_stage
from compress.shrinking.compression_job import (
    LoadedTeachers,
    RunContext,
    fit_plan,
    load_seeded_teachers,
    prepare_job,
)
from compress.shrinking.job_runner import format_command
from compress.shrinking.shrink import shrink_stage
from compress.train.dataset_loading import with_metric
from search.engines import messages
from search.engines.steps import StepRunner
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import FAILED, Candidate, SearchFolder, TrialGivenUp
from search.study.objective import (
    SEED_ATTR,
    evaluate_trial,
    format_candidate_id,
    get_trial_seed,
)
from search.study.retrain import halve_slow_model, train_final
from search.study.study import ask_trial


class Worker(ABC):
    """A worker with its plan and its data; subclasses run its jobs.

    Args:
        folder: The folder of the run, which contains the plan.
        device: "auto", "cpu" or "gpu".
        threads: CPU threads.
        sharers: Number of workers on this worker's GPU, including itself.
        out: Stream for messages to the parent.
        shared: Folder of the run's data on this machine; default: in the run's folder.
    """

    PLAN: ClassVar[type[Plan]]
    plan: Plan
    _teachers: tuple[list[str], LoadedTeachers] | None = None

    def __init__(
        self,
        folder: SearchFolder,
        device: str,
        threads: int,
        sharers: int,
        out: TextIO,
        shared: Path | None = None,
    ) -> None:
        self.folder, self._out = folder, out
        self.plan = from_nested(self.PLAN, folder.read_plan_record()["plan"])
        self.device = setup_device(device, threads, sharers)
        silence_tensorflow()
        stored = read_json(folder.data)
        shared_data = open_shared_dataset(shared or folder.shared, stored["fingerprint"])
        self.data: Dataset = self._load(stored) if shared_data is None else shared_data

    def _load(self, stored: dict[str, Any]) -> Dataset:
        """Load the plan's data again; raise InputError if the fingerprint is not the stored one."""
        scaling = Preprocessing.from_json(stored["preprocess"])
        data = load_data(self.plan.data, seed=self.plan.seed, preprocess=scaling)
        data = with_metric(data, self.plan.data.metric)
        if data.fingerprint() != stored["fingerprint"]:
            raise InputError(
                f"'{self.plan.data.source}' must give the same data each time it is loaded. "
                "Received: other examples than a moment ago. Seed what is random in it."
            )
        return data

    def report_progress(self, text: str, share: float) -> None:
        """Report the progress of the current job."""
        messages.send(self._out, messages.PROGRESS, text=text, share=share)

    @abstractmethod
    def run_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one job, and return its result for the parent."""

    def load_teachers(self, paths: list[str]) -> LoadedTeachers:
        """Return the teachers with the given paths.

        The teachers of the last job are reused if the paths are the same, which they nearly always
        are.
        """
        if self._teachers is None or self._teachers[0] != paths:
            files = [self.folder.fetch_file(Path(path)) for path in paths]
            self._teachers = paths, load_seeded_teachers(files, self.data, self.plan)
        return self._teachers[1]


class SearchWorker(Worker):
    """A worker of a search."""

    PLAN = SearchPlan
    plan: SearchPlan
    _study: Any = None
    _steps: StepRunner | None = None

    def run_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one job, and return its result for the parent."""
        if job["kind"] == messages.TRIAL:
            return self._run_trial(job.get("number"), job.get("training_seconds"))
        if job["kind"] == messages.STEP:
            return self._run_step(job)
        return (
            self._train_final(job) if job["kind"] == messages.FINAL else self._compress_model(job)
        )

    def _run_step(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a step of a run with a time budget, and return its sizes, or "error"."""
        if self._steps is None:
            self._steps = StepRunner(
                self.folder, self.plan, self.data, self.device, self.report_progress,
                self.load_teachers,
            )  # fmt: skip
        try:
            return self._steps.run(job)
        except Exception as error:
            return {"error": explain_failure(error)}

    def _run_trial(self, number: int | None, seconds: float | None) -> dict[str, Any]:
        """Run a trial; return its "candidate" (even if failed), "fault" (memory) or "given_up"."""
        if self._study is None:
            self._study = studies.open_study(self.folder, self.plan)
        trial = ask_trial(self._study, self.plan, number, self.data)
        if self.folder.read_candidate(format_candidate_id(trial.number)) is not None:
            raise studies.build_lost_error(format_candidate_id(trial.number))
        seed = get_trial_seed(self.plan, trial)
        trial.set_user_attr(SEED_ATTR, seed)
        messages.send(self._out, messages.CLAIMED, number=trial.number, seed=seed)
        try:
            candidate = evaluate_trial(
                trial,
                self.data,
                self.plan,
                self.folder,
                self.device,
                self.report_progress,
                seconds,
            )
        except ServiceTimeout:
            raise
        except TrialGivenUp as error:
            return {"given_up": str(error)}
        except Exception as error:  # a failed trial must not end the worker
            sys.stderr.write(hide_passwords(traceback.format_exc()))
            fault = find_fault(error)
            if fault is not None and fault.kind == MEMORY:
                return {"fault": fault.text, "number": trial.number, "seed": seed}
            if fault is not None:
                # no record is written, so the next start of the run queues the trial again
                raise explain_fault(fault, f" ({format_candidate_id(trial.number)})") from error
            ended = Candidate(
                format_candidate_id(trial.number),
                FAILED,
                dict(trial.params),
                seed,
                reason=summarize_error(error),
                ended=time.time(),
            )
            try:
                candidate = self.folder.write_candidate(ended)
            except TrialGivenUp as superseded:  # this may be the cause of the error
                return {"given_up": str(superseded)}
        return {"candidate": candidate.to_json()}

    def _train_final(self, job: dict[str, Any]) -> dict[str, Any]:
        """Train a candidate of the front again; return its record, or "error" with the reason."""
        candidate = self.folder.read_candidate(job["name"])
        assert candidate is not None, "the front is made of candidates on disk"
        try:
            record = train_final(
                candidate, self.data, self.plan, self.folder, self.device, self.report_progress
            )
        except Exception as error:
            return {"error": explain_failure(error)}
        return {"final": record.to_json()}

    def _compress_model(self, job: dict[str, Any]) -> dict[str, Any]:
        """Compress a model of the front; return its metrics, or "error" with the reason."""
        name, file = job["name"], self.folder.get_shipped_path(job["name"])
        command = job["command"]
        context = RunContext(
            self.data,
            self.plan,
            self.device,
            lambda text, share: self.report_progress(f"{name}: {text}", share),
        )
        goal = self.plan.build_shrink_plan(job["teachers"])
        try:
            compression_job = prepare_job(
                load_model(file),
                file,
                context,
                self.load_teachers(job["teachers"]),
                tuple(job["told"]),
            )
            if goal is not None:
                compression_job.context = replace(context, plan=goal)
                record = shrink_stage(compression_job, self.folder, command)
            else:
                teacher = next((item.model for item in compression_job.teachers), None)
                plan, notes = fit_plan(self.plan, compression_job, teacher)
                times_file = self.folder.get_unfinished_path(name) / "times.json"
                plan, cost_notes = halve_slow_model(plan, compression_job, self.data, times_file)
                if plan is not self.plan:
                    shown_plan = replace(plan, threads=self.device.threads).build_compression_plan(
                        job["teachers"]
                    )
                    command = format_command(shown_plan, Path(job["file"]))
                compression_job.notes += (*notes, *cost_notes)
                compression_job.context = replace(context, plan=plan)
                record = compress_stage(compression_job, self.folder, command)
        except Exception as error:
            return {"name": name, "error": explain_failure(error)}
        return {"name": name, "val": record.val, "finetuned": record.finetuned}


class ShrinkWorker(Worker):
    """A worker that trains candidate models of a `shrink`."""

    PLAN = ShrinkPlan
    plan: ShrinkPlan
    _builder: CandidateBuilder | None = None

    def run_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Train a candidate model, unless its record says that a lost worker has trained it."""
        name = job["name"]
        try:
            builder = self._get_builder(job)
            builder.train(builder.folder.load_candidate(name), job["epochs"])
        except Exception as error:
            return {
                "name": name, "error": explain_failure(error),
                "diverged": isinstance(error, TrainingDiverged),
            }  # fmt: skip
        return {"name": name}

    def _get_builder(self, job: dict[str, Any]) -> CandidateBuilder:
        """Return the builder of candidate models, which is created once per fork."""
        if self._builder is None:
            file = Path(job["file"])
            context = RunContext(self.data, self.plan, self.device, self.report_progress)
            compression_job = prepare_job(
                load_model(file), file, context, self.load_teachers(job["teachers"])
            )
            self._builder = create_builder(
                compression_job, ShrinkFolder(self.folder.path), is_exclusive=False
            )
        return self._builder


def explain_failure(error: Exception) -> str:
    """Return the reason of a failed job after the search.

    Raises:
        RunFailed: Every other job would fail too: the disk is full or a store does not respond.
    """
    sys.stderr.write(hide_passwords(traceback.format_exc()))
    if isinstance(error, ServiceTimeout):
        raise error
    fault = find_fault(error)
    if fault is not None and fault.kind == SPACE:
        raise explain_fault(fault) from error
    return summarize_error(error)


def summarize_error(error: Exception) -> str:
    """Return an error's first line, with its type."""
    first_line = (str(error).strip() or repr(error)).splitlines()[0]
    return hide_passwords(f"{type(error).__name__}: {first_line}")

"""The jobs of workers: trials, final trainings, compressions, nets of a `shrink`."""

from __future__ import annotations

import sys
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

from compress.core.atomic_files import read_json
from compress.core.credentials import hidden
from compress.core.device import quiet_tensorflow, setup
from compress.core.errors import InputError, TrainingDiverged
from compress.core.faults import MEMORY, SPACE, NoAnswer, explain_fault, fault_of
from compress.data import Dataset, Preprocessing, load_data
from compress.data.dataset import open_shared
from compress.model.io import load_model
from compress.plan import Plan
from compress.plan.fields import from_nested
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.case import LoadedTeachers, Work, fitting, prepare, seeded_teachers
from compress.shrinking.compression import compress_stage
from compress.shrinking.job import command_line
from compress.shrinking.net import ShrinkFolder
from compress.shrinking.shrink import goal_stage
from compress.shrinking.workshop import Workshop, workshop_for
from compress.train.given import judged_by
from search.engines import messages
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import FAILED, Candidate, SearchFolder, TrialGivenUp
from search.study.objective import candidate_id, evaluate, trial_seed
from search.study.retrain import halved_if_slow, retrain
from search.study.study import ask


class Worker(ABC):
    """A worker with its plan and its data; a subclass does its jobs.

    Args:
        folder: The run's folder; the plan is read from it.
        device: "auto", "cpu" or "gpu".
        threads: CPU threads.
        sharers: Workers on this worker's GPU, itself included.
        out: Where messages go.
        shared: Where the run's data lie on this machine; default: in the run's folder.
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
        self.device = setup(device, threads, sharers)
        quiet_tensorflow()
        stored = read_json(folder.data)
        given = open_shared(shared or folder.shared, stored["fingerprint"])
        self.data: Dataset = self._load(stored) if given is None else given

    def _load(self, stored: dict[str, Any]) -> Dataset:
        scaling = Preprocessing.from_json(stored["preprocess"])
        data = load_data(self.plan.data, seed=self.plan.seed, preprocess=scaling)
        data = judged_by(data, self.plan.data.metric)
        if data.fingerprint() != stored["fingerprint"]:
            raise InputError(
                f"'{self.plan.data.source}' must give the same data each time it is loaded. "
                "Received: other examples than a moment ago. Seed what is random in it."
            )
        return data

    def progress(self, text: str, share: float) -> None:
        """Report the progress of the current job."""
        messages.send(self._out, messages.PROGRESS, text=text, share=share)

    @abstractmethod
    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do one job, and return its result for the parent."""

    def taught_by(self, paths: list[str]) -> LoadedTeachers:
        """Return the teachers; those of the last job, which are nearly always the same."""
        if self._teachers is None or self._teachers[0] != paths:
            files = [self.folder.brought(Path(path)) for path in paths]
            self._teachers = paths, seeded_teachers(files, self.data, self.plan)
        return self._teachers[1]


class RunWorker(Worker):
    """A worker of a run that searches."""

    PLAN = SearchPlan
    plan: SearchPlan
    _study: Any = None

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do one job, and return its result for the parent."""
        if job["kind"] == messages.TRIAL:
            return self._trial(job.get("number"))
        return self._final(job) if job["kind"] == messages.FINAL else self._compress(job)

    def _trial(self, number: int | None) -> dict[str, Any]:
        if self._study is None:
            self._study = studies.open_study(self.folder, self.plan)
        trial = ask(self._study, self.plan, number, self.data, self.folder)
        if self.folder.read_candidate(candidate_id(trial.number)) is not None:
            raise studies.lost_by_study(candidate_id(trial.number))
        seed = trial_seed(self.plan, trial)
        trial.set_user_attr("seed", seed)
        messages.send(self._out, messages.CLAIMED, number=trial.number, seed=seed)
        try:
            candidate = evaluate(
                trial,
                self.data,
                self.plan,
                self.folder,
                self.device,
                self.progress,
            )
        except NoAnswer:
            raise
        except TrialGivenUp as error:
            return {"given_up": str(error)}
        except Exception as error:  # a trial must not take the worker with it
            sys.stderr.write(hidden(traceback.format_exc()))
            fault = fault_of(error)
            if fault is not None and fault.kind == MEMORY:
                return {"fault": fault.text, "number": trial.number, "seed": seed}
            if fault is not None:
                # not recorded: the next start finds it running, and queues it again
                raise explain_fault(fault, f" ({candidate_id(trial.number)})") from error
            ended = Candidate(
                candidate_id(trial.number),
                FAILED,
                dict(trial.params),
                seed,
                reason=short(error),
                ended=time.time(),
            )
            try:
                candidate = self.folder.write_candidate(ended)
            except TrialGivenUp as late:  # it may be why this went wrong
                return {"given_up": str(late)}
        return {"candidate": candidate.to_json()}

    def _final(self, job: dict[str, Any]) -> dict[str, Any]:
        candidate = self.folder.read_candidate(job["name"])
        assert candidate is not None, "the front is made of candidates on disk"
        try:
            record = retrain(
                candidate,
                job["place"],
                self.data,
                self.plan,
                self.folder,
                self.device,
                self.progress,
                self.taught_by(job["teachers"]).each if job["teachers"] else (),
            )
        except Exception as error:
            return {"error": failed(error)}
        return {"final": record.to_json()}

    def _compress(self, job: dict[str, Any]) -> dict[str, Any]:
        name, file = job["name"], self.folder.shipped_file(job["name"])
        command = job["command"]
        work = Work(
            self.data,
            self.plan,
            self.device,
            lambda text, share: self.progress(f"{name}: {text}", share),
        )
        goal = self.plan.to_goal(job["teachers"])
        try:
            case = prepare(
                load_model(file), file, work, self.taught_by(job["teachers"]), tuple(job["told"]),
                val_learnt=job["val_learnt"],
            )  # fmt: skip
            if goal is not None:
                case.work = replace(work, plan=goal)
                record = goal_stage(case, self.folder, command)
            else:
                teacher = next((item.model for item in case.teachers), None)
                plan, notes = fitting(self.plan, self.data, case, teacher)
                known = self.folder.unfinished(name) / "times.json"
                plan, slow = halved_if_slow(plan, case, self.data, known)
                if plan is not self.plan:
                    again = replace(plan, threads=self.device.threads).compression(job["teachers"])
                    command = command_line(again, Path(job["file"]))
                case.notes += (*notes, *slow)
                case.work = replace(work, plan=plan)
                record = compress_stage(case, self.folder, command)
        except Exception as error:
            return {"name": name, "error": failed(error)}
        return {"name": name, "val": record.val, "finetuned": record.finetuned}


class NetWorker(Worker):
    """A worker that trains nets of one model."""

    PLAN = ShrinkPlan
    plan: ShrinkPlan
    _shop: Workshop | None = None

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Train a net, unless one before that was lost has; its record says so then."""
        name = job["name"]
        try:
            shop = self._workshop(job)
            shop.trained(shop.folder.known_net(name), job["epochs"])
        except Exception as error:
            return {
                "name": name, "error": failed(error),
                "diverged": isinstance(error, TrainingDiverged),
            }  # fmt: skip
        return {"name": name}

    def _workshop(self, job: dict[str, Any]) -> Workshop:
        """Return the builder of nets of the job's model: made once, behind the fork."""
        if self._shop is None:
            file = Path(job["file"])
            work = Work(self.data, self.plan, self.device, self.progress)
            case = prepare(load_model(file), file, work, self.taught_by(job["teachers"]))
            self._shop = workshop_for(case, ShrinkFolder(self.folder.path), alone=False)
        return self._shop


def failed(error: Exception) -> str:
    """Return the reason for which a job after the search failed.

    Raises:
        RunFailed: Every other would, too: the machine lacks space, a store does not answer.
    """
    sys.stderr.write(hidden(traceback.format_exc()))
    if isinstance(error, NoAnswer):
        raise error
    fault = fault_of(error)
    if fault is not None and fault.kind == SPACE:
        raise explain_fault(fault) from error
    return short(error)


def short(error: Exception) -> str:
    """Return an error's first line, with its kind."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    return hidden(f"{type(error).__name__}: {first}")

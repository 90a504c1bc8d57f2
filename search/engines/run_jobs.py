"""What a run's workers do: trials, final trainings, compressions."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.credentials import hidden
from compress.core.faults import MEMORY, NoAnswer, explain_fault, fault_of
from search.engines import messages
from search.engines.at_work import Worker, failed, short

if TYPE_CHECKING:
    from search.plan import SearchPlan


class RunWorker(Worker):
    """A worker of a run that searches."""

    plan: SearchPlan
    _study: Any = None

    def _plan(self, nested: Mapping[str, Any]) -> SearchPlan:
        from compress.plan.fields import from_nested
        from search.plan import SearchPlan

        return from_nested(SearchPlan, nested)

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Does one job and returns what the parent wants to know of it."""
        if job["kind"] == messages.TRIAL:
            return self._trial(job.get("number"))
        return self._final(job) if job["kind"] == messages.FINAL else self._compress(job)

    def _trial(self, number: int | None) -> dict[str, Any]:
        from search.study import study as studies
        from search.study.asking import ask
        from search.study.directory import TrialGivenUp
        from search.study.objective import candidate_id, evaluate, trial_seed
        from search.study.records import FAILED, Candidate

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
        from search.study.retrain import retrain

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
        from compress.model.io import load_model
        from compress.shrinking.case import Work, fitting, prepare
        from compress.shrinking.compression import compress_stage
        from compress.shrinking.job import command_line
        from compress.shrinking.shrink import goal_stage
        from search.study.slow_models import halved_if_slow

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

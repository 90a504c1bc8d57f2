"""A worker process: loads the data once, then does the jobs it is sent until told to quit.

Started as `search.engines.worker FOLDER --device D --threads N --sharers M` through
`compress.core.platform.lifeline`: when the parent dies so does the worker, also while it still
imports. Messages come on standard input and go to what was standard output; everything that
libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from compress.core.credentials import hidden
from compress.core.errors import ParetuneError, RunFailed
from compress.core.faults import MEMORY, SPACE, ended_by, fault_of
from compress.core.patience import NoAnswer
from compress.core.platform import host
from search.engines import forking, messages

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.data import Dataset
    from compress.pipeline.teachers import LoadedTeachers
    from search.folder.directory import SearchFolder
    from search.plan import SearchPlan

PROGRESS_SECONDS = 0.2
WORKERS_LOCK = "workers.lock"
MAX_FORK_GROWTH = 48 * 2**20
"""A fork whose memory has grown by this many bytes since its first job is renewed."""


class Worker:
    """The jobs a worker can do.

    Args:
        folder: The run's folder; the plan is read from it.
        device: "auto", "cpu" or "gpu".
        threads: CPU threads.
        sharers: Workers on this worker's GPU, itself included.
        out: Where messages go.
        shared: Where the run's data lie on this machine; default: in the run's folder.
    """

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
        from compress.core.atomic_files import read_json
        from compress.core.device import quiet_tensorflow, setup
        from compress.data.shared import open_shared
        from compress.plan.fields import from_nested
        from search.plan import SearchPlan

        self.folder, self._out = folder, out
        self.plan: SearchPlan = from_nested(SearchPlan, folder.read_plan_record()["plan"])
        self.device: Device = setup(device, threads, sharers)
        quiet_tensorflow()
        stored = read_json(folder.data)
        given = open_shared(shared or folder.shared, stored["fingerprint"])
        self.data: Dataset = self._load(stored) if given is None else given
        self._study: Any = None

    def _load(self, stored: dict[str, Any]) -> Dataset:
        """Loads the data from their source, with the run's scaling."""
        from compress.core.errors import InputError
        from compress.data import Preprocessing, load_data
        from compress.train.compiled import judged_by

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
        """Reports how far the current job is."""
        messages.send(self._out, messages.PROGRESS, text=text, share=share)

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Does one job and returns what the parent wants to know of it."""
        if job["kind"] == messages.TRIAL:
            return self._trial(job.get("number"))
        return self._final(job) if job["kind"] == messages.FINAL else self._compress(job)

    def _trial(self, number: int | None) -> dict[str, Any]:
        from search.folder.directory import TrialGivenUp
        from search.folder.records import FAILED, Candidate
        from search.study import study as studies
        from search.trial.objective import candidate_id, evaluate, trial_seed

        if self._study is None:
            self._study = studies.open_study(self.folder, self.plan)
        trial = studies.ask(self._study, self.plan, number, self.data)
        if self.folder.read_candidate(candidate_id(trial.number)) is not None:
            raise RunFailed(
                f"The study has lost candidate {candidate_id(trial.number)}, which is finished: "
                "was it removed during the run? The same command rebuilds it from the records "
                "and continues."
            )
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
                # neither told nor recorded: the next start finds it running, and queues it again
                raise ended_by(fault, f" ({candidate_id(trial.number)})") from error
            failed = Candidate(
                candidate_id(trial.number),
                FAILED,
                dict(trial.params),
                seed,
                reason=_short(error),
                ended=time.time(),
            )
            try:
                candidate = self.folder.write_candidate(failed)
            except TrialGivenUp as late:  # it may be why this went wrong
                return {"given_up": str(late)}
        studies.tell(self._study, trial.number, candidate, self.plan)
        return {"candidate": candidate.to_json()}

    def _final(self, job: dict[str, Any]) -> dict[str, Any]:
        from search.trial.retrain import retrain

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
                self._taught_by(job["teachers"]).each if job["teachers"] else (),
            )
        except Exception as error:
            return {"error": _failed(error)}
        return {"final": record.to_json()}

    def _compress(self, job: dict[str, Any]) -> dict[str, Any]:
        from compress.model.io import load_model
        from compress.pipeline.checks import fitting
        from compress.pipeline.compression import command_line
        from compress.pipeline.context import Work
        from compress.pipeline.prepared import prepare
        from compress.pipeline.stages import compress_stage
        from compress.run.trained import trained_for
        from compress.shrinking.case import Case
        from compress.shrinking.stage import goal_stage
        from search.trial.slow_models import halved_if_slow

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
            dense = prepare(load_model(file), name, work, self._taught_by(job["teachers"]))
            if goal is not None:
                work = replace(work, plan=goal)
                case = Case(name, file, file, work, dense, tuple(job["told"]))
                record = goal_stage(case, self.folder, command)
                return {"name": name, "val": record.val, "finetuned": record.finetuned}
            teacher = next(iter(dense.teachers.models), None)
            plan, notes = fitting(self.plan, self.data, dense.subject, teacher)
            known = self.folder.unfinished(name) / "times.json"
            plan, slow = halved_if_slow(plan, dense.subject, self.data, known)
            notes += slow
            if plan is not self.plan:
                again = replace(plan, threads=self.device.threads).compression(job["teachers"])
                command = command_line(again, Path(job["file"]))
            record = compress_stage(
                dense,
                replace(work, plan=plan),
                self.folder,
                before=trained_for(file),
                command=command,
                notes=[*job["told"], *notes],
                val_learnt=job["val_learnt"],
            )
        except Exception as error:
            return {"name": name, "error": _failed(error)}
        return {"name": name, "val": record.val, "finetuned": record.finetuned}

    def _taught_by(self, paths: list[str]) -> LoadedTeachers:
        """Returns the teachers; those of the last job, which are nearly always the same."""
        from compress.pipeline.teachers import seeded_teachers

        if self._teachers is None or self._teachers[0] != paths:
            files = [self.folder.brought(Path(path)) for path in paths]
            self._teachers = paths, seeded_teachers(files, self.data, self.plan)
        return self._teachers[1]


def _failed(error: Exception) -> str:
    """Returns why a job after the search failed.

    Raises:
        RunFailed: Every other would, too: the machine lacks space, a store does not answer.
    """
    sys.stderr.write(hidden(traceback.format_exc()))
    if isinstance(error, NoAnswer):
        raise error
    fault = fault_of(error)
    if fault is not None and fault.kind == SPACE:
        raise ended_by(fault) from error
    return _short(error)


def _short(error: Exception) -> str:
    """Returns an error's first line, with its kind."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    return hidden(f"{type(error).__name__}: {first}")


def _listen(jobs: queue.Queue[dict[str, Any]]) -> None:
    """Queues what comes in; ends the process at once when the parent is gone."""
    for line in sys.stdin:
        message = messages.parse(line)
        if message is not None:
            jobs.put(message)
            if message["kind"] == messages.QUIT:
                return
    # not an end that asks for another worker in its place
    os._exit(0)


def _serve(worker: Worker, out: TextIO, forked: bool) -> int:
    """Does jobs until told to quit or, in a fork, until memory has grown."""
    if forked:
        from compress.exporting import converter

        # before threads are started, and before TensorFlow works
        converter.fork_ahead()
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    memory = host().resident_bytes()
    messages.send(out, messages.READY, device=worker.device.describe(), memory=memory)

    first = 0
    while (job := jobs.get())["kind"] != messages.QUIT:
        try:
            result = {**worker.do(job), "files": worker.folder.publish()}
        except Exception as error:
            fault = fault_of(error)
            if not isinstance(error, ParetuneError):
                if fault is None:
                    raise
                error = ended_by(fault)
            messages.send(out, messages.FATAL, reason=str(error))
            return 0
        memory = host().resident_bytes()
        first = first or memory
        # what a failed allocation has left behind is not known
        renewed = forked and (memory - first > MAX_FORK_GROWTH or "fault" in result)
        messages.send(out, messages.DONE, memory=memory, renewed=renewed, **result)
        if renewed:
            return forking.RENEW
    return 0


def main() -> None:
    """Runs the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--sharers", type=int, default=1)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--files", default="")
    parser.add_argument("--known-as", type=Path)
    arguments = parser.parse_args()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # held until this process ends: a resumed run waits for it before touching the journal
    held = host().share(arguments.folder / WORKERS_LOCK)  # noqa: F841
    from search.folder.directory import SearchFolder
    from search.folder.remote import RemoteFolder
    from search.folder.store import Files

    try:
        worker = Worker(
            RemoteFolder(arguments.folder, Files(arguments.files), arguments.known_as)
            if arguments.files
            else SearchFolder(arguments.folder),
            arguments.device,
            arguments.threads,
            arguments.sharers,
            out,
            arguments.shared,
        )
    except ParetuneError as error:
        messages.send(out, messages.FATAL, reason=str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        fault = fault_of(error)
        if fault is None:
            raise
        messages.send(out, messages.FATAL, reason=str(ended_by(fault)))
        sys.exit(1)
    # a GPU's driver is in use by now, and does not survive a fork
    if worker.device.kind == "gpu" or not forking.can_fork():
        sys.exit(_serve(worker, out, forked=False))
    sys.exit(
        forking.serve(
            lambda: _serve(worker, out, forked=True),
            lambda how: messages.send(out, messages.DIED, how=how),
        )
    )


if __name__ == "__main__":
    main()

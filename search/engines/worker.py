"""A worker process, which loads the data once and then runs jobs until it receives a quit message.

It is started as `search.engines.worker FOLDER --device D --threads N --sharers M` through
`compress.core.parent_watch`, so that the worker ends when its parent dies, even during imports.
Messages arrive on standard input and leave on the original standard output; all output of
libraries goes to standard error.

Jobs run in forks of the process. TensorFlow keeps tens of megabytes of every trained model until
its process ends. A fork of a process that has imported TensorFlow, but not yet used it, starts in a
fraction of a second, and its end frees the leaked memory.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from compress.core import linux
from compress.core.errors import ParetuneError
from compress.core.faults import explain_fault, find_fault
from compress.core.memory_budget import use_budget
from compress.core.processes import run_in_fork
from search.engines import messages

if TYPE_CHECKING:
    from search.engines.run_jobs import Worker

WORKERS_LOCK = "workers.lock"
SHRINK = "shrink"
"""The command whose folders hold candidate models of one original model."""
RENEW_EXIT_CODE = 75
"""Exit code of a fork that requests a new fork."""
EARLY_SECONDS, MAX_EARLY = 1.0, 3
"""Seconds, and number of consecutive forks that die within them, after which the worker ends."""
MAX_FORK_GROWTH = 48 * 2**20
"""Growth of a fork's memory since its first job, in bytes, after which it is renewed."""


def _enqueue_messages(jobs: queue.Queue[dict[str, Any]]) -> None:
    """Queue incoming messages, and end the process at once when the parent has ended."""
    for line in sys.stdin:
        message = messages.parse(line)
        if message is not None:
            jobs.put(message)
            if message["kind"] == messages.QUIT:
                return
    # exit code 0 requests no new fork
    os._exit(0)


def _serve(worker: Worker, out: TextIO, is_fork: bool) -> int:
    """Run jobs until a quit message, a fatal error or the end of this fork; return the exit code.

    A fork ends when its memory has grown, or after a failed allocation.
    """
    if is_fork:
        from compress.exporting import converter

        # forking is safe only before threads start and TensorFlow is used
        converter.fork_converter()
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_enqueue_messages, args=(jobs,), daemon=True).start()
    memory = linux.measure_resident_bytes()
    messages.send(out, messages.READY, device=worker.device.describe(), memory=memory)

    first_memory = 0
    while (job := jobs.get())["kind"] != messages.QUIT:
        try:
            result = {**worker.run_job(job), "files": worker.folder.publish()}
        except Exception as error:
            messages.send(out, messages.FATAL, reason=str(_explain(error)))
            return 0
        memory = linux.measure_resident_bytes()
        first_memory = first_memory or memory
        # a failed allocation may have left the process in a bad state
        needs_renewal = is_fork and (memory - first_memory > MAX_FORK_GROWTH or "fault" in result)
        messages.send(out, messages.DONE, memory=memory, renewed=needs_renewal, **result)
        if needs_renewal:
            return RENEW_EXIT_CODE
    return 0


def _explain(error: Exception) -> ParetuneError:
    """Return the error that ends the run, with its remedy; re-raise programming errors."""
    fault = find_fault(error)
    if isinstance(error, ParetuneError):
        return error
    if fault is None:
        raise error
    return explain_fault(fault)


def main() -> None:
    """Run the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--sharers", type=int, default=1)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--files", default="")
    parser.add_argument("--known-as", type=Path)
    arguments = parser.parse_args()
    with use_budget(arguments.memory):
        _run_worker(arguments)


def _run_worker(arguments: argparse.Namespace) -> None:
    """Load plan and data, run jobs (on a CPU in forks) and exit; stdout carries only messages."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # held until this process ends; a resumed run waits for the lock before it opens the journal
    lock = linux.lock_file(arguments.folder / WORKERS_LOCK, is_shared=True)  # noqa: F841
    try:
        from search.engines.run_jobs import SearchWorker, ShrinkWorker
        from search.study.directory import SearchFolder
        from search.study.remote import FileStore, RemoteFolder

        folder = (
            RemoteFolder(arguments.folder, FileStore(arguments.files), arguments.known_as)
            if arguments.files
            else SearchFolder(arguments.folder)
        )
        worker_class = (
            ShrinkWorker if folder.read_plan_record()["command"] == SHRINK else SearchWorker
        )
        worker = worker_class(
            folder,
            arguments.device,
            arguments.threads,
            arguments.sharers,
            out,
            arguments.shared,
        )
    except Exception as error:
        error_to_report = _explain(error)
        messages.send(out, messages.FATAL, reason=str(error_to_report))
        sys.exit(error_to_report.exit_code)
    from tensorflow.python.eager import context  # a public function would start TensorFlow

    # neither a GPU driver in use nor an initialized TensorFlow survives a fork
    if worker.device.kind == "gpu" or getattr(context.context(), "_initialized", True):
        sys.exit(_serve(worker, out, is_fork=False))
    sys.exit(
        run_in_forks(
            lambda: _serve(worker, out, is_fork=True),
            lambda how: messages.send(out, messages.DIED, how=how),
        )
    )


def run_in_forks(run_jobs: Callable[[], int], on_death: Callable[[str], None]) -> int:
    """Run `run_jobs` in one fork after another until one ends normally.

    Args:
        run_jobs: Runs jobs; returns an exit code, `RENEW_EXIT_CODE` for a new fork.
        on_death: Called with "signal SIGKILL" or "exit code 1" when a fork died; a new one follows.

    Returns:
        0: a fork received a quit message; 1: forks repeatedly died right after their start.
    """
    early_deaths = 0
    while True:
        began = time.monotonic()
        code = run_in_fork(run_jobs)
        if code == 0:
            return 0
        if code == RENEW_EXIT_CODE:
            continue
        early_deaths = early_deaths + 1 if time.monotonic() - began < EARLY_SECONDS else 0
        if early_deaths == MAX_EARLY:
            return 1
        on_death(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


if __name__ == "__main__":
    main()

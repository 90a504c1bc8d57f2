"""A worker process: loads the data once, then does jobs until it is told to quit.

Started as `search.engines.worker FOLDER --device D --threads N --sharers M` through
`compress.core.lifeline`: when the parent dies so does the worker, also while it still
imports. Messages come on standard input and go to what was standard output; everything that
libraries print goes to standard error.

Jobs run in forks of it: TensorFlow is imported once, memory comes back. TensorFlow keeps tens of
megabytes of every model that it has trained until its process ends. A fork of a process that has
imported it, but not yet used it, starts in a fraction of a second and takes what it leaked with it.
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
from compress.core.faults import explain_fault, fault_of
from compress.core.memory_budget import use_budget
from compress.core.processes import run_in_fork
from search.engines import messages

if TYPE_CHECKING:
    from search.engines.run_jobs import Worker

WORKERS_LOCK = "workers.lock"
SHRINK = "shrink"
"""The command whose folders hold nets of one model."""
RENEW = 75
"""Exit code of a fork that wants to be followed by a fresh one."""
EARLY_SECONDS, MAX_EARLY = 1.0, 3
"""So many forks in a row that die within this time are no accident."""
MAX_FORK_GROWTH = 48 * 2**20
"""A fork whose memory has grown by this many bytes since its first job is renewed."""


def _listen(jobs: queue.Queue[dict[str, Any]]) -> None:
    """Queue incoming messages; end the process at once when the parent is gone."""
    for line in sys.stdin:
        message = messages.parse(line)
        if message is not None:
            jobs.put(message)
            if message["kind"] == messages.QUIT:
                return
    # not an end that asks for another worker in its place
    os._exit(0)


def _serve(worker: Worker, out: TextIO, forked: bool) -> int:
    """Do jobs until told to quit or, in a fork, until memory has grown."""
    if forked:
        from compress.exporting import converter

        # before threads are started, and before TensorFlow works
        converter.fork_ahead()
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    memory = linux.resident_bytes()
    messages.send(out, messages.READY, device=worker.device.describe(), memory=memory)

    first = 0
    while (job := jobs.get())["kind"] != messages.QUIT:
        try:
            result = {**worker.do(job), "files": worker.folder.publish()}
        except Exception as error:
            messages.send(out, messages.FATAL, reason=str(_explain(error)))
            return 0
        memory = linux.resident_bytes()
        first = first or memory
        # what a failed allocation has left behind is not known
        renewed = forked and (memory - first > MAX_FORK_GROWTH or "fault" in result)
        messages.send(out, messages.DONE, memory=memory, renewed=renewed, **result)
        if renewed:
            return RENEW
    return 0


def _explain(error: Exception) -> ParetuneError:
    """Return the error that ends the run, with its remedy; raise one of the code itself."""
    fault = fault_of(error)
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
        _work(arguments)


def _work(arguments: argparse.Namespace) -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # held until this process ends: a resumed run waits for it before touching the journal
    held = linux.share(arguments.folder / WORKERS_LOCK)  # noqa: F841
    try:
        from search.engines.run_jobs import NetWorker, RunWorker
        from search.study.directory import SearchFolder
        from search.study.remote import Files, RemoteFolder

        folder = (
            RemoteFolder(arguments.folder, Files(arguments.files), arguments.known_as)
            if arguments.files
            else SearchFolder(arguments.folder)
        )
        kind = NetWorker if folder.read_plan_record()["command"] == SHRINK else RunWorker
        worker = kind(
            folder,
            arguments.device,
            arguments.threads,
            arguments.sharers,
            out,
            arguments.shared,
        )
    except Exception as error:
        fatal = _explain(error)
        messages.send(out, messages.FATAL, reason=str(fatal))
        sys.exit(fatal.exit_code)
    from tensorflow.python.eager import context  # no public way to ask without starting it

    # a GPU's driver is in use by now, and does not survive a fork; nor does TensorFlow that works
    if worker.device.kind == "gpu" or getattr(context.context(), "_initialized", True):
        sys.exit(_serve(worker, out, forked=False))
    sys.exit(
        run_in_forks(
            lambda: _serve(worker, out, forked=True),
            lambda how: messages.send(out, messages.DIED, how=how),
        )
    )


def run_in_forks(work: Callable[[], int], on_death: Callable[[str], None]) -> int:
    """Run `work` in one fork after another until one ends for good.

    Args:
        work: Does jobs; returns an exit code, `RENEW` for a fresh fork.
        on_death: Called with "signal SIGKILL" or "exit code 1" when a fork did not end by
            itself; a fresh one follows.

    Returns:
        0: a fork was told to quit; 1: forks die as soon as they begin, and no more are made.
    """
    early = 0
    while True:
        began = time.monotonic()
        code = run_in_fork(work)
        if code == 0:
            return 0
        if code == RENEW:
            continue
        early = early + 1 if time.monotonic() - began < EARLY_SECONDS else 0
        if early == MAX_EARLY:
            return 1
        on_death(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


if __name__ == "__main__":
    main()

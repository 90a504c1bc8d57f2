"""Forks of this process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

from compress.core import lifeline, linux


def fork() -> int:
    """Forks as `os.fork` does; the fork ends with this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    own, how = os.getpid(), linux.tie()
    # Python 3.12 warns of forks of processes with threads: libraries' idle ones, here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        lifeline.end_with_parent(own, how)
    return child


def run(work: Callable[[], int], asking: int | None = None) -> int:
    """Runs `work` in a fork.

    Args:
        work: Returns an exit status; 1 where it raises.
        asking: A pipe whose other end must stay open, or the fork is killed.

    Returns:
        The exit status, negative for a signal; 0 where the other end was closed.
    """
    alive, life = os.pipe()
    child = fork()
    if child == 0:
        _end_with(work)
    os.close(life)
    ended = [alive]
    if asking is not None:
        # both pipes tell of their other ends alone: what comes is for the fork to read
        ends = select.poll()
        ends.register(alive, 0)
        ends.register(asking, 0)
        ended = [number for number, _ in ends.poll()]
    os.close(alive)
    if alive not in ended:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if alive in ended else 0


class Fork:
    """A fork that goes on beside this process, as `subprocess.Popen` is."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit status, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
            time.sleep(0.005)
        return code


def start(work: Callable[[int, int], None]) -> tuple[Fork, int, int]:
    """Forks this process, which must have no threads that the fork needs.

    Args:
        work: Runs in the fork with (where questions come from, where answers go), until it
            returns. The fork has no other file open than these and what it was given as
            standard error.

    Returns:
        The fork, where its questions go and where its answers come from.
    """
    questions, to = os.pipe()
    back, answers = os.pipe()
    child = fork()
    if child == 0:

        def alone() -> int:
            os.setsid()
            _keep_open({2, questions, answers})
            work(questions, answers)
            return 0

        _end_with(alone)
    os.close(questions)
    os.close(answers)
    return Fork(child), to, back


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Ends this process, a fork, with what `work` returns."""
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # no exit handlers: they belong to the process that was forked
        os._exit(code)


def _keep_open(wanted: set[int]) -> None:
    """Closes what a fork has inherited: locks and pipes of others would stay with it."""
    last = 0
    for number in sorted(wanted):
        os.closerange(last, number)
        last = number + 1
    os.closerange(last, min(os.sysconf("SC_OPEN_MAX"), 2**16))
    # what writes to a descriptor of these numbers must not hit another file
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
        nothing = os.open(os.devnull, mode)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)

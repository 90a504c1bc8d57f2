"""Forks and server processes; none outlives the process that started it."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any, NoReturn

from compress.core import lifeline, linux
from compress.core.interpreter import module_command, module_environment

CLOSE_SECONDS = 10.0


class ProcessEnded(Exception):
    """A server's process ended before it answered; the message says how."""


class ProcessOverdue(Exception):
    """A server did not answer in time, and was ended."""


def how_it_ended(code: int) -> str:
    """Return "segmentation fault (signal 11)" or "exit code 1" for an exit status."""
    if code >= 0:
        return f"exit code {code}"
    return f"{(signal.strsignal(-code) or 'unknown').lower()} (signal {-code})"


def last_line(errors: IO[bytes]) -> str:
    """Return the last line of a file that a process wrote to, 300 characters at most."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - 4096))
    lines = errors.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def send(stream: int, content: Any) -> None:
    """Write one pickled object to a file descriptor."""
    data = pickle.dumps(content)
    left = memoryview(struct.pack("<Q", len(data)) + data)
    while left:
        left = left[os.write(stream, left) :]


def receive(stream: int, seconds: float | None = None) -> Any:
    """Read one pickled object from a file descriptor.

    Args:
        stream: Of a pipe from a process of ours.
        seconds: How long to wait for it; None: for ever.

    Raises:
        EOFError: The other side is gone.
        TimeoutError: It did not come in time.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    (length,) = struct.unpack("<Q", _read(stream, 8, deadline))
    return pickle.loads(_read(stream, length, deadline))


def _read(stream: int, length: int, deadline: float | None) -> bytes:
    parts, left = [], length
    while left:
        rest = None if deadline is None else deadline - time.monotonic()
        part = linux.read(stream, min(left, 2**20), rest)
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Server:
    """A process that answers questions one after the other, both as pickled objects.

    It ends with this process. Made by `started` or `forked`; closed by its user.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Fork,
        to: int,
        back: int,
        errors: IO[bytes] | None = None,
    ) -> None:
        self._process, self._to, self._back, self._errors = process, to, back, errors
        self._closed = False

    @classmethod
    def started(
        cls,
        module: str,
        *words: str,
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """Start `python -m module words`, which calls `serving`.

        Args:
            module: Its dotted name.
            words: Its arguments.
            environment: Variables beside this process's.
        """
        # what it writes is shown when it fails
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        process = subprocess.Popen(
            module_command(module, *words),
            env={**module_environment(), **(environment or {})}, bufsize=0, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors,
            # Ctrl-C is for this process, which ends its servers
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno())
        process.stdin.close()
        process.stdout.close()
        return cls(process, to, back, errors)

    @classmethod
    def forked(cls, work: Callable[[int, int], None]) -> Server:
        """Fork this process, which must have no threads that the fork needs.

        Args:
            work: Runs in the fork with (where questions come from, where answers go), until it
                returns. The fork has no other file open than these and what it was given as
                standard error.
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
        return cls(Fork(child), to, back)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, *question: Any, seconds: float | None = None) -> Any:
        """Return the answer to a question.

        Args:
            question: Anything that can be pickled.
            seconds: How long to wait for the answer; None: for ever.

        Raises:
            ProcessEnded: The process ended before it answered.
            ProcessOverdue: It took longer, and was ended.
        """
        try:
            send(self._to, question)
            return receive(self._back, seconds)
        except TimeoutError:
            self.close()
            raise ProcessOverdue(f"no answer within {seconds:g} s") from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)  # it is on its way out: what of, is asked next
            errors = self._errors
            said = "" if errors is None or errors.closed else last_line(errors)
            words = f"; its last words: {said}" if said else ""
            raise ProcessEnded(how_it_ended(self.close()) + words) from None
        except BaseException:
            # an answer that nobody waits for would be taken for the next question's
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._closed and self._process.poll() is None

    def close(self) -> int:
        """Kill the process and all that it has started, and return its exit status."""
        try:
            if self._process.poll() is None:
                linux.kill_group(self._process.pid)
            return self._process.wait(CLOSE_SECONDS)
        finally:
            if not self._closed:
                self._closed = True
                os.close(self._to)
                os.close(self._back)
                if self._errors is not None:
                    self._errors.close()


def serving() -> tuple[int, int]:
    """Make this process a server.

    Returns:
        Where questions come from and where answers go. Standard output goes to standard
        error: what libraries print must not lie between answers.
    """
    questions, answers = os.dup(0), os.dup(1)
    _point_nowhere(0, os.O_RDONLY)
    os.dup2(2, 1)
    return questions, answers


def fork() -> int:
    """Fork as `os.fork` does; the fork ends with this process."""
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


def run_in_fork(work: Callable[[], int], asking: int | None = None) -> int:
    """Run `work` in a fork.

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
        """Return the exit status, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
            time.sleep(0.005)
        return code


def _end_with(work: Callable[[], int]) -> NoReturn:
    """End this process, a fork, with what `work` returns."""
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
    """Close inherited file descriptors: a fork would keep others' locks and pipes open."""
    last = 0
    for number in sorted(wanted):
        os.closerange(last, number)
        last = number + 1
    os.closerange(last, min(os.sysconf("SC_OPEN_MAX"), 2**16))
    # what writes to a descriptor of these numbers must not hit another file
    _point_nowhere(0, os.O_RDONLY)
    _point_nowhere(1, os.O_WRONLY)


def _point_nowhere(number: int, mode: int) -> None:
    nothing = os.open(os.devnull, mode)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)

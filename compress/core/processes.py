"""Forks and server processes, which end with the process that started them."""

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

from compress.core import linux, parent_watch
from compress.core.module_loading import build_module_command, build_module_environment

CLOSE_SECONDS = 10.0  # longest wait for a process to end


class ProcessEnded(Exception):
    """A server process ended before it answered; the message describes its exit."""


class ProcessOverdue(Exception):
    """A server did not answer in time and was killed."""


def describe_exit(code: int) -> str:
    """Return a description of an exit status: "segmentation fault (signal 11)" or "exit code 1"."""
    if code >= 0:
        return f"exit code {code}"
    return f"{(signal.strsignal(-code) or 'unknown').lower()} (signal {-code})"


def read_last_line(errors: IO[bytes]) -> str:
    """Return the last line of a process's output file, at most 300 characters."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - 4096))
    lines = errors.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def send_object(stream: int, content: Any) -> None:
    """Write one pickled object to a file descriptor."""
    data = pickle.dumps(content)
    left = memoryview(struct.pack("<Q", len(data)) + data)
    while left:
        left = left[os.write(stream, left) :]


def receive_object(stream: int, seconds: float | None = None) -> Any:
    """Read one pickled object from a file descriptor.

    Args:
        stream: File descriptor of a pipe from our own process.
        seconds: Time limit. None waits without limit.

    Raises:
        EOFError: The other side was closed.
        TimeoutError: The object did not arrive in time.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    (length,) = struct.unpack("<Q", _read_exactly(stream, 8, deadline))
    return pickle.loads(_read_exactly(stream, length, deadline))


def _read_exactly(stream: int, length: int, deadline: float | None) -> bytes:
    """Return `length` bytes of a pipe; raise EOFError at its end, TimeoutError at `deadline`."""
    parts, remaining = [], length
    while remaining:
        seconds_left = None if deadline is None else deadline - time.monotonic()
        part = linux.read_pipe(stream, min(remaining, 2**20), seconds_left)
        if not part:
            raise EOFError
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)


class ServerProcess:
    """Process that answers requests one after the other, exchanged as pickled objects.

    It ends with this process. Create it with `start` or `start_fork`, and close it after use.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes] | ForkedProcess,
        request_pipe: int,
        reply_pipe: int,
        errors: IO[bytes] | None = None,
    ) -> None:
        self._process, self._request_pipe, self._reply_pipe, self._errors = (
            process,
            request_pipe,
            reply_pipe,
            errors,
        )
        self._closed = False

    @classmethod
    def start(
        cls,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """Start `python -m module arguments`, a module that calls `start_serving`.

        Args:
            module: Dotted name of the module.
            *arguments: Its command line arguments.
            environment: Additional environment variables.
        """
        # shown if the process fails
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        process = subprocess.Popen(
            build_module_command(module, *arguments),
            env={**build_module_environment(), **(environment or {})},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C must only reach this process, which ends its servers
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        request_pipe, reply_pipe = os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno())
        process.stdin.close()
        process.stdout.close()
        return cls(process, request_pipe, reply_pipe, errors)

    @classmethod
    def start_fork(cls, work: Callable[[int, int], None]) -> ServerProcess:
        """Fork this process, which must have no threads that the fork needs.

        Args:
            work: Function that runs in the fork until it returns. Its arguments are the file
                descriptors to read requests from and to write replies to. Besides these, only
                standard error stays open in the fork.
        """
        requests, request_pipe = os.pipe()
        reply_pipe, replies = os.pipe()
        child = fork_process()
        if child == 0:

            def run_isolated() -> int:
                os.setsid()
                _close_other_descriptors({2, requests, replies})
                work(requests, replies)
                return 0

            _exit_with_result(run_isolated)
        os.close(requests)
        os.close(replies)
        return cls(ForkedProcess(child), request_pipe, reply_pipe)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, *request: Any, seconds: float | None = None) -> Any:
        """Return the reply to a request.

        Args:
            *request: The request: any objects that can be pickled.
            seconds: Time limit. None waits without limit.

        Raises:
            ProcessEnded: The process ended before it answered.
            ProcessOverdue: The process took longer and was killed.
        """
        try:
            send_object(self._request_pipe, request)
            return receive_object(self._reply_pipe, seconds)
        except TimeoutError:
            self.close()
            raise ProcessOverdue(f"no answer within {seconds:g} s") from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)  # let it end by itself, for its exit status
            errors = self._errors
            last_line = "" if errors is None or errors.closed else read_last_line(errors)
            details = f"; its last words: {last_line}" if last_line else ""
            raise ProcessEnded(describe_exit(self.close()) + details) from None
        except BaseException:
            # a late reply would be taken for that of the next request
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the process can answer requests."""
        return not self._closed and self._process.poll() is None

    def close(self) -> int:
        """Kill the process and all processes that it started, and return its exit status."""
        try:
            if self._process.poll() is None:
                linux.kill_process_group(self._process.pid)
            return self._process.wait(CLOSE_SECONDS)
        finally:
            if not self._closed:
                self._closed = True
                os.close(self._request_pipe)
                os.close(self._reply_pipe)
                if self._errors is not None:
                    self._errors.close()


def start_serving() -> tuple[int, int]:
    """Turn this process into a server.

    Standard output is redirected to standard error, so that the output of libraries does not mix
    with replies.

    Returns:
        The file descriptors to read requests from and to write replies to.
    """
    requests, replies = os.dup(0), os.dup(1)
    _redirect_to_null(0, os.O_RDONLY)
    os.dup2(2, 1)
    return requests, replies


def fork_process() -> int:
    """Fork like `os.fork`; the fork ends with this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent, method = os.getpid(), linux.select_watch_method()
    # Python 3.12 warns about forks with threads; here these are idle threads of libraries
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        parent_watch.exit_with_parent(parent, method)
    return child


def run_in_fork(work: Callable[[], int], request_pipe: int | None = None) -> int:
    """Run `work` in a fork and return its exit status.

    Args:
        work: Function that returns an exit status; 1 is used if it raises.
        request_pipe: A pipe; the fork is killed when its other end is closed.

    Returns:
        The exit status, negative for a signal, or 0 if the other end of the pipe was closed.
    """
    alive_pipe, fork_end = os.pipe()
    child = fork_process()
    if child == 0:
        _exit_with_result(work)
    os.close(fork_end)
    ended = [alive_pipe]
    if request_pipe is not None:
        # only wait for closed pipes: the data is for the fork to read
        ends = select.poll()
        ends.register(alive_pipe, 0)
        ends.register(request_pipe, 0)
        ended = [number for number, _ in ends.poll()]
    os.close(alive_pipe)
    if alive_pipe not in ended:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if alive_pipe in ended else 0


class ForkedProcess:
    """Forked process with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end and return its exit status.

        Args:
            timeout: Time limit in seconds. None waits without limit.

        Raises:
            subprocess.TimeoutExpired: The process did not end in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
            time.sleep(0.005)
        return code


def _exit_with_result(work: Callable[[], int]) -> NoReturn:
    """End this fork with the exit status that `work` returns."""
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # skip exit handlers, which belong to the parent
        os._exit(code)


def _close_other_descriptors(wanted: set[int]) -> None:
    """Close inherited file descriptors, with which a fork would keep locks and pipes open."""
    last = 0
    for number in sorted(wanted):
        os.closerange(last, number)
        last = number + 1
    os.closerange(last, min(os.sysconf("SC_OPEN_MAX"), 2**16))
    # output to these descriptors must not reach files that are opened later
    _redirect_to_null(0, os.O_RDONLY)
    _redirect_to_null(1, os.O_WRONLY)


def _redirect_to_null(number: int, mode: int) -> None:
    null = os.open(os.devnull, mode)
    if null != number:
        os.dup2(null, number)
        os.close(null)

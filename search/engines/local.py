"""Worker processes of this machine, which share its GPUs and its memory budget."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO

from compress.core import linux
from compress.core.device import count_gpus
from compress.core.errors import InputError
from compress.core.memory_budget import MIN_BUDGET_BYTES, format_gigabytes, get_current_budget
from compress.core.module_loading import build_module_command, build_module_environment
from search.engines import messages
from search.engines._base import Job, PoolSettings, WorkerRequest, WorkerSpec
from search.engines.pool import OnMessage, Pool

MAX_WORKERS = 8
"""Default for the largest number of workers on the CPU."""
STOP_SECONDS = 5.0
"""Seconds that a worker has to end before it is killed."""
MIN_WORKER_BYTES = 800_000_000
"""Bytes of a worker: two copies of TensorFlow, in its process and in the converter's."""
FORK_PARENT_BYTES = 100_000_000
"""Bytes of the process from which a worker forks, which the fork's own bytes do not include."""


class LocalEngine:
    """An engine whose workers are processes of this machine; see `search.engines.Engine`."""

    remote = False

    def allocate_workers(self, request: WorkerRequest) -> WorkerSpec:
        """Return the requested number of workers; default: one per GPU, or one per core.

        On the CPU, small networks keep one core busy but use only half of two cores, so there is
        one worker per core: at most 8, as many as there are jobs, and as many as memory allows,
        because each loads TensorFlow.

        Raises:
            InputError: More workers are requested than the memory set by the user allows.
        """
        gpus, cores = count_gpus(request.device), linux.count_cores()
        budget = get_current_budget()
        max_fitting = max(1, budget.measure_free_bytes() // MIN_WORKER_BYTES)
        if budget.is_user_set and request.workers is not None and request.workers > max_fitting:
            raise InputError(
                f"workers must be at most {max_fitting} with {format_gigabytes(budget.bytes)} of "
                f"memory: each takes at least {format_gigabytes(MIN_WORKER_BYTES)}. Received: "
                f"{request.workers}. Give fewer workers, or more memory."
            )
        count = request.workers or gpus or min(cores, MAX_WORKERS, request.max_jobs, max_fitting)
        threads = request.threads or max(1, cores // count)
        location = f"{gpus} GPU(s)" if gpus else f"CPU, {cores} cores"
        return WorkerSpec(count, threads, location, gpus, memory=compute_memory_share(count))

    def open_pool(self, settings: PoolSettings) -> LocalPool:
        """Return the pool of workers; each worker starts with its first job."""
        return LocalPool(settings)


ENGINE = LocalEngine()


class LocalPool(Pool):
    """Workers that are children of this process.

    They are spread over the GPUs of the run; workers on the same card get equal shares of its
    memory.
    """

    _log: IO[str] | None = None

    def __enter__(self) -> LocalPool:
        self._log = open(self._get_log_path(0), "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._log:
            self._log.close()

    def _open(self, index: int, on_message: OnMessage) -> ProcessLink:
        """Start a worker as a child process, on one of the run's GPUs if it has any."""
        workers = self._settings.workers
        environment, sharing = dict(self._settings.environment), 1
        if workers.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = select_gpu(index, workers.gpus, visible)
            sharing = count_gpu_sharers(index, workers.count, workers.gpus)
        arguments = (
            str(self._folder.path), "--device", self._settings.request.device,
            *workers.arguments, "--sharers", str(sharing),
        )  # fmt: skip
        return ProcessLink(arguments, environment, self._log, on_message)


class ProcessLink:
    """A worker process that this process starts, and its messages.

    Args:
        arguments: Arguments of `search.engines.worker`.
        environment: Additional environment variables.
        log: Destination of its standard error; None: the standard error of this process.
        on_message: Called in a thread with each message, and with None when the process ends.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        log: IO[str] | None,
        on_message: OnMessage,
    ) -> None:
        self._process = subprocess.Popen(
            build_module_command("search.engines.worker", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                **build_module_environment(),
                **environment,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "KERAS_BACKEND": "tensorflow",
            },
            # Ctrl-C must reach only the run's process, which ends its workers in order
            start_new_session=True,
        )
        threading.Thread(target=self._forward_messages, args=(on_message,), daemon=True).start()

    def _forward_messages(self, on_message: OnMessage) -> None:
        for line in self._process.stdout or ():
            message = messages.parse(line)
            if message is not None:
                on_message(message)
        if self._process.stdout:
            self._process.stdout.close()
        on_message(None)

    def send(self, message: Job) -> None:
        """See `search.engines.pool.Link.send`."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                messages.send(self._process.stdin, **message)

    def kill(self) -> None:
        """Kill the process and its fork."""
        linux.kill_process_group(self._process.pid)

    def describe_exit(self) -> str:
        """Return the process's exit code or signal."""
        code = self._process.wait()
        self._close_input()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Ask the process to quit, and kill it if it does not end in time."""
        self.send({"kind": messages.QUIT})
        self._close_input()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def _close_input(self) -> None:
        """Close the process's standard input, even if the process has ended."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def select_gpu(worker: int, gpus: int, visible: str | None) -> str:
    """Return a worker's `CUDA_VISIBLE_DEVICES`: one card, round robin.

    Args:
        worker: Index of the worker, from 0.
        gpus: Number of cards of the run, at least 1.
        visible: `CUDA_VISIBLE_DEVICES` of the run itself: numbers or names, separated by commas;
            None: not set, all cards are visible.
    """
    index = worker % gpus
    return str(index) if visible is None else visible.split(",")[index].strip()


def count_gpu_sharers(worker: int, workers: int, gpus: int) -> int:
    """Return the number of workers on this worker's card, including itself.

    Args:
        worker: Index of the worker, from 0.
        workers: Number of all workers.
        gpus: Number of cards of the run, at least 1.
    """
    return len(range(worker % gpus, workers, gpus))


def compute_memory_share(count: int) -> int:
    """Return the memory of each of several workers, in bytes.

    It is an equal share of the free budget without the bytes of the process from which a worker
    forks, and `MIN_BUDGET_BYTES` at least.
    """
    return max(
        MIN_BUDGET_BYTES, get_current_budget().measure_free_bytes() // count - FORK_PARENT_BYTES
    )

"""Worker processes of this machine, and how they share its GPUs and its memory budget."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO

from compress.core import linux
from compress.core.device import gpu_count
from compress.core.errors import InputError
from compress.core.interpreter import module_command, module_environment
from compress.core.memory_budget import LEAST, current_budget, gigabytes
from search.engines import messages
from search.engines._base import Crew, Demand, Job, Order
from search.engines.pool import Pool, Tell

MAX_WORKERS = 8
STOP_SECONDS = 5.0
LEAST_OF_A_WORKER = 800_000_000
"""Bytes that a worker takes: TensorFlow twice, in its process and in the one that converts."""
FORKED_FROM = 100_000_000
"""Bytes of the process that a worker is a fork of: it does not count among the fork's own."""


class LocalEngine:
    """An engine whose workers are processes of this machine; see `search.engines.Engine`."""

    remote = False

    def crew(self, demand: Demand) -> Crew:
        """Return one worker per GPU, or one per core.

        On the CPU small networks keep one core busy and two cores half busy, so there is a
        worker a core (8 at most; each holds TensorFlow).
        """
        gpus, cores = gpu_count(demand.device), linux.cores()
        budget = current_budget()
        fitting = max(1, budget.free() // LEAST_OF_A_WORKER)
        if budget.given and demand.workers is not None and demand.workers > fitting:
            raise InputError(
                f"workers must be at most {fitting} with {gigabytes(budget.bytes)} of "
                f"memory: each takes at least {gigabytes(LEAST_OF_A_WORKER)}. Received: "
                f"{demand.workers}. Give fewer workers, or more memory."
            )
        count = demand.workers or gpus or min(cores, MAX_WORKERS, demand.most, fitting)
        threads = demand.threads or max(1, cores // count)
        place = f"{gpus} GPU(s)" if gpus else f"CPU, {cores} cores"
        return Crew(count, threads, place, gpus, memory=memory_of_each(count))

    def pool(self, order: Order) -> LocalPool:
        """Return the workers; each is started when there is a job for it."""
        return LocalPool(order)


ENGINE = LocalEngine()


class LocalPool(Pool):
    """Workers that are children of this process.

    They are spread over the GPUs that the run uses; those on the same card get equal shares of
    its memory.
    """

    _log: IO[str] | None = None

    def __enter__(self) -> LocalPool:
        self._log = open(self._log_of(0), "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._log:
            self._log.close()

    def _open(self, index: int, tell: Tell) -> ProcessLink:
        crew = self._order.crew
        environment, shared = dict(self._order.environment), 1
        if crew.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = card_of(index, crew.gpus, visible)
            shared = sharers(index, crew.count, crew.gpus)
        words = (
            str(self._folder.path), "--device", self._order.demand.device,
            *crew.words, "--sharers", str(shared),
        )  # fmt: skip
        return ProcessLink(words, environment, self._log, tell)


class ProcessLink:
    """A worker process that this one starts, and its messages.

    Args:
        words: Arguments of `search.engines.worker`.
        environment: Variables beside this process's.
        log: Where its standard error goes; None: where ours does.
        tell: Called by a thread with each message, and with None at its end.
    """

    def __init__(
        self, words: tuple[str, ...], environment: dict[str, str], log: IO[str] | None, tell: Tell
    ) -> None:
        self._process = subprocess.Popen(
            module_command("search.engines.worker", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                **module_environment(),
                **environment,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "KERAS_BACKEND": "tensorflow",
            },
            # Ctrl-C goes to the run's process, which ends its workers in order
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(tell,), daemon=True).start()

    def _read(self, tell: Tell) -> None:
        for line in self._process.stdout or ():
            message = messages.parse(line)
            if message is not None:
                tell(message)
        if self._process.stdout:
            self._process.stdout.close()
        tell(None)

    def send(self, message: Job) -> None:
        """See `search.engines.pool.Link.send`."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                messages.send(self._process.stdin, **message)

    def kill(self) -> None:
        """Kill the process, and its fork with it."""
        linux.kill_group(self._process.pid)

    def how(self) -> str:
        """Return the process's exit code or signal."""
        code = self._process.wait()
        self._close_input()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Ask the process to quit, and kill it where it does not."""
        self.send({"kind": messages.QUIT})
        self._close_input()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def _close_input(self) -> None:
        """Close the process's standard input; one that is gone takes nothing more."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def card_of(worker: int, gpus: int, visible: str | None) -> str:
    """Return a worker's `CUDA_VISIBLE_DEVICES`: one card, round robin.

    Args:
        worker: Its index, from 0.
        gpus: How many cards the run uses, at least 1.
        visible: `CUDA_VISIBLE_DEVICES` of the run itself: numbers or names, with commas; None:
            not set, all cards are visible.
    """
    place = worker % gpus
    return str(place) if visible is None else visible.split(",")[place].strip()


def sharers(worker: int, workers: int, gpus: int) -> int:
    """Return how many workers compute on this worker's card, itself included."""
    return len(range(worker % gpus, workers, gpus))


def memory_of_each(count: int) -> int:
    """Return the bytes that each of several workers may occupy: equal shares of what is free."""
    return max(LEAST, current_budget().free() // count - FORKED_FROM)

"""Worker processes on this machine: started, fed with jobs, renewed, replaced."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

from compress.core.errors import RunFailed
from compress.core.interpreter import module_command, module_environment
from compress.core.platform import host
from compress.run.directory import LOG
from search.engines import messages
from search.engines.gpu_assignment import card_of, sharers
from search.folder.directory import SearchFolder

MAX_GROWTH = 2**30
"""A worker whose memory has grown by this many bytes is renewed (TensorFlow gives none back)."""
MAX_JOBS = 40
STOP_SECONDS = 5.0
POLL_SECONDS = 0.5
OVERDUE = "ended at its time limit"
KILLED = "signal SIGKILL"
"""How a worker died that nothing of its own ended: the system does so when memory is short."""

Job = dict[str, Any]


class Handler(Protocol):
    """What a pool's user does with its jobs."""

    def next_job(self) -> Job | None:
        """Returns the next job, or None while there is none to give."""
        ...

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Called for progress and claims of a running job."""
        ...

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Called when a job is finished."""
        ...

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Called when a worker died with a job in hand; `claimed` names its trial."""
        ...


@dataclass
class _Worker:
    """One slot: its process, the job in hand, its memory."""

    index: int
    process: subprocess.Popen[str] | None = None
    generation: int = 0
    started: bool = False
    ready: bool = False
    job: Job | None = None
    deadline: float = math.inf
    claimed: dict[str, Any] | None = None
    overdue: bool = False
    first_memory: int = 0
    memory: int = 0
    jobs: int = 0


class LocalPool:
    """Runs jobs on worker processes until none is left.

    A worker is renewed between jobs when its memory has grown; one that dies (out of
    memory, crash, kill) costs its job only and is replaced.

    Args:
        folder: The run's folder; workers read the plan from it.
        workers: Number of processes, at least 1.
        device: "auto", "cpu" or "gpu".
        threads: CPU threads a worker.
        gpus: Number of GPUs to spread the workers over; 0: none. Workers on the same card
            get equal shares of its memory.
        environment: Variables of the workers beside this process's: what others must not see.
    """

    def __init__(
        self,
        folder: SearchFolder,
        workers: int,
        device: str,
        threads: int,
        gpus: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = dict(environment or {})
        self._folder, self._device, self._threads, self._gpus = folder, device, threads, gpus
        self._slots = [_Worker(index) for index in range(workers)]
        self._events: queue.Queue[tuple[int, int, dict[str, Any] | None]] = queue.Queue()
        self._log: IO[str] | None = None
        self.device_text = ""

    def __enter__(self) -> LocalPool:
        self._log = open(self._folder.path / "workers.log", "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._log:
            self._log.close()

    def run(self, handler: Handler) -> None:
        """Feeds `handler`'s jobs to the workers until it gives none and all are idle.

        Raises:
            RunFailed: A worker cannot even start.
        """
        for slot in self._slots:
            self._feed(slot, handler)
        while any(slot.job for slot in self._slots):
            self._end_overdue()
            try:
                index, generation, message = self._events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            slot = self._slots[index]
            if generation == slot.generation:
                self._handle(slot, message, handler)

    def _end_overdue(self) -> None:
        """Kills workers whose job has run over its time; their end comes as an event."""
        for slot in self._slots:
            if slot.process is not None and time.monotonic() > slot.deadline:
                slot.deadline, slot.overdue = math.inf, True
                # and its fork with it
                host().kill_group(slot.process.pid)

    def _handle(self, slot: _Worker, message: dict[str, Any] | None, handler: Handler) -> None:
        if message is None:
            self._died(slot, handler)
        elif message["kind"] == messages.READY:
            slot.started = slot.ready = True
            slot.first_memory, slot.jobs = message["memory"], 0
            if message["device"] != self.device_text:
                self.device_text = message["device"]
                LOG.info("workers run on %s", self.device_text)
            self._hand_over(slot)
        elif message["kind"] == messages.DIED:
            slot.ready = False
            self._lost(slot, message["how"], handler)
        elif message["kind"] == messages.FATAL:
            raise RunFailed(message["reason"])
        elif message["kind"] == messages.DONE:
            job, slot.job, slot.claimed = slot.job or {}, None, None
            slot.deadline = math.inf
            slot.memory = message["memory"]
            slot.jobs += 1
            # a fresh fork takes its place and will say that it is ready
            slot.ready = not message["renewed"]
            handler.on_done(slot.index, job, message)
            # another worker may wait for what this one has just given back
            for other in self._slots:
                self._feed(other, handler)
        else:
            if message["kind"] == messages.CLAIMED:
                slot.claimed = message
            handler.on_message(slot.index, slot.job or {}, message)

    def _feed(self, slot: _Worker, handler: Handler) -> None:
        """Gives an idle worker its next job, renewing or starting the process first."""
        if slot.job is not None:
            return
        slot.job = handler.next_job()
        if slot.job is None:
            return
        grown = slot.memory - slot.first_memory > MAX_GROWTH
        if slot.process is not None and (grown or slot.jobs >= MAX_JOBS):
            LOG.info(
                "worker %d renewed after %d jobs at %d MiB",
                slot.index, slot.jobs, slot.memory // 2**20,
            )  # fmt: skip
            self._end(slot)
        if slot.process is None:
            self._start(slot)
        elif slot.ready:
            self._hand_over(slot)

    def _hand_over(self, slot: _Worker) -> None:
        if slot.job is not None and slot.process is not None and slot.process.stdin:
            slot.deadline = time.monotonic() + slot.job.get("seconds", math.inf)
            # of a worker that has just died: its end is on the way as an event
            with contextlib.suppress(BrokenPipeError):
                messages.send(slot.process.stdin, **slot.job)

    def _start(self, slot: _Worker) -> None:
        environment = {
            **module_environment(),
            **self._environment,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
        }
        shared = 1
        if self._gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = card_of(slot.index, self._gpus, visible)
            shared = sharers(slot.index, len(self._slots), self._gpus)
        slot.generation += 1
        slot.started = slot.ready = False
        slot.jobs, slot.memory, slot.first_memory = 0, 0, 0
        slot.process = subprocess.Popen(
            module_command(
                "search.engines.worker", str(self._folder.path), "--device", self._device,
                "--threads", str(self._threads), "--sharers", str(shared),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            # Ctrl-C goes to the run's process, which ends its workers in order
            **host().group_options(),
        )  # fmt: skip
        threading.Thread(
            target=_read,
            args=(slot.process, slot.index, slot.generation, self._events),
            daemon=True,
        ).start()

    def _died(self, slot: _Worker, handler: Handler) -> None:
        code = 0
        if slot.process:
            code = slot.process.wait()
            _close_input(slot.process)
        was_ready = slot.started
        slot.process, slot.ready = None, False
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if slot.overdue:
            how = f"{OVERDUE} of {(slot.job or {}).get('seconds', 0):g} s"
        slot.deadline, slot.overdue = math.inf, False
        if not was_ready:
            raise RunFailed(
                f"A worker process could not start ({how}). See "
                f"'{self._folder.path / 'workers.log'}'."
            )
        self._lost(slot, how, handler)

    def _lost(self, slot: _Worker, how: str, handler: Handler) -> None:
        """Tells of a job that ended with its process, and gives the slot its next."""
        job, claimed, slot.job, slot.claimed = slot.job, slot.claimed, None, None
        if job is not None:
            LOG.info("worker %d died (%s); it is replaced", slot.index, how)
            handler.on_death(slot.index, job, claimed, how)
        # the slot itself first; another may wait for what this one has just given back
        for other in (slot, *self._slots):
            self._feed(other, handler)

    def _end(self, slot: _Worker) -> None:
        process, slot.process, slot.ready = slot.process, None, False
        slot.generation += 1
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if process.stdin:
                messages.send(process.stdin, messages.QUIT)
        _close_input(process)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            host().kill_group(process.pid)
            process.wait()

    def stop(self) -> None:
        """Ends all workers, whatever they are doing."""
        for slot in self._slots:
            if slot.process is not None and slot.job is not None:
                host().kill_group(slot.process.pid)
            self._end(slot)
            slot.job = None


def _close_input(process: subprocess.Popen[str]) -> None:
    """Closes what a worker reads from; one that is gone takes nothing more."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _read(
    process: subprocess.Popen[str],
    index: int,
    generation: int,
    events: queue.Queue[tuple[int, int, dict[str, Any] | None]],
) -> None:
    """Queues a worker's messages, then None when it has ended."""
    for line in process.stdout or ():
        message = messages.parse(line)
        if message is not None:
            events.put((index, generation, message))
    if process.stdout:
        process.stdout.close()
    events.put((index, generation, None))

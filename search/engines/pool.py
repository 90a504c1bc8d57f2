"""A pool of local or remote workers, which receive jobs and are renewed and replaced."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from compress.core.errors import RunFailed
from compress.run.directory import LOG
from search.engines import messages
from search.engines._base import NODE_LOST, TIMED_OUT, Job, JobQueue, PoolSettings

MAX_GROWTH = 2**30
"""Growth of a worker's memory, in bytes, after which it is renewed (TensorFlow frees none)."""
MAX_JOBS = 40
"""Number of jobs after which a worker is renewed."""
KILLED_STARTS, LOST_STARTS = 3, 20
"""Maximum numbers of consecutive replacements of a worker that is killed, or whose node is lost,
while it starts."""

OnMessage = Callable[[dict[str, Any] | None], None]
"""Callback for a worker's messages, called with None when the worker ends."""


class Link(Protocol):
    """The pool's connection to one worker process."""

    def send(self, message: Job) -> None:
        """Send the worker a message, which a dead worker ignores."""
        ...

    def kill(self) -> None:
        """Kill the worker and its child processes; its end is reported as an event."""
        ...

    def end(self) -> None:
        """End the worker between two jobs, without reporting an event."""
        ...

    def describe_exit(self) -> str:
        """Return the worker's cause of death: "exit code 1", "signal SIGKILL", `NODE_LOST`."""
        ...


@dataclass
class Slot:
    """A position in the pool for one worker at a time, with its running job and its memory.

    Attributes:
        index: Index of the position, from 0.
        link: The connection to the worker; None: there is no worker.
        generation: Number of workers started and ended so far; events of earlier ones are ignored.
        has_started: Whether the worker has been ready once.
        is_ready: Whether the worker accepts jobs.
        job: The running job, or the job that waits for the worker to start; None: idle.
        deadline: Time at which the job is ended, in seconds of `time.monotonic`.
        claimed_trial: Message with the number and seed of the trial that the job has begun.
        is_overdue: Whether the worker was killed because its job exceeded the time limit.
        first_memory: Bytes of the worker before its first job.
        memory: Bytes of the worker after its last job.
        finished_jobs: Number of jobs since the worker or its last fork started.
        lost_starts: Number of consecutive workers that died while they started.
        paused_until: Time before which no worker is started, in seconds of `time.monotonic`.
    """

    index: int
    link: Link | None = None
    generation: int = 0
    has_started: bool = False
    is_ready: bool = False
    job: Job | None = None
    deadline: float = math.inf
    claimed_trial: dict[str, Any] | None = None
    is_overdue: bool = False
    first_memory: int = 0
    memory: int = 0
    finished_jobs: int = 0
    lost_starts: int = 0
    paused_until: float = 0.0


class Pool:
    """A pool of workers that runs jobs until none remains.

    A worker is renewed between jobs when its memory has grown. If it dies (out of memory, crash,
    kill, lost node), only its job fails and the worker is replaced.

    Args:
        settings: Folder, workers and environment of the pool.

    Attributes:
        AHEAD: Whether workers start before there is a job for them and get one when they are ready.
            A job then never waits for a worker that may not start.
    """

    AHEAD: ClassVar[bool] = False

    def __init__(self, settings: PoolSettings) -> None:
        self._settings, self._folder = settings, settings.folder
        self._slots = [Slot(index) for index in range(settings.workers.count)]
        self._events: queue.Queue[tuple[int, int, dict[str, Any] | None]] = queue.Queue()
        # False after the handler had no job, until a job or worker ends
        self._may_have_jobs = True
        self.device_text = ""

    def _open(self, index: int, on_message: OnMessage) -> Link:
        """Start the worker of a slot; `on_message` may be called by any thread."""
        raise NotImplementedError

    def _prepare_job(self, job: Job) -> Job:
        return job

    def _on_idle(self, handler: JobQueue) -> None:
        """React to half a second without an event."""

    def run(self, handler: JobQueue) -> None:
        """Run the jobs of `handler` until it has none and all workers are idle.

        Args:
            handler: The queue of jobs.

        Raises:
            RunFailed: A worker cannot start, or reports a fatal error.
        """
        self._may_have_jobs = True
        self._assign_jobs(handler)
        while any(slot.job for slot in self._slots) or (self.AHEAD and self._may_have_jobs):
            self._end_overdue()
            try:
                index, generation, message = self._events.get(timeout=0.5)
            except queue.Empty:
                self._on_idle(handler)
                continue
            slot = self._slots[index]
            if generation == slot.generation:
                self._on_event(slot, message, handler)

    def _end_overdue(self) -> None:
        """Kill the workers whose job has exceeded its time limit.

        Their ends are reported as events.
        """
        for slot in self._slots:
            if slot.link is not None and time.monotonic() > slot.deadline:
                slot.deadline, slot.is_overdue = math.inf, True
                slot.link.kill()

    def _on_event(self, slot: Slot, message: dict[str, Any] | None, handler: JobQueue) -> None:
        """Update a slot by its worker's message (None: it exited), and assign jobs if possible."""
        if message is None:
            self._on_exit(slot, handler)
        elif message["kind"] == messages.READY:
            slot.has_started = slot.is_ready = True
            slot.lost_starts = 0
            slot.first_memory, slot.finished_jobs = message["memory"], 0
            if message["device"] != self.device_text:
                self.device_text = message["device"]
                LOG.info("workers run on %s", self.device_text)
            if slot.job is not None:
                self._send_job(slot)
            else:
                self._assign_job(slot, handler)
        elif message["kind"] == messages.DIED:
            slot.is_ready = False
            self._on_job_lost(slot, message["how"], handler)
        elif message["kind"] == messages.FATAL:
            raise RunFailed(message["reason"])
        elif message["kind"] == messages.DONE:
            job, slot.job, slot.claimed_trial = slot.job or {}, None, None
            slot.deadline = math.inf
            slot.memory = message["memory"]
            slot.finished_jobs += 1
            # a fresh fork replaces a renewed worker and reports when it is ready
            slot.is_ready = not message["renewed"]
            handler.on_done(slot.index, job, message)
            # other workers may be waiting for this job to end
            self._may_have_jobs = True
            self._assign_jobs(handler)
        else:
            if message["kind"] == messages.CLAIMED:
                slot.claimed_trial = message
            handler.on_message(slot.index, slot.job or {}, message)

    def _assign_jobs(self, handler: JobQueue, first: Slot | None = None) -> None:
        for slot in ([] if first is None else [first]) + self._slots:
            self._assign_job(slot, handler)

    def _assign_job(self, slot: Slot, handler: JobQueue) -> None:
        """Give an idle worker its next job, renewing or starting the process first."""
        if slot.job is not None:
            return
        has_grown = slot.memory - slot.first_memory > MAX_GROWTH
        if slot.link is not None and (has_grown or slot.finished_jobs >= MAX_JOBS):
            LOG.info(
                "worker %d renewed after %d jobs at %d MiB",
                slot.index, slot.finished_jobs, slot.memory // 2**20,
            )  # fmt: skip
            self._end_worker(slot)
        if self.AHEAD and slot.link is None and time.monotonic() >= slot.paused_until:
            self._start_worker(slot)
        if self.AHEAD and not slot.is_ready:
            return
        slot.job = handler.take_job()
        if slot.job is None:
            self._may_have_jobs = False
        elif slot.link is None:
            self._start_worker(slot)
        elif slot.is_ready:
            self._send_job(slot)

    def _send_job(self, slot: Slot) -> None:
        if slot.job is not None and slot.link is not None:
            slot.deadline = time.monotonic() + slot.job.get("seconds", math.inf)
            slot.link.send(self._prepare_job(slot.job))

    def _start_worker(self, slot: Slot) -> None:
        """Start a new worker in a slot; later events of the previous one are ignored."""
        slot.generation += 1
        slot.has_started = slot.is_ready = False
        slot.finished_jobs, slot.memory, slot.first_memory = 0, 0, 0
        generation = slot.generation

        def enqueue_event(message: dict[str, Any] | None) -> None:
            self._events.put((slot.index, generation, message))

        slot.link = self._open(slot.index, enqueue_event)

    def _on_exit(self, slot: Slot, handler: JobQueue) -> None:
        """Report an exited worker's job; restart one that died at its start, or raise RunFailed."""
        cause = slot.link.describe_exit() if slot.link is not None else ""
        slot.link, slot.is_ready = None, False
        if slot.is_overdue:
            cause = f"{TIMED_OUT} of {(slot.job or {}).get('seconds', 0):g} s"
        slot.deadline, slot.is_overdue = math.inf, False
        if slot.has_started:
            self._on_job_lost(slot, cause, handler)
            return
        max_starts, remedy = 0, ""
        if cause == NODE_LOST:
            max_starts, remedy = (
                LOST_STARTS,
                " Nodes were lost one after another: see `ray status`.",
            )
        elif cause.startswith("signal "):
            max_starts, remedy = KILLED_STARTS, " If memory ran out, give fewer --workers."
        if slot.lost_starts >= max_starts:
            raise RunFailed(
                f"A worker process could not start ({cause}).{remedy} See "
                f"'{self._get_log_path(slot.index)}'."
            )
        # the machine's memory manager may have killed it; its job waits for the next worker
        slot.lost_starts += 1
        LOG.info("worker %d died while it started (%s); it is replaced", slot.index, cause)
        if time.monotonic() >= slot.paused_until:
            self._start_worker(slot)

    def _get_log_path(self, index: int) -> Path:
        return self._folder.path / "workers.log"

    def _on_job_lost(self, slot: Slot, cause: str, handler: JobQueue) -> None:
        """Report a job that ended with its process, and give the slot its next."""
        job, claimed_trial, slot.job, slot.claimed_trial = slot.job, slot.claimed_trial, None, None
        if job is not None:
            LOG.info("worker %d died (%s); it is replaced", slot.index, cause)
            handler.on_death(slot.index, job, claimed_trial, cause)
        # the slot itself comes first; other workers may be waiting for this job to end
        self._may_have_jobs = True
        self._assign_jobs(handler, slot)

    def _end_worker(self, slot: Slot) -> None:
        link, slot.link, slot.is_ready = slot.link, None, False
        slot.generation += 1
        if link is not None:
            link.end()

    def stop(self) -> None:
        """End all workers, even in the middle of a job."""
        for slot in self._slots:
            if slot.link is not None and slot.job is not None:
                slot.link.kill()
            self._end_worker(slot)
            slot.job = None

"""A pool of workers, wherever they run: fed with jobs, renewed, replaced."""

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
from search.engines._base import LOST, OVERDUE, Job, JobQueue, Order

MAX_GROWTH = 2**30
"""A worker whose memory has grown by this many bytes is renewed (TensorFlow gives none back)."""
MAX_JOBS = 40
KILLED_STARTS, LOST_STARTS = 3, 20
"""A worker that is killed while it starts, or whose node is lost, is replaced so many times in a
row."""

Tell = Callable[[dict[str, Any] | None], None]
"""Takes a worker's message; None: it has ended."""


class Link(Protocol):
    """The pool's end of one worker process."""

    def send(self, message: Job) -> None:
        """Send the worker a message; one that has just died takes none, and its end will come."""
        ...

    def kill(self) -> None:
        """Kill the worker at once, with what it has started; its end comes as an event."""
        ...

    def end(self) -> None:
        """End the worker between two jobs; nothing more is heard of it."""
        ...

    def how(self) -> str:
        """Return how the worker ended: "exit code 1", "signal SIGKILL", `LOST`."""
        ...


@dataclass
class Slot:
    """A place for one worker after another: the present one, its job in hand, its memory."""

    index: int
    link: Link | None = None
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
    lost_starts: int = 0
    asleep_until: float = 0.0


class Pool:
    """A pool of workers that runs jobs until none is left.

    A worker is renewed between jobs when its memory has grown; one that dies (out of
    memory, crash, kill, with its node) costs its job only and is replaced.

    Args:
        order: The run's folder and workers.

    Attributes:
        AHEAD: Workers are started before there is a job for them, and get one when they are
            ready. A job then never waits for a worker that may not come.
    """

    AHEAD: ClassVar[bool] = False

    def __init__(self, order: Order) -> None:
        self._order, self._folder = order, order.folder
        self._slots = [Slot(index) for index in range(order.crew.count)]
        self._events: queue.Queue[tuple[int, int, dict[str, Any] | None]] = queue.Queue()
        # whether the handler may have another job: it had, or something has ended since
        self._more = True
        self.device_text = ""

    def _open(self, index: int, tell: Tell) -> Link:
        """Start the worker of a slot; `tell` may be called by any thread."""
        raise NotImplementedError

    def _sent(self, job: Job) -> Job:
        return job

    def _wait(self, handler: JobQueue) -> None:
        """React to half a second without an event."""

    def run(self, handler: JobQueue) -> None:
        """Feed `handler`'s jobs to the workers until it gives none and all are idle.

        Raises:
            RunFailed: A worker cannot even start.
        """
        self._more = True
        self._feed_all(handler)
        while any(slot.job for slot in self._slots) or (self.AHEAD and self._more):
            self._end_overdue()
            try:
                index, generation, message = self._events.get(timeout=0.5)
            except queue.Empty:
                self._wait(handler)
                continue
            slot = self._slots[index]
            if generation == slot.generation:
                self._handle(slot, message, handler)

    def _end_overdue(self) -> None:
        """Kill workers whose job has run over its time; their end comes as an event."""
        for slot in self._slots:
            if slot.link is not None and time.monotonic() > slot.deadline:
                slot.deadline, slot.overdue = math.inf, True
                slot.link.kill()

    def _handle(self, slot: Slot, message: dict[str, Any] | None, handler: JobQueue) -> None:
        if message is None:
            self._died(slot, handler)
        elif message["kind"] == messages.READY:
            slot.started = slot.ready = True
            slot.lost_starts = 0
            slot.first_memory, slot.jobs = message["memory"], 0
            if message["device"] != self.device_text:
                self.device_text = message["device"]
                LOG.info("workers run on %s", self.device_text)
            if slot.job is not None:
                self._hand_over(slot)
            else:
                self._feed(slot, handler)
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
            self._more = True
            self._feed_all(handler)
        else:
            if message["kind"] == messages.CLAIMED:
                slot.claimed = message
            handler.on_message(slot.index, slot.job or {}, message)

    def _feed_all(self, handler: JobQueue, first: Slot | None = None) -> None:
        for slot in ([] if first is None else [first]) + self._slots:
            self._feed(slot, handler)

    def _feed(self, slot: Slot, handler: JobQueue) -> None:
        """Give an idle worker its next job, renewing or starting the process first."""
        if slot.job is not None:
            return
        grown = slot.memory - slot.first_memory > MAX_GROWTH
        if slot.link is not None and (grown or slot.jobs >= MAX_JOBS):
            LOG.info(
                "worker %d renewed after %d jobs at %d MiB",
                slot.index, slot.jobs, slot.memory // 2**20,
            )  # fmt: skip
            self._end(slot)
        if self.AHEAD and slot.link is None and time.monotonic() >= slot.asleep_until:
            self._start(slot)
        if self.AHEAD and not slot.ready:
            return
        slot.job = handler.next_job()
        if slot.job is None:
            self._more = False
        elif slot.link is None:
            self._start(slot)
        elif slot.ready:
            self._hand_over(slot)

    def _hand_over(self, slot: Slot) -> None:
        if slot.job is not None and slot.link is not None:
            slot.deadline = time.monotonic() + slot.job.get("seconds", math.inf)
            slot.link.send(self._sent(slot.job))

    def _start(self, slot: Slot) -> None:
        slot.generation += 1
        slot.started = slot.ready = False
        slot.jobs, slot.memory, slot.first_memory = 0, 0, 0
        generation = slot.generation

        def tell(message: dict[str, Any] | None) -> None:
            self._events.put((slot.index, generation, message))

        slot.link = self._open(slot.index, tell)

    def _died(self, slot: Slot, handler: JobQueue) -> None:
        how = slot.link.how() if slot.link is not None else ""
        slot.link, slot.ready = None, False
        if slot.overdue:
            how = f"{OVERDUE} of {(slot.job or {}).get('seconds', 0):g} s"
        slot.deadline, slot.overdue = math.inf, False
        if slot.started:
            self._lost(slot, how, handler)
            return
        most, remedy = 0, ""
        if how == LOST:
            most, remedy = LOST_STARTS, " Nodes were lost one after another: see `ray status`."
        elif how.startswith("signal "):
            most, remedy = KILLED_STARTS, " If memory ran out, give fewer --workers."
        if slot.lost_starts >= most:
            raise RunFailed(
                f"A worker process could not start ({how}).{remedy} See "
                f"'{self._log_of(slot.index)}'."
            )
        # by the machine's memory manager, say: its job waits for the next worker
        slot.lost_starts += 1
        LOG.info("worker %d died while it started (%s); it is replaced", slot.index, how)
        if time.monotonic() >= slot.asleep_until:
            self._start(slot)

    def _log_of(self, index: int) -> Path:
        return self._folder.path / "workers.log"

    def _lost(self, slot: Slot, how: str, handler: JobQueue) -> None:
        """Report a job that ended with its process, and give the slot its next."""
        job, claimed, slot.job, slot.claimed = slot.job, slot.claimed, None, None
        if job is not None:
            LOG.info("worker %d died (%s); it is replaced", slot.index, how)
            handler.on_death(slot.index, job, claimed, how)
        # the slot itself first; another may wait for what this one has just given back
        self._more = True
        self._feed_all(handler, slot)

    def _end(self, slot: Slot) -> None:
        link, slot.link, slot.ready = slot.link, None, False
        slot.generation += 1
        if link is not None:
            link.end()

    def stop(self) -> None:
        """End all workers, whatever they are doing."""
        for slot in self._slots:
            if slot.link is not None and slot.job is not None:
                slot.link.kill()
            self._end(slot)
            slot.job = None

"""Jobs that wait for workers, and who shows how far they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from search.engines import LOST, Job, messages

MAX_LOST = 5
"""So often a job is begun whose nodes were lost: it may be what takes them down."""


class Display(Protocol):
    """Shows how far a run is."""

    def phase(self, title: str, done: int, total: int, *, steps: bool = False) -> None:
        """Begins a phase of `total` jobs, `done` of which are finished.

        Args:
            title: Of the phase.
            done: Jobs.
            total: Jobs.
            steps: Workers tell how far a step of their job is, not the job: how many steps come
                is not known.
        """
        ...

    def advance(self, done: int, total: int) -> None:
        """Says how many jobs of the phase are finished."""
        ...

    def worker(self, index: int, text: str, share: float) -> None:
        """Says what a worker does and how far it is, in [0, 1]; empty text: idle."""
        ...


class NoDisplay:
    """Shows nothing."""

    def phase(self, title: str, done: int, total: int, *, steps: bool = False) -> None:
        """Ignores it."""

    def advance(self, done: int, total: int) -> None:
        """Ignores it."""

    def worker(self, index: int, text: str, share: float) -> None:
        """Ignores it."""


class JobQueue:
    """Gives out jobs in their order, shows their progress and counts those that are over.

    Args:
        display: Shows progress.
        jobs: That wait.
        done: How many of the phase are finished already.

    Attributes:
        total, done: Jobs of the phase, and how many of them are finished.
        failures: What failed, with reasons.
    """

    def __init__(self, display: Display, jobs: Iterable[Job], done: int = 0) -> None:
        self._display, self._pending = display, list(jobs)
        self.total, self.done = done + len(self._pending), done
        self.failures: list[str] = []
        self._lost: dict[tuple[str, int], int] = {}

    def next_job(self) -> Job | None:
        """Returns the next job, if there is one."""
        return self._pending.pop(0) if self._pending else None

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Shows progress."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Notes a job whose worker died; one whose node was lost runs again."""
        if how == LOST and self._may_repeat(worker, job):
            self._pending.insert(0, job)
            return
        self._fail(job, f"its worker died ({how})")
        self.end(worker)

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a job, and says what came of it."""
        if "error" in message:
            self._fail(job, message["error"], message.get("diverged", False))
        else:
            self._say(worker, job, message)
        self.end(worker)

    def _say(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Logs what came of a job."""
        raise NotImplementedError

    def _fail(self, job: Job, reason: str, diverged: bool = False) -> None:
        """Notes why a job failed."""
        raise NotImplementedError

    def _may_repeat(self, worker: int, job: Job) -> bool:
        """Counts a job whose node was lost; tells whether it may run again elsewhere."""
        self._display.worker(worker, "", 0.0)
        key = (job["name"], job.get("place", 0))
        self._lost[key] = self._lost.get(key, 0) + 1
        return self._lost[key] < MAX_LOST

    def end(self, worker: int) -> None:
        """Counts a job that is over."""
        self.done += 1
        self._display.worker(worker, "", 0.0)
        self._display.advance(self.done, self.total)

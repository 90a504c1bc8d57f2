"""The interface of engines, the queue of their jobs, and the display of progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from compress.run.directory import LOG
from search.engines import messages

if TYPE_CHECKING:
    from search.engines.pool import Pool
    from search.plan import ClusterOptions, SearchPlan
    from search.study.directory import SearchFolder

TIMED_OUT = "ended at its time limit"
KILLED = "signal SIGKILL"
"""Cause of death of a killed worker; the system kills processes when memory is short."""
NODE_LOST = "its node was lost"
"""Cause of death of a worker whose machine is gone; its job runs again elsewhere."""
MAX_LOST = 5
"""Maximum number of starts of a job whose nodes were lost, since the job may be the cause."""

Job = dict[str, Any]
LogResult = Callable[[int, Job, dict[str, Any]], None]
"""Function that logs the result of a job, from (index of the worker, job, its last message)."""


@dataclass(frozen=True)
class WorkerSpec:
    """The workers of a run.

    Attributes:
        count: Number of workers, at least 1.
        threads: CPU threads per worker.
        location: Description of the hardware, for the log ("CPU, 2 cores").
        gpus: Number of GPUs of this machine over which the workers are spread.
        cpus_per_worker: Cores of a cluster per worker.
        gpus_per_worker: GPUs of a cluster per worker.
        memory: Maximum bytes of memory per worker; None: all memory of its machine.
    """

    count: int
    threads: int
    location: str
    gpus: int = 0
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    memory: int | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command-line arguments of a worker process for its CPU threads and its memory."""
        memory = () if self.memory is None else ("--memory", str(self.memory))
        return ("--threads", str(self.threads), *memory)


@dataclass(frozen=True)
class WorkerRequest:
    """The workers that a command requests from an engine.

    Attributes:
        options: Options of the engine.
        workers: Number of workers; None: as many as there is room and work for.
        max_jobs: Maximum number of jobs that run at the same time.
        threads: CPU threads per worker; None: chosen by the engine.
        device: "auto", "cpu" or "gpu".
        uses_local_journal: Whether the study is a journal in the run's folder.
    """

    options: ClusterOptions
    workers: int | None
    max_jobs: int
    threads: int | None
    device: str
    uses_local_journal: bool = False

    @classmethod
    def from_plan(cls, plan: SearchPlan) -> WorkerRequest:
        """Return the request for the workers of a plan."""
        return cls(
            plan.cluster, plan.search.workers, plan.max_trials, plan.threads, plan.device,
            not plan.search.storage,
        )  # fmt: skip


@dataclass(frozen=True)
class PoolSettings:
    """The settings of a pool of workers.

    Attributes:
        folder: The folder of the run, from which workers read the plan and to which they write.
        request: The request, with the device and the options of the engine.
        workers: Result of `Engine.allocate_workers`.
        environment: Additional environment variables of the workers, such as secrets.
    """

    folder: SearchFolder
    request: WorkerRequest
    workers: WorkerSpec
    environment: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """A way to run workers; `search.plugins.ENGINES` registers the engines.

    Attributes:
        remote: Whether workers run on other machines. They then load no data that can be passed to
            them, and may outlive the run's process for a while.
    """

    remote: bool

    def allocate_workers(self, request: WorkerRequest) -> WorkerSpec:
        """Return the available workers, without writing any file.

        Args:
            request: The requested workers.

        Raises:
            InputError: The request cannot be met, for example because an address does not respond.
        """
        ...

    def open_pool(self, settings: PoolSettings) -> AbstractContextManager[Pool]:
        """Return the pool of workers; the data must be in `SearchFolder.shared` before.

        Args:
            settings: Settings of the pool.
        """
        ...


class Display:
    """A display of a run's progress; this base class shows nothing."""

    def start_phase(self, title: str, done: int, total: int, *, is_stepwise: bool = False) -> None:
        """Begin a phase of `total` jobs, `done` of which are finished.

        Args:
            title: Title of the phase.
            done: Number of finished jobs.
            total: Number of all jobs.
            is_stepwise: Whether workers report the progress of the current step instead of the
                whole job, because the number of steps is unknown.
        """

    def advance(self, done: int, total: int) -> None:
        """Show the number of finished jobs of the phase.

        Args:
            done: Number of finished jobs.
            total: Number of all jobs.
        """

    def update_worker(self, index: int, text: str, share: float) -> None:
        """Show a worker's activity and its progress, in [0, 1]; empty text: idle.

        Args:
            index: Index of the worker.
            text: Description of the activity.
            share: Progress of the job or step, in [0, 1].
        """


class JobQueue:
    """A queue of jobs that shows their progress and counts finished ones.

    Args:
        display: Display of the progress.
        jobs: The waiting jobs.
        done: Number of jobs of the phase that are finished already.
        activity: Description of a job before its name, in the log: "compressing".
        log_result: Logs the result of a job; default: results are not logged.

    Attributes:
        total: Number of jobs of the phase.
        done: Number of finished jobs.
        failures: Failed jobs, with reasons.
    """

    def __init__(
        self,
        display: Display,
        jobs: Iterable[Job],
        done: int = 0,
        *,
        activity: str = "",
        log_result: LogResult | None = None,
    ) -> None:
        self._display, self._pending = display, list(jobs)
        self._activity, self._log_result = activity, log_result
        self.total, self.done = done + len(self._pending), done
        self.failures: list[str] = []
        self._lost = Counter[str]()

    def take_job(self) -> Job | None:
        """Return the next job; None if no job can start now."""
        return self._pending.pop(0) if self._pending else None

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Show progress; called for each message of a worker about its running job.

        Args:
            worker: Index of the worker.
            job: The running job.
            message: The message.
        """
        if message["kind"] == messages.PROGRESS:
            self._display.update_worker(worker, message["text"], message["share"])

    def on_death(
        self, worker: int, job: Job, claimed_trial: dict[str, Any] | None, cause: str
    ) -> None:
        """Record the failure of a job whose worker died, or queue it again if its node was lost.

        Args:
            worker: Index of the worker.
            job: The job that was running.
            claimed_trial: Number and seed of the trial that it had begun; None: none.
            cause: Cause of death: `NODE_LOST`, `KILLED`, "exit code 1".
        """
        if cause == NODE_LOST:
            self._lost[job["name"]] += 1
            if self._lost[job["name"]] < MAX_LOST:
                self._display.update_worker(worker, "", 0.0)
                self._pending.insert(0, job)
                return
        self._record_failure(job, f"its worker died ({cause})")
        self.finish_job(worker)

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Count a finished job, and log its result.

        Args:
            worker: Index of the worker.
            job: The finished job.
            message: The worker's last message, with the result or an "error".
        """
        if "error" in message:
            self._record_failure(job, message["error"], message.get("diverged", False))
        elif self._log_result is not None:
            self._log_result(worker, job, message)
        self.finish_job(worker)

    def _record_failure(self, job: Job, reason: str, has_diverged: bool = False) -> None:
        """Record and log the reason of a job's failure."""
        self.failures.append(f"{job['name']}: {reason}")
        LOG.info("%s %s failed: %s", self._activity, job["name"], reason)

    def finish_job(self, worker: int) -> None:
        """Count a job that has ended."""
        self.done += 1
        self._display.update_worker(worker, "", 0.0)
        self._display.advance(self.done, self.total)

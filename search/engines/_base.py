"""The interface of engines, the queue of their jobs, and the display of progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from search.engines import messages

if TYPE_CHECKING:
    from search.engines.pool import Pool
    from search.plan import EngineOptions, SearchPlan
    from search.study.directory import SearchFolder

OVERDUE = "ended at its time limit"
KILLED = "signal SIGKILL"
"""How a worker died that nothing of its own ended: the system does so when memory is short."""
LOST = "its node was lost"
"""How a worker died whose machine is gone: what it did runs again elsewhere."""
MAX_LOST = 5
"""So often a job is begun whose nodes were lost: it may be what takes them down."""

Job = dict[str, Any]


@dataclass(frozen=True)
class Crew:
    """The workers of a run.

    Attributes:
        count: How many, at least 1.
        threads: CPU threads of each.
        place: What they run on, for the log ("CPU, 2 cores").
        gpus: How many GPUs of this machine they are spread over.
        memory: Bytes that each may occupy; None: what its machine has.
        cpus, cards: Cores and GPUs that each takes of a cluster.
    """

    count: int
    threads: int
    place: str
    gpus: int = 0
    cpus: int = 1
    cards: float = 0.0
    memory: int | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Arguments of a worker process: its CPU threads and its memory."""
        memory = () if self.memory is None else ("--memory", str(self.memory))
        return ("--threads", str(self.threads), *memory)


@dataclass(frozen=True)
class Demand:
    """The workers that a command asks an engine for.

    Attributes:
        options: The engine's own.
        workers: How many; None: as many as there is room and work for.
        most: Jobs that may run at the same time.
        threads: CPU threads of each; None: as there is room.
        device: "auto", "cpu" or "gpu".
        reads: What workers read of the run's machine beside its folder, for messages; "": nothing.
        journal: Whether the study lies in the run's folder.
    """

    options: EngineOptions
    workers: int | None
    most: int
    threads: int | None
    device: str
    reads: str = ""
    journal: bool = False

    @classmethod
    def of(cls, plan: SearchPlan) -> Demand:
        """Return the demand of a run's plan."""
        from search.spaces import Around

        search = plan.search
        reads = "a search around a model" if isinstance(search.made_space, Around) else ""
        return cls(
            plan.engine, search.workers, search.trials, plan.threads, plan.device, reads,
            not search.storage,
        )  # fmt: skip


@dataclass(frozen=True)
class Order:
    """The run that a pool works for.

    Attributes:
        folder: The run's; workers read the plan from it, and write to it.
        demand: Which device, and the engine's own options.
        crew: What `Engine.crew` has returned.
        environment: Variables of the workers beside this process's: what others must not see.
    """

    folder: SearchFolder
    demand: Demand
    crew: Crew
    environment: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """A way to run workers; the table `search.plugins.ENGINES` names them.

    Attributes:
        remote: Whether workers are of other machines. They load no data for themselves that can
            be handed over, and may outlive the run's process by a while.
    """

    remote: bool

    def crew(self, demand: Demand) -> Crew:
        """Return the workers that are available; nothing has been written yet.

        Raises:
            InputError: They cannot be had: an address that nobody answers at, say.
        """
        ...

    def pool(self, order: Order) -> AbstractContextManager[Pool]:
        """Return the workers, once the data are where `SearchFolder.shared` says."""
        ...


class Display:
    """A display of a run's progress; this one shows nothing."""

    def phase(self, title: str, done: int, total: int, *, steps: bool = False) -> None:
        """Begin a phase of `total` jobs, `done` of which are finished.

        Args:
            title: Of the phase.
            done: Jobs.
            total: Jobs.
            steps: Workers tell how far a step of their job is, not the job: how many steps come
                is not known.
        """

    def advance(self, done: int, total: int) -> None:
        """Show how many jobs of the phase are finished."""

    def worker(self, index: int, text: str, share: float) -> None:
        """Show a worker's activity and its progress, in [0, 1]; empty text: idle."""


class JobQueue:
    """A queue of jobs that shows their progress and counts those that are over.

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
        self._lost = Counter[tuple[str, int]]()

    def next_job(self) -> Job | None:
        """Return the next job, or None while there is none to give."""
        return self._pending.pop(0) if self._pending else None

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Show progress; called for each message of a worker about its running job."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Note a job whose worker died; one whose node was lost runs again.

        Args:
            worker: Its index.
            job: What it had in hand.
            claimed: Names the trial that it had begun; None: none.
            how: How it died: `LOST`, `KILLED`, "exit code 1".
        """
        if how == LOST:
            key = (job["name"], job.get("place", 0))
            self._lost[key] += 1
            if self._lost[key] < MAX_LOST:
                self._display.worker(worker, "", 0.0)
                self._pending.insert(0, job)
                return
        self._fail(job, f"its worker died ({how})")
        self.end(worker)

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Count a finished job, and log its result."""
        if "error" in message:
            self._fail(job, message["error"], message.get("diverged", False))
        else:
            self._say(worker, job, message)
        self.end(worker)

    def _say(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Log the result of a job."""
        raise NotImplementedError

    def _fail(self, job: Job, reason: str, diverged: bool = False) -> None:
        """Note why a job failed."""
        raise NotImplementedError

    def end(self, worker: int) -> None:
        """Count a job that is over."""
        self.done += 1
        self._display.worker(worker, "", 0.0)
        self._display.advance(self.done, self.total)

"""What an engine is: how many workers it has, and the pool that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from search.plan import EngineOptions, SearchPlan
    from search.study.directory import SearchFolder

OVERDUE = "ended at its time limit"
KILLED = "signal SIGKILL"
"""How a worker died that nothing of its own ended: the system does so when memory is short."""
LOST = "its node was lost"
"""How a worker died whose machine is gone: what it did runs again elsewhere."""

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


class Runner(Protocol):
    """A pool as its users see it."""

    def run(self, handler: Handler) -> None:
        """Feeds a handler's jobs to the workers until it gives none and all are idle.

        Raises:
            RunFailed: A worker cannot even start.
        """
        ...


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
        """Arguments of a worker process that say what it may take."""
        memory = () if self.memory is None else ("--memory", str(self.memory))
        return ("--threads", str(self.threads), *memory)


@dataclass(frozen=True)
class Demand:
    """What is asked of an engine.

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
        """Returns what a run's plan asks for."""
        from search.spaces import Around

        search = plan.search
        reads = "a search around a model" if isinstance(search.made_space, Around) else ""
        return cls(
            plan.engine, search.workers, search.trials, plan.threads, plan.device, reads,
            not search.storage,
        )  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What a pool is made for.

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
        """Returns the workers that are had; nothing has been written yet.

        Raises:
            InputError: They cannot be had: an address that nobody answers at, say.
        """
        ...

    def pool(self, order: Order) -> AbstractContextManager[Runner]:
        """Returns the workers, once the data are where `SearchFolder.shared` says."""
        ...

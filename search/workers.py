"""Worker processes that train the nets of a `shrink` beside each other, here or on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.core.device import gpu_count
from compress.core.errors import InputError, ParetuneError, RunFailed, TrainingDiverged
from compress.core.quantities import parse_whole_number
from compress.data.dataset import files_of, shared
from compress.plan.shrink import ShrinkPlan
from compress.run.directory import LOG
from compress.shrinking.case import Case
from compress.shrinking.net import ShrinkFolder
from search.engines import Crew, Demand, Display, Engine, Job, JobQueue, Order, messages
from search.engines.pool import Pool
from search.plan.search import LOCAL, EngineOptions
from search.plugins import ENGINES
from search.study.directory import SearchFolder

MOST_NETS = 8
"""So many are trained at the same time where nobody says how many, and there is room."""


@dataclass(eq=False)
class Workers:
    """Worker processes for the nets of a `shrink`: of this machine, or of a Ray cluster.

    Choosing, repairing and timing stay in the process that calls: times of one machine alone can
    be compared. Nets, models and files lie in `out`, which all workers must see.

    Args:
        count: How many; None: as many as there is room for, 8 at most.
        engine: "local" or "ray".
        address: Of the Ray cluster: host:port, ray://host:port, "auto" or "local".
        cpus_per_worker: Cores that a worker takes of the cluster; default: threads, or 1.
        gpus_per_worker: GPUs that a worker takes of the cluster, in [0, 1]; default: 1 where the
            cluster has GPUs, else 0.
        display: Shows what workers do.

    Raises:
        InputError: A value breaks a rule.

    Example:
        >>> crew = Workers(2)
        >>> crew.count
        2
    """

    count: int | None = None
    engine: str = LOCAL
    address: str = "auto"
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    display: Display = field(default_factory=Display)
    _crew: Crew | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.count is not None:
            self.count = parse_whole_number(self.count, "workers", least=1, most=1024)
        self._options = EngineOptions(
            self.engine, self.address, self.cpus_per_worker, self.gpus_per_worker
        )

    def check(self, plan: ShrinkPlan) -> None:
        """See `compress.shrinking.workshop.Crew.check`."""
        if self.engine == LOCAL and gpu_count(plan.device):
            raise InputError(
                "workers must be of a Ray cluster where nets are trained on a GPU: this machine's "
                "own is taken by the process that repairs and judges. Received: engine local. "
                "Leave workers out, or give engine ray."
            )
        ENGINES.require_installed(self.engine)
        self._crew = ENGINES[self.engine].crew(self._demand(plan))

    def _demand(self, plan: ShrinkPlan) -> Demand:
        return Demand(
            self._options, self.count, MOST_NETS, plan.threads, plan.device,
            "a model to shrink",
        )  # fmt: skip

    @contextlib.contextmanager
    def at_work(self, case: Case, folder: ShrinkFolder, handed_over: bool) -> Iterator[NetTrainers]:
        """See `compress.shrinking.workshop.Crew.at_work`."""
        crew = self._crew
        assert crew is not None, "it was checked"
        data = case.work.data
        if data.compiled:
            raise InputError(
                "Nets that workers train must be judged by a task of their own: they know no "
                f"compiled model. Received: task {case.plan.data.task}. Give a task, or leave "
                "workers out."
            )
        own = SearchFolder(folder.path)
        LOG.info("nets are trained on %s: %d worker(s)", crew.place, crew.count)
        # weights of several outputs' losses stand in no file of the data
        several = bool(data.outputs)
        engine: Engine = ENGINES[self.engine]
        least = 0 if handed_over or engine.remote or several else None
        order = Order(own, self._demand(case.plan), crew)
        with (
            shared(data, own.shared, least_bytes=least) as (_, unshared),
            engine.pool(order) as pool,
        ):
            if handed_over and not files_of(own.shared):
                raise RunFailed(
                    "Data that were handed over must be written for the workers: "
                    f"{unshared or 'they are no arrays'}. Name them (--data), or leave workers out."
                )
            yield NetTrainers(case, folder, pool, crew.count, self.display)


@dataclass(frozen=True)
class NetTrainers(Display):
    """Trainers of nets; see `compress.shrinking.workshop.Trainers`.

    They are shown behind the process that has called them: its own line is the first.

    Attributes:
        case: The model.
        folder: Where nets lie.
        pool: The workers.
        places: How many.
        display: Shows what they do.
    """

    case: Case
    folder: ShrinkFolder
    pool: Pool
    places: int
    display: Display

    def trained(self, wanted: Mapping[str, int]) -> Mapping[str, ParetuneError]:
        """See `compress.shrinking.workshop.Trainers.trained`."""
        if not wanted:
            return {}
        handler = NetJobs(self.case, self.folder, wanted, self)
        self.pool.run(handler)
        return handler.errors

    def worker(self, index: int, text: str, share: float) -> None:
        """See `Display.worker`."""
        self.display.worker(index + 1, text, share)


class NetJobs(JobQueue):
    """Nets to train, largest first, and the error of each that was not trained.

    Args:
        case: The model.
        folder: Where nets lie.
        wanted: Epochs by the net's name.
        display: Shows progress.
    """

    def __init__(
        self, case: Case, folder: ShrinkFolder, wanted: Mapping[str, int], display: Display
    ) -> None:
        self.errors: dict[str, ParetuneError] = {}
        self._case, self._folder = case, folder
        # largest first: the last jobs to end are then short, and no worker idles for long
        ordered = sorted(wanted, key=lambda name: -folder.known_net(name).share)
        # a model that lies in no file has been put beside its results by now
        alone = case.plan.distill.teacher.automatic
        teachers = [case.path] if alone else [item.path for item in case.teachers]
        jobs = [
            {
                "kind": messages.NET,
                "name": name,
                "epochs": wanted[name],
                "file": str(case.path.absolute()),
                "teachers": [str(path.resolve()) for path in teachers],
            }
            for name in ordered
        ]
        super().__init__(display, jobs)

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Show progress, of the worker and of all."""
        super().on_message(worker, job, message)
        self._case.work.progress(f"training {self.total} net(s)", self.done / self.total)

    def _say(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        net, metric = self._folder.known_net(job["name"]), self._case.work.data.task.qualities[0]
        LOG.info(
            "net %s: trained by worker %d for %d epochs; best validation %s %.4f",
            net.name, worker, net.epochs, metric, net.best(metric),
        )  # fmt: skip

    def _fail(self, job: Job, reason: str, diverged: bool = False) -> None:
        kind = TrainingDiverged if diverged else RunFailed
        error = kind(f"Net '{job['name']}' was not trained: {reason}")
        self.errors[job["name"]] = error
        LOG.info("note: %s", error)

"""Nets of one model on the way to a goal, trained beside each other: a worker's end and a run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import ParetuneError, RunFailed, TrainingDiverged
from compress.run.directory import LOG
from search.engines import Job, messages
from search.engines.at_work import Worker, failed
from search.engines.progress import Display, JobQueue

if TYPE_CHECKING:
    from compress.plan.shrink import ShrinkPlan
    from compress.shrinking.case import Case
    from compress.shrinking.net import ShrinkFolder
    from compress.shrinking.workshop import Workshop

SHRINK = "shrink"
"""The command whose folders hold such nets."""


class NetWorker(Worker):
    """A worker that trains nets of one model."""

    plan: ShrinkPlan
    _shop: Workshop | None = None

    def _plan(self, nested: Mapping[str, Any]) -> ShrinkPlan:
        from compress.plan.fields import from_nested
        from compress.plan.shrink import ShrinkPlan

        return from_nested(ShrinkPlan, nested)

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Trains a net, unless one before that was lost has; its record says so then."""
        name = job["name"]
        try:
            shop = self._workshop(job)
            shop.trained(shop.folder.known_net(name), job["epochs"])
        except Exception as error:
            return {
                "name": name, "error": failed(error),
                "diverged": isinstance(error, TrainingDiverged),
            }  # fmt: skip
        return {"name": name}

    def _workshop(self, job: dict[str, Any]) -> Workshop:
        """Returns what trains nets of the job's model: made once, behind the fork."""
        if self._shop is None:
            from compress.model.io import load_model
            from compress.shrinking.case import Work, prepare
            from compress.shrinking.net import ShrinkFolder
            from compress.shrinking.workshop import workshop_for

            file = Path(job["file"])
            work = Work(self.data, self.plan, self.device, self.progress)
            case = prepare(load_model(file), file, work, self.taught_by(job["teachers"]))
            self._shop = workshop_for(case, ShrinkFolder(self.folder.path), alone=False)
        return self._shop


class NetJobs(JobQueue):
    """Gives out nets to train, largest first, and says of each why it was not trained.

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
        """Shows progress, of the worker and of all."""
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

"""Worker processes that train the models of a `shrink` in parallel, locally or on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.core.device import count_gpus
from compress.core.errors import InputError, ParetuneError, RunFailed, TrainingDiverged
from compress.core.quantities import parse_integer
from compress.plan.shrink import ShrinkPlan
from compress.run.directory import LOG
from search.engines import (
    Display,
    Engine,
    Job,
    JobQueue,
    PoolSettings,
    WorkerRequest,
    WorkerSpec,
    messages,
)
from search.plan.cluster import LOCAL_ENGINE, ClusterOptions
from search.plugins import ENGINES

if TYPE_CHECKING:  # the command line imports this module
    from compress.shrinking.candidate import ShrinkFolder
    from compress.shrinking.compression_job import CompressionJob
    from search.engines.pool import Pool

MAX_PARALLEL = 8
"""Default for the largest number of models that are trained in parallel."""


@dataclass(eq=False)
class Workers:
    """Worker processes that train the models of a `shrink`, on this machine or on a Ray cluster.

    Channel selection, reconstruction and latency measurements stay in the calling process:
    latencies can only be compared when they come from one machine. Models and files lie in `out`,
    which all workers must be able to read and write.

    Args:
        count: Number of workers, 1 to 1024; None: as many as there is room for, 8 at most.
        engine: "local" or "ray": the Ray cluster that runs on this machine, or of the environment
            variable RAY_ADDRESS.
        cpus_per_worker: Cores of the cluster per worker; default: threads, or 1.
        gpus_per_worker: GPUs of the cluster per worker, in [0, 1]; default: 1 where the
            cluster has GPUs, else 0.
        display: Display of the workers' progress.

    Raises:
        InputError: A value breaks a rule.

    Example:
        >>> workers = Workers(2)
        >>> workers.count
        2
    """

    count: int | None = None
    engine: str = LOCAL_ENGINE
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    display: Display = field(default_factory=Display)
    _spec: WorkerSpec | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.count is not None:
            self.count = parse_integer(self.count, "workers", least=1, most=1024)
        self._options = ClusterOptions(self.engine, self.cpus_per_worker, self.gpus_per_worker)

    def check(self, plan: ShrinkPlan) -> None:
        """See `compress.shrinking.candidate_builder.TrainerPool.check`."""
        if self.engine == LOCAL_ENGINE and count_gpus(plan.device):
            raise InputError(
                "workers must be of a Ray cluster where models are trained on a GPU: this "
                "machine's GPU is used by the process that reconstructs and evaluates them. "
                "Received: engine local. Leave workers out, or give engine ray."
            )
        ENGINES.require_installed(self.engine)
        self._spec = ENGINES[self.engine].allocate_workers(self._build_request(plan))

    def _build_request(self, plan: ShrinkPlan) -> WorkerRequest:
        return WorkerRequest(self._options, self.count, MAX_PARALLEL, plan.threads, plan.device)

    @contextlib.contextmanager
    def open_trainers(
        self, job: CompressionJob, folder: ShrinkFolder, handed_over: bool
    ) -> Iterator[ShrinkTrainers]:
        """See `compress.shrinking.candidate_builder.TrainerPool.open_trainers`."""
        from compress.data.dataset import list_shared_files, share_dataset
        from search.study.directory import SearchFolder

        spec = self._spec
        assert spec is not None, "it was checked"
        data = job.context.data
        if data.compiled:
            raise InputError(
                "Models that workers train must be evaluated by a task, because workers do not "
                f"have the compiled loss. Received: task {job.plan.data.task}. Give another task, "
                "or leave workers out."
            )
        search_folder = SearchFolder(folder.path)
        LOG.info("models are trained on %s: %d worker(s)", spec.location, spec.count)
        # the files of the data do not store the loss weights of several outputs
        has_loss_weights = bool(data.outputs)
        engine: Engine = ENGINES[self.engine]
        least_bytes = 0 if handed_over or engine.remote or has_loss_weights else None
        settings = PoolSettings(search_folder, self._build_request(job.plan), spec)
        with (
            share_dataset(data, search_folder.shared, min_bytes=least_bytes) as (_, unshared),
            engine.open_pool(settings) as pool,
        ):
            if handed_over and not list_shared_files(search_folder.shared):
                raise RunFailed(
                    "Data passed in Python must be arrays, which are written to files for the "
                    f"workers. Received: {unshared or 'no arrays'}. Name a file or a folder as "
                    "data, or leave workers out."
                )
            yield ShrinkTrainers(job, folder, pool, spec.count, self.display)


@dataclass(frozen=True)
class ShrinkTrainers(Display):
    """Trainers of candidate models; see `compress.shrinking.candidate_builder.Trainers`.

    The workers are shown below the calling process, which has the first line of the display.

    Attributes:
        job: The compression job of the original model.
        folder: Folder of the candidate models.
        pool: The pool of workers.
        max_parallel: Number of models that are trained in parallel.
        display: Display of the workers' progress.
    """

    job: CompressionJob
    folder: ShrinkFolder
    pool: Pool
    max_parallel: int
    display: Display

    def train(self, epochs_by_name: Mapping[str, int]) -> Mapping[str, ParetuneError]:
        """See `compress.shrinking.candidate_builder.Trainers.train`."""
        if not epochs_by_name:
            return {}
        jobs = ShrinkJobs(self.job, self.folder, epochs_by_name, self)
        self.pool.run(jobs)
        return jobs.errors

    def update_worker(self, index: int, text: str, share: float) -> None:
        """See `Display.update_worker`."""
        self.display.update_worker(index + 1, text, share)


class ShrinkJobs(JobQueue):
    """Training jobs for candidate models, largest first, and the errors of those that failed.

    Args:
        compression_job: The compression job of the original model.
        folder: Folder of the candidate models.
        epochs_by_name: Number of epochs by model name.
        display: Display of the progress.
    """

    def __init__(
        self,
        compression_job: CompressionJob,
        folder: ShrinkFolder,
        epochs_by_name: Mapping[str, int],
        display: Display,
    ) -> None:
        self.errors: dict[str, ParetuneError] = {}
        self._compression_job, self._folder = compression_job, folder
        # with the largest first, the last jobs are short and no worker idles for long
        names = sorted(epochs_by_name, key=lambda name: -folder.load_candidate(name).share)
        # a model given as an object has been saved in the folder of the run by now
        is_self_distilled = compression_job.plan.distill.teacher.automatic
        teachers = (
            [compression_job.path]
            if is_self_distilled
            else [item.path for item in compression_job.teachers]
        )
        jobs = [
            {
                "kind": messages.MODEL,
                "name": name,
                "epochs": epochs_by_name[name],
                "file": str(compression_job.path.absolute()),
                "teachers": [str(path.resolve()) for path in teachers],
            }
            for name in names
        ]
        super().__init__(display, jobs, log_result=self._log_training)

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Show the progress of the worker and of all jobs."""
        super().on_message(worker, job, message)
        self._compression_job.context.on_progress(
            f"training {self.total} net(s)", self.done / self.total
        )

    def _log_training(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        candidate, metric = (
            self._folder.load_candidate(job["name"]),
            self._compression_job.context.data.task.qualities[0],
        )
        LOG.info(
            "net %s: trained by worker %d for %d epochs; best validation %s %.4f",
            candidate.name, worker, candidate.epochs, metric, candidate.get_best(metric),
        )  # fmt: skip

    def _record_failure(self, job: Job, reason: str, has_diverged: bool = False) -> None:
        error_class = TrainingDiverged if has_diverged else RunFailed
        error = error_class(f"Net '{job['name']}' was not trained: {reason}")
        self.errors[job["name"]] = error
        LOG.info("note: %s", error)

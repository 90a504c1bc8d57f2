"""Engines that run a study's jobs: `local` in processes of this machine, `ray` on a cluster."""

from search.engines._base import (
    KILLED,
    MAX_LOST,
    NODE_LOST,
    TIMED_OUT,
    Display,
    Engine,
    Job,
    JobQueue,
    PoolSettings,
    WorkerRequest,
    WorkerSpec,
)

__all__ = [
    "KILLED",
    "NODE_LOST",
    "MAX_LOST",
    "TIMED_OUT",
    "WorkerSpec",
    "WorkerRequest",
    "Display",
    "Engine",
    "Job",
    "JobQueue",
    "PoolSettings",
]

"""Engines run a study's jobs: `local` on this machine's processes, `ray` on a cluster's."""

from search.engines._base import (
    KILLED,
    LOST,
    MAX_LOST,
    OVERDUE,
    Crew,
    Demand,
    Display,
    Engine,
    Job,
    JobQueue,
    Order,
)

__all__ = [
    "KILLED",
    "LOST",
    "MAX_LOST",
    "OVERDUE",
    "Crew",
    "Demand",
    "Display",
    "Engine",
    "Job",
    "JobQueue",
    "Order",
]

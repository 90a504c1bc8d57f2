"""Engines run a study's jobs: `local` on this machine's processes, `ray` on a cluster's."""

from search.engines._base import (
    KILLED,
    LOST,
    OVERDUE,
    Crew,
    Demand,
    Engine,
    Handler,
    Job,
    Order,
    Runner,
)

__all__ = [
    "KILLED",
    "LOST",
    "OVERDUE",
    "Crew",
    "Demand",
    "Engine",
    "Handler",
    "Job",
    "Order",
    "Runner",
]

"""Engines run a study's jobs: `local` on worker processes of this machine."""

from search.engines.local import KILLED, OVERDUE, Handler, Job, LocalPool

__all__ = ["KILLED", "OVERDUE", "Handler", "Job", "LocalPool"]

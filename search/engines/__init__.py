"""Engines run a study's jobs: `local` on worker processes of this machine."""

from search.engines.local import OVERDUE, Handler, Job, LocalPool

__all__ = ["OVERDUE", "Handler", "Job", "LocalPool"]

"""Engines run a study's jobs: `local` on worker processes of this machine."""

from search.engines.local import Handler, Job, LocalPool

__all__ = ["Handler", "Job", "LocalPool"]

"""Logs of a compression while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from compress.plan import Plan
from compress.plan.fields import plan_fields, value_of
from compress.run.directory import RunFolder
from compress.run.logs import Source
from compress.run.logs.follower import EpochSource, FileSource, following


def logged(
    plan: Plan, folder: RunFolder, others: Sequence[Source] = ()
) -> AbstractContextManager[None]:
    """Tells the logs that a plan names of epochs and files while the context lasts.

    Args:
        plan: Its `log`.
        folder: The run's.
        others: Further sources, which come first.
    """
    sources = [*others, EpochSource(folder), FileSource(folder)]
    chosen = {
        leaf.flat: value
        for leaf in plan_fields(type(plan))
        if (value := value_of(plan, leaf)) != leaf.default
    }
    return following(plan.log, folder, chosen, sources)

"""Whether anything in a space can meet the limits: asked before the first trial."""

from __future__ import annotations

from compress.data import Dataset
from compress.errors import InputError
from search.costs import NAMES, Costs, excesses, limits
from search.plan import SearchPlan
from search.spaces import space_for
from search.spaces.describe import measured

FLAGS = {"macs": "max_macs", "params": "max_params", "size_bytes": "max_size"}
"""Limits that are judged: what is counted, and the weights' bytes."""


def check_limits(plan: SearchPlan, data: Dataset) -> None:
    """Builds the smallest model of the space and holds it against the limits on counts.

    Spaces whose smallest model is not known (the user's own) are not judged here.

    Raises:
        InputError: It exceeds a limit; the message says what the smallest costs.
    """
    space = space_for(plan.search.space)
    choices = space.smallest(data) if FLAGS.keys() & limits(plan.search) else None
    if choices is None:
        return
    smallest = measured(space, choices, data)
    for name, value, limit in excesses(Costs(smallest.macs, smallest.params), plan.search):
        raise InputError(
            f"{FLAGS[name]} must be at least what the smallest candidate of space "
            f"'{plan.search.space}' has: {value:,.0f} {NAMES[name]}. Received: {limit:,}."
        )

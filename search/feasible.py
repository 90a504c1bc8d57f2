"""Whether anything in a space can meet the limits: asked before the first trial."""

from __future__ import annotations

from compress.data import Dataset
from compress.errors import InputError
from compress.measure import count_macs
from search.costs import NAMES, Costs, excesses, limits
from search.plan import SearchPlan
from search.spaces import space_for


def check_limits(plan: SearchPlan, data: Dataset) -> None:
    """Builds the smallest model of the space and holds it against the limits on counts.

    Spaces whose smallest model is not known (the user's own) are not judged here.

    Raises:
        InputError: It exceeds a limit; the message says what the smallest costs.
    """
    import optuna

    counted = {"macs", "params"} & set(limits(plan.search))
    space = space_for(plan.search.space)
    choices = space.smallest(data) if counted else None
    if choices is None:
        return
    analysis = count_macs(space.build(optuna.trial.FixedTrial(choices), data))
    costs = Costs(analysis.macs, analysis.params, analysis.unsupported)
    for name, value, limit in excesses(costs, plan.search):
        flag = "max_macs" if name == "macs" else "max_params"
        raise InputError(
            f"{flag} must be at least what the smallest candidate of space '{plan.search.space}' "
            f"has: {value:,.0f} {NAMES[name]}. Received: {limit:,}."
        )

"""The front of a search: candidates that no other is better than."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.core.errors import InputError
from compress.core.pareto import Losses, front_mask, hypervolume, log_costs
from search.plan import SearchPlan
from search.study.hypervolume import MARGIN
from search.study.records import COMPLETE, Candidate


def front_of(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Returns the non-dominated candidates by rising first cost.

    Args:
        candidates: Any; only those that were trained to the end count.
        objectives: Quality on validation data, then costs, by field name.

    Raises:
        InputError: One of them lacks an objective.
    """
    trained = [candidate for candidate in candidates if candidate.state == COMPLETE]
    if not trained:
        return []
    quality, *costs = objectives
    for item in trained:
        found = {quality: item.val.get(quality), **{c: getattr(item, c, None) for c in costs}}
        missing = [name for name, value in found.items() if not isinstance(value, int | float)]
        if missing:
            raise InputError(
                f"Candidate '{item.id}' must have {', '.join(objectives)}. Received: no "
                f"{missing[0]}."
            )
    losses = np.asarray(
        [[-item.val[quality], *(getattr(item, cost) for cost in costs)] for item in trained], float
    )
    front = [item for item, on in zip(trained, front_mask(losses), strict=True) if on]
    return sorted(front, key=lambda item: (getattr(item, costs[0]), item.id))


def going_on(candidates: Sequence[Candidate], plan: SearchPlan) -> list[Candidate]:
    """Returns the models of the front that are trained once more and compressed.

    Args:
        candidates: See `front_of`.
        plan: Objectives, and how many models at most.

    Raises:
        InputError: See `front_of`.
    """
    return spread_out(
        front_of(candidates, plan.search.objectives), plan.search.objectives, plan.final_models
    )


def spread_out(
    front: list[Candidate], objectives: Sequence[str], most: int | None
) -> list[Candidate]:
    """Returns at most so many members that dominate most, in the order of the front.

    The best is the first to be among them; then comes, each time, the one that adds most to the
    hypervolume of those that were taken. Each objective (costs as logarithms) is scaled to [0, 1]
    over the front; the reference lies at 1.1.

    Args:
        front: As `front_of` returns it.
        objectives: Quality, then costs, by field name.
        most: How many; None: all.

    Reference:
        Guerreiro et al. 2016, "Greedy hypervolume subset selection in low dimensions": it misses
        at most 1/e of the best subset's; that the best comes first is ours.
    """
    if most is None or len(front) <= most:
        return front
    if most == 0:
        return []
    quality, *costs = objectives
    rows = np.array(
        [[-item.val[quality], *log_costs([getattr(item, cost) for cost in costs])]
         for item in front], float,
    )  # fmt: skip
    span = np.ptp(rows, axis=0)
    scaled: Losses = (rows - rows.min(axis=0)) / np.where(span > 0, span, 1.0)
    reference = np.full(len(objectives), 1 + MARGIN)
    taken = [int(np.argmin(scaled[:, 0]))]
    while len(taken) < most:
        left = [place for place in range(len(front)) if place not in taken]
        taken.append(max(left, key=lambda place: hypervolume(scaled[[*taken, place]], reference)))
    return [front[place] for place in sorted(taken)]

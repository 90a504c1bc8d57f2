"""The front of a search: candidates that no other is better than."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.core.errors import InputError
from compress.core.pareto import front_mask
from search.folder.records import COMPLETE, Candidate


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

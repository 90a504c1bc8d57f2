"""From the cheapest precisions to the dearest, the best trade first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Choice = tuple[int, ...]
"""The place of each unit's level."""


def path_of_choices(losses: Numbers, costs: Numbers) -> list[Choice]:
    """Returns choices of a level a unit, from the cheapest on, each with a smaller loss.

    Losses and costs of units add up. Each step raises one unit to the level that saves the most
    loss for its cost. These choices are the corners of the lower convex hull of all (cost, loss):
    none with as small a cost lies below it.

    Args:
        losses: Of each unit (rows) at each level (columns), at least 0; infinite where it cannot
            have the level.
        costs: The same.

    Returns:
        The choices; the first is the cheapest (of equal costs the smaller loss).

    Reference:
        Multiple-choice knapsack by its linear relaxation: Sinha and Zoltners 1979, "The
        Multiple-Choice Knapsack Problem"; of precisions: Dong et al. 2020, "HAWQ-V2", section 3.2,
        where losses are estimated by Hessians and not measured.
    """
    units = len(losses)
    now = [_cheapest(losses[unit], costs[unit]) for unit in range(units)]
    found = [tuple(now)]
    while True:
        best, step = 0.0, None
        for unit in range(units):
            saved = losses[unit, now[unit]] - losses[unit]
            spent = costs[unit] - costs[unit, now[unit]]
            better = (saved > 0) & (spent > 0)
            gain = np.divide(saved, spent, out=np.zeros_like(saved), where=better)
            level = int(gain.argmax())
            if gain[level] > best:
                best, step = float(gain[level]), (unit, level)
        if step is None:
            return found
        now[step[0]] = step[1]
        found.append(tuple(now))


def _cheapest(losses: Sequence[float] | Numbers, costs: Sequence[float] | Numbers) -> int:
    """Returns the level of the smallest cost, of equal ones that of the smallest loss."""
    return min(range(len(losses)), key=lambda level: (costs[level], losses[level]))

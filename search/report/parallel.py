"""Parallel coordinates: where each finished candidate's line crosses which axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.core.pareto import log_costs
from search.report.choices import Floats, Parameter, parameters
from search.study.front import losses_of
from search.study.records import Candidate

ABSENT = -0.14
"""Height of "not asked", below the axes."""
SHIFT = 0.03
"""By how much the lines of the best and the worst candidate are shifted apart."""
LOG_FROM = 8.0
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""


def shown_parameters(
    candidates: Sequence[Candidate], order: Sequence[str], limit: int
) -> list[Parameter]:
    """Chooses the parameters to draw: those that all candidates have first.

    Args:
        candidates: What is drawn.
        order: Names, the most important first; those not in it come behind, those asked
            most often first.
        limit: How many at most.

    Returns:
        The chosen ones that vary among the candidates.
    """
    place = {name: index for index, name in enumerate(order)}
    varying = [item for item in parameters(candidates) if item.varies]
    varying.sort(key=lambda item: (place.get(item.name, len(place)), -int(item.asked.sum())))
    return sorted(varying[:limit], key=lambda item: not item.common)


def drawable(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Returns the finished candidates that have all objectives."""
    return [item for item in candidates if losses_of(item, objectives) is not None]


def crossings(
    candidates: Sequence[Candidate], objectives: Sequence[str], chosen: Sequence[Parameter]
) -> tuple[Floats, Floats]:
    """Returns where each candidate's line crosses each axis, and the rank of its quality.

    Args:
        candidates: From `drawable`, at least two.
        objectives: Quality, then costs: the last axes.
        chosen: From `shown_parameters`, over the same candidates.

    Returns:
        (candidates, axes), an axis being [0, 1] and `ABSENT` what was not asked; (candidates,)
        from 0, the worst, to 1.
    """
    columns = [np.where(item.asked, _scaled(_numbers(item)), ABSENT) for item in chosen]
    quality, *costs = objectives
    reached = np.array([item.val[quality] for item in candidates])
    spent = [log_costs([getattr(item, cost) for item in candidates]) for cost in costs]
    columns += [_scaled(reached), *map(_scaled, spent)]
    rank = np.argsort(np.argsort(reached, kind="stable"), kind="stable") / (len(candidates) - 1)
    # equal choices would lie on each other: lines are shifted by rank, those of objectives not
    shift = SHIFT * (rank[:, np.newaxis] - 0.5) * (np.arange(len(columns)) < len(chosen))
    return np.stack(columns, axis=1) + shift, rank


def _numbers(item: Parameter) -> Floats:
    """Returns the values as they are spaced on the axis."""
    return np.log10(item.values) if _is_log(item) else item.values


def _is_log(item: Parameter) -> bool:
    low, high = np.nanmin(item.values), np.nanmax(item.values)
    return not item.categories and bool(low > 0) and bool(high / low >= LOG_FROM)


def _scaled(values: Floats) -> Floats:
    """Returns values on [0, 1]; a half where all are equal."""
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), values, 0.5)

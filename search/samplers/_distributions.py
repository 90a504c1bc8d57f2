"""The values of Optuna's distributions: how many, which, the nearest one."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def value_count(distribution: BaseDistribution) -> float:
    """Returns how many values there are; infinity of a continuous one."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise TypeError(f"distribution must be one of Optuna's. Received: {distribution}.")
    if distribution.single():
        return 1
    if distribution.step is None:
        return math.inf
    # half a step more: the quotient of decimal fractions may fall short of a whole number
    return math.floor((distribution.high - distribution.low) / distribution.step + 0.5) + 1


def at(distribution: FloatDistribution | IntDistribution, place: int) -> Any:
    """Returns the value that is `place` steps above the lowest."""
    if place == 0:
        return distribution.low
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    # decimal, so that three steps of 0.1 are 0.3
    low, step = (Decimal(str(part)) for part in (distribution.low, distribution.step))
    return min(float(low + place * step), distribution.high)


def nearest(distribution: FloatDistribution | IntDistribution, value: float) -> Any:
    """Returns the value of a distribution nearest to a number."""
    inside = min(max(value, distribution.low), distribution.high)
    if distribution.step is None:
        return inside
    return at(distribution, round((inside - distribution.low) / distribution.step))


def same(one: Any, other: Any) -> bool:
    """Compares two choices: 0.1 + 0.2 is 0.3, and NaN is NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (one != one and other != other)
    return bool(one == other)

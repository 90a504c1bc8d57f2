"""Choices as rows of numbers: what a predictor reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import CategoricalDistribution

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Rows = npt.NDArray[np.float64]
MOST_VALUES = 12
"""Categories that have columns of their own; more of them share one, by their order."""


class Encoding:
    """Columns for the choices of a space.

    A category has a column for each of its values, a number one (its logarithm where it is drawn
    on that scale); what is not asked is 0 and the mean. Where several categories offer the same
    values (the kind of each layer), how often each value was chosen has a column too: that is
    how deep a net is.

    Args:
        distributions: By name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._numbers: dict[str, int] = {}
        self._logs: set[str] = set()
        self._values: dict[str, dict[str, int]] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self.columns = 0
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, item in distributions.items():
            if item.single():
                continue
            if not isinstance(item, CategoricalDistribution):
                self._numbers[name] = self._column()
                if getattr(item, "log", False):
                    self._logs.add(name)
                continue
            if numeric(item.choices):
                self._numbers[name] = self._column()
            if len(item.choices) <= MOST_VALUES:
                keys = tuple(map(repr, item.choices))
                self._values[name] = {key: self._column() for key in keys}
                alike.setdefault(keys, []).append(name)
        for keys, names in alike.items():
            if len(names) > 1:
                places = {key: self._column() for key in keys}
                self._counted |= dict.fromkeys(names, places)

    def _column(self) -> int:
        self.columns += 1
        return self.columns - 1

    def rows(self, many: Sequence[Mapping[str, Any]]) -> Rows:
        """Returns (choices, columns); NaN where a number was not asked."""
        found = np.zeros((len(many), self.columns))
        found[:, list(self._numbers.values())] = np.nan
        for row, chosen in zip(found, many, strict=True):
            for name, value in chosen.items():
                if name in self._numbers:
                    number = float(value)
                    row[self._numbers[name]] = math.log(number) if name in self._logs else number
                place = self._values.get(name, {}).get(repr(value))
                if place is not None:
                    row[place] = 1.0
                if name in self._counted:
                    row[self._counted[name][repr(value)]] += 1.0
        return found


def numeric(values: Sequence[Any]) -> bool:
    """Tells whether categories are at least three numbers: they have an order then."""
    return len(values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )

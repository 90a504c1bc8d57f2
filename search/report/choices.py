"""What was chosen, parameter by parameter, over the candidates of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.measure import formats
from search.study.records import Candidate

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One parameter over several candidates.

    Attributes:
        name: As the sampler knows it ("stage2.width").
        values: (candidates,) its number, or the place of its category in `categories`; NaN
            where it was not asked, because a condition did not hold.
        categories: Of a parameter that is no number: its values as text, sorted.
    """

    name: str
    values: Floats
    categories: tuple[str, ...] = ()

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Marks the candidates that were asked for it."""
        return np.asarray(~np.isnan(self.values), np.bool_)

    @property
    def common(self) -> bool:
        """Tells whether every candidate was asked for it."""
        return bool(self.asked.all())

    @property
    def varies(self) -> bool:
        """Tells whether those that were asked differ."""
        return len(np.unique(self.values[self.asked])) > 1


def parameters(candidates: Sequence[Candidate]) -> list[Parameter]:
    """Reads the parameters from the candidates' choices, in order of first appearance.

    A parameter is a number if all its values are; booleans, texts and None are categories,
    and so are numbers among them.

    Args:
        candidates: Any; a choice that one lacks was not asked there.
    """
    names = dict.fromkeys(name for item in candidates for name in item.choices)
    return [_parameter(name, candidates) for name in names]


def _parameter(name: str, candidates: Sequence[Candidate]) -> Parameter:
    chosen = [item.choices[name] for item in candidates if name in item.choices]
    if all(map(_is_number, chosen)):
        numbers = [float(item.choices.get(name, math.nan)) for item in candidates]
        return Parameter(name, np.array(numbers))
    categories = tuple(sorted({formats.plain(value) for value in chosen}))
    place = {text: float(index) for index, text in enumerate(categories)}
    places = [
        place[formats.plain(item.choices[name])] if name in item.choices else math.nan
        for item in candidates
    ]
    return Parameter(name, np.array(places), categories)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)

"""Conditions on qualities and costs, as users write them: accuracy>=0.92,macs<=2e6."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from compress.core.counts import amount
from compress.core.errors import InputError
from compress.plan.fields import require_choice
from compress.task import QUALITIES


@dataclass(frozen=True)
class Condition:
    """One comparison.

    Attributes:
        name: A quality or a cost.
        symbol: ">=" or "<=".
        number: What it is held against.
    """

    name: str
    symbol: str
    number: float

    def violation(self, value: float) -> float:
        """Returns by how much it is broken, as a share of the number; at most 0 where it holds."""
        gap = self.number - value if self.symbol == ">=" else value - self.number
        return gap / (abs(self.number) or 1.0)

    def holds(self, value: float) -> bool:
        """Tells whether it holds."""
        return self.violation(value) <= 0


def parsed(texts: Sequence[str], option: str, costs: Sequence[str]) -> tuple[Condition, ...]:
    """Returns the conditions of an option.

    Raises:
        InputError: One is no comparison of a quality or cost with a number.
    """
    found = []
    for text in texts:
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
        number = amount(parts[3]) if parts else None
        if parts is None or number is None:
            raise InputError(
                f"{option} must be comparisons like accuracy>=0.92,macs<=2M. Received: '{text}'."
            )
        require_choice("quality or cost", parts[1], (*QUALITIES, *costs))
        found.append(Condition(parts[1], parts[2], number))
    return tuple(found)

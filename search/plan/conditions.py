"""Conditions on qualities and costs, as users write them: accuracy>=0.92,macs<=2M."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import amount_text, describe_quantity, parse_number
from compress.data.tasks import qualities
from compress.plan.fields import require_choice
from compress.plan.forms import Given, Written

COSTS = {
    "macs": ("count", "a count like 2M"),
    "params": ("count", "a count like 200k"),
    "size_bytes": ("bytes", "a size like 200KB"),
    "latency_ms": ("ms", "a latency like 3ms"),
}
"""What a bare number counts, and what errors say of one, by cost."""
_QUALITY = ("share", "a number like 0.92")


@dataclass(frozen=True)
class Condition(Written):
    """One comparison.

    Attributes:
        name: A quality or a cost.
        symbol: ">=" or "<=".
        number: What it is held against.

    Example:
        >>> str(Condition.parse("macs <= 2e6"))
        'macs<=2M'
    """

    name: str
    symbol: Literal[">=", "<="]
    number: float

    @classmethod
    def parse(cls, text: str, name: str = "a condition") -> Self:
        """Reads "accuracy>=0.92" or "macs<=2M".

        Raises:
            InputError: It is no comparison of a quality or cost with a number.
        """
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
        if parts is None:
            raise InputError(
                f"{name} must be comparisons like accuracy>=0.92,macs<=2M. "
                f"Received: '{one_line(text)}'."
            )
        require_choice("quality or cost", parts[1], (*qualities(), *COSTS))
        unit, like = COSTS.get(parts[1], _QUALITY)
        number = parse_number(parts[3], unit)
        if number is None:
            kind = describe_quantity(parts[3])
            raise InputError(
                f"{name} must compare {parts[1]} with {like}. "
                f"Received: '{one_line(text)}'{f', with {kind}' if kind else ''}."
            )
        return cls(parts[1], ">=" if parts[2] == ">=" else "<=", number)

    def violation(self, value: float) -> float:
        """Returns by how much it is broken, as a share of the number; at most 0 where it holds."""
        gap = self.number - value if self.symbol == ">=" else value - self.number
        return gap / (abs(self.number) or 1.0)

    def holds(self, value: float) -> bool:
        """Tells whether it holds."""
        return self.violation(value) <= 0

    def __str__(self) -> str:
        """Returns "macs<=2M"."""
        return f"{self.name}{self.symbol}{amount_text(self.number)}"


Conditions = Given[tuple[Condition, ...], Iterable[str | Condition]]

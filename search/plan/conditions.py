"""Conditions on metrics and costs, like "accuracy>=0.92"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import describe_quantity, format_amount, parse_number
from compress.data.tasks import list_metrics
from compress.plan.conversion import ConvertedField, TextValue
from compress.plan.fields import require_choice

COSTS = {
    "macs": ("count", "a count like 2M"),
    "params": ("count", "a count like 200k"),
    "size_bytes": ("bytes", "a size like 200KB"),
    "latency_ms": ("ms", "a latency like 3ms"),
}
"""Unit of a number without a unit, and an example for errors, by cost."""
_METRIC = ("share", "a number like 0.92")


@dataclass(frozen=True)
class Condition(TextValue):
    """Comparison of a metric or cost with a number.

    Attributes:
        name: Name of a metric or cost.
        symbol: ">=" or "<=".
        number: The limit.

    Example:
        >>> str(Condition.parse("macs <= 2e6"))
        'macs<=2M'
    """

    name: str
    symbol: Literal[">=", "<="]
    number: float

    @classmethod
    def parse(cls, text: str, name: str = "a condition") -> Self:
        """Return the condition of a text like "accuracy>=0.92" or "macs<=2M".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text is no comparison of a metric or cost with a number.
        """
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
        if parts is None:
            raise InputError(
                f"{name} must be comparisons like accuracy>=0.92,macs<=2M. "
                f"Received: '{to_one_line(text)}'."
            )
        require_choice("quality or cost", parts[1], (*list_metrics(), *COSTS))
        unit, like = COSTS.get(parts[1], _METRIC)
        number = parse_number(parts[3], unit)
        if number is None:
            kind = describe_quantity(parts[3])
            raise InputError(
                f"{name} must compare {parts[1]} with {like}. "
                f"Received: '{to_one_line(text)}'{f', with {kind}' if kind else ''}."
            )
        return cls(parts[1], ">=" if parts[2] == ">=" else "<=", number)

    def is_met(self, value: float) -> bool:
        """Return whether a value of the metric or cost meets the condition."""
        return value >= self.number if self.symbol == ">=" else value <= self.number

    def __str__(self) -> str:
        return f"{self.name}{self.symbol}{format_amount(self.number)}"


Conditions = ConvertedField[tuple[Condition, ...], Iterable[str | Condition]]

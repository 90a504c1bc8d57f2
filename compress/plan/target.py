"""What channel pruning comes to: a share of the model, or a count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from compress.core.counts import amount, amount_text, number_text
from compress.core.errors import InputError, one_line
from compress.plan.forms import Written, real

_RULE = "a share like 0.5x (or '2x smaller') or a count like 12M"


@dataclass(frozen=True)
class Target(Written):
    """Goal of a pruning: "0.5x" of the whole, or "12M" of what is counted.

    Attributes:
        amount: The share in (0, 1], or the count.
        relative: Whether it is a share of the original model.

    Example:
        >>> Target.parse("2x smaller")
        Target(amount=0.5, relative=True)
        >>> str(Target(12e6, relative=False))
        '12M'
    """

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str, name: str = "a target") -> Self:
        """Reads "0.5x" (half stays), "2x smaller" or "2x" (half stays), "12M" or "0.5".

        Raises:
            InputError: It is none of them.
        """
        words = text.strip().removesuffix("smaller").rstrip()
        smaller = len(words) < len(text.strip())
        number = amount(words.removesuffix("x"))
        if number is None or not math.isfinite(number):
            raise InputError(f"{name} must be {_RULE}. Received: {one_line(text)}.")
        if not words.endswith("x"):
            if smaller:
                raise InputError(f"{name} must be {_RULE}. Received: {one_line(text)}.")
            return cls(number, relative=False)
        if smaller and number < 1:
            raise InputError(
                f"{name} must be at least '1x smaller'. Received: {one_line(text)}. "
                f"'{number_text(number)}x' keeps that share."
            )
        return cls(1.0 / number if number > 1 else number, relative=True)

    @classmethod
    def of(cls, value: object, name: str = "a target") -> Self:
        """Takes a number too: up to 1 it is a share, above it a count."""
        number = real(value)
        if number is None:
            return super().of(value, name)
        if not math.isfinite(number):
            raise InputError(f"{name} must be {_RULE}. Received: {one_line(value)}.")
        return cls(number, relative=number <= 1)

    def __str__(self) -> str:
        """Returns "0.5x" or "12M"."""
        if self.relative:
            return f"{number_text(self.amount)}x"
        return amount_text(self.amount)

"""What channel pruning comes to: a share of the model, or a count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from compress.core.counts import amount, amount_text, number_text
from compress.core.errors import InputError, one_line
from compress.plan.forms import Written, real

_SHARE = "a share like 0.5x (or '2x smaller')"


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
    like: ClassVar[str] = "a count like 12M"
    """What an amount looks like, for errors."""
    word: ClassVar[str] = "smaller"
    """What stands behind a factor: 2x smaller."""

    @classmethod
    def parse(cls, text: str, name: str = "a target") -> Self:
        """Reads "0.5x" (half stays), "2x smaller" or "2x" (half stays), "12M" or "0.5".

        Raises:
            InputError: It is none of them.
        """
        words = text.strip().removesuffix(cls.word).rstrip()
        smaller = len(words) < len(text.strip())
        share = words.endswith("x")
        number = amount(words.removesuffix("x")) if share else cls.amount_of(words)
        if number is None or not math.isfinite(number) or (smaller and not share):
            raise cls._refused(name, text)
        if not share:
            return cls(number, relative=False)
        if smaller and number < 1:
            raise InputError(
                f"{name} must be at least '1x {cls.word}'. Received: {one_line(text)}. "
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
            raise cls._refused(name, value)
        return cls(number, relative=number <= 1)

    @classmethod
    def amount_of(cls, text: str) -> float | None:
        """Reads an amount; None: it is none."""
        return amount(text)

    @classmethod
    def _refused(cls, name: str, value: object) -> InputError:
        return InputError(f"{name} must be {_SHARE} or {cls.like}. Received: {one_line(value)}.")

    def __str__(self) -> str:
        """Returns "0.5x" or "12M"."""
        if self.relative:
            return f"{number_text(self.amount)}x"
        return amount_text(self.amount)


@dataclass(frozen=True)
class TimeTarget(Target):
    """Goal of a time: "0.5x" of what the original takes, "2x faster", or "3ms".

    Attributes:
        amount: The share in (0, 1], or milliseconds.
        relative: Whether it is a share of the original's time.

    Example:
        >>> TimeTarget.parse("250us")
        TimeTarget(amount=0.25, relative=False)
    """

    like: ClassVar[str] = "a time like 3ms"
    word: ClassVar[str] = "faster"

    @classmethod
    def amount_of(cls, text: str) -> float | None:
        """Reads "3ms", "250us", "0.1s" or a number of milliseconds."""
        for suffix, scale in (("ms", 1.0), ("us", 1e-3), ("s", 1e3)):
            if text.endswith(suffix):
                found = amount(text.removesuffix(suffix).rstrip())
                return None if found is None else found * scale
        return amount(text)

    def __str__(self) -> str:
        """Returns "0.5x" or "3ms"."""
        return super().__str__() if self.relative else f"{number_text(self.amount)}ms"


@dataclass(frozen=True)
class SizeTarget(Target):
    """Goal of a size: "0.5x" of the original's, "2x smaller", or "200KB".

    Attributes:
        amount: The share in (0, 1], or bytes.
        relative: Whether it is a share of the original's size.

    Example:
        >>> SizeTarget.parse("200KB")
        SizeTarget(amount=200000.0, relative=False)
    """

    like: ClassVar[str] = "a size like 200KB"

    def __str__(self) -> str:
        """Returns "0.5x" or "200kB"."""
        return super().__str__() + ("" if self.relative else "B")

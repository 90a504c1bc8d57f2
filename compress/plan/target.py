"""Targets of pruning, latency and size: shares or absolute values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import (
    Dimension,
    amount_text,
    number_text,
    parse_quantity,
    show_received,
)
from compress.plan.forms import Written, real


@dataclass(frozen=True)
class Target(Written):
    """Target of a pruning: "0.5x" of the whole, or "12M" of what is counted.

    Attributes:
        amount: The share to keep in (0, 1], or the count.
        relative: Whether it is a share of the original model.
        bare: Whether the text had no unit.

    Example:
        >>> Target.parse("2x smaller")
        Target(amount=0.5, relative=True)
        >>> str(Target(12e6, relative=False))
        '12M'
    """

    amount: float
    relative: bool
    bare: bool = field(default=False, compare=False, repr=False)
    dimension: ClassVar[Dimension] = "count"
    """What an amount that is no share is."""
    like: ClassVar[str] = "a count like 12M"
    """What an amount looks like, for errors."""
    word: ClassVar[str] = "smaller"
    """What follows a factor: 2x smaller."""
    unit: ClassVar[str] = ""
    """What an amount is written with."""

    @classmethod
    def parse(cls, text: str, name: str = "a target") -> Self:
        """Read "0.5x", "50 %" or "0.5" (half is kept), "2x smaller" or "2x" (half), or "12M".

        Raises:
            InputError: It is none of them, or above 1 without a unit where it needs one.
        """
        words = text.strip()
        for word in ("smaller", "faster"):
            if words.endswith(word):
                return cls._parse_factor(words.removesuffix(word).rstrip(), word, name, text)
        number = parse_quantity(words, cls.dimension)
        if number is not None:
            return cls(float(number), relative=False)
        share = parse_quantity(words, "share")
        if share is not None:
            # "2x" keeps half, as "2x smaller" does
            over = words.endswith(("x", "X")) and share > 1
            return cls(float(1 / share if over else share), relative=True)
        try:
            return cls._from_number(float(words), name, bare=True)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise cls._refused(name, text) from None

    @classmethod
    def of(cls, value: object, name: str = "a target") -> Self:
        """Take a number too: up to 1 it is a share, above it a count."""
        number = real(value)
        if number is not None:
            return cls._from_number(number, name)
        if not isinstance(value, (str, cls)):
            raise cls._refused(name, value)
        return super().of(value, name)

    @classmethod
    def _from_number(cls, number: float, name: str, bare: bool = False) -> Self:
        """Return the target of a number without a unit: a share up to 1, above it a count.

        Raises:
            InputError: It is not finite, or above 1 and no count.
        """
        if not math.isfinite(number):
            raise cls._refused(name, number)
        if number > 1 and cls.unit:
            shown = number_text(number)
            raise InputError(
                f"{name} must have a unit. Received: {shown}. Write {shown}{cls.unit}, or "
                f"'{shown}x {cls.word}' for {number_text(round(1 / number, 4))}x of the original."
            )
        return cls(number, number <= 1, bare)

    @classmethod
    def _parse_factor(cls, factor: str, word: str, name: str, text: str) -> Self:
        """Read what stands before "smaller" or "faster"."""
        share = parse_quantity(factor, "share") if factor.endswith(("x", "X")) else None
        if share is None:
            raise cls._refused(name, text)
        if word != cls.word:
            raise InputError(
                f"{name} must be '{factor} {cls.word}', not {word}, or a share like 0.5x, or "
                f"{cls.like}. Received: {one_line(text)}."
            )
        if share < 1:
            raise InputError(
                f"{name} must be at least '1x {cls.word}'. Received: {one_line(text)}. "
                f"'{number_text(float(share))}x' keeps that share."
            )
        return cls(float(1 / share), relative=True)

    @classmethod
    def _refused(cls, name: str, value: object) -> InputError:
        return InputError(
            f"{name} must be a share to keep like 0.5x, 50 % or '2x {cls.word}', or {cls.like}. "
            f"Received: {show_received(value)}."
        )

    def __str__(self) -> str:
        if self.relative:
            return f"{number_text(self.amount)}x"
        return amount_text(self.amount)


@dataclass(frozen=True)
class TimeTarget(Target):
    """Target of a latency: "0.5x" of what the original takes, "2x faster", or "3ms".

    Attributes:
        amount: The share in (0, 1], or milliseconds.
        relative: Whether it is a share of the original's time.
        bare: Whether the text had no unit.

    Example:
        >>> TimeTarget.parse("250us")
        TimeTarget(amount=0.25, relative=False)
    """

    dimension: ClassVar[Dimension] = "latency"
    like: ClassVar[str] = "a time like 3ms, 250us or 0.1s"
    word: ClassVar[str] = "faster"
    unit: ClassVar[str] = "ms"

    def __str__(self) -> str:
        return super().__str__() if self.relative else f"{number_text(self.amount)}ms"


@dataclass(frozen=True)
class SizeTarget(Target):
    """Target of a size: "0.5x" of the original's, "2x smaller", or "200KB".

    Attributes:
        amount: The share in (0, 1], or bytes.
        relative: Whether it is a share of the original's size.
        bare: Whether the text had no unit.

    Example:
        >>> SizeTarget.parse("200KB")
        SizeTarget(amount=200000.0, relative=False)
    """

    dimension: ClassVar[Dimension] = "size"
    like: ClassVar[str] = "a size like 200KB or 1.5MiB"
    unit: ClassVar[str] = "B"

    def __str__(self) -> str:
        return super().__str__() + ("" if self.relative else "B")

"""Targets of pruning, latency and size: shares or absolute values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import (
    Dimension,
    format_amount,
    format_number,
    format_received,
    parse_quantity,
)
from compress.plan.conversion import TextValue, to_float


@dataclass(frozen=True)
class Target(TextValue):
    """Target of pruning: a share like "0.5x", or an absolute count like "12M".

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
    """Dimension of an absolute amount."""
    like: ClassVar[str] = "a count like 12M"
    """Example of an absolute amount, for errors."""
    word: ClassVar[str] = "smaller"
    """Word after a factor: 2x smaller."""
    unit: ClassVar[str] = ""
    """Unit of an absolute amount."""

    @classmethod
    def parse(cls, text: str, name: str = "a target") -> Self:
        """Return the target of a text.

        Half of the original is written "0.5x", "50 %", "0.5", "2x smaller" or "2x"; an absolute
        amount is written like "12M".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text has another form, or a number above 1 lacks a required unit.
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
            raise cls._build_error(name, text) from None

    @classmethod
    def from_value(cls, value: object, name: str = "a target") -> Self:
        """Return the target of a text or number; numbers up to 1 are shares, others are counts.

        Args:
            value: The text, number or target.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        number = to_float(value)
        if number is not None:
            return cls._from_number(number, name)
        if not isinstance(value, (str, cls)):
            raise cls._build_error(name, value)
        return super().from_value(value, name)

    @classmethod
    def _from_number(cls, number: float, name: str, bare: bool = False) -> Self:
        """Return the target of a number without a unit: a share up to 1, otherwise a count.

        Raises:
            InputError: The number is not finite, or is above 1 and this target needs a unit.
        """
        if not math.isfinite(number):
            raise cls._build_error(name, number)
        if number > 1 and cls.unit:
            shown = format_number(number)
            raise InputError(
                f"{name} above 1 must have a unit. Received: {shown}. Write {shown}{cls.unit}, or "
                f"'{shown}x {cls.word}' for {format_number(round(1 / number, 4))}x of the original."
            )
        return cls(number, number <= 1, bare)

    @classmethod
    def _parse_factor(cls, factor: str, word: str, name: str, text: str) -> Self:
        """Return the target of a factor like "2x" before "smaller" or "faster"."""
        share = parse_quantity(factor, "share") if factor.endswith(("x", "X")) else None
        if share is None:
            raise cls._build_error(name, text)
        if word != cls.word:
            raise InputError(
                f"{name} must be '{factor} {cls.word}', not {word}, or a share like 0.5x, or "
                f"{cls.like}. Received: {to_one_line(text)}."
            )
        if share < 1:
            raise InputError(
                f"{name} must be at least '1x {cls.word}'. Received: {to_one_line(text)}. "
                f"'{format_number(float(share))}x' keeps that share."
            )
        return cls(float(1 / share), relative=True)

    @classmethod
    def _build_error(cls, name: str, value: object) -> InputError:
        return InputError(
            f"{name} must be a share to keep like 0.5x, 50 % or '2x {cls.word}', or {cls.like}. "
            f"Received: {format_received(value)}."
        )

    def __str__(self) -> str:
        if self.relative:
            return f"{format_number(self.amount)}x"
        return format_amount(self.amount)


@dataclass(frozen=True)
class TimeTarget(Target):
    """Target of latency: "0.5x" of the original's latency, "2x faster", or "3ms".

    Attributes:
        amount: The share in (0, 1], or milliseconds.
        relative: Whether it is a share of the original's latency.
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
        return super().__str__() if self.relative else f"{format_number(self.amount)}ms"


@dataclass(frozen=True)
class SizeTarget(Target):
    """Target of file size: "0.5x" of the original's size, "2x smaller", or "200KB".

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

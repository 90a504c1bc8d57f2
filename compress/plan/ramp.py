"""A number that may change during training: "4", "8:2" or "0:0.7@20%"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import number_text, parse_number
from compress.plan.forms import Written, real
from compress.plan.train_time import percent_text


@dataclass(frozen=True)
class Ramp(Written):
    """Goes from `start` to `end` in a straight line until a share of the training is done.

    Attributes:
        start, end: Values before and after.
        until: Share of the training, in (0, 1]; from there on the value is `end`.

    Example:
        >>> Ramp.parse("0:0.7@20%")
        Ramp(start=0.0, end=0.7, until=0.2)
    """

    start: float
    end: float
    until: float = 1.0

    @classmethod
    def constant(cls, value: float) -> Self:
        """Returns a number that stays."""
        return cls(float(value), float(value))

    @classmethod
    def parse(cls, text: str, name: str = "a number") -> Self:
        """Reads "4" (constant), "8:2" (over the whole training) or "0:0.7@20%".

        Raises:
            InputError: It is none of them.
        """
        try:
            values, _, until = text.partition("@")
            start, _, end = values.partition(":")
            share = parse_number(until, "share") if until else 1.0
            ramp = cls(float(start), float(end or start), 0.0 if share is None else share)
        except ValueError:
            ramp = cls(0.0, 0.0, 0.0)
        if not 0 < ramp.until <= 1 or not abs(ramp.start) + abs(ramp.end) <= 1e30:
            raise InputError(
                f"{name} must be a number, a ramp 'from:to' over the training, or 'from:to@20%' "
                f"over its first fifth. Received: {one_line(repr(text))}."
            )
        return ramp

    @classmethod
    def of(cls, value: object, name: str = "a number") -> Self:
        """Takes a number, or a pair (from, to), too."""
        ends = value if isinstance(value, tuple | list) and len(value) == 2 else (value,)
        texts = [number_text(number) for end in ends if (number := real(end)) is not None]
        return super().of(":".join(texts) if len(texts) == len(ends) else value, name)

    @property
    def largest(self) -> float:
        """The largest value on the way."""
        return max(self.start, self.end)

    @property
    def smallest(self) -> float:
        """The smallest value on the way."""
        return min(self.start, self.end)

    def at(self, progress: Any) -> Any:
        """Returns the value when a share of the training is done (a number or a tensor)."""
        if self.start == self.end:
            return self.start
        import tensorflow as tf

        return self.start + (self.end - self.start) * tf.minimum(progress / self.until, 1.0)

    def plain(self) -> float | str:
        """Returns the number where it stays, else the text."""
        return self.start if self == self.constant(self.start) else str(self)

    def __str__(self) -> str:
        """Returns "4", "8:2" or "0:0.7@20%"."""
        if self == self.constant(self.start):
            return number_text(self.start)
        text = f"{number_text(self.start)}:{number_text(self.end)}"
        if self.until == 1.0:
            return text
        return f"{text}@{percent_text(self.until) or number_text(self.until)}"

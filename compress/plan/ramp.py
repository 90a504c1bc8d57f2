"""A number that may change during training: "4", "8:2" or "0:0.7@20%"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compress.core.errors import InputError


@dataclass(frozen=True)
class Ramp:
    """Goes from `start` to `end` in a straight line until a share of the training is done.

    Attributes:
        start, end: Values before and after.
        until: Share of the training, in (0, 1]; from there on the value is `end`.
    """

    start: float
    end: float
    until: float = 1.0

    @classmethod
    def parse(cls, name: str, text: float | str) -> Ramp:
        """Reads "4" (constant), "8:2" (over the whole training) or "0:0.7@20%".

        Args:
            name: What the number is, for the error.
            text: A number or the text.

        Raises:
            InputError: It is none of them.
        """
        ramp: Ramp | None
        try:
            if isinstance(text, str):
                values, _, until = text.partition("@")
                start, _, end = values.partition(":")
                ramp = cls(float(start), float(end or start), _share(until))
            else:
                ramp = cls(float(text), float(text))
        except ValueError:
            ramp = None
        if ramp is None or not 0 < ramp.until <= 1 or abs(ramp.start) + abs(ramp.end) > 1e30:
            raise InputError(
                f"{name} must be a number, a ramp 'from:to' over the training, or 'from:to@20%' "
                f"over its first fifth. Received: {text!r}."
            )
        return ramp

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


def _share(text: str) -> float:
    if not text:
        return 1.0
    return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)

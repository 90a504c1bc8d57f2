"""A time of training: a share of it, epochs or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from compress.core.errors import InputError
from compress.core.quantities import number_text, parse_number, show_received
from compress.plan.forms import Written, real

Unit = Literal["share", "epochs", "steps"]
MOST_TIME = 1e9
_SIGNS: dict[Unit, str] = {"share": "%", "epochs": "e", "steps": ""}


@dataclass(frozen=True)
class TrainTime(Written):
    """When something happens in a training: "50%" of it, after "2e" epochs or "400" steps.

    Attributes:
        value: Of a share in [0, 1]; else at least 0.
        unit: "share", "epochs" or "steps".

    Example:
        >>> TrainTime.parse("50%")
        TrainTime(value=0.5, unit='share')
    """

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, name: str = "a pruning time") -> Self:
        """Read a share of training ("50%", "0.5" or "0.5x"), epochs ("2e") or steps ("400").

        Raises:
            InputError: It is none of these, or out of range.
        """
        words = text.strip()
        unit: Unit = "epochs" if words.endswith("e") else "steps"
        value = parse_number(words.removesuffix(_SIGNS[unit]), "share")
        if unit == "steps" and value is not None and (words[-1:] in "%xX" or 0 < value < 1):
            unit = "share"
        if value is None or not 0 <= value <= (1 if unit == "share" else MOST_TIME):
            raise InputError(
                f"{name} must be a share of training (50%), epochs (2e) or steps (400). "
                f"Received: {show_received(text)}."
            )
        return cls(value, unit)

    @classmethod
    def of(cls, value: object, name: str = "a pruning time") -> Self:
        """Takes a number too: a whole one counts steps, another below 1 is a share."""
        number = real(value)
        if number is None:
            return super().of(value, name)
        return cls.parse(number_text(number), name)

    def __str__(self) -> str:
        """Returns "50%", "2e" or "400"."""
        if self.unit != "share":
            return f"{number_text(self.value)}{_SIGNS[self.unit]}"
        return percent_text(self.value) or f"{number_text(self.value)}x"


def percent_text(share: float) -> str:
    """Return the shortest percentage that is read as exactly this share, of 0.07 "7%"; "": none."""
    percent = share * 100
    near = (round(percent, 9), percent, math.nextafter(percent, 0), math.nextafter(percent, 101))
    texts = (f"{number_text(number)}%" for number in near)
    return next((text for text in texts if parse_number(text, "share") == share), "")

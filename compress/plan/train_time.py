"""A time of training: a share of it, epochs or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from compress.core.counts import number_text
from compress.core.errors import InputError, one_line
from compress.plan.forms import Written, real

Unit = Literal["share", "epochs", "steps"]
MOST_TIME = 1e9
_SIGNS: dict[Unit, str] = {"share": "%", "epochs": "e", "steps": ""}
_UNITS: dict[str, Unit] = {"%": "share", "e": "epochs"}


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
        """Reads "50%", "2e" or "400".

        Raises:
            InputError: It is none of these, or out of range.
        """
        unit = _UNITS.get(text[-1:], "steps")
        try:
            value = float(text.removesuffix(_SIGNS[unit]))
        except ValueError:
            value = math.nan
        if not 0 <= value <= (100 if unit == "share" else MOST_TIME):
            raise InputError(
                f"{name} must be a share of training (50%), epochs (2e) or steps (400). "
                f"Received: {one_line(repr(text))}."
            )
        return cls(value / 100 if unit == "share" else value, unit)

    @classmethod
    def of(cls, value: object, name: str = "a pruning time") -> Self:
        """Takes a number too: a whole one counts steps, another below 1 is a share."""
        number = real(value)
        if number is None:
            return super().of(value, name)
        return cls.parse((percent_text if 0 < number < 1 else number_text)(number), name)

    def __str__(self) -> str:
        """Returns "50%", "2e" or "400"."""
        if self.unit != "share":
            return f"{number_text(self.value)}{_SIGNS[self.unit]}"
        return percent_text(self.value)


def percent_text(share: float) -> str:
    """Returns the shortest percentage that is read as this share: of 0.07 "7%"."""
    percent = share * 100
    near = (round(percent, 9), percent, math.nextafter(percent, 0), math.nextafter(percent, 101))
    exact = (number for number in near if number / 100 == share)
    return f"{number_text(next(exact, percent))}%"

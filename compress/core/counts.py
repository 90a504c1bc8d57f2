"""Whole numbers as people write them: 200000, 200_000, 200k, 2M, 1.5M, 2e6; sizes as 2MB, 2MiB."""

from __future__ import annotations

import re
from fractions import Fraction

from compress.core.errors import InputError, one_line

MOST_THREADS = 1024
MORE_THREADS = "no machine runs more threads at once"
MOST_SEED = 2**31 - 1
"""TensorFlow's seeds are signed numbers of 32 bits."""
SEED_BITS = "seeds have 31 bits"

_LIMIT = 2**63
_LONGEST = 60
_FORM = re.compile(
    r"([+-]?)(\d+(?:_\d+)*)(?:\.(\d+(?:_\d+)*))?(?:e\+?(\d{1,2}))?\s*([a-z]*)", re.ASCII | re.I
)
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTES = {
    "b": 1,
    **{f"{unit}b": factor for unit, factor in _COUNTS.items() if unit},
    **{f"{unit}ib": 1024 ** (place + 1) for place, unit in enumerate("kmgt")},
}
_MIB = 1024**2


def whole(
    value: object,
    name: str,
    *,
    least: int | None = None,
    most: int | None = None,
    why: str = "",
    unit: str = "",
) -> int:
    """Returns a whole number, however it is written, within its bounds.

    Args:
        value: A number without a fraction, or a text: digits with underscores between, a
            fraction or exponent that makes a whole number with its suffix k, M, G or T
            (powers of 1000; upper or lower case).
        name: What it is, for the error.
        least, most: Bounds, both included.
        why: Reason of `most`.
        unit: "bytes" takes KB, MB, GB and KiB, MiB, GiB too; "MiB" takes all suffixes as bytes
            and rounds up; "": a plain count.

    Raises:
        InputError: It is no such number, or out of bounds.
    """
    number = _number(value, unit)
    if number is None:
        like = "200000, 200k or 2M" if not unit else "200k, 2MB or 2MiB"
        shown = one_line(repr(value) if isinstance(value, str) else value)
        raise InputError(f"{name} must be a whole number, like {like}. Received: {shown}.")
    reason = f" ({why})" if why else ""
    shown = one_line(value)
    if least is not None and number < least:
        raise InputError(f"{name} must be at least {least}. Received: {shown}.")
    if most is not None and number > most:
        raise InputError(f"{name} must be at most {most:,}{reason}. Received: {shown}.")
    if abs(number) >= _LIMIT:
        raise InputError(f"{name} must be a number of at most 63 bits. Received: {shown}.")
    return number


def amount(text: str) -> float | None:
    """Returns a number that may have a fraction and a count's or size's suffix; None: it is none.

    For limits that may be counts as well as shares: "0.92", "2M", "1.5MiB".
    """
    try:
        return float(text)
    except ValueError:
        number = _fraction(text, {**_COUNTS, **_BYTES})
        return None if number is None else float(number)


def _number(value: object, unit: str) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if hasattr(value, "__index__"):
        return int(value.__index__())
    if not isinstance(value, str):
        return None
    number = _fraction(value, {**_COUNTS, **_BYTES} if unit else _COUNTS)
    if number is None:
        return None
    if unit == "MiB" and value.strip()[-1:].isalpha():
        return -int(-number // _MIB)
    return int(number) if number.denominator == 1 else None


def _fraction(text: str, units: dict[str, int]) -> Fraction | None:
    found = _FORM.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None or found[5].lower() not in units:
        return None
    sign, digits, decimals, exponent, suffix = found.groups()
    number = Fraction(f"{sign}{digits}.{decimals or 0}".replace("_", ""))
    scale: int = 10 ** int(exponent or 0) * units[suffix.lower()]
    return number * scale

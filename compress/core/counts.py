"""Numbers as people write them: 200000, 200_000, 200k, 2M, 2e6; sizes as 2MB, times as 30m."""

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
_SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SECONDS = {"seconds": 1.0, "minutes": 60.0}
_PART = r"(\d+(?:\.\d+)?)\s*"
_TIMES = re.compile(
    rf"(?:{_PART}d)?\s*(?:{_PART}h)?\s*(?:{_PART}m(?:in)?)?\s*(?:{_PART}s)?", re.ASCII
)


def whole(
    value: object,
    name: str,
    *,
    least: int | None = None,
    most: int | None = None,
    why: str = "",
    unit: str = "",
    like: str = "",
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
        like: What errors say that it must be; default: a whole number, with examples.

    Raises:
        InputError: It is no such number, or out of bounds.
    """
    number = _number(value, unit)
    if number is None:
        examples = "200k, 2MB or 2MiB" if unit else "200000, 200k or 2M"
        shown = one_line(repr(value) if isinstance(value, str) else value)
        rule = like or f"a whole number, like {examples}"
        raise InputError(f"{name} must be {rule}. Received: {shown}.")
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


def span(text: str, unit: str = "") -> float | None:
    """Returns a number that may be a time; None: it is none.

    Args:
        text: "0.5", "2e-3"; where the unit is one of time "90s", "30m", "1.5h", "2d", "1h30m" too.
        unit: "seconds" or "minutes": what a number alone counts; "": no time.
    """
    try:
        return float(text)
    except ValueError:
        known = unit in _SECONDS and len(text) <= _LONGEST
        found = _TIMES.fullmatch(text.strip().lower()) if known else None
    if found is None or not any(found.groups()):
        return None
    seconds = sum(
        float(part) * scale
        for part, scale in zip(found.groups(), (86400.0, 3600.0, 60.0, 1.0), strict=True)
        if part
    )
    return seconds / _SECONDS[unit]


def number_text(number: float) -> str:
    """Returns the shortest plain text of a number: "8", "0.7", "1e-05"."""
    return repr(float(number)).removesuffix(".0")


def amount_text(number: float) -> str:
    """Returns the shortest text that `amount` reads as this number: "0.5", "12M", "1234567"."""
    if not number.is_integer() or abs(number) >= _LIMIT:
        return number_text(number)
    texts = [str(int(number))]
    for suffix, scale in _SUFFIXES.items():
        units, rest = divmod(int(abs(number)), scale)
        digits = f"{units}.{rest:0{len(str(scale)) - 1}}".rstrip("0").rstrip(".")
        texts += [f"{'-' if number < 0 else ''}{digits}{suffix}"] if units else []
    return min(texts, key=len)


def threads_text(count: int) -> str:
    """Returns "1 thread", "4 threads"."""
    return f"{count} thread{'' if count == 1 else 's'}"


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

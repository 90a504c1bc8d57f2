"""Quantities with units: counts (2M), sizes (2MB), latencies (3ms), durations (30m), shares (50 %).

All numbers in text are parsed here. Each dimension has its own units, so that a size is never
mistaken for a time.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from compress.core.errors import InputError, to_one_line

Dimension = Literal["count", "size", "latency", "duration", "share"]
Unit = Literal["", "count", "bytes", "ms", "seconds", "minutes", "share"]
"""Unit of a number without a unit in an option; "" for options without units."""

MAX_THREADS = 1024
MAX_THREADS_REASON = "no machine runs more threads at once"
MAX_SEED = 2**31 - 1
"""Largest seed: TensorFlow's seeds are signed 32-bit integers."""
MAX_SEED_REASON = "seeds have 31 bits"

_LIMIT = 2**63
_MAX_LENGTH = 60
_DIGITS = r"\d+(?:_\d+)*"
_NUMBER = rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:e(?:\+?\d{{1,2}}|-\d{{1,3}}))?"
_QUANTITY_PATTERN = re.compile(rf"({_NUMBER})\s*([a-z\u00b5\u03bc%]*)", re.ASCII | re.I)
_SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_COUNTS = {suffix.lower(): scale for suffix, scale in _SUFFIXES.items()}
_UNITS: dict[Dimension, dict[str, Fraction]] = {
    "count": {suffix: Fraction(scale) for suffix, scale in _COUNTS.items()},
    "size": {
        "b": Fraction(1),
        **{suffix: Fraction(scale) for suffix, scale in _COUNTS.items()},
        **{f"{suffix}b": Fraction(scale) for suffix, scale in _COUNTS.items()},
        **{f"{suffix}ib": Fraction(1024 ** (place + 1)) for place, suffix in enumerate(_COUNTS)},
    },
    "latency": {
        **dict.fromkeys(("us", "\u00b5s", "\u03bcs"), Fraction(1, 1000)), "ms": Fraction(1),
        "s": Fraction(1000),
    },
    "share": {"x": Fraction(1), "%": Fraction(1, 100)},
}  # fmt: skip
"""Factor from each unit, in lower case, to counts, bytes, milliseconds and shares."""
_PART = r"(\d+(?:\.\d+)?)\s*"
_DURATION = re.compile(
    rf"(?:{_PART}d)?\s*(?:{_PART}h)?\s*(?:{_PART}m(?:in)?)?\s*(?:{_PART}s)?", re.ASCII
)
_BARE_UNITS: dict[str, tuple[Dimension, Fraction]] = {
    "count": ("count", Fraction(1)),
    "bytes": ("size", Fraction(1)),
    "ms": ("latency", Fraction(1)),
    "seconds": ("duration", Fraction(1)),
    "minutes": ("duration", Fraction(60)),
    "share": ("share", Fraction(1)),
}
"""Dimension and scale of each unit of an option."""


def parse_quantity(text: str, dimension: Dimension) -> Fraction | None:
    """Return a quantity as a count, in bytes, milliseconds or seconds, or as a share.

    Args:
        text: "2M", "1.5MiB" (also "200k" of bytes), "3ms", "1h30m", "0.5x" or "50 %"; case is
            ignored.
        dimension: The dimension with the allowed units.

    Returns:
        The exact number, or None if the text has no unit or one of another dimension.

    Example:
        >>> parse_quantity("250us", "latency"), parse_quantity("200KB", "latency")
        (Fraction(1, 4), None)
    """
    if len(text) > _MAX_LENGTH:
        return None
    if dimension == "duration":
        return _parse_duration(text)
    match = _QUANTITY_PATTERN.fullmatch(text.strip())
    scale = _UNITS[dimension].get(match[2].lower()) if match else None
    if match is None or scale is None:
        return None
    return Fraction(match[1].replace("_", "")) * scale


def parse_number(text: str, unit: Unit | str = "") -> float | None:
    """Return a number in the unit of its option, or None if the text is no number.

    Args:
        text: "0.5" or "2e-3"; for an option with a unit also a quantity of its dimension.
        unit: Unit of a number without a unit.

    Example:
        >>> parse_number("250us", "ms"), parse_number("50%", "share"), parse_number("many")
        (0.25, 0.5, None)
    """
    try:
        return float(text)
    except ValueError:
        if not unit:
            return None
        dimension, scale = _BARE_UNITS[unit]
        number = parse_quantity(text, dimension)
        return None if number is None else float(number / scale)


def format_received(value: object) -> str:
    """Return a value as shown in errors: strings in quotes, with their kind of quantity.

    The kind names the unit that was given in place of another.
    """
    if not isinstance(value, str):
        return to_one_line(value)
    # 3m means minutes, 3M millions
    minutes: tuple[Dimension, ...] = ("duration",) if value == value.lower() else ()
    dimensions: tuple[Dimension, ...] = ("latency", "share", *minutes, "count", "size", "duration")
    kinds = (kind for kind in dimensions if parse_quantity(value, kind) is not None)
    kind = next((f", which is a {kind}" for kind in kinds), "")
    return to_one_line(repr(value)) + kind


def parse_integer(
    value: object,
    name: str,
    *,
    least: int | None = None,
    most: int | None = None,
    why: str = "",
    unit: str = "",
    like: str = "",
) -> int:
    """Return an integer within its bounds, from a number or text.

    Args:
        value: A number without a fraction, or text: digits with optional underscores, or a fraction
            or exponent that gives an integer with its suffix k, M, G or T (powers of 1000, case is
            ignored).
        name: Name of the value, for the error.
        least, most: Inclusive bounds.
        why: Reason for `most`.
        unit: "bytes" also accepts KB, MB, GB and KiB, MiB, GiB. "" is a plain count.
        like: Description of valid values, for the error. Default: a description with examples.

    Raises:
        InputError: The value is no such number, or out of bounds.
    """
    number = _read_integer(value, unit)
    if number is None:
        examples = "200k, 2MB or 2MiB" if unit else "200000, 200k or 2M"
        rule = like or f"an integer, like {examples}"
        raise InputError(f"{name} must be {rule}. Received: {format_received(value)}.")
    reason = f" ({why})" if why else ""
    shown = to_one_line(value)
    if least is not None and number < least:
        raise InputError(f"{name} must be at least {least}. Received: {shown}.")
    if most is not None and number > most:
        raise InputError(f"{name} must be at most {most:,}{reason}. Received: {shown}.")
    if abs(number) >= _LIMIT:
        raise InputError(f"{name} must be a number of at most 63 bits. Received: {shown}.")
    return number


def format_number(number: float) -> str:
    """Return the shortest plain text of a number: "8", "0.7", "1e-05"."""
    return repr(float(number)).removesuffix(".0")


def format_amount(number: float) -> str:
    """Return the shortest text of a count: "0.5", "12M", "1234567"."""
    if not number.is_integer() or abs(number) >= _LIMIT:
        return format_number(number)
    texts = [str(int(number))]
    for suffix, scale in _SUFFIXES.items():
        units, rest = divmod(int(abs(number)), scale)
        digits = f"{units}.{rest:0{len(str(scale)) - 1}}".rstrip("0").rstrip(".")
        texts += [f"{'-' if number < 0 else ''}{digits}{suffix}"] if units else []
    return min(texts, key=len)


def format_threads(count: int) -> str:
    """Return a number of threads as text: "1 thread", "4 threads"."""
    return f"{count} thread{'' if count == 1 else 's'}"


def _read_integer(value: object, unit: str) -> int | None:
    """Return the integer of a number or text, or None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if hasattr(value, "__index__"):
        try:
            return int(value.__index__())
        except TypeError:  # an array with several elements
            return None
    if not isinstance(value, str):
        return None
    number = parse_quantity(value, "size" if unit else "count")
    if number is None:
        bare = _QUANTITY_PATTERN.fullmatch(value.strip()) if len(value) <= _MAX_LENGTH else None
        number = Fraction(bare[1].replace("_", "")) if bare and not bare[2] else None
    return int(number) if number is not None and number.denominator == 1 else None


def _parse_duration(text: str) -> Fraction | None:
    """Return the seconds of a duration: "90s", "30m", "1.5h", "2d", "1h30m"."""
    parts = _DURATION.fullmatch(text.strip().lower())
    if parts is None or not any(parts.groups()):
        return None
    scales = (86400, 3600, 60, 1)
    numbers = (Fraction(part or 0) for part in parts.groups())
    return sum((n * scale for n, scale in zip(numbers, scales, strict=True)), Fraction(0))

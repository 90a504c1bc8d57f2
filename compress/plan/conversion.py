"""Conversion of plan values between Python, JSON, TOML and the command line.

A plan holds values of the types that its fields declare. Other forms (text from the command line or
TOML, lists from JSON, numbers in Python) are converted once, when a section is created, by
`convert_value`. `to_plain` converts a value for JSON and TOML, `format_value` for the command line.
"""

from __future__ import annotations

import csv
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import format_number, format_received, parse_integer, parse_number

ValueT = TypeVar("ValueT", covariant=True)
FormT = TypeVar("FormT", contravariant=True)
MAX_NUMBER = 2**63
_UNIT_HINTS = {
    "minutes": " of minutes, or a duration like 30m or 1h",
    "seconds": " of seconds, or a duration like 90s or 2m",
    "ms": " of milliseconds, or a latency like 3ms or 250us",
    "share": " like 0.5, or a share like 50 %",
}
"""Descriptions of numbers with a unit, for errors."""


class ConvertedField(Generic[ValueT, FormT]):
    """Declaration of a field that is read as `ValueT` and may be given as `FormT`.

    Type checkers see a descriptor with both types. When a section is created, `convert_value`
    converts the given value to `ValueT`. Forms other than `FormT` are only used by the command
    line and TOML.

    Example:
        >>> typing.get_args(ConvertedField[int, int | str])
        (<class 'int'>, int | str)
    """

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type) -> ValueT: ...

        def __set__(self, instance: object, value: FormT) -> None: ...


NameList = ConvertedField[tuple[str, ...], Iterable[str]]
"""Names or patterns: a list, or comma-separated text."""
OptionalPath = ConvertedField[Path | None, str | Path | None]
"""A file or folder; an empty text means None."""


class TextValue:
    """Plan value with a text form: `parse(str(value)) == value`."""

    @classmethod
    def parse(cls, text: str, name: str = "") -> Self:
        """Return the value of a text.

        Args:
            text: The text as the user wrote it.
            name: Name of the value, for the error. Default: the kind of value.

        Raises:
            InputError: The text is no such value.
        """
        raise NotImplementedError

    @classmethod
    def from_value(cls, value: object, name: str = "") -> Self:
        """Return the value of an object: the value itself, a text or another form of Python.

        Args:
            value: The object.
            name: Name of the value, for the error.

        Raises:
            InputError: The object is no such value.
        """
        if isinstance(value, cls):
            return value
        return cls.parse(value if isinstance(value, str) else to_one_line(value), name)

    def to_plain(self) -> Any:
        """Return the value in its form in JSON and TOML."""
        return str(self)


def to_float(value: object) -> float | None:
    """Return a real number of Python or NumPy as a float, or None for other objects.

    A number beyond the largest float becomes infinity, which all fields reject.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_field_types(section: type[Any]) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields after conversion, by name."""
    return {
        name: typing.get_args(hint)[0] if typing.get_origin(hint) is ConvertedField else hint
        for name, hint in typing.get_type_hints(section).items()
    }


def split_optional(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it allows None."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    (kind,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    return kind, True


def convert_value(value: Any, hint: Any, name: str, *, unit: str = "", **bounds: Any) -> Any:
    """Return a value converted to the type of its field.

    Args:
        value: The value in any form. Tuples: a list, one item or comma-separated text. Numbers and
            records: a text. None: an empty text, except for numbers.
        hint: int, float, bool, str, Path, a class with `parse` (`TextValue`), tuple[X, ...], or a
            union of one of these with None.
        name: Name of the value in errors.
        unit: Unit of numbers, see `compress.core.quantities`.
        **bounds: Bounds of integers, see `compress.core.quantities.parse_integer`.

    Raises:
        InputError: The value cannot be converted, or is out of its bounds.
    """
    kind, optional = split_optional(hint)
    if isinstance(value, str) and "\0" in value:
        raise InputError(
            f"{name} must hold no NUL character. Received: {to_one_line(repr(value))}."
        )
    if optional and (value is None or (_is_empty(value) and kind not in (int, float))):
        return None
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        elements = [element for element in _list_items(value, item, name) if not _is_empty(element)]
        return tuple(
            convert_value(element, item, name, unit=unit, **bounds) for element in elements
        )
    if isinstance(kind, type) and issubclass(kind, TextValue):
        return kind.from_value(value, name)
    if value is None:
        raise _build_error(name, "have a value", value)
    if kind is int:
        return parse_integer(value, name, unit=unit, **bounds)
    if kind is float:
        return _convert_number(value, name, unit)
    if kind is Path:
        if not isinstance(value, (str, os.PathLike)):
            raise _build_error(name, "be a path", value)
        return Path(value)
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind):
        raise _build_error(name, "be true or false" if kind is bool else "be a text", value)
    return value


def _is_empty(value: object) -> bool:
    return isinstance(value, str) and not value


def _list_items(value: Any, item: Any, name: str) -> list[Any]:
    """Return a list option's items: text is split, a mapping gives pairs, a number is one item."""
    if isinstance(value, str):
        return list(split_items(value))
    if isinstance(value, Mapping):
        return list(value.items())
    is_single = isinstance(value, (os.PathLike, numbers.Number, TextValue))
    if not is_single and isinstance(value, Iterable):
        return list(value)
    if is_single and (item is not str or isinstance(value, os.PathLike)):
        return [value]
    raise _build_error(name, "be a list of names" if item is str else "be a list", value)


def _convert_number(value: Any, name: str, unit: str) -> float:
    number = parse_number(value, unit) if isinstance(value, str) else to_float(value)
    if number is None:
        raise _build_error(name, f"be a number{_UNIT_HINTS.get(unit, '')}", value)
    if isinstance(value, int) and abs(value) >= MAX_NUMBER:
        raise _build_error(name, "be a number of at most 63 bits", value)
    if not math.isfinite(number):
        raise _build_error(name, "be finite", value)
    return number


def to_plain(value: Any) -> Any:
    """Return a plan value in its form in JSON and TOML."""
    if isinstance(value, TextValue):
        return value.to_plain()
    if isinstance(value, Path):
        return str(value)
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def format_value(value: Any) -> str:
    """Return a plan value in its form on the command line."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return join_items([format_value(item) for item in value])
    return format_number(value) if isinstance(value, float) else str(value)


def join_items(items: Sequence[str]) -> str:
    """Return items as comma-separated text, with quotes around items that contain commas."""
    return ",".join(
        '"' + item.replace('"', '""') + '"' if set(item) & {",", '"'} else item for item in items
    )


def split_items(text: str) -> tuple[str, ...]:
    """Return the non-empty items of comma-separated text: "a,b" has two, '"a,b"' has one.

    Raises:
        InputError: The text is no such list (too long, a line break within quotes).
    """
    try:
        row = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"A list must be items with commas between ({error}).") from None
    return tuple(item.strip() for item in row if item.strip())


def _build_error(name: str, rule: str, value: object) -> InputError:
    """Build an error that shows strings in quotes, so that their type is visible."""
    return InputError(f"{name} must {rule}. Received: {format_received(value)}.")

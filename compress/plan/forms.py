"""Conversion of values of a plan from and to Python, JSON, TOML and the command line.

A plan holds values of the types that its fields declare. What is given instead (a text from the
command line or TOML, a list from JSON, a number in Python) is read here, once, when a section is
made: `typed`. `plain` writes a value for JSON and TOML, `text_of` for the command line.
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

from compress.core.errors import InputError, one_line
from compress.core.quantities import number_text, parse_number, parse_whole_number, show_received

ValueT = TypeVar("ValueT", covariant=True)
FormT = TypeVar("FormT", contravariant=True)
MOST = 2**63
_LIKE = {
    "minutes": " of minutes, or a duration like 30m or 1h",
    "seconds": " of seconds, or a duration like 90s or 2m",
    "ms": " of milliseconds, or a latency like 3ms or 250us",
    "share": " like 0.5, or a share like 50 %",
}
"""What errors say that a number with a unit may be."""


class Given(Generic[ValueT, FormT]):
    """Declares a field that is read as `ValueT` and may be given as `FormT`.

    A type checker sees both (as a descriptor); when a section is made, `typed` turns what was
    given into the first. Forms beyond the second are for the command line and TOML alone.

    Example:
        >>> typing.get_args(Given[int, int | str])
        (<class 'int'>, int | str)
    """

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type) -> ValueT: ...

        def __set__(self, instance: object, value: FormT) -> None: ...


Names = Given[tuple[str, ...], Iterable[str]]
"""Names or patterns: a list, or one text with commas between."""
Place = Given[Path | None, str | Path | None]
"""A file or folder; an empty text is none."""


class Written:
    """A value of a plan that has a text of its own: `parse(str(value)) == value`."""

    @classmethod
    def parse(cls, text: str, name: str = "") -> Self:
        """Read the text.

        Args:
            text: As users write it.
            name: What it is, for the error; default: the kind of value.

        Raises:
            InputError: It is none.
        """
        raise NotImplementedError

    @classmethod
    def of(cls, value: object, name: str = "") -> Self:
        """Return the value that is given as itself, as a text or in another form of Python.

        Raises:
            InputError: It is none.
        """
        if isinstance(value, cls):
            return value
        return cls.parse(value if isinstance(value, str) else one_line(value), name)

    def plain(self) -> Any:
        """Return the value as JSON and TOML hold it."""
        return str(self)


def real(value: object) -> float | None:
    """Return a real number of Python or NumPy as a float; None: it is none.

    One beyond the largest float is infinity, which no field takes.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def hints_of(section: type[Any]) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields, as they are read."""
    return {
        name: typing.get_args(hint)[0] if typing.get_origin(hint) is Given else hint
        for name, hint in typing.get_type_hints(section).items()
    }


def kind_of(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None may stand for it."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    (kind,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    return kind, True


def typed(value: Any, hint: Any, name: str, *, unit: str = "", **bounds: Any) -> Any:
    """Return a given value as the field's type.

    Args:
        value: The value itself, or a form of it: of tuples a list, one item or a text with
            commas; of numbers and records a text; an empty text for None.
        hint: int, float, bool, str, Path, a class with `parse` (`Written`), tuple[X, ...], or one
            of these or None.
        name: What errors call it.
        unit: Of numbers, see `compress.core.quantities`.
        bounds: Of whole numbers, see `compress.core.quantities.parse_whole_number`.

    Raises:
        InputError: It is none of them, or out of its bounds.
    """
    kind, optional = kind_of(hint)
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"{name} must hold no NUL character. Received: {one_line(repr(value))}.")
    if optional and (value is None or (_is_empty(value) and kind not in (int, float))):
        return None
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        given = [each for each in _items(value, item, name) if not _is_empty(each)]
        return tuple(typed(each, item, name, unit=unit, **bounds) for each in given)
    if isinstance(kind, type) and issubclass(kind, Written):
        return kind.of(value, name)
    if value is None:
        raise _refused(name, "have a value", value)
    if kind is int:
        return parse_whole_number(value, name, unit=unit, **bounds)
    if kind is float:
        return _number(value, name, unit)
    if kind is Path:
        if not isinstance(value, (str, os.PathLike)):
            raise _refused(name, "be a path", value)
        return Path(value)
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind):
        raise _refused(name, "be true or false" if kind is bool else "be a text", value)
    return value


def _is_empty(value: object) -> bool:
    return isinstance(value, str) and not value


def _items(value: Any, item: Any, name: str) -> list[Any]:
    if isinstance(value, str):
        return list(listed(value))
    if isinstance(value, Mapping):
        return list(value.items())
    single = isinstance(value, (os.PathLike, numbers.Number, Written))
    if not single and isinstance(value, Iterable):
        return list(value)
    if single and (item is not str or isinstance(value, os.PathLike)):
        return [value]
    raise _refused(name, "be a list of names" if item is str else "be a list", value)


def _number(value: Any, name: str, unit: str) -> float:
    number = parse_number(value, unit) if isinstance(value, str) else real(value)
    if number is None:
        raise _refused(name, f"be a number{_LIKE.get(unit, '')}", value)
    if isinstance(value, int) and abs(value) >= MOST:
        raise _refused(name, "be a number of at most 63 bits", value)
    if not math.isfinite(number):
        raise _refused(name, "be finite", value)
    return number


def plain(value: Any) -> Any:
    """Write a value of a plan for JSON and TOML."""
    if isinstance(value, Written):
        return value.plain()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def text_of(value: Any) -> str:
    """Write a value of a plan as the command line takes it."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return joined([text_of(item) for item in value])
    if isinstance(value, float):
        return number_text(value)
    return str(value)


def joined(items: Sequence[str]) -> str:
    """Write a list as the command line takes it: commas between, quotes around commas."""
    return ",".join(
        '"' + item.replace('"', '""') + '"' if set(item) & {",", '"'} else item for item in items
    )


def listed(text: str) -> tuple[str, ...]:
    """Read what `joined` wrote: "a,b" are two items, '"a,b"' is one; empty ones are left out.

    Raises:
        InputError: The text is no such list (too long, a line break within quotes).
    """
    try:
        row = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"A list must be items with commas between ({error}).") from None
    return tuple(item.strip() for item in row if item.strip())


def _refused(name: str, rule: str, value: object) -> InputError:
    """Build the error; texts are shown in quotes, so that their type can be seen."""
    return InputError(f"{name} must {rule}. Received: {show_received(value)}.")

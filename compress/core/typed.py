"""Values from JSON against the types that records declare: what differs is refused by name."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from compress.core.errors import InputError, one_line

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def conform(value: Any, hint: Any, name: str) -> Any:
    """Returns a value as the type that is declared for it.

    Lists become tuples where a tuple is declared, whole numbers become floats where a float is.

    Args:
        value: As `json` gives it.
        hint: The type: int, float, str, bool, None, Any, a union with None, tuple[X, ...],
            tuple[X, X], list[X], dict[str, X], a TypedDict, whose further keys stay as they
            are, or a class with a `from_json` of its own.
        name: What errors call the value.

    Raises:
        InputError: It is of another type, not finite, or beyond 63 bits; or a key is missing.
    """
    if hint is Any:
        return value
    if typing.is_typeddict(hint):
        return _conform_keys(value, hint, name)
    if hasattr(hint, "from_json"):
        return hint.from_json(value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (item for item in arguments if item is not types.NoneType)
        return None if value is None else conform(value, kind, name)
    if origin in (tuple, list):
        _require(isinstance(value, (list, tuple)), name, "a list", value)
        if origin is tuple and arguments[-1] is not Ellipsis:
            length = len(arguments)
            _require(len(value) == length, name, f"a list of {length} values", value)
        return origin(
            conform(item, arguments[0], f"{name}[{place}]") for place, item in enumerate(value)
        )
    if origin is dict or hint is dict:
        _require(isinstance(value, Mapping), name, "a table", value)
        kind = arguments[1] if arguments else Any
        return {key: conform(item, kind, f"{name}.{key}") for key, item in value.items()}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(
            f"{name} must be a number of at most 63 bits. Received: {one_line(value)}."
        )
    if hint is float:
        _require(number and math.isfinite(value), name, _WORDS[float], value)
        return float(value)
    _require(isinstance(value, hint) and (hint is not int or number), name, _WORDS[hint], value)
    return value


def _conform_keys(value: Any, hint: Any, name: str) -> dict[str, Any]:
    _require(isinstance(value, Mapping), name, "a table", value)
    hints, needed = _keys_of(hint)
    missing = [key for key in needed if key not in value]
    if missing:
        raise InputError(
            f"{name} must have the keys {', '.join(hints)}. Received: none called '{missing[0]}'."
        )
    return {
        key: conform(item, hints[key], f"{name}.{key}") if key in hints else item
        for key, item in value.items()
    }


@cache
def _keys_of(hint: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns what a TypedDict's keys hold, and which there must be."""
    hints = typing.get_type_hints(hint)
    # __required_keys__ does not see what postponed annotations say
    marked = typing.get_type_hints(hint, include_extras=True)
    needed = [key for key in hints if typing.get_origin(marked[key]) is not typing.NotRequired]
    return hints, tuple(needed) if hint.__total__ else ()


def _require(holds: bool, name: str, kind: str, value: object) -> None:
    if not holds:
        shown = one_line(repr(value) if isinstance(value, str) else value)
        raise InputError(f"{one_line(name)} must be {kind}. Received: {shown}.")

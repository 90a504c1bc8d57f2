"""Plan sections: frozen dataclasses whose fields are also options of the command line.

A plan is one frozen record; its sections group the fields. The command line, a TOML
file and Python all end in `from_nested` or `from_flat`, so defaults, names, help and
checks live in the dataclasses alone.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from compress.core.counts import whole
from compress.core.errors import InputError, one_line, unknown_name

PlanT = TypeVar("PlanT")


def option(
    default: Any,
    flags: str,
    text: str,
    *,
    extendable: bool = False,
    least: int | None = None,
    most: int | None = None,
    why: str = "",
    unit: str = "",
) -> Any:
    """Declares a field of a plan section.

    Args:
        default: The one default that every caller gets.
        flags: Names on the command line, space separated; the first is the flat name.
        text: Help text.
        extendable: A run that goes on may be given another value (a budget, say).
        least, most: Bounds of a whole number, both included; `settle` checks them.
        why: Reason of `most`.
        unit: Of a whole number that is a size: "bytes" or "MiB"; see `compress.core.counts.whole`.

    Returns:
        The dataclass field.
    """
    metadata = {"flags": tuple(flags.split()), "help": text, "extendable": extendable}
    metadata["count"] = {"least": least, "most": most, "why": why, "unit": unit}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class PlanField:
    """One leaf of a plan: where it stands, how it is called and what it takes."""

    section: str | None
    name: str
    flags: tuple[str, ...]
    hint: Any
    default: Any
    help: str
    extendable: bool

    @property
    def flat(self) -> str:
        """The first flag as a Python name: `--val-fraction` -> `val_fraction`."""
        return self.flags[0].lstrip("-").replace("-", "_")

    @property
    def path(self) -> str:
        """The dotted path in the plan, as in errors and TOML: `data.source`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def plan_fields(plan: type[Any]) -> tuple[PlanField, ...]:
    """Lists the leaves of a plan class, sections flattened.

    A flag that two leaves claim belongs to the last section that claims it as its
    *first* flag; the others keep their remaining flags.
    """
    leaves: list[PlanField] = []
    hints = typing.get_type_hints(plan)
    for field in dataclasses.fields(plan):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            inner_hints = typing.get_type_hints(hint)
            for inner in dataclasses.fields(typing.cast(Any, hint)):
                leaves.append(_leaf(field.name, inner, inner_hints[inner.name]))
        else:
            leaves.append(_leaf(None, field, hint))
    primary = {leaf.flags[0]: leaf.path for leaf in leaves}
    return tuple(
        dataclasses.replace(
            leaf,
            flags=tuple(flag for flag in leaf.flags if primary.get(flag, leaf.path) == leaf.path),
        )
        for leaf in leaves
    )


def _leaf(section: str | None, field: dataclasses.Field[Any], hint: Any) -> PlanField:
    meta = field.metadata
    return PlanField(
        section, field.name, meta["flags"], hint, field.default, meta["help"], meta["extendable"]
    )


def settle(section: Any) -> None:
    """Reads a section's whole numbers ("2M") and checks their bounds; for its `__post_init__`.

    Raises:
        InputError: One is no whole number, or out of its bounds.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value is None or "flags" not in field.metadata or not _takes_count(hints[field.name]):
            continue
        name = field.metadata["flags"][0].lstrip("-").replace("-", "_")
        object.__setattr__(section, field.name, whole(value, name, **field.metadata["count"]))


def _takes_count(hint: Any) -> bool:
    """Tells whether a field is a whole number."""
    return hint is int or int in typing.get_args(hint)


def from_flat(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Builds a plan from option names (`{"data": "digits", "val_fraction": 0.2}`).

    Raises:
        InputError: A name is unknown, or a value breaks a rule.
    """
    return from_nested(plan, nest(plan, values))


def nest(plan: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sorts option names and values into the plan's sections.

    Raises:
        InputError: A name is unknown.
    """
    by_name = {
        flag.lstrip("-").replace("-", "_"): leaf
        for leaf in plan_fields(plan)
        for flag in leaf.flags
    }
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name not in by_name:
            raise unknown_name("plan option", name, by_name)
        leaf = by_name[name]
        home = nested.setdefault(leaf.section, {}) if leaf.section else nested
        home[leaf.name] = value
    return nested


def from_nested(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Builds a plan from its nested form, as `to_nested` writes it and TOML holds it.

    Raises:
        InputError: A section or key is unknown, or a value breaks a rule.
    """
    hints = typing.get_type_hints(plan)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise unknown_name("plan section or key", key, hints)
        if not dataclasses.is_dataclass(hints[key]):
            arguments[key] = _coerce(key, hints[key], value)
            continue
        section = typing.cast(type[Any], hints[key])
        inner = typing.get_type_hints(section)
        if not isinstance(value, Mapping):
            raise _no_table(key, value)
        for name in value:
            if name not in inner:
                raise unknown_name(f"key in plan section '{key}'", name, inner)
        arguments[key] = section(
            **{name: _coerce(f"{key}.{name}", inner[name], item) for name, item in value.items()}
        )
    return plan(**arguments)


def to_nested(plan: Any) -> dict[str, Any]:
    """Returns the plan as plain dictionaries and lists, ready for JSON."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(plan)))


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested `base` with every leaf of nested `changes` put over it.

    Raises:
        InputError: `base` has a value where `changes` has a section.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        section = isinstance(value, Mapping) and key in merged
        if section and not isinstance(old, Mapping):
            raise _no_table(key, old)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = overlay(typing.cast(Mapping[str, Any], old), value) if both else value
    return merged


def differing_fields(old: PlanT, new: PlanT) -> list[str]:
    """Lists the fields, by dotted path and both values, that a going-on run may not change."""
    differences = []
    for leaf in plan_fields(type(old)):
        before, after = value_of(old, leaf), value_of(new, leaf)
        if before != after and not leaf.extendable:
            differences.append(f"{leaf.path} was {before!r}, now {after!r}")
    return differences


def value_of(plan: Any, leaf: PlanField) -> Any:
    """Returns the value that `plan` holds at `leaf`."""
    home = getattr(plan, leaf.section) if leaf.section else plan
    return getattr(home, leaf.name)


def command_words(plan: Any) -> list[str]:
    """Returns the command-line words that make `plan`: every value that is no default.

    The output folder is left out: a command that is shown to be repeated should not
    collide with the run that shows it.
    """
    words: list[str] = []
    for leaf in plan_fields(type(plan)):
        value = value_of(plan, leaf)
        if leaf.path == "out" or value == leaf.default:
            continue
        words.append(leaf.flags[0])
        if not isinstance(value, bool):
            words.append(joined(value) if isinstance(value, tuple) else str(value))
    return words


def joined(items: Sequence[str]) -> str:
    """Writes a list as the command line takes it: commas between, quotes around commas."""
    return ",".join(
        '"' + item.replace('"', '""') + '"' if set(item) & {",", '"'} else item for item in items
    )


def listed(text: str) -> tuple[str, ...]:
    """Reads what `joined` wrote: "a,b" are two items, '"a,b"' is one; empty ones are left out.

    Raises:
        InputError: The text is no such list (too long, a line break within quotes).
    """
    try:
        row = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"A list must be items with commas between ({error}).") from None
    return tuple(item.strip() for item in row if item.strip())


def require(holds: bool, name: str, rule: str, received: object, remedy: str = "") -> None:
    """Raises the house's error unless `holds`.

    Raises:
        InputError: "`name` must `rule`. Received: `received`. `remedy`".
    """
    if not holds:
        raise InputError(
            f"{name} must {rule}. Received: {one_line(received)}.{' ' + remedy if remedy else ''}"
        )


def require_choice(kind: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises an error that lists `choices` unless `value` is one of them."""
    if value not in choices:
        raise unknown_name(kind, value, choices)


def _no_table(key: str, value: object) -> InputError:
    return InputError(
        f"Plan section '{one_line(key)}' must be a table. Received: {_quoted(value)}."
    )


def _quoted(value: object) -> str:
    """Renders a value so that its type can be seen: texts in quotes."""
    return one_line(repr(value) if isinstance(value, str) else value)


def _coerce(path: str, hint: Any, value: Any) -> Any:
    """Turns a value from JSON, TOML or a command line into the field's type, or refuses it."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, int):
            require(abs(item) < 2**63, path, "be a number of at most 63 bits", item)
        if isinstance(item, str):
            require("\0" not in item, path, "hold no NUL character", repr(item))
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        require(type(None) in members, path, "have a value", value)
        return None
    kinds = tuple(member for member in members if member is not type(None))
    if kinds == (float, str):
        return _number_or_text(path, value)
    (kind,) = kinds
    if typing.get_origin(kind) is tuple:
        items = listed(value) if isinstance(value, str) else value
        names = isinstance(items, (list, tuple)) and all(isinstance(item, str) for item in items)
        require(names, path, "be a list of names", _quoted(value))
        return tuple(item for item in items if item)
    if kind is int and isinstance(value, (float, str)):
        return value  # "2M": the section reads it, and knows its bounds
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wanted = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(wanted, path, f"be of type {kind.__name__}", _quoted(value))
    require(kind is not float or math.isfinite(value), path, "be finite", value)
    return value


def _number_or_text(path: str, value: Any) -> float | str:
    """Returns a number where `value` is one or reads as one, else the text."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        require(isinstance(value, str), path, "be a number or a text", _quoted(value))
        return typing.cast(str, value)
    require(math.isfinite(number), path, "be finite", value)
    return number


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value

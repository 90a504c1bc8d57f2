"""Plan sections: frozen dataclasses whose fields are also options of the command line.

A plan is one frozen record; its sections group the fields. The command line, a TOML
file and Python all end in `from_nested` or `from_flat`, so defaults, names, help and
checks live in the dataclasses alone. Each section calls `settle` when it is made: from then on
its fields hold values of the types that they declare (see `compress.plan.forms`).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.errors import InputError, one_line, removed_name, unknown_name
from compress.core.interpreter import import_plugins
from compress.plan.forms import hints_of, plain, text_of, typed

if TYPE_CHECKING:
    from compress.core.registry import Registry

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
    like: str = "",
    was: str = "",
    left_open: Any = None,
    choices: Choices | Registry[Any] | None = None,
    beside: tuple[str, ...] = (),
) -> Any:
    """Declare a field of a plan section.

    Args:
        default: The one default that every caller gets, of the field's type.
        flags: Names on the command line, space separated; the first is the flat name.
        text: Help text.
        extendable: A run that goes on may be given another value (a budget, say).
        least, most: Bounds of a whole number, both included; `settle` checks them.
        why: Reason of `most`.
        unit: What a bare number counts: of a size "bytes" or "MiB"; of a duration "minutes" or
            "seconds"; of a latency "ms"; of a share "share"; see `compress.core.quantities`.
        like: What errors say that a whole number must be, where examples help.
        was: The field's name in plans of earlier versions, as TOML and run folders hold them.
        left_open: A value that leaves it to the data and the model: no other than what they tell.
        choices: Words that it takes, or that each of several is; `settle` checks them.
        beside: Words that it takes beside these.

    Returns:
        The dataclass field.
    """
    count = {"least": least, "most": most, "why": why, "unit": unit, "like": like}
    metadata = {
        "flags": tuple(flags.split()), "help": text, "extendable": extendable, "was": was,
        "count": count, "left_open": left_open, "choices": choices, "beside": beside,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Choices:
    """The values of an option that has no table of plug-ins.

    Attributes:
        kind: What is chosen, as errors name it.
        words: What it may be.
        removed: Word of an earlier version -> a sentence that says what to use instead.
    """

    kind: str
    words: tuple[str, ...]
    removed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return all words."""
        return self.words

    def require(self, word: str, beside: tuple[str, ...] = ()) -> None:
        """Raise an error that lists the words unless `word` is one of them, or stands beside."""
        if word in self.removed:
            raise removed_name(self.kind, word, self.removed[word])
        require_choice(self.kind, word, (*self.words, *beside))


@dataclasses.dataclass(frozen=True)
class RemovedOption:
    """An option of an earlier version; a section's `REMOVED` holds them by field name.

    Attributes:
        flag: Its name on the command line.
        instead: A sentence or two: why it was removed, and what to use instead.
        off: Values that did not use it: plans that hold one of them are still read.
    """

    flag: str
    instead: str
    off: tuple[Any, ...]

    @property
    def flat(self) -> str:
        """The flag as a Python name."""
        return self.flag.lstrip("-").replace("-", "_")

    def build_error(self, name: str) -> InputError:
        """Build the error for the name under which it was given."""
        return removed_name("option", name, self.instead)


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
    left_open: Any
    choices: Choices | Registry[Any] | None
    beside: tuple[str, ...]

    @property
    def flat(self) -> str:
        """The first flag as a Python name: `--val-fraction` -> `val_fraction`."""
        return self.flags[0].lstrip("-").replace("-", "_")

    @property
    def default_text(self) -> str:
        """The default as the command line takes it; empty: none."""
        return text_of(self.default)

    @property
    def path(self) -> str:
        """The dotted path in the plan, as in errors and TOML: `data.source`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def plan_fields(plan: type[Any]) -> tuple[PlanField, ...]:
    """List the leaves of a plan class, sections flattened.

    A flag that two leaves claim belongs to the last section that claims it as its
    *first* flag; the others keep their remaining flags.
    """
    leaves: list[PlanField] = []
    hints = hints_of(plan)
    for field in dataclasses.fields(plan):
        hint = hints[field.name]
        if "flags" in field.metadata:
            leaves.append(_leaf(None, field, hint))
            continue
        inner_hints = hints_of(hint)
        leaves += [
            _leaf(field.name, inner, inner_hints[inner.name]) for inner in dataclasses.fields(hint)
        ]
    primary = {leaf.flags[0]: leaf.path for leaf in leaves}
    return tuple(
        dataclasses.replace(
            leaf,
            flags=tuple(flag for flag in leaf.flags if primary.get(flag, leaf.path) == leaf.path),
        )
        for leaf in leaves
    )


def list_removed(plan: type[Any]) -> dict[str, RemovedOption]:
    """List the options that earlier versions of a plan had, by their paths: "quantize.equalize"."""
    removed = dict(_removed_of(plan))
    for field in dataclasses.fields(plan):
        if "flags" not in field.metadata:
            section = hints_of(plan)[field.name]
            removed |= {f"{field.name}.{name}": item for name, item in _removed_of(section).items()}
    return removed


def _removed_of(section: type[Any]) -> Mapping[str, RemovedOption]:
    return getattr(section, "REMOVED", {})


def _leaf(section: str | None, field: dataclasses.Field[Any], hint: Any) -> PlanField:
    meta = field.metadata
    return PlanField(
        section, field.name, meta["flags"], hint, field.default, meta["help"], meta["extendable"],
        meta["left_open"], meta["choices"], meta["beside"],
    )  # fmt: skip


def settle(section: Any) -> None:
    """Convert and check the values of a section's fields; for `__post_init__`.

    Raises:
        InputError: One is given as nothing that its type takes, is out of its bounds, or is none
            of its choices.
    """
    hints = hints_of(type(section))
    for field in dataclasses.fields(section):
        if "flags" in field.metadata:
            name = field.metadata["flags"][0].lstrip("-").replace("-", "_")
            given = getattr(section, field.name)
            value = typed(given, hints[field.name], name, **field.metadata["count"])
            object.__setattr__(section, field.name, value)
    # what they register may be chosen
    import_plugins(getattr(section, "plugins", ()))
    for field in dataclasses.fields(section):
        choices, value = field.metadata.get("choices"), getattr(section, field.name)
        if choices is not None:
            for word in value if isinstance(value, tuple) else (value,):
                choices.require(word, field.metadata["beside"])


def from_flat(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Build a plan from option names (`{"data": "digits", "val_fraction": 0.2}`).

    Raises:
        InputError: A name is unknown, or a value breaks a rule.
    """
    return from_nested(plan, nest(plan, values))


def nest(plan: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sort option names and values into the plan's sections.

    Raises:
        InputError: A name is unknown.
    """
    by_name = {
        flag.lstrip("-").replace("-", "_"): leaf
        for leaf in plan_fields(plan)
        for flag in leaf.flags
    }
    removed = {item.flat: item for item in list_removed(plan).values()}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name in removed:
            raise removed[name].build_error(name)
        if name not in by_name:
            raise unknown_name("plan option", name, by_name)
        leaf = by_name[name]
        home = nested.setdefault(leaf.section, {}) if leaf.section else nested
        home[leaf.name] = value
    return nested


def from_nested(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Build a plan from its nested form, as `to_nested` writes it and TOML holds it.

    Names that keys had in earlier versions are taken too.

    Raises:
        InputError: A section or key is unknown, or a value breaks a rule.
    """
    arguments = _keys(plan, values, "plan section or key")
    if "plugins" in arguments:
        # what they register may be named in any section
        import_plugins(typed(arguments["plugins"], tuple[str, ...], "plugins"))
    leaves = {leaf.name for leaf in plan_fields(plan) if leaf.section is None}
    for key, value in arguments.items():
        if key in leaves:
            continue
        if not isinstance(value, Mapping):
            raise _no_table(key, value)
        section = hints_of(plan)[key]
        arguments[key] = section(**_keys(section, value, f"key in plan section '{key}'"))
    return plan(**arguments)


def _keys(section: type[Any], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the values under the names that fields have now.

    Raises:
        InputError: A key is unknown, stands there under its old name too, or is of an option that
            was removed and used.
    """
    removed = _removed_of(section)
    for key, item in removed.items():
        if key in values and values[key] not in item.off:
            raise item.build_error(key)
    values = {key: value for key, value in values.items() if key not in removed}
    fields = dataclasses.fields(section)
    names = {field.name: field.name for field in fields}
    old = {field.metadata["was"]: field.name for field in fields if field.metadata.get("was")}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = (names | old).get(key)
        if name is None:
            raise unknown_name(what, key, names)
        if name in found:
            raise InputError(
                f"A {what} must stand in a plan once. Received: '{name}' and its old name "
                f"'{next(was for was, now in old.items() if now == name)}'."
            )
        found[name] = value
    return found


def to_nested(plan: Any) -> dict[str, Any]:
    """Return a plan, or a section, as plain dictionaries and lists, ready for JSON and TOML."""
    return {
        field.name: (plain if "flags" in field.metadata else to_nested)(getattr(plan, field.name))
        for field in dataclasses.fields(plan)
    }


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `base` with every leaf of nested `changes` put over it.

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
    """List the fields, by dotted path and both values, that a going-on run may not change."""
    differences = []
    for leaf in plan_fields(type(old)):
        before, after = value_of(old, leaf), value_of(new, leaf)
        told = leaf.left_open is None or leaf.left_open not in (before, after)
        if before != after and told and not leaf.extendable:
            differences.append(f"{leaf.path} was {plain(before)!r}, now {plain(after)!r}")
    return differences


def fill_open_fields(plan: PlanT, stored: PlanT) -> PlanT:
    """Return a plan whose fields that are left open hold what the plan of an earlier run holds."""
    nested = to_nested(plan)
    for leaf in plan_fields(type(plan)):
        if leaf.left_open is not None and value_of(plan, leaf) == leaf.left_open:
            home = nested[leaf.section] if leaf.section else nested
            home[leaf.name] = plain(value_of(stored, leaf))
    return from_nested(type(plan), nested)


def value_of(plan: Any, leaf: PlanField) -> Any:
    """Return the value that `plan` holds at `leaf`."""
    home = getattr(plan, leaf.section) if leaf.section else plan
    return getattr(home, leaf.name)


def command_words(plan: Any) -> list[str]:
    """Return the command-line words that make `plan`: every value that is no default.

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
            words.append(text_of(value))
    return words


def require(holds: bool, name: str, rule: str, received: object, remedy: str = "") -> None:
    """Raise the house's error unless `holds`.

    Raises:
        InputError: "`name` must `rule`. Received: `received`. `remedy`".
    """
    if not holds:
        raise InputError(
            f"{name} must {rule}. Received: {one_line(received)}.{' ' + remedy if remedy else ''}"
        )


def require_choice(kind: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise an error that lists `choices` unless `value` is one of them.

    Args:
        kind: What is chosen, as errors name it.
        value: What was given.
        choices: What it may be.
    """
    if value not in choices:
        raise unknown_name(kind, value, choices)


def _no_table(key: str, value: object) -> InputError:
    shown = one_line(repr(value) if isinstance(value, str) else value)
    return InputError(f"Plan section '{one_line(key)}' must be a table. Received: {shown}.")

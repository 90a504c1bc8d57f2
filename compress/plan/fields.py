"""Plan sections: frozen dataclasses whose fields are also command line options.

A plan is one frozen record, and its sections group the fields. The command line, TOML files and
Python all use `from_nested` or `from_flat`, so that defaults, names, help and checks are defined
only in the dataclasses. Each section calls `validate_fields` when it is created; afterwards its
fields hold values of their declared types (see `compress.plan.conversion`).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.errors import (
    InputError,
    build_removed_name_error,
    build_unknown_name_error,
    to_one_line,
)
from compress.core.module_loading import import_plugins
from compress.plan.conversion import convert_value, format_value, read_field_types, to_plain

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
    former_name: str = "",
    left_open: Any = None,
    choices: Choices | Registry[Any] | None = None,
    extra_choices: tuple[str, ...] = (),
) -> Any:
    """Declare a field of a plan section.

    Args:
        default: Default value, of the field's type.
        flags: Names on the command line, separated by spaces; the first is the flat name.
        text: Help text.
        extendable: Whether the value may change when a run is resumed (a budget, for example).
        least, most: Inclusive bounds of an integer; checked by `validate_fields`.
        why: Reason for `most`.
        unit: Unit of a number without a unit: "bytes" for a size, "minutes" or "seconds" for a
            duration, "ms" for a latency, "share" for a share; see `compress.core.quantities`.
        like: Description of valid integers in errors, with examples.
        former_name: Name of the field in plans of earlier versions (TOML and run folders).
        left_open: Value that leaves the choice to the data and the model.
        choices: Valid words, for a text or for each item of a list; checked by `validate_fields`.
        extra_choices: Additional valid words.

    Returns:
        The dataclass field.
    """
    count = {"least": least, "most": most, "why": why, "unit": unit, "like": like}
    metadata = {
        "flags": tuple(flags.split()), "help": text, "extendable": extendable, "was": former_name,
        "count": count, "left_open": left_open, "choices": choices, "beside": extra_choices,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Choices:
    """Valid values of an option without a registry of plug-ins.

    Attributes:
        kind: Kind of value, in errors.
        words: The valid words.
        removed: Sentences on the replacement, by removed word of an earlier version.
    """

    kind: str
    words: tuple[str, ...]
    removed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return all words."""
        return self.words

    def require(self, word: str, extra_choices: tuple[str, ...] = ()) -> None:
        """Raise an error that lists the valid words unless `word` is one of them.

        Args:
            word: The received word.
            extra_choices: Additional valid words.

        Raises:
            InputError: The word is not valid.
        """
        if word in self.removed:
            raise build_removed_name_error(self.kind, word, self.removed[word])
        require_choice(self.kind, word, (*self.words, *extra_choices))


@dataclasses.dataclass(frozen=True)
class RemovedOption:
    """Option of an earlier version; the `REMOVED` dictionary of a section holds them by field name.

    Attributes:
        flag: Name on the command line.
        instead: One or two sentences: the reason for the removal, and the replacement.
        unused_values: Values that had no effect; plans with one of them remain readable.
    """

    flag: str
    instead: str
    unused_values: tuple[Any, ...]

    @property
    def keyword(self) -> str:
        """Flag as a Python name."""
        return self.flag.lstrip("-").replace("-", "_")

    def build_error(self, name: str) -> InputError:
        """Build the error for the option.

        Args:
            name: Name under which the option was given.
        """
        return build_removed_name_error("option", name, self.instead)


@dataclasses.dataclass(frozen=True)
class PlanField:
    """One field of a plan with its section, its flags, its type and its choices.

    Attributes:
        section: Name of the section; None for a field of the plan itself.
        name: Name of the field.
        flags: Names on the command line; the first is the flat name.
        hint: Type after conversion.
        default, help, extendable, left_open, choices, extra_choices: See `option`.
    """

    section: str | None
    name: str
    flags: tuple[str, ...]
    hint: Any
    default: Any
    help: str
    extendable: bool
    left_open: Any
    choices: Choices | Registry[Any] | None
    extra_choices: tuple[str, ...]

    @property
    def keyword(self) -> str:
        """First flag as a Python name: `--val-fraction` -> `val_fraction`."""
        return self.flags[0].lstrip("-").replace("-", "_")

    @property
    def default_text(self) -> str:
        """Default in its form on the command line, or "" for none."""
        return format_value(self.default)

    @property
    def path(self) -> str:
        """Dotted path in the plan, as in errors and TOML: `data.source`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def list_plan_fields(plan: type[Any]) -> tuple[PlanField, ...]:
    """Return the fields of a plan class with its sections flattened.

    If two fields have the same flag, it belongs to the last section that uses it as its *first*
    flag; the other field keeps its remaining flags.
    """
    leaves: list[PlanField] = []
    hints = read_field_types(plan)
    for field in dataclasses.fields(plan):
        hint = hints[field.name]
        if "flags" in field.metadata:
            leaves.append(_build_plan_field(None, field, hint))
            continue
        inner_hints = read_field_types(hint)
        leaves += [
            _build_plan_field(field.name, inner, inner_hints[inner.name])
            for inner in dataclasses.fields(hint)
        ]
    primary = {leaf.flags[0]: leaf.path for leaf in leaves}
    return tuple(
        dataclasses.replace(
            leaf,
            flags=tuple(flag for flag in leaf.flags if primary.get(flag, leaf.path) == leaf.path),
        )
        for leaf in leaves
    )


def list_removed_options(plan: type[Any]) -> dict[str, RemovedOption]:
    """Return the options of earlier versions of a plan, by path: "quantize.equalize"."""
    removed = dict(_read_removed_options(plan))
    for field in dataclasses.fields(plan):
        if "flags" not in field.metadata:
            section = read_field_types(plan)[field.name]
            removed |= {
                f"{field.name}.{name}": item
                for name, item in _read_removed_options(section).items()
            }
    return removed


def _read_removed_options(section: type[Any]) -> Mapping[str, RemovedOption]:
    return getattr(section, "REMOVED", {})


def _build_plan_field(section: str | None, field: dataclasses.Field[Any], hint: Any) -> PlanField:
    meta = field.metadata
    return PlanField(
        section, field.name, meta["flags"], hint, field.default, meta["help"], meta["extendable"],
        meta["left_open"], meta["choices"], meta["beside"],
    )  # fmt: skip


def validate_fields(section: Any) -> None:
    """Convert and check the values of a section's fields; called in `__post_init__`.

    Raises:
        InputError: A value cannot be converted to its type, is out of its bounds, or is not among
            its choices.
    """
    hints = read_field_types(type(section))
    for field in dataclasses.fields(section):
        if "flags" in field.metadata:
            name = field.metadata["flags"][0].lstrip("-").replace("-", "_")
            raw_value = getattr(section, field.name)
            value = convert_value(raw_value, hints[field.name], name, **field.metadata["count"])
            object.__setattr__(section, field.name, value)
    # plug-ins may register choices
    import_plugins(getattr(section, "plugins", ()))
    for field in dataclasses.fields(section):
        choices, value = field.metadata.get("choices"), getattr(section, field.name)
        if choices is not None:
            for word in value if isinstance(value, tuple) else (value,):
                choices.require(word, field.metadata["beside"])


def from_flat(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Build a plan from option names (`{"data": "digits", "val_fraction": 0.2}`).

    Args:
        plan: Class of the plan.
        values: Values by option name.

    Raises:
        InputError: A name is unknown, or a value violates a rule.
    """
    return from_nested(plan, nest_options(plan, values))


def nest_options(plan: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by option name in the nested form of a plan.

    Args:
        plan: Class of the plan.
        values: Values by option name.

    Raises:
        InputError: A name is unknown.
    """
    by_name = {
        flag.lstrip("-").replace("-", "_"): leaf
        for leaf in list_plan_fields(plan)
        for flag in leaf.flags
    }
    removed = {item.keyword: item for item in list_removed_options(plan).values()}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name in removed:
            raise removed[name].build_error(name)
        if name not in by_name:
            raise build_unknown_name_error("plan option", name, by_name)
        leaf = by_name[name]
        target = nested.setdefault(leaf.section, {}) if leaf.section else nested
        target[leaf.name] = value
    return nested


def from_nested(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Build a plan from its nested form, as written by `to_nested` and in TOML.

    Names of keys in earlier versions are accepted.

    Args:
        plan: Class of the plan.
        values: Values by section and key.

    Raises:
        InputError: A section or key is unknown, or a value violates a rule.
    """
    arguments = _resolve_keys(plan, values, "plan section or key")
    if "plugins" in arguments:
        # any section may name registered plug-ins
        import_plugins(convert_value(arguments["plugins"], tuple[str, ...], "plugins"))
    leaves = {leaf.name for leaf in list_plan_fields(plan) if leaf.section is None}
    for key, value in arguments.items():
        if key in leaves:
            continue
        if not isinstance(value, Mapping):
            raise _build_table_error(key, value)
        section = read_field_types(plan)[key]
        arguments[key] = section(**_resolve_keys(section, value, f"key in plan section '{key}'"))
    return plan(**arguments)


def _resolve_keys(section: type[Any], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the values under the current names of the fields.

    Raises:
        InputError: A key is unknown, is given under its old name too, or belongs to a removed
            option that was used.
    """
    removed = _read_removed_options(section)
    for key, item in removed.items():
        if key in values and values[key] not in item.unused_values:
            raise item.build_error(key)
    values = {key: value for key, value in values.items() if key not in removed}
    fields = dataclasses.fields(section)
    names = {field.name: field.name for field in fields}
    old = {field.metadata["was"]: field.name for field in fields if field.metadata.get("was")}
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        name = (names | old).get(key)
        if name is None:
            raise build_unknown_name_error(kind, key, names)
        if name in resolved:
            raise InputError(
                f"A {kind} must stand in a plan once. Received: '{name}' and its old name "
                f"'{next(was for was, now in old.items() if now == name)}'."
            )
        resolved[name] = value
    return resolved


def to_nested(plan: Any) -> dict[str, Any]:
    """Return a plan or a section as plain dictionaries and lists, for JSON and TOML."""
    return {
        field.name: (to_plain if "flags" in field.metadata else to_nested)(
            getattr(plan, field.name)
        )
        for field in dataclasses.fields(plan)
    }


def merge_nested(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested `base` with the values of nested `changes`.

    Args:
        base: Values by section and key.
        changes: Values to replace, by section and key.

    Raises:
        InputError: `base` has a value where `changes` has a section.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_section = isinstance(value, Mapping) and key in merged
        if is_section and not isinstance(old, Mapping):
            raise _build_table_error(key, old)
        are_sections = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = (
            merge_nested(typing.cast(Mapping[str, Any], old), value) if are_sections else value
        )
    return merged


def list_forbidden_changes(old: PlanT, new: PlanT) -> list[str]:
    """Return the changed fields, with both values, that must not change when a run is resumed.

    Args:
        old: Plan of the run.
        new: Plan to resume it with.
    """
    differences = []
    for leaf in list_plan_fields(type(old)):
        before, after = read_field(old, leaf), read_field(new, leaf)
        is_decided = leaf.left_open is None or leaf.left_open not in (before, after)
        if before != after and is_decided and not leaf.extendable:
            differences.append(f"{leaf.path} was {to_plain(before)!r}, now {to_plain(after)!r}")
    return differences


def fill_open_fields(plan: PlanT, stored: PlanT) -> PlanT:
    """Return a plan with its undecided fields filled from the plan of an earlier run.

    Args:
        plan: The new plan.
        stored: Plan of the earlier run.
    """
    nested = to_nested(plan)
    for leaf in list_plan_fields(type(plan)):
        if leaf.left_open is not None and read_field(plan, leaf) == leaf.left_open:
            target = nested[leaf.section] if leaf.section else nested
            target[leaf.name] = to_plain(read_field(stored, leaf))
    return from_nested(type(plan), nested)


def read_field(plan: Any, leaf: PlanField) -> Any:
    """Return the value of a field of a plan.

    Args:
        plan: The plan.
        leaf: The field, from `list_plan_fields`.
    """
    target = getattr(plan, leaf.section) if leaf.section else plan
    return getattr(target, leaf.name)


def build_command_words(plan: Any) -> list[str]:
    """Return the command line words of a plan: all values that differ from their defaults.

    The output folder is omitted, because a repeated command should not collide with its own run.
    """
    words: list[str] = []
    for leaf in list_plan_fields(type(plan)):
        value = read_field(plan, leaf)
        if leaf.path == "out" or value == leaf.default:
            continue
        words.append(leaf.flags[0])
        if not isinstance(value, bool):
            words.append(format_value(value))
    return words


def require(condition: bool, name: str, rule: str, received: object, remedy: str = "") -> None:
    """Raise an error in the standard form unless a condition holds.

    Args:
        condition: The condition.
        name: Name of the value.
        rule: The rule, as a verb phrase: "be above 0".
        received: The received value.
        remedy: A sentence with the remedy.

    Raises:
        InputError: "`name` must `rule`. Received: `received`. `remedy`".
    """
    if not condition:
        raise InputError(
            f"{name} must {rule}. Received: "
            f"{to_one_line(received)}.{' ' + remedy if remedy else ''}"
        )


def require_choice(kind: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise an error that lists `choices` unless `value` is one of them.

    Args:
        kind: Kind of value, in errors.
        value: The received value.
        choices: The valid values.

    Raises:
        InputError: The value is not valid.
    """
    if value not in choices:
        raise build_unknown_name_error(kind, value, choices)


def _build_table_error(key: str, value: object) -> InputError:
    shown = to_one_line(repr(value) if isinstance(value, str) else value)
    return InputError(f"Plan section '{to_one_line(key)}' must be a table. Received: {shown}.")

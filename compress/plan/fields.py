"""Plan sections: frozen dataclasses whose fields are also command line options.

A plan is one frozen record, and its sections group the fields. The command line, TOML files and
Python all use `from_nested` or `from_flat`, so that defaults, names, help and checks are defined
only in the dataclasses. Each section calls `validate_fields` when it is created; afterwards its
fields hold values of their declared types (see `compress.plan.conversion`).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
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

PRACTICAL_MAXIMUM = 50_000
"""Bounds from here on only catch slips; help does not mention them."""
FORMER_NAMES = {
    "also": "include",
    "epochs": "finetune_epochs",
    "hint_pairs": "feature_pairs",
    "hint_weight": "feature_weight",
    "hints": "feature_losses",
    "min_quality": "min_metric",
    "optimizer": "finetune_optimizer",
    "pairs": "feature_pairs",
    "prune_also": "weight_include",
    "prune_end": "sparsity_end",
    "prune_overrides": "weight_overrides",
    "prune_pattern": "weight_pattern",
    "prune_scope": "weight_scope",
    "schedule": "learning_rate_schedule",
}
"""Names of options in earlier versions -> present names, for errors."""


def option(
    default: Any,
    text: str,
    *,
    flat_name: str = "",
    extendable: bool = False,
    least: int | None = None,
    most: int | None = None,
    why: str = "",
    unit: str = "",
    like: str = "",
    left_open: Any = None,
    choices: Choices | Registry[Any] | None = None,
    extra_choices: tuple[str, ...] = (),
    former_values: Mapping[str, str] | None = None,
) -> Any:
    """Declare a field of a plan section.

    Args:
        default: Default value, of the field's type.
        text: Help text: one sentence with unit and default where the declaration does not say them.
            Choices, bounds and the default are appended, see `PlanField.describe`.
        flat_name: Name outside its section, in Python and, with dashes, on the command line; the
            default is the name of the field. It is the field's name behind the section's topic
            ("channel_scope"), or the section's own name.
        extendable: Whether the value may change when a run is resumed (a budget, for example).
        least, most: Inclusive bounds of an integer; checked by `validate_fields`.
        why: Reason for `most`.
        unit: Unit of a number without a unit: "bytes" for a size, "minutes" or "seconds" for a
            duration, "ms" for a latency, "share" for a share; see `compress.core.quantities`.
        like: Description of valid integers in errors, with examples.
        left_open: Value that leaves the choice to the data and the model.
        choices: Valid words, for a text or for each item of a list; checked by `validate_fields`.
        extra_choices: Additional valid words.
        former_values: Current word by word in plans of earlier versions (TOML and run folders).
            `choices` refuses the former words, so that options and keywords cannot be such a word.

    Returns:
        The dataclass field.
    """
    count = {"least": least, "most": most, "why": why, "unit": unit, "like": like}
    metadata = {
        "flat_name": flat_name, "help": text, "extendable": extendable, "count": count,
        "left_open": left_open, "choices": choices, "beside": extra_choices,
        "former_values": former_values or {},
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
    """One field of a plan with its section, its names, its type and its choices.

    Attributes:
        section: Name of the section; None for a field of the plan itself.
        name: Name of the field, as in TOML.
        flat_name: Name outside its section, in Python: "channel_scope".
        hint: Type after conversion.
        least, most: Inclusive bounds of an integer; None: not bounded.
        default, help, extendable, left_open, choices, extra_choices, former_values: See `option`.
    """

    section: str | None
    name: str
    flat_name: str
    hint: Any
    default: Any
    help: str
    extendable: bool
    left_open: Any
    choices: Choices | Registry[Any] | None
    extra_choices: tuple[str, ...]
    least: int | None
    most: int | None
    former_values: Mapping[str, str]

    @property
    def flag(self) -> str:
        """Name on the command line: `val_fraction` -> `--val-fraction`."""
        return f"--{self.flat_name.replace('_', '-')}"

    def describe(self) -> str:
        """Return the help text with the choices, the bounds and the default."""
        facts = []
        if self.choices is not None:
            facts.append(", ".join((*self.extra_choices, *self.choices.names())))
        if self.least is not None:
            has_maximum = self.most is not None and self.most < PRACTICAL_MAXIMUM
            facts.append(
                f"{self.least} to {self.most:,}" if has_maximum else f"at least {self.least}"
            )
        default_text = "on" if self.default is True else format_value(self.default)
        if default_text and self.default is not False:
            facts.append(f"default: {default_text}")
        return f"{self.help}  [{'; '.join(facts)}]" if facts else self.help

    @property
    def negative_flag(self) -> str:
        """The flag that switches off an option that is on by default."""
        return f"--no-{self.flag[2:]}"

    @property
    def path(self) -> str:
        """Dotted path in the plan, as in errors and TOML: `data.source`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def list_plan_fields(plan: type[Any]) -> tuple[PlanField, ...]:
    """Return the fields of a plan class with its sections flattened."""
    leaves: list[PlanField] = []
    hints = read_field_types(plan)
    for field in dataclasses.fields(plan):
        hint = hints[field.name]
        if is_option(field):
            leaves.append(_build_plan_field(None, field, hint))
            continue
        inner_hints = read_field_types(hint)
        leaves += [
            _build_plan_field(field.name, inner, inner_hints[inner.name])
            for inner in dataclasses.fields(hint)
        ]
    return tuple(leaves)


def list_removed_options(plan: type[Any]) -> dict[str, RemovedOption]:
    """Return the options of earlier versions of a plan, by path: "quantize.equalize"."""
    removed = dict(_read_removed_options(plan))
    for field in dataclasses.fields(plan):
        if not is_option(field):
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
        section, field.name, meta["flat_name"] or field.name, hint, field.default, meta["help"],
        meta["extendable"], meta["left_open"], meta["choices"], meta["beside"],
        meta["count"]["least"], meta["count"]["most"], meta["former_values"],
    )  # fmt: skip


def is_option(field: dataclasses.Field[Any]) -> bool:
    """Return whether a dataclass field is an option; other fields of a plan are sections."""
    return "flat_name" in field.metadata


def validate_fields(section: Any) -> None:
    """Convert and check the values of a section's fields; called in `__post_init__`.

    Raises:
        InputError: A value cannot be converted to its type, is out of its bounds, or is not among
            its choices.
    """
    hints = read_field_types(type(section))
    for field in dataclasses.fields(section):
        if is_option(field):
            raw_value, meta = getattr(section, field.name), field.metadata
            name = meta["flat_name"] or field.name
            value = convert_value(raw_value, hints[field.name], name, **meta["count"])
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
        InputError: A name is unknown, or a value has another name now.
    """
    by_name = {leaf.flat_name: leaf for leaf in list_plan_fields(plan)}
    removed = {item.keyword: item for item in list_removed_options(plan).values()}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name in removed:
            raise removed[name].build_error(name)
        if name not in by_name:
            raise build_unknown_option_error("plan option", name, by_name)
        leaf = by_name[name]
        if isinstance(value, str) and value in leaf.former_values and leaf.choices is not None:
            leaf.choices.require(value, leaf.extra_choices)
        target = nested.setdefault(leaf.section, {}) if leaf.section else nested
        target[leaf.name] = value
    return nested


def from_nested(plan: type[PlanT], values: Mapping[str, Any]) -> PlanT:
    """Build a plan from its nested form, as written by `to_nested` and in TOML.

    Paths and values of earlier versions are accepted; see `replace_former_paths`.

    Args:
        plan: Class of the plan.
        values: Values by section and key.

    Raises:
        InputError: A section or key is unknown, or a value violates a rule.
    """
    arguments = _select_fields(plan, replace_former_paths(plan, values), "plan section or key")
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
        arguments[key] = section(**_select_fields(section, value, f"key in plan section '{key}'"))
    return plan(**arguments)


def replace_former_paths(plan: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested form of a plan under the present paths of its fields.

    Args:
        plan: Class of the plan; its `FORMER_PATHS` holds present paths by path of earlier versions:
            {"weights.also": "weights.include"}. A present path may be one of a removed
            option.
        values: Values by section and key.

    Raises:
        InputError: A value is given under its present path too.
    """
    replaced = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    former_paths: Mapping[str, str] = getattr(plan, "FORMER_PATHS", {})
    for former_path, path in former_paths.items():
        (former_section, _, former_name), (section, _, name) = (
            text.partition(".") for text in (former_path, path)
        )
        former = replaced.get(former_section)
        if not isinstance(former, dict) or former_name not in former:
            continue
        target = replaced.setdefault(section, {})
        if not isinstance(target, dict):
            raise _build_table_error(section, target)
        if name in target:
            raise InputError(
                f"A key must stand in a plan once. Received: '{path}' and its old name "
                f"'{former_path}'."
            )
        target[name] = former.pop(former_name)
    former_sections = {path.partition(".")[0] for path in former_paths}
    return {
        key: value for key, value in replaced.items() if value != {} or key not in former_sections
    }


def _select_fields(section: type[Any], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the values by their present names, without those of removed options.

    Raises:
        InputError: A key is unknown, or belongs to a removed option that was used.
    """
    removed = _read_removed_options(section)
    metadata = {field.name: field.metadata for field in dataclasses.fields(section)}
    selected: dict[str, Any] = {}
    for key, value in values.items():
        if key in removed:
            if value not in removed[key].unused_values:
                raise removed[key].build_error(key)
        elif key not in metadata:
            raise build_unknown_name_error(kind, key, metadata)
        else:
            former_values = metadata[key].get("former_values", {})
            selected[key] = former_values.get(value, value) if isinstance(value, str) else value
    return selected


def to_nested(plan: Any) -> dict[str, Any]:
    """Return a plan or a section as plain dictionaries and lists, for JSON and TOML."""
    return {
        field.name: (to_plain if is_option(field) else to_nested)(getattr(plan, field.name))
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
        words.append(leaf.negative_flag if value is False else leaf.flag)
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


def build_unknown_option_error(kind: str, name: str, names: Iterable[str]) -> InputError:
    """Build the error for an unknown option; one that was renamed is answered with its name.

    Args:
        kind: Kind of option, in the user's terms.
        name: The received name.
        names: All valid names.
    """
    names = tuple(names)
    present_name = FORMER_NAMES.get(name)
    if present_name in names:
        return InputError(f"Unknown {kind} '{name}'. It is called '{present_name}' now.")
    return build_unknown_name_error(kind, name, names)


def _build_table_error(key: str, value: object) -> InputError:
    shown = to_one_line(repr(value) if isinstance(value, str) else value)
    return InputError(f"Plan section '{to_one_line(key)}' must be a table. Received: {shown}.")

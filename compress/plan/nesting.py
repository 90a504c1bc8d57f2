"""Plans from nested or flat values, such as TOML files and keywords, and back."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from compress.core.errors import (
    InputError,
    build_unknown_name_error,
    to_one_line,
)
from compress.core.module_loading import import_plugins
from compress.plan.conversion import convert_value, format_value, read_field_types, to_plain
from compress.plan.fields import (
    PlanField,
    is_option,
    list_plan_fields,
    list_removed_options,
    read_removed_options,
)

PlanT = TypeVar("PlanT")

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
    removed = read_removed_options(section)
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
    """Return the changed options, with both values, that must not change when a run is resumed.

    Args:
        old: Plan of the run.
        new: Plan to resume it with.
    """
    differences = []
    for leaf in list_plan_fields(type(old)):
        before, after = read_field(old, leaf), read_field(new, leaf)
        is_decided = leaf.left_open is None or leaf.left_open not in (before, after)
        if before != after and is_decided and not leaf.extendable:
            differences.append(
                f"{leaf.flat_name} was {to_plain(before)!r}, now {to_plain(after)!r}"
            )
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
    return getattr(getattr(plan, leaf.section) if leaf.section else plan, leaf.name)


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

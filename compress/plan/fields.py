"""Plan sections: frozen dataclasses whose fields are also command line options.

A plan is one frozen record, and its sections group the fields. The command line, TOML files and
Python all use `compress.plan.nesting`, so that defaults, names, help and checks are defined only in
the dataclasses. Each section calls `validate_fields` when it is created; afterwards its
fields hold values of their declared types (see `compress.plan.conversion`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from compress.core.errors import (
    InputError,
    build_removed_name_error,
    build_unknown_name_error,
    to_one_line,
)
from compress.core.module_loading import import_plugins
from compress.core.registry import Registry
from compress.plan.conversion import convert_value, format_value, read_field_types

PRACTICAL_MAXIMUM = 50_000
"""Bounds from here on only catch slips; help does not mention them."""


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
        extendable: Whether the value may change when a run is resumed (workers, for example).
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
    removed = dict(read_removed_options(plan))
    for field in dataclasses.fields(plan):
        if not is_option(field):
            section = read_field_types(plan)[field.name]
            removed |= {
                f"{field.name}.{name}": item for name, item in read_removed_options(section).items()
            }
    return removed


def read_removed_options(section: type[Any]) -> Mapping[str, RemovedOption]:
    """Return the removed options of a section, by their names there."""
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

"""Frozen records that runs write as JSON and reports read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_type_hints

from compress.core.arguments import convert_json
from compress.core.atomic_files import read_json
from compress.core.errors import InputError, to_one_line

RecordT = TypeVar("RecordT", bound="Record")
FORMAT = 1
VALIDATION_KEYS = ("on_validation", "val_learnt")
"""Keys of version 0.1 for models that were trained on the validation part."""


@dataclass(frozen=True)
class Record:
    """Base class of records that are stored as JSON; unknown keys are rejected."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(
        cls: type[RecordT], content: Mapping[str, Any], source: str | Path = ""
    ) -> RecordT:
        """Return the record stored by `to_json`.

        Args:
            content: The JSON content.
            source: Its file, for errors.

        Raises:
            InputError: Keys are missing or unknown, a value has another type, or the record is
                inconsistent.
        """
        shown = f"'{source}'" if source else f"A {cls.__name__} record"
        if not isinstance(content, Mapping):
            raise InputError(f"{shown} must be a table. Received: {to_one_line(content)}.")
        content = drop_validation_keys(content, shown)
        hints: dict[str, Any] = _resolve_hints(cast(Hashable, cls))
        required = {
            item.name
            for item in fields(cls)
            if item.default is MISSING and item.default_factory is MISSING
        }
        problems = [f"no '{name}'" for name in required if name not in content]
        problems += [f"an unknown '{to_one_line(name)}'" for name in content if name not in hints]
        if problems:
            raise InputError(
                f"{shown} must have the keys {', '.join(hints)}. Received: {sorted(problems)[0]}."
            )
        record = cls(
            **{
                name: convert_json(value, hints[name], f"{shown}: {name}")
                for name, value in content.items()
            }
        )
        if violation := record.find_violation():
            raise InputError(f"{shown}: {violation}.")
        return record

    def find_violation(self) -> str:
        """Return the first violation of a rule as "x must ...; received: y"; else ""."""
        return ""


@cache
def _resolve_hints(kind: Any) -> dict[str, Any]:
    """Return the type of each field in JSON: its annotation, or its "shape" metadata."""
    declared = get_type_hints(kind)
    return {item.name: item.metadata.get("shape", declared[item.name]) for item in fields(kind)}


def drop_validation_keys(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a record or a plan's section without the keys `VALIDATION_KEYS` of version 0.1.

    Args:
        content: The JSON content.
        name: Name of the content, for errors.

    Raises:
        InputError: The models were trained on the validation part, which must not evaluate them.
    """
    used = [key for key in VALIDATION_KEYS if content.get(key)]
    if used:
        raise InputError(
            f"{name} must be of models that were not trained on the validation part, which "
            f"selects and evaluates them. Received: {used[0]}, as version 0.1 could do. Repeat the "
            "search with this version, in another folder (--out)."
        )
    return {key: value for key, value in content.items() if key not in VALIDATION_KEYS}


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read a record's file.

    Args:
        path: The file.
        kind: Class of the record.

    Raises:
        InputError: The file cannot be read, or does not hold such a record.
    """
    return kind.from_json(read_json(path), path)


def load_record(path: str | Path, kind: type[RecordT], rule: str) -> RecordT:
    """Read a record's file that a user named.

    Args:
        path: The file.
        kind: Class of the record.
        rule: Rule for the error: "A latency table must be a file written by save()".

    Raises:
        InputError: The file does not exist, or does not hold such a record.
    """
    try:
        return read_record(Path(path), kind)
    except (OSError, ValueError) as error:
        raise InputError(f"{rule}. Received: '{path}' ({error}).") from None


def check_record_name(path: Path, name: str) -> None:
    """Check that a record has the name of its file, since names are used as paths.

    Args:
        path: The record's file.
        name: Name in the record.

    Raises:
        InputError: The names differ.
    """
    if path.stem != name:
        raise InputError(
            f"'{path}' must be named as the record in it. Received: {name!r}. The file was "
            "renamed or changed by hand."
        )


def find_unknown_value(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return a violation if a value is not among the choices; else ""."""
    if value in choices:
        return ""
    return f"{name} must be one of {', '.join(choices)}; received: {to_one_line(value)}"


def find_too_low(record: Record, lowest: float, *names: str) -> str:
    """Return a violation if a number is below its minimum; else "". None is accepted."""
    for name in names:
        value = getattr(record, name)
        if value is not None and value < lowest:
            return f"{name} must be at least {lowest:g}; received: {value}"
    return ""


class RunRecord(TypedDict):
    """The content of plan.json except the plan."""

    command: str
    facts: dict[str, Any]
    shown: dict[str, str]
    versions: dict[str, str]


class PlanRecord(RunRecord):
    """The content of plan.json; each section of the plan is checked by its reader."""

    plan: dict[str, Any]

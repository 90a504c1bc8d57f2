"""Frozen records that runs write as JSON and reports read back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_type_hints

from compress.core.arguments import conform
from compress.core.atomic_files import read_json
from compress.core.errors import InputError, one_line

RecordT = TypeVar("RecordT", bound="Record")
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """Base of the records: to JSON and back, unknown keys refused."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(
        cls: type[RecordT], content: Mapping[str, Any], where: str | Path = ""
    ) -> RecordT:
        """Read what `to_json` wrote.

        Args:
            content: The record.
            where: The file it comes from, for the error.

        Raises:
            InputError: Keys are missing or unknown, a value is of another type, or the record
                contradicts itself.
        """
        shown = f"'{where}'" if where else f"A {cls.__name__} record"
        if not isinstance(content, Mapping):
            raise InputError(f"{shown} must be a table. Received: {one_line(content)}.")
        hints: dict[str, Any] = _hints(cast(Hashable, cls))
        needed = {
            item.name
            for item in fields(cls)
            if item.default is MISSING and item.default_factory is MISSING
        }
        wrong = [f"no '{name}'" for name in needed if name not in content]
        wrong += [f"an unknown '{one_line(name)}'" for name in content if name not in hints]
        if wrong:
            raise InputError(
                f"{shown} must have the keys {', '.join(hints)}. Received: {sorted(wrong)[0]}."
            )
        record = cls(
            **{
                name: conform(value, hints[name], f"{shown}: {name}")
                for name, value in content.items()
            }
        )
        if flaw := record.flaw():
            raise InputError(f"{shown}: {flaw}.")
        return record

    def flaw(self) -> str:
        """Return a rule that the record breaks, as "x must ...; Received: y"; else ""."""
        return ""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the type of each field in JSON: its own, or the one that it declares."""
    declared = get_type_hints(kind)
    return {item.name: item.metadata.get("shape", declared[item.name]) for item in fields(kind)}


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read a record's file.

    Raises:
        InputError: It cannot be read, or holds no such record.
    """
    return kind.from_json(read_json(path), path)


def load_record(path: str | Path, kind: type[RecordT], rule: str) -> RecordT:
    """Read a record's file that a user names.

    Args:
        path: The file.
        kind: Of the record.
        rule: What such a file must be, "A latency table must be a file written by save()".

    Raises:
        InputError: No such file, or it holds something else.
    """
    try:
        return read_record(Path(path), kind)
    except (OSError, ValueError) as error:
        raise InputError(f"{rule}. Received: '{path}' ({error}).") from None


def check_name(path: Path, name: str) -> None:
    """Refuse a record that is named otherwise than its file: names become paths again."""
    if path.stem != name:
        raise InputError(
            f"'{path}' must be named as the record in it. Received: {name!r}. The file was "
            "renamed or changed by hand."
        )


def unknown_value(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return a flaw where a value is none of the choices."""
    if value in choices:
        return ""
    return f"{name} must be one of {', '.join(choices)}; received: {one_line(value)}"


def too_low(record: Record, lowest: float, *names: str) -> str:
    """Return a flaw where a figure that is known lies below what is possible."""
    for name in names:
        value = getattr(record, name)
        if value is not None and value < lowest:
            return f"{name} must be at least {lowest:g}; received: {value}"
    return ""


class RunRecord(TypedDict):
    """The content of plan.json beside the plan."""

    command: str
    facts: dict[str, Any]
    shown: dict[str, str]
    versions: dict[str, str]


class PlanRecord(RunRecord):
    """The content of plan.json; sections of the plan are read by whoever they belong to."""

    plan: dict[str, Any]

"""What plan.json and data.json of a run's folder hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from compress.core.atomic_files import read_json
from compress.core.credentials import hidden_in
from compress.core.errors import InputError, one_line
from compress.core.typed import conform

FORMAT = 1


class RunRecord(TypedDict):
    """What stands in plan.json beside the plan."""

    command: str
    facts: dict[str, Any]
    shown: dict[str, str]
    versions: dict[str, str]


class PlanRecord(RunRecord):
    """The content of plan.json; sections of the plan are read by whoever they belong to."""

    plan: dict[str, Any]


class _Preprocess(TypedDict, total=False):
    formula: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool


class _DataRecord(TypedDict, total=False):
    source: str
    task: str
    input_shape: tuple[int, ...]
    input_shapes: dict[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    examples: dict[str, int]
    preprocess: _Preprocess
    fingerprint: str
    notes: tuple[str, ...]


def read_plan(path: Path, kind: Any = PlanRecord) -> dict[str, Any]:
    """Returns the content of plan.json, without passwords that older versions put there.

    Args:
        path: Of plan.json.
        kind: What it holds: a TypedDict.

    Raises:
        InputError: The folder is no run's, or of another format.
    """
    if not path.is_file():
        raise InputError(
            f"'{path.parent}' must be the folder of a run (it has no plan.json). "
            "Give the output folder of paretune run, search, shrink or compress."
        )
    record = read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(
            f"'{path}' must have format {FORMAT}. Received: {one_line(record.get('format'))}."
        )
    checked: dict[str, Any] = conform(hidden_in(record), kind, f"'{path}'")
    return checked


def read_data(path: Path) -> dict[str, Any]:
    """Returns the content of data.json; nothing where there is none.

    Raises:
        InputError: It holds something else.
    """
    if not path.exists():
        return {}
    checked: dict[str, Any] = conform(read_json(path), _DataRecord, f"'{path}'")
    for part, counts in checked.get("counts", {}).items():
        if any(count < 0 for count in counts):
            raise InputError(
                f"'{path}': counts.{one_line(part)} must be at least 0. Received: {min(counts)}."
            )
    return checked

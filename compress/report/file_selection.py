"""The file to ship and the best file: selected on validation data, evaluated on test data.

Files with too low agreement with their Keras models to be chosen by default get a warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import convert_json
from compress.data.tasks import has_unit
from compress.measure.file_agreement import can_ship_by_default, describe_low_agreement
from compress.measure.verdict import FileCandidate, Verdict, build_artifact_verdict, select_file
from compress.run.compressed_model import read_example_values
from compress.run.directory import RunFolder

if TYPE_CHECKING:
    from compress.report.report_data import Report, Row

GOAL, SHIPPED, BEST = "goal", "shipped", "best"
TITLES = {
    GOAL: "Chosen for the goal",
    SHIPPED: "Cheapest that cannot be told apart from the best",
}
MAX_WARNINGS = 3
"""Maximum number of files with their own warning; further files are only counted."""


@dataclass(frozen=True)
class SelectedFile:
    """One selected file.

    Attributes:
        role: `GOAL` or `SHIPPED` for the file to ship; `BEST`.
        row: The file.
        val: Its validation metric, on which it was selected.
        title: Description of the role.
    """

    role: str
    row: Row
    val: float
    title: str


@dataclass(frozen=True)
class FileSelection:
    """The selected files and the selection metric.

    Attributes:
        metric: Name of the selection metric.
        source: Models or files whose validation metric was used.
        files: The file to ship, by a goal or by the rule of `compress.measure.verdict.select_file`,
            and the best file.
        reason: Why no file was selected; empty otherwise.
        verdict: The file to ship compared with its original on test data; None if none was
            selected or its original is not among the files.
    """

    metric: str
    source: str = ""
    files: tuple[SelectedFile, ...] = ()
    reason: str = ""
    verdict: Verdict | None = None

    @property
    def to_ship(self) -> SelectedFile | None:
        """The file to ship; None if none was selected."""
        return next((item for item in self.files if item.role in (GOAL, SHIPPED)), None)

    @property
    def best(self) -> SelectedFile:
        """The file with the best validation metric."""
        return next(item for item in self.files if item.role == BEST)

    def to_json(self, report: Report) -> dict[str, Any]:
        """Return the selection as JSON.

        Args:
            report: The report that it belongs to.
        """
        if self.reason:
            return {"missing": self.reason}
        record: dict[str, Any] = {
            "quality": self.metric,
            "by": self.source,
            "verdict": self.verdict and {**self.verdict.to_json(), "line": self.verdict.line},
        }
        for item in self.files:
            interval = report.interval(item.row, self.metric)
            record[item.role] = {
                "file": item.row.artifact.id,
                "val": item.val,
                "test": item.row.artifact.test[self.metric],
                "interval": list(interval) if interval else None,
                "examples": report.count_test_examples(item.row),
            }
        return record


def select_files(report: Report) -> FileSelection:
    """Return the file to ship and the best file, selected on validation data only.

    The validation metric of the file itself is used. Records of older versions lack it; for them it
    is the metric of the Keras model, for formats that compute the same. Files that `can_ship`
    excludes are selected only if it excludes all. Nothing is selected if there are no files or if
    no validation metric is recorded: test data are never used.

    Args:
        report: The report with the files.
    """
    metric = report.main
    if not report.rows:
        return FileSelection(metric, reason="there are no exported files")
    source, values = _collect_values(report, metric)
    if not values:
        return FileSelection(
            metric,
            reason="the validation quality of these files is not on record, and test data never "
            "choose a file",
        )
    # files that agree with their Keras models, or all files if none does
    agreeing = [row for row in report.rows if can_ship(report, row)]
    # ties are broken by file size
    ranked = sorted(
        (row for row in agreeing or report.rows if row.artifact.id in values),
        key=lambda row: (-values[row.artifact.id], row.artifact.size_bytes, row.artifact.id),
    )
    by_goal = {section.shipped_id for section in report.sections if section.shipped_id}
    named = [row for row in ranked if row.artifact.id in by_goal]
    role, row_to_ship = (
        (GOAL, named[0]) if named else (SHIPPED, _select_to_ship(report, ranked, values))
    )
    val = values[row_to_ship.artifact.id]
    best = values[ranked[0].artifact.id]
    chosen = (
        SelectedFile(role, row_to_ship, val, TITLES[role]),
        SelectedFile(BEST, ranked[0], best, f"Best validation {metric}"),
    )
    verdicts = [section.verdict for section in report.sections if section.verdict is not None]
    base = find_original(report, row_to_ship)
    verdict = verdicts[0] if named and verdicts else None
    if verdict is None and base is not None:
        folder = RunFolder(report.folder)
        verdict = build_artifact_verdict(folder, row_to_ship.artifact, base.artifact, metric, None)
    return FileSelection(metric, source, chosen, verdict=verdict)


def find_original(report: Report, row: Row) -> Row | None:
    """Return the file that a file is compared with; None if the report lacks it."""
    return next((item for item in report.rows if item.artifact.id == row.artifact.baseline), None)


def find_shipped_file(report: Report, row: Row) -> Path:
    """Return the path of a file to ship: its copy in ship/, or the exported file without one.

    Args:
        report: The report.
        row: The file.
    """
    file = report.folder / row.artifact.file
    copy = RunFolder(report.folder).ship / file.name
    return copy if copy.exists() else file


def can_ship(report: Report, row: Row) -> bool:
    """Return whether a file may be chosen by default, see `can_ship_by_default`.

    Args:
        report: The report, with the formats that the plan requests.
        row: The file.

    Raises:
        InputError: The recorded plan is corrupt.
    """
    item = row.artifact
    return can_ship_by_default(report.kind, item.agreement, item.checked, _read_formats(report))


def format_agreement_warnings(report: Report) -> list[str]:
    """Return warnings for files with low agreement, worst first; after `MAX_WARNINGS` their number.

    Args:
        report: The report with the files.

    Raises:
        InputError: The recorded plan is corrupt.
    """
    by_agreement = sorted(report.rows, key=lambda row: row.artifact.agreement)
    lines = [
        warning
        for item in (row.artifact for row in by_agreement)
        if (warning := describe_low_agreement(item.id, report.kind, item.agreement, item.checked))
    ]
    rule = (
        "it ships because no other format was asked for"
        if len(_read_formats(report)) == 1
        else "it ships only if its format is the only one asked for"
    )
    shown = [f"{line}: {rule}" for line in lines[:MAX_WARNINGS]]
    if more := len(lines) - len(shown):
        counted = "file agrees" if more == 1 else "files agree"
        models = "its Keras model" if more == 1 else "their Keras models"
        shown.append(f"warning: {more} more {counted} as little with {models}")
    return shown


def _select_to_ship(report: Report, rows: list[Row], values: Mapping[str, float]) -> Row:
    """Return the file to ship if no goal selected one."""
    folder = RunFolder(report.folder)
    candidates = [
        FileCandidate(
            row.artifact.id,
            values[row.artifact.id],
            {
                "latency": row.latency.median_ms if row.latency else math.inf,
                "size": float(row.artifact.size_bytes),
            },
            read_example_values(folder, row.artifact.id, "val"),
        )
        for row in rows
    ]
    unit = math.inf if has_unit(report.main) else 1.0
    selected = select_file(candidates, unit=unit)
    return next(row for row in rows if row.artifact.id == selected.id)


def _collect_values(report: Report, metric: str) -> tuple[str, Mapping[str, float]]:
    """Return the source of validation metrics, and the metric by file id."""
    if all(metric in row.artifact.val for row in report.rows):
        return "the exported files", {
            row.artifact.id: row.artifact.val[metric] for row in report.rows
        }
    # older records, of original and pruned models: only formats that compute the same, unlike int8
    models = {record.model: record.val for record in report.compressed}
    return "the Keras models (that of int8 files is not on record)", {
        row.artifact.id: models[row.artifact.model][row.artifact.variant][metric]
        for row in report.rows
        if row.artifact.format in ("float32", "sparse", "onnx")
    }


def _read_formats(report: Report) -> tuple[str, ...]:
    """Return the formats that the plan requests; () if they are not recorded."""
    name = f"'{report.folder / 'plan.json'}': plan.export"
    export = convert_json(report.record["plan"].get("export", {}), dict[str, Any], name)
    plan_formats: tuple[str, ...] = convert_json(
        export.get("formats", ()), tuple[str, ...], f"{name}.formats"
    )
    return plan_formats

"""The file to ship and the best one: validation data choose them, test data judge them.

Files that agree too little with their Keras models to ship unasked are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.core.arguments import conform
from compress.data.tasks import in_units
from compress.measure import formats
from compress.measure.quality import can_ship_unasked, describe_low_agreement
from compress.measure.verdict import FileCandidate, Verdict, judge_artifact, select_file
from compress.run.compressed import read_example_values
from compress.run.directory import RunFolder

if TYPE_CHECKING:
    from compress.report.rows import Report, Row

GOAL, SHIPPED, BEST = "goal", "shipped", "best"
TITLES = {
    GOAL: "Chosen for the goal",
    SHIPPED: "Cheapest that cannot be told apart from the best",
}
MOST = 3
"""Files that have a warning of their own; more are counted."""


@dataclass(frozen=True)
class Standout:
    """One file that was chosen.

    Attributes:
        what: `GOAL` or `SHIPPED`: the file to ship; `BEST`.
        row: The file.
        val: Its validation quality, by which it was chosen.
        title: What it is, in words.
        figure: What it stands out by.
    """

    what: str
    row: Row
    val: float
    title: str
    figure: str


@dataclass(frozen=True)
class Standouts:
    """The chosen files, and the quality that chose them.

    Attributes:
        quality: Name of the quality.
        by: Whose validation quality decided.
        chosen: The file to ship, by a goal or by the rule of
            `compress.measure.verdict.select_file`, and the best.
        missing: Why nothing was chosen; empty otherwise.
        verdict: The file to ship beside its original, on test data; None: none was chosen.
    """

    quality: str
    by: str = ""
    chosen: tuple[Standout, ...] = ()
    missing: str = ""
    verdict: Verdict | None = None

    @property
    def to_ship(self) -> Standout | None:
        """The file to ship; None: none was chosen."""
        return next((item for item in self.chosen if item.what in (GOAL, SHIPPED)), None)

    @property
    def best(self) -> Standout:
        """The file of the best validation quality."""
        return next(item for item in self.chosen if item.what == BEST)

    def to_json(self, report: Report) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
        if self.missing:
            return {"missing": self.missing}
        made: dict[str, Any] = {
            "quality": self.quality,
            "by": self.by,
            "verdict": self.verdict and {**self.verdict.to_json(), "line": self.verdict.line},
        }
        for item in self.chosen:
            interval = report.interval(item.row, self.quality)
            made[item.what] = {
                "file": item.row.artifact.id,
                "val": item.val,
                "test": item.row.artifact.test[self.quality],
                "interval": list(interval) if interval else None,
                "examples": report.tested(item.row),
            }
        return made


def standouts(report: Report) -> Standouts:
    """Select the file to ship and the best one, by validation data alone.

    A file's own validation quality decides; where records of an older version have none, that
    of the Keras model which it was made of and computes alike. Nothing is chosen where validation
    data have been learnt, or where none of this is on record: test data never choose.
    """
    quality = report.main
    if not report.rows:
        return Standouts(quality, missing="there are no exported files")
    if report.validation_learnt:
        return Standouts(
            quality,
            missing="the models have learnt the validation part, and test data never choose a file",
        )
    by, values = _values(report, quality)
    if not values:
        return Standouts(
            quality,
            missing="the validation quality of these files is not on record, and test data never "
            "choose a file",
        )
    # files that agree with their Keras models, or all where none does
    agreeing = [row for row in report.rows if can_ship(report, row)]
    # of equals the smaller file
    ranked = sorted(
        (row for row in agreeing or report.rows if row.artifact.id in values),
        key=lambda row: (-values[row.artifact.id], row.artifact.size_bytes, row.artifact.id),
    )
    by_goal = {section.shipped for section in report.sections if section.shipped}
    named = [row for row in ranked if row.artifact.id in by_goal]
    what, ship = (GOAL, named[0]) if named else (SHIPPED, _select(report, ranked, values))
    val = values[ship.artifact.id]
    figure = formats.size(ship.artifact.size_bytes)
    if ship.latency is not None:
        figure = formats.time(ship.latency.median_ms)
    best = values[ranked[0].artifact.id]
    title = f"Best validation {quality}"
    chosen = (
        Standout(what, ship, val, TITLES[what], figure),
        Standout(BEST, ranked[0], best, title, formats.quality(quality, best)),
    )
    verdicts = [section.verdict for section in report.sections if section.verdict is not None]
    base = next((row for row in report.rows if row.artifact.id == ship.artifact.baseline), None)
    verdict = verdicts[0] if named and verdicts else None
    if verdict is None and base is not None:
        folder = RunFolder(report.folder)
        verdict = judge_artifact(folder, ship.artifact, base.artifact, quality, None)
    return Standouts(quality, by, chosen, verdict=verdict)


def can_ship(report: Report, row: Row) -> bool:
    """Return whether a file may be chosen to ship; see `can_ship_unasked`.

    Args:
        report: Whose plan says which formats were asked for.
        row: The file.

    Raises:
        InputError: The plan on record is damaged.
    """
    item = row.artifact
    return can_ship_unasked(report.kind, item.agreement, item.checked, _formats(report))


def agreement_lines(report: Report) -> list[str]:
    """Return a warning for each file that disagrees with its model, the worst first.

    Raises:
        InputError: The plan on record is damaged.
    """
    by_agreement = sorted(report.rows, key=lambda row: row.artifact.agreement)
    lines = [
        warning
        for item in (row.artifact for row in by_agreement)
        if (warning := describe_low_agreement(item.id, report.kind, item.agreement, item.checked))
    ]
    rule = "it ships only if its format is the only one asked for"
    if len(_formats(report)) == 1:
        rule = "it ships because no other format was asked for"
    shown = [f"{line}: {rule}" for line in lines[:MOST]]
    if more := len(lines) - len(shown):
        counted = "file agrees" if more == 1 else "files agree"
        models = "its Keras model" if more == 1 else "their Keras models"
        shown.append(f"warning: {more} more {counted} as little with {models}")
    return shown


def _select(report: Report, rows: list[Row], values: Mapping[str, float]) -> Row:
    """Return the file to ship where no goal has chosen one."""
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
    unit = math.inf if in_units(report.main) else 1.0
    found = select_file(candidates, unit=unit)
    return next(row for row in rows if row.artifact.id == found.id)


def _values(report: Report, quality: str) -> tuple[str, Mapping[str, float]]:
    """Return the source of validation qualities, and the quality by file."""
    if all(quality in row.artifact.val for row in report.rows):
        return "the exported files", {
            row.artifact.id: row.artifact.val[quality] for row in report.rows
        }
    # older records: files that compute what the Keras model does, which int8 does not
    models = {record.model: record.val for record in report.compressed}
    return "the Keras models (that of int8 files is not on record)", {
        row.artifact.id: models[row.artifact.model][row.artifact.variant][quality]
        for row in report.rows
        if row.artifact.format in ("float32", "sparse", "onnx")
    }


def _formats(report: Report) -> tuple[str, ...]:
    """Return the formats that the plan asks for; () where the record does not say it."""
    name = f"'{report.folder / 'plan.json'}': plan.export"
    export = conform(report.record["plan"].get("export", {}), dict[str, Any], name)
    asked: tuple[str, ...] = conform(export.get("formats", ()), tuple[str, ...], f"{name}.formats")
    return asked

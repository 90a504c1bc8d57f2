"""The files that stand out: validation data choose them, test data say how good they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compress.measure import formats
from compress.report.rows import Report, Row

NEAR = 0.01
"""The smallest and the fastest file may validate this much worse than the best: one point."""
EXACT = ("float32", "sparse", "onnx")
"""Formats that compute what the Keras model does, but for rounding."""
TITLES = {
    "shipped": "Chosen for the goal",
    "best": "Best validation {quality}",
    "smallest": "Smallest within 1 point of it",
    "fastest": "Fastest within 1 point of it",
}


@dataclass(frozen=True)
class Standout:
    """One file that was chosen.

    Attributes:
        what: A key of `TITLES`.
        row: The file.
        val: Its validation quality, by which it was chosen.
    """

    what: str
    row: Row
    val: float

    def title(self, quality: str) -> str:
        """Says what it is."""
        return TITLES[self.what].format(quality=quality)

    def figure(self, quality: str) -> str:
        """Returns what it stands out by."""
        if self.what == "smallest":
            return f"{formats.size(self.row.artifact.gzip_bytes)} gzipped"
        if self.what == "fastest" and self.row.latency:
            return formats.time(self.row.latency.median_ms)
        return formats.quality(quality, self.val)


@dataclass(frozen=True)
class Standouts:
    """What was chosen, and by what.

    Attributes:
        quality: Name of the quality.
        by: Whose validation quality decided.
        chosen: What a goal has chosen, the best, the smallest near it and, where times were
            measured, the fastest.
        missing: Why nothing was chosen; empty otherwise.
    """

    quality: str
    by: str = ""
    chosen: tuple[Standout, ...] = ()
    missing: str = ""

    @property
    def to_ship(self) -> Standout | None:
        """The file to ship: the goal's, else the smallest near the best; None: none was chosen."""
        by_what = {item.what: item for item in self.chosen}
        return by_what.get("shipped", by_what.get("smallest"))

    @property
    def best(self) -> Standout:
        """The file of the best validation quality."""
        return next(item for item in self.chosen if item.what == "best")

    def to_json(self, report: Report) -> dict[str, Any]:
        """Returns the record as dictionaries, lists and numbers."""
        if self.missing:
            return {"missing": self.missing}
        return {
            "quality": self.quality,
            "by": self.by,
            **{item.what: dict(_facts(report, self.quality, item)) for item in self.chosen},
        }


def _facts(report: Report, quality: str, item: Standout) -> Iterator[tuple[str, Any]]:
    interval = report.interval(item.row, quality)
    yield "file", item.row.artifact.id
    yield "val", item.val
    yield "test", item.row.artifact.test[quality]
    yield "interval", list(interval) if interval else None
    yield "examples", report.tested(item.row)


def standouts(report: Report) -> Standouts:
    """Chooses the files that stand out, by validation quality alone.

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
    # of equals the smaller file
    ranked = sorted(
        (row for row in report.rows if row.artifact.id in values),
        key=lambda row: (-values[row.artifact.id], row.artifact.gzip_bytes, row.artifact.id),
    )
    best = ranked[0]
    near = [row for row in ranked if values[row.artifact.id] >= values[best.artifact.id] - NEAR]
    found = {"best": best, "smallest": min(near, key=lambda row: row.artifact.gzip_bytes)}
    shipped = {section.shipped for section in report.sections}
    for row in ranked:
        if row.artifact.id in shipped:
            found = {"shipped": row, **found}
    timed = [row for row in near if row.latency]
    if timed:
        found["fastest"] = min(timed, key=_time)
    return Standouts(
        quality,
        by,
        tuple(Standout(what, row, values[row.artifact.id]) for what, row in found.items()),
    )


def _time(row: Row) -> float:
    return row.latency.median_ms if row.latency else float("inf")


def _values(report: Report, quality: str) -> tuple[str, Mapping[str, float]]:
    """Returns whose validation quality it is, and that of each file which has one."""
    if all(quality in row.artifact.val for row in report.rows):
        return "the exported files", {
            row.artifact.id: row.artifact.val[quality] for row in report.rows
        }
    # older records: files that compute what the Keras model does, which int8 does not
    models = {record.model: record.val for record in report.compressed}
    return "the Keras models (that of int8 files is not on record)", {
        row.artifact.id: models[row.artifact.model][row.artifact.variant][quality]
        for row in report.rows
        if row.artifact.format in EXACT
    }

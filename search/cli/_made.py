"""The last line of a command that makes files: which ones, and which of them to ship."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.summary import line
from compress.run.directory import RunFolder

if TYPE_CHECKING:
    from compress.report import Report
    from search.report import SearchReport


def written(paths: Iterable[Path]) -> str:
    """Returns "written: a.json, b.csv" of the files that there are; empty for none."""
    names = ", ".join(line(path) for path in paths if path.exists())
    return f"written: {names}" if names else ""


def outcome(report: Report) -> str:
    """Says where a run's report lies and which of its files to ship.

    Validation data choose, as `compress.measure.file_choice` says. Of a search alone it is the
    best model of the front, which is not compressed yet.
    """
    from search.report import SearchReport

    page, chosen = f"report: {line(report.folder / 'report.html')}", ""
    if report.rows:
        chosen = _file(report)
    elif isinstance(report, SearchReport):
        chosen = _model(report)
    return f"{page}; {chosen}" if chosen else page


def _file(report: Report) -> str:
    from compress.measure import formats
    from compress.report.standouts import GOAL, standouts

    found = standouts(report)
    if found.to_ship is None:
        place = line(RunFolder(report.folder).exports)
        return f"ship: a file of your choice in {place} (none is chosen: {found.missing})"
    artifact = found.to_ship.row.artifact
    why = "cheapest that cannot be told apart from the best"
    if found.to_ship.what == GOAL:
        why = "for the goal"
    elif found.to_ship.row is found.best.row:
        why = "the best"
    figure = formats.quality(found.quality, found.to_ship.val)
    ready = next((item.shipped_file for item in report.sections if item.shipped), artifact.file)
    return (
        f"ship: {line(report.folder / ready)} "
        f"(chosen by validation {found.quality}: {figure}, {why})"
    )


def _model(report: SearchReport) -> str:
    from compress.measure import formats
    from search.study.directory import SearchFolder

    folder, quality = SearchFolder(report.folder), report.objectives[0]
    front = [item for item in report.candidates if item.id in report.front]
    if not front:
        return ""
    if report.validation_learnt:
        return (
            f"models: {line(folder.candidates)} (none is chosen: validation data were trained on)"
        )
    best = max(front, key=lambda item: item.val[quality])
    return (
        f"best model: {line(folder.shipped_file(best.id))} (chosen by validation {quality}: "
        f"{formats.quality(quality, best.val[quality])}); `paretune compress` makes files to ship"
    )

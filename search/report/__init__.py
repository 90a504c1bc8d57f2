"""The report of a run: its search beside its compression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.report import Section, write_report
from search.report.searched import SearchReport, read_search
from search.report.section import SearchSection
from search.study.directory import SearchFolder

__all__ = ["SearchReport", "load_report", "render"]


def load_report(path: str | Path) -> SearchReport:
    """Reads a run's folder; nothing is measured or trained.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = read_search(SearchFolder(path))
    searched = report.candidates or report.finals
    own: tuple[Section, ...] = (SearchSection(report),) if searched else ()
    return replace(report, sections=(*own, *report.sections))


def render(path: str | Path, *, light: bool = False) -> SearchReport:
    """Writes report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.
        light: The page has no scripts.

    Returns:
        What they show; `compress.report.render_tables` prints it.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = load_report(path)
    write_report(report, light=light)
    return report

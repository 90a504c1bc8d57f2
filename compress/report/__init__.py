"""Reports: `render_report` turns a run's folder into JSON, CSV, a plot and HTML."""

from __future__ import annotations

from pathlib import Path

from compress.core.atomic_files import write_bytes, write_json, write_text
from compress.report.columns import as_csv, as_json
from compress.report.html import render_html
from compress.report.plot import render_plot
from compress.report.report_data import Report, Row, Section, load_report

__all__ = [
    "Report",
    "Row",
    "Section",
    "load_report",
    "render_report",
    "write_report",
]


def render_report(path: str | Path, *, light: bool = False) -> Report:
    """Write report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune compress`. For other runs the compression part is
            shown.
        light: Whether to write the page without scripts.

    Returns:
        The contents of the report; printing it shows the result screen.

    Raises:
        InputError: The folder is not a run's folder, or a record in it is corrupt.
    """
    report = load_report(path)
    write_report(report, light=light)
    return report


def write_report(report: Report, *, light: bool = False) -> None:
    """Write report.html, report.json, candidates.csv and pareto.png into the report's folder.

    Args:
        report: Report with all its sections.
        light: Whether to write the page without scripts.
    """
    folder = report.folder
    write_json(folder / "report.json", as_json(report))
    write_text(folder / "candidates.csv", as_csv(report))
    plot = render_plot(report)
    if plot:
        write_bytes(folder / "pareto.png", plot)
    write_text(folder / "report.html", render_html(report, light=light))

"""Reports: `render` turns a run's folder into table, JSON, CSV, plot and one HTML page."""

from __future__ import annotations

from pathlib import Path

from compress.core.atomic_files import write_bytes, write_json, write_text
from compress.report.columns import as_csv, as_json
from compress.report.html import render_html
from compress.report.plot import render_plot
from compress.report.rows import Report, Row, Section, load_report
from compress.report.words import render_tables

__all__ = ["Report", "Row", "Section", "load_report", "render", "render_tables", "write_report"]


def render(path: str | Path, *, light: bool = False) -> Report:
    """Write report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune compress`; of other runs the compression is shown.
        light: The page has no scripts.

    Returns:
        What they show; `render_tables` prints it.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = load_report(path)
    write_report(report, light=light)
    return report


def write_report(report: Report, *, light: bool = False) -> None:
    """Write report.html, report.json, candidates.csv and pareto.png into the report's folder.

    Args:
        report: With all sections that it has to show.
        light: The page has no scripts.
    """
    folder = report.folder
    write_json(folder / "report.json", as_json(report))
    write_text(folder / "candidates.csv", as_csv(report))
    plot = render_plot(report)
    if plot:
        write_bytes(folder / "pareto.png", plot)
    write_text(folder / "report.html", render_html(report, light=light))

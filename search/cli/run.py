"""`paretune run`: search, compress the front, measure, report."""

from __future__ import annotations

from compress.report import Report, render_tables
from search.cli._console import GOES_ON, display, reporting_errors, show
from search.plan import SearchPlan


def run(plan: SearchPlan) -> None:
    """Search architectures, compress the front, measure and report."""
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run(plan, shown)
    print_report(report)


def print_report(report: Report) -> None:
    """Prints the report's tables on standard output, and where the page is."""
    show(render_tables(report), saved=report.folder / "report.html")

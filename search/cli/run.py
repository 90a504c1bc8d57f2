"""`paretune run`: search, compress the front, measure, report."""

from __future__ import annotations

from rich.console import Console

from compress.report import Report, render_tables
from search.cli._console import display, reporting_errors
from search.plan import SearchPlan


def run(plan: SearchPlan) -> None:
    """Search architectures, compress the front, measure and report."""
    from search import pipeline

    with reporting_errors("The same command goes on where it was."), display() as shown:
        report = pipeline.run(plan, shown)
    print_report(report)


def console() -> Console:
    """Returns a console on standard output; a file gets wide lines."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=200)


def print_report(report: Report) -> None:
    """Prints the report's tables on standard output, and where the page is."""
    out = console()
    out.print(render_tables(report))
    out.print(f"{report.folder / 'report.html'}", highlight=False)

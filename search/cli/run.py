"""`paretune run`: search, compress the front, measure, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.cli._console import GOES_ON, display, outcome, reporting_errors, show
from search.plan import SearchPlan

if TYPE_CHECKING:
    from compress.report import Report

BASIC = (
    "data", "space", "trials", "epochs", "max_macs", "max_minutes", "workers", "channels",
    "sparsity", "teacher", "formats", "out",
)  # fmt: skip
"""The options that `paretune run --help` shows."""
REFUSED = {
    "optimizer": "Give --finetune-optimizer, or --optimizers: those that the search samples from."
}
"""Options that meant fine-tuning here, while `--epochs` meant a candidate's training."""


def run(plan: SearchPlan) -> None:
    """Search architectures, compress the best, measure and report.

    The best are the front: candidates that no other beats in quality without costing more.
    """
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run(plan=plan, display=shown)
    print_report(report)


def print_report(report: Report) -> None:
    """Prints the report's tables on standard output, then where the page is and what to ship."""
    from compress.report import render_tables

    page = report.folder / "report.html"
    show(render_tables(report), saved=page, last=outcome(report))

"""`paretune search`: search architectures and report the front."""

from __future__ import annotations

from search.cli._console import GOES_ON, display, reporting_errors
from search.cli.run import print_report
from search.plan import SearchPlan


def search(plan: SearchPlan) -> None:
    """Search architectures and report the front, without compressing it."""
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run_search(plan, shown)
    print_report(report)

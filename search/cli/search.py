"""`paretune search`: search architectures and report the front."""

from __future__ import annotations

from search.cli._console import GOES_ON, display, reporting_errors
from search.cli.run import print_report
from search.plan import SearchPlan

BASIC = (
    "data", "space", "trials", "epochs", "sampler", "objectives", "max_macs", "max_latency",
    "max_minutes", "stopping", "workers", "out",
)  # fmt: skip
"""The options that `paretune search --help` shows."""


def search(plan: SearchPlan) -> None:
    """Search architectures and report the best; nothing is compressed.

    The best are the front: candidates that no other beats in quality without costing more.
    """
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run_search(plan=plan, display=shown)
    print_report(report)

"""Runs beside each other: `compare_runs` writes one page on which of them is better where."""

from search.report.compare.page import compare_runs

__all__ = ["compare_runs"]

"""What of a search is worth a screen: its front, and the files made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.summary import Summary
from compress.measure import formats
from compress.report.tables import files_screen

if TYPE_CHECKING:
    from search.report.searched import SearchReport


def search_screen(report: SearchReport) -> Summary:
    """Returns one row a file where there are files, else one a candidate of the front."""
    told = (report.summary(), f"report, with intervals: {report.folder / 'report.html'}")
    if report.rows:
        return replace(files_screen(report), lines=told)
    quality, *costs = report.objectives
    by_id = {candidate.id: candidate for candidate in report.candidates}
    front = [by_id[name] for name in report.front]
    return Summary(
        f"a front of {len(front)} candidates in '{report.folder}'",
        told,
        ("Model", f"validation {quality}", "MACs", "parameters"),
        tuple(
            (
                item.id,
                formats.quality(quality, item.val[quality]),
                formats.count(item.macs),
                formats.count(item.params),
            )
            for item in front
        ),
        (f"traded against {', '.join(costs)}",),
        "candidates",
    )

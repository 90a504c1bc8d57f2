"""The front in the report: on the page, on the terminal and in the plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.core.summary import short
from compress.measure import formats
from compress.report.cells import Cell
from compress.report.plot import GREY, INK, LETTERS, cut_floor, scale_costs
from compress.report.tables import ELSEWHERE
from compress.report.terminal import Grid
from search.report.candidates import choices_of
from search.report.searched import SearchReport
from search.study.records import COMPLETE, Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEASURED = {"size_bytes": "File", "latency_ms": "Latency"}
"""Headings of costs that not every search has."""
_SHOWN = (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8"))
"""Files of a model that stand in its row."""


def _measured_costs(report: SearchReport) -> list[str]:
    """Returns headings of the measured costs that the search traded against quality."""
    return [
        f"{_MEASURED[cost]}, estimated" if report.is_estimated(cost) else _MEASURED[cost]
        for cost in report.objectives[1:]
        if cost in _MEASURED
    ]


def _measured_cells(report: SearchReport, candidate: Candidate) -> list[str]:
    """Returns a candidate's measured costs, in the order of `_measured_costs`."""
    return [
        formats.cost(cost, getattr(candidate, cost))
        for cost in report.objectives[1:]
        if cost in _MEASURED
    ]


def front_section(report: SearchReport) -> dict[str, Any]:
    """Returns what front.html.j2 shows of it; no rows where there is no front."""
    quality, *costs = report.objectives
    by_id = {candidate.id: candidate for candidate in report.candidates}
    return {
        "lead": f"Non-dominated in validation {quality} (up) and {', '.join(costs)} (down). "
        "MACs and parameters are those before compression. Zeros save bytes and no MACs; channels "
        "that leave save both, see the files.",
        "heads": ["Model", f"validation {quality}", "MACs", "Parameters",
                  *_measured_costs(report), "dense float32: test, gzipped", "pruned float32",
                  "pruned int8"],
        "rows": [_cells(report, by_id[name]) for name in report.front],
    }  # fmt: skip


def _cells(report: SearchReport, item: Candidate) -> list[str | Cell]:
    files = {
        (row.artifact.variant, row.artifact.format): row.artifact
        for row in report.rows
        if row.artifact.model == item.id
    }
    made = [files.get(key) for key in _SHOWN]
    return [
        item.id,
        formats.quality(report.objectives[0], item.val[report.objectives[0]]),
        formats.count(item.macs),
        formats.count(item.params),
        *_measured_cells(report, item),
        *(
            Cell(
                formats.quality(report.main, file.test[report.main]),
                beside=formats.size(file.gzip_bytes),
            )
            if file
            else "-"
            for file in made
        ),
    ]


def front_table(report: SearchReport) -> Grid:
    """Returns the table for the terminal."""
    quality, *costs = report.objectives
    grid = Grid(
        f"Front: validation {quality} against {' and '.join(costs)}",
        ("Model", quality, "MACs", "Parameters", *_measured_costs(report), "Choices"),
        ("Model", "Choices"),
        wrap=("Choices",),
        drop=("Parameters",),
        elsewhere=ELSEWHERE,
    )
    by_id = {candidate.id: candidate for candidate in report.candidates}
    for name in report.front:
        candidate = by_id[name]
        grid.put(
            (
                name,
                formats.quality(quality, candidate.val[quality]),
                formats.count(candidate.macs),
                formats.count(candidate.params),
                *_measured_cells(report, candidate),
                choices_of(candidate),
            )
        )
    return grid


def front_panel(axes: Axes, report: SearchReport) -> None:
    """Draws all trained candidates and the front: quality against the first cost."""
    quality, cost = report.objectives[:2]
    trained = {item.id: item for item in report.candidates if item.state == COMPLETE}
    rest = [item for name, item in trained.items() if name not in report.front]
    front = [trained[name] for name in report.front]
    axes.scatter(
        [getattr(item, cost) for item in rest],
        [item.val[quality] * 100 for item in rest],
        s=26, facecolors="none", edgecolors=GREY, label=f"candidates ({len(rest)})",
    )  # fmt: skip
    costs = [getattr(item, cost) for item in front]
    heights = [item.val[quality] * 100 for item in front]
    axes.step(costs, heights, where="post", color="#0072B2", linewidth=1.2, alpha=0.6)
    axes.scatter(costs, heights, s=44, color="#0072B2", zorder=3, label=f"front ({len(front)})")
    for item, x, y in zip(front, costs, heights, strict=True):
        axes.annotate(
            short(item.id, LETTERS), (x, y), textcoords="offset points", xytext=(0, 7),
            ha="center", fontsize=8, color=INK,
        )  # fmt: skip
    scale_costs(axes, [getattr(item, cost) for item in trained.values()])
    cut_floor(axes, [item.val[quality] * 100 for item in trained.values()], heights)
    axes.set_title(f"Search: all {report.done} candidates", color=INK)
    axes.set_xlabel("MACs (counted)" if cost == "macs" else f"{cost} (counted)")
    axes.set_ylabel(f"validation {quality} in %")

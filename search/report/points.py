"""The candidates of a search as points of the live page."""

from __future__ import annotations

from typing import Any

from compress.data.tasks import is_share
from compress.measure import formats
from compress.report.live.charts import COST, OTHER, QUALITY, Axis, Points
from search.report.candidates import choices_of, replay_command, search_line
from search.report.searched import SearchReport
from search.study.records import COMPLETE, STOPPED, Candidate

FRONT, GONE = "#0072B2", "#D55E00"
GROUPS = {
    "front": (FRONT, "circle"),
    "trained": ("#8A8F99", "circle-open"),
    "judged": ("#8A8F99", "circle-open"),
    "stopped early": (GONE, "x"),
}
"""Marks of candidates by how they ended; others have no quality, and stand in the table alone."""
_COSTS = (
    ("macs", "MACs", "counted at batch 1, before training", "~s", ""),
    ("params", "Parameters", "counted, before training", "~s", ""),
    ("size_bytes", "File", "counted: bytes of its float32 .tflite file", "~s", " B"),
    ("latency_ms", "Latency", "measured: median of that file on LiteRT, one thread", "~s", " ms"),
)
ESTIMATED = "estimated from times of single layers, measured before the search"


def candidate_points(report: SearchReport) -> Points:
    """Returns all candidates."""
    quality, found = report.objectives[0], report.candidates
    known = [
        Axis(key, title, COST, ESTIMATED if report.is_estimated(key) else how, tick, unit)
        for key, title, how, tick, unit in _COSTS
        if any(getattr(item, key) is not None for item in found)
    ]
    axes = [
        Axis("state", "Outcome", OTHER, "How it ended, and why.", drawn=False),
        Axis(
            f"val_{quality}", f"Validation {quality}", QUALITY, "measured, on the validation part",
            ".1%" if is_share(quality) else "~r",
        ),
        *known,
        Axis("seconds", "Seconds", COST, "measured: building and training", "~r"),
        Axis("epochs", "Epochs", COST, "trained", "d", shown=False),
        Axis(
            "choices", "Choices", OTHER, "What the sampler chose.", shown=False, drawn=False
        ),
    ]  # fmt: skip
    cost = report.objectives[1]
    return Points(
        "candidates",
        "Everything that was searched",
        f"{search_line(report)}.",
        axes,
        [_row(report, item) for item in found],
        cost if cost in {axis.key for axis in axes} else "macs",
        f"val_{quality}",
        GROUPS,
        "candidate",
    )


def _row(report: SearchReport, item: Candidate) -> dict[str, Any]:
    quality = report.objectives[0]
    ending = f"{item.state}: {item.reason}" if item.reason else item.state
    group = {COMPLETE: report.done, STOPPED: "stopped early"}.get(item.state, item.state)
    front = item.id in report.front
    value = item.val.get(quality)
    costs = {key: getattr(item, key) for key, *_ in _COSTS}
    texts = {key: formats.cost(key, cost) for key, cost in costs.items() if cost is not None}
    told = [*item.notes, choices_of(item), replay_command(report, item)]
    return {
        "id": item.id,
        "model": item.id,
        "group": "front" if front else group,
        "counts": item.state == COMPLETE,
        "tags": ["on the front"] if front else [],
        "values": {
            f"val_{quality}": value, **costs, "seconds": item.seconds, "epochs": len(item.history),
        },
        "texts": {
            "state": ending, f"val_{quality}": formats.quality(quality, value), **texts,
            "seconds": f"{item.seconds:.1f}", "epochs": f"{len(item.history)}",
            "choices": choices_of(item),
        },
        "told": [text for text in told if text],
    }  # fmt: skip

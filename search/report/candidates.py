"""The candidates in the report: on the page, in candidates.csv and as points of the live page."""

from __future__ import annotations

import shlex
from typing import Any

from compress.data.tasks import is_share
from compress.measure import formats
from compress.report.live.charts import COST, OTHER, QUALITY, Axis, Points
from search.report.searched import SearchReport
from search.study.directory import COMPLETE, STOPPED, Candidate
from search.study.front import epochs_trained

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


def candidates_section(report: SearchReport) -> dict[str, Any]:
    """Returns what search.html.j2 shows of all candidates."""
    quality = report.objectives[0]
    return {
        "line": f"{search_line(report)}.",
        "heads": ["Model", "Outcome", f"validation {quality}", "MACs", "Parameters", "seconds",
                  "Choices"],
        "rows": [_cells(item, quality) for item in report.candidates],
    }  # fmt: skip


def _cells(item: Candidate, quality: str) -> list[str]:
    ending = f"{item.state}: {item.reason}" if item.reason else item.state
    return [
        item.id,
        "; ".join([ending, *item.notes]),
        formats.quality(quality, item.val.get(quality)),
        formats.count(item.macs),
        formats.count(item.params),
        f"{item.seconds:.1f}",
        choices_of(item),
    ]


def csv_rows(report: SearchReport, quality: str) -> list[dict[str, Any]]:
    """Returns the candidates' lines of candidates.csv.

    Args:
        report: Of the search.
        quality: Whose validation figure has a column.
    """
    return [
        {
            "record": "candidate",
            "id": item.id,
            "model": item.id,
            "state": item.state,
            "reason": item.reason,
            "on_front": item.id in report.front,
            f"val_{quality}": item.val.get(quality, ""),
            "macs": "" if item.macs is None else item.macs,
            "params": "" if item.params is None else item.params,
            "device": item.device,
            "choices": "; ".join(f"{key}={value}" for key, value in item.choices.items()),
        }
        for item in report.candidates
    ]


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


def search_line(report: SearchReport) -> str:
    """Says how many trials ended how, and how many epochs early endings saved."""
    trained, all_epochs = epochs_trained(report.candidates, report.epochs)
    saved = f"; {trained:,} of {all_epochs:,} epochs trained" if trained < all_epochs else ""
    return f"{report.summary()}{saved}"


def choices_of(candidate: Candidate) -> str:
    """Returns what the sampler chose, in one line."""
    return ", ".join(f"{key}={formats.plain(value)}" for key, value in candidate.choices.items())


def replay_command(report: SearchReport, candidate: Candidate) -> str:
    """Returns the command that trains a candidate anew with its choices and seed."""
    template = str(report.record["shown"].get("replay", ""))
    try:
        words = shlex.split(template)
    except ValueError:
        return template
    # an id is part of a word of the command, whatever it holds
    return shlex.join(word.replace("{id}", candidate.id) for word in words)

"""The candidates in the report: what was chosen, how each ended, what trains it anew."""

from __future__ import annotations

import shlex
from typing import Any

from compress.measure import formats
from search.report.searched import SearchReport
from search.study.front import epochs_trained
from search.study.records import Candidate


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


def search_line(report: SearchReport) -> str:
    """Says how many trials ended how, and how many epochs early endings saved."""
    trained, all_epochs = epochs_trained(report.candidates, report.epochs)
    saved = f"; {trained:,} of {all_epochs:,} epochs trained" if trained < all_epochs else ""
    return f"{report.summary()}{saved}"


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

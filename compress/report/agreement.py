"""Which files of a report agree too little with their Keras models to ship unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from compress.core.typed import conform
from compress.measure.quality import can_ship_unasked, describe_low_agreement

if TYPE_CHECKING:
    from compress.report.rows import Report, Row

MOST = 3
"""Files that have a warning of their own; more are counted."""


class _Export(TypedDict, total=False):
    formats: tuple[str, ...]


class _Plan(TypedDict, total=False):
    export: _Export


def can_ship(report: Report, row: Row) -> bool:
    """Return whether a file may be chosen to ship; see `can_ship_unasked`.

    Args:
        report: Whose plan says which formats were asked for.
        row: The file.

    Raises:
        InputError: The plan on record is damaged.
    """
    item = row.artifact
    return can_ship_unasked(report.kind, item.agreement, item.checked, _formats(report))


def agreement_lines(report: Report) -> list[str]:
    """Return a warning for each file that disagrees with its model, the worst first.

    Raises:
        InputError: The plan on record is damaged.
    """
    by_agreement = sorted(report.rows, key=lambda row: row.artifact.agreement)
    lines = [
        warning
        for item in (row.artifact for row in by_agreement)
        if (warning := describe_low_agreement(item.id, report.kind, item.agreement, item.checked))
    ]
    rule = "it ships only if its format is the only one asked for"
    if len(_formats(report)) == 1:
        rule = "it ships because no other format was asked for"
    shown = [f"{line}: {rule}" for line in lines[:MOST]]
    if more := len(lines) - len(shown):
        counted = "file agrees" if more == 1 else "files agree"
        models = "its Keras model" if more == 1 else "their Keras models"
        shown.append(f"warning: {more} more {counted} as little with {models}")
    return shown


def _formats(report: Report) -> tuple[str, ...]:
    """Return the formats that the plan asks for; () where the record does not say it."""
    name = f"'{report.folder / 'plan.json'}': plan"
    plan: _Plan = conform(report.record["plan"], _Plan, name)
    return plan.get("export", {}).get("formats", ())

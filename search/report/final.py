"""The final trainings of a search's front: mean and spread over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.measure import formats
from compress.report.terminal import Grid
from search.report.searched import SearchReport
from search.study.records import Final

HEADS = ("Model", "Epochs", "Trainings", "Validation", "Test")
HOW = (
    "Trained again after the search; mean and sample standard deviation over seeds; the test "
    "part is read once per training. Validation data choose which training is compressed."
)


@dataclass(frozen=True)
class Spread:
    """Final trainings of one model.

    Attributes:
        model: Its id.
        epochs: Of each training.
        count: How many trainings.
        val, test: (mean, sample standard deviation) of the main quality; the deviation is NaN
            of one training, `val` None where validation data were trained on.
    """

    model: str
    epochs: int
    count: int
    val: tuple[float, float] | None
    test: tuple[float, float]


def spreads(report: SearchReport) -> list[Spread]:
    """Returns one entry a model, by rising cost as on the front, then those that left it."""
    by_model: dict[str, list[Final]] = {}
    for record in report.finals:
        by_model.setdefault(record.model, []).append(record)
    order = [name for name in report.front if name in by_model]
    order += [name for name in by_model if name not in order]
    quality = report.objectives[0]
    return [_spread(name, by_model[name], quality) for name in order]


def _spread(model: str, records: Sequence[Final], quality: str) -> Spread:
    vals = [record.val[quality] for record in records if quality in record.val]
    return Spread(
        model,
        records[0].epochs,
        len(records),
        _mean(vals) if len(vals) == len(records) else None,
        _mean([record.test[quality] for record in records]),
    )


def _mean(values: Sequence[float]) -> tuple[float, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def _cells(item: Spread, quality: str) -> list[str]:
    def shown(pair: tuple[float, float] | None) -> str:
        if pair is None:
            return "trained on"
        mean = formats.quality(quality, pair[0])
        return mean if np.isnan(pair[1]) else f"{mean} +- {formats.quality(quality, pair[1])}"

    return [item.model, str(item.epochs), str(item.count), shown(item.val), shown(item.test)]


def final_section(report: SearchReport) -> dict[str, Any]:
    """Returns what front.html.j2 shows of them; no rows where nothing was trained anew."""
    quality = report.objectives[0]
    return {
        "lead": HOW,
        "heads": [*HEADS[:3], f"validation {quality}", f"test {quality}"],
        "rows": [_cells(item, quality) for item in spreads(report)],
    }


def final_table(report: SearchReport) -> Grid:
    """Returns the table for the terminal."""
    quality = report.objectives[0]
    made = Grid(f"Final trainings: {quality}, mean +- deviation", HEADS, ("Model",))
    for item in spreads(report):
        made.put(_cells(item, quality))
    return made

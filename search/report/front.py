"""Candidates and their front in the report: page, terminal, plot; the final trainings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.summary import short
from compress.data.tasks import is_share
from compress.measure import formats
from compress.report.live.charts import COST, OTHER, QUALITY, Axis, Points
from compress.report.markup import Cell
from compress.report.plot import GREY, INK, LETTERS, cut_floor, scale_costs
from compress.report.terminal import Grid
from compress.report.words import ELSEWHERE
from search.report.searched import SearchReport
from search.study.directory import COMPLETE, STOPPED, Candidate, Final
from search.study.front import epochs_trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT, GONE = "#0072B2", "#D55E00"
_MEASURED = {"size_bytes": "File", "latency_ms": "Latency"}
"""Headings of costs that not every search has."""
_SHOWN = (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8"))
"""Files of a model that stand in its row."""
FINAL_HEADS = ("Model", "Epochs", "Trainings", "Validation", "Test")
FINAL_HOW = (
    "Trained again after the search; mean and sample standard deviation over seeds; the test "
    "part is read once per training. Validation data choose which training is compressed."
)
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


def front_section(report: SearchReport) -> dict[str, Any]:
    """Return the front for front.html.j2; no rows where there is no front."""
    quality, *costs = report.objectives
    return {
        "lead": f"Non-dominated in validation {quality} (up) and {', '.join(costs)} (down). "
        "MACs and parameters are those before compression. Zeros save bytes and no MACs; channels "
        "that leave save both, see the files.",
        "heads": ["Model", f"validation {quality}", "MACs", "Parameters",
                  *_measured_costs(report), "dense float32: test, gzipped", "pruned float32",
                  "pruned int8"],
        "rows": [_cells(report, item) for item in report.members()],
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
    """Return the table for the terminal."""
    quality, *costs = report.objectives
    grid = Grid(
        f"Front: validation {quality} against {' and '.join(costs)}",
        ("Model", quality, "MACs", "Parameters", *_measured_costs(report), "Choices"),
        ("Model", "Choices"),
        wrap=("Choices",),
        drop=("Parameters",),
        elsewhere=ELSEWHERE,
    )
    for candidate in report.members():
        grid.put(
            (
                candidate.id,
                formats.quality(quality, candidate.val[quality]),
                formats.count(candidate.macs),
                formats.count(candidate.params),
                *_measured_cells(report, candidate),
                choices_of(candidate),
            )
        )
    return grid


def _measured_costs(report: SearchReport) -> list[str]:
    """Return headings of the measured costs that the search traded against quality."""
    return [
        f"{_MEASURED[cost]}, estimated" if report.is_estimated(cost) else _MEASURED[cost]
        for cost in report.objectives[1:]
        if cost in _MEASURED
    ]


def _measured_cells(report: SearchReport, candidate: Candidate) -> list[str]:
    """Return a candidate's measured costs, in the order of `_measured_costs`."""
    return [
        formats.cost(cost, getattr(candidate, cost))
        for cost in report.objectives[1:]
        if cost in _MEASURED
    ]


def front_panel(axes: Axes, report: SearchReport) -> None:
    """Draw all trained candidates and the front: quality against the first cost."""
    quality, cost = report.objectives[:2]
    trained = [item for item in report.candidates if item.state == COMPLETE]
    rest = [item for item in trained if item.id not in report.front]
    front = report.members()
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
    scale_costs(axes, [getattr(item, cost) for item in trained])
    cut_floor(axes, [item.val[quality] * 100 for item in trained], heights)
    axes.set_title(f"Search: all {report.done} candidates", color=INK)
    axes.set_xlabel("MACs (counted)" if cost == "macs" else f"{cost} (counted)")
    axes.set_ylabel(f"validation {quality} in %")


def final_section(report: SearchReport) -> dict[str, Any]:
    """Return the final trainings for front.html.j2; no rows where there are none."""
    quality = report.objectives[0]
    return {
        "lead": FINAL_HOW,
        "heads": [*FINAL_HEADS[:3], f"validation {quality}", f"test {quality}"],
        "rows": [_final_cells(item, quality) for item in spreads(report)],
    }


def final_table(report: SearchReport) -> Grid:
    """Return the table for the terminal."""
    quality = report.objectives[0]
    made = Grid(f"Final trainings: {quality}, mean +- deviation", FINAL_HEADS, ("Model",))
    for item in spreads(report):
        made.put(_final_cells(item, quality))
    return made


def _final_cells(item: Spread, quality: str) -> list[str]:
    def shown(pair: tuple[float, float] | None) -> str:
        if pair is None:
            return "trained on"
        mean = formats.quality(quality, pair[0])
        return mean if np.isnan(pair[1]) else f"{mean} +- {formats.quality(quality, pair[1])}"

    return [item.model, str(item.epochs), str(item.count), shown(item.val), shown(item.test)]


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
    """Return one entry a model, by rising cost as on the front, then those that left it."""
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


def candidates_section(report: SearchReport) -> dict[str, Any]:
    """Return all candidates for search.html.j2."""
    quality = report.objectives[0]
    return {
        "line": f"{search_line(report)}.",
        "heads": ["Model", "Outcome", f"validation {quality}", "MACs", "Parameters", "seconds",
                  "Choices"],
        "rows": [
            [item.id, "; ".join([describe_ending(item), *item.notes]),
             formats.quality(quality, item.val.get(quality)), formats.count(item.macs),
             formats.count(item.params), f"{item.seconds:.1f}", choices_of(item)]
            for item in report.candidates
        ],
    }  # fmt: skip


def candidate_points(report: SearchReport) -> Points:
    """Return all candidates as points of the live page."""
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
            "state": describe_ending(item), **texts,
            f"val_{quality}": formats.quality(quality, value),
            "seconds": f"{item.seconds:.1f}", "epochs": f"{len(item.history)}",
            "choices": choices_of(item),
        },
        "told": [text for text in told if text],
    }  # fmt: skip


def describe_ending(candidate: Candidate) -> str:
    """Describe how a candidate ended, with the reason where there is one."""
    return f"{candidate.state}: {candidate.reason}" if candidate.reason else candidate.state


def search_line(report: SearchReport) -> str:
    """Summarize how trials ended, and the epochs that early stopping saved."""
    trained, all_epochs = epochs_trained(report.candidates, report.epochs)
    saved = f"; {trained:,} of {all_epochs:,} epochs trained" if trained < all_epochs else ""
    return f"{report.summary()}{saved}"


def choices_of(candidate: Candidate) -> str:
    """Return a candidate's choices in one line."""
    return ", ".join(f"{key}={formats.plain(value)}" for key, value in candidate.choices.items())


def replay_command(report: SearchReport, candidate: Candidate) -> str:
    """Return the command that trains a candidate anew with its choices and seed."""
    template = str(report.record["shown"].get("replay", ""))
    try:
        words = shlex.split(template)
    except ValueError:
        return template
    # an id is part of a word of the command, whatever it holds
    return shlex.join(word.replace("{id}", candidate.id) for word in words)

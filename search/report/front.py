"""Candidates, their front and the final trainings in the report: page, terminal and plot."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.summary import truncate_end
from compress.data.tasks import is_share
from compress.measure import formatting
from compress.report.live.charts import COST, OTHER, QUALITY, Axis, Points
from compress.report.markup import Cell
from compress.report.plot import GREY, INK, MAX_LETTERS, cut_failures, scale_cost_axis
from search.report.search_report import SearchReport
from search.study.directory import COMPLETE, STOPPED, Candidate, FinalTraining
from search.study.front import count_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT_COLOUR, STOPPED_COLOUR = "#0072B2", "#D55E00"
_SHOWN_FILES = (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8"))
"""Files of a model that its row shows, as (variant, format)."""
FINAL_HEADINGS = ("Model", "Epochs", "Trainings", "Validation", "Test")
FINAL_NOTE = (
    "Trained again after the search; mean and sample standard deviation over seeds; the test "
    "part is read once per training. Validation data choose which training is compressed."
)
GROUPS = {
    "front": (FRONT_COLOUR, "circle"),
    "trained": ("#8A8F99", "circle-open"),
    "judged": ("#8A8F99", "circle-open"),
    "stopped early": (STOPPED_COLOUR, "x"),
}
"""Outcome -> (colour, symbol); candidates with other outcomes are only in the table."""
_COSTS = (
    ("macs", "MACs", "counted at batch 1, before training", "~s", ""),
    ("params", "Parameters", "counted, before training", "~s", ""),
    ("size_bytes", "File", "counted: bytes of its float32 .tflite file", "~s", " B"),
    ("latency_ms", "Latency", "measured: median of that file on LiteRT, one thread", "~s", " ms"),
)
ESTIMATED_NOTE = "estimated from times of single layers, measured before the search"


def build_front_section(report: SearchReport) -> dict[str, Any]:
    """Return the front for front.html.j2; without rows if there is no front."""
    metric, *costs = report.objectives
    return {
        "lead": f"Non-dominated in validation {metric} (up) and {', '.join(costs)} (down). "
        "MACs and parameters are those before compression. Zeros save bytes and no MACs; channels "
        "that leave save both, see the files.",
        "heads": ["Model", f"validation {metric}", "MACs", "Parameters",
                  *report.list_measured_costs(), "dense float32: test, gzipped", "pruned float32",
                  "pruned int8"],
        "rows": [_build_cells(report, item) for item in report.list_front_candidates()],
    }  # fmt: skip


def _build_cells(report: SearchReport, item: Candidate) -> list[str | Cell]:
    files = {
        (row.artifact.variant, row.artifact.format): row.artifact
        for row in report.rows
        if row.artifact.model == item.id
    }
    shown_files = [files.get(key) for key in _SHOWN_FILES]
    return [
        item.id,
        formatting.format_metric(report.objectives[0], item.val[report.objectives[0]]),
        formatting.format_count(item.macs),
        formatting.format_count(item.params),
        *report.format_measured_costs(item),
        *(
            Cell(
                formatting.format_metric(report.main, file.test[report.main]),
                beside=formatting.format_size(file.gzip_bytes),
            )
            if file
            else "-"
            for file in shown_files
        ),
    ]


def draw_front(axes: Axes, report: SearchReport) -> None:
    """Draw all trained candidates and the front: metric against the first cost.

    Args:
        axes: Axes of the plot.
        report: The report of the run.
    """
    metric, cost = report.objectives[:2]
    trained = [item for item in report.candidates if item.state == COMPLETE]
    dominated = [item for item in trained if item.id not in report.front]
    front = report.list_front_candidates()
    axes.scatter(
        [getattr(item, cost) for item in dominated],
        [item.val[metric] * 100 for item in dominated],
        s=26, facecolors="none", edgecolors=GREY, label=f"candidates ({len(dominated)})",
    )  # fmt: skip
    costs = [getattr(item, cost) for item in front]
    heights = [item.val[metric] * 100 for item in front]
    axes.step(costs, heights, where="post", color="#0072B2", linewidth=1.2, alpha=0.6)
    axes.scatter(costs, heights, s=44, color="#0072B2", zorder=3, label=f"front ({len(front)})")
    for item, x, y in zip(front, costs, heights, strict=True):
        axes.annotate(
            truncate_end(item.id, MAX_LETTERS), (x, y), textcoords="offset points", xytext=(0, 7),
            ha="center", fontsize=8, color=INK,
        )  # fmt: skip
    scale_cost_axis(axes, [getattr(item, cost) for item in trained])
    cut_failures(axes, [item.val[metric] * 100 for item in trained], heights)
    axes.set_title(f"Search: all {report.treatment} candidates", color=INK)
    axes.set_xlabel("MACs (counted)" if cost == "macs" else f"{cost} (counted)")
    axes.set_ylabel(f"validation {metric} in %")


def build_final_section(report: SearchReport) -> dict[str, Any]:
    """Return the final trainings for front.html.j2; without rows if there are none."""
    metric = report.objectives[0]
    return {
        "lead": FINAL_NOTE,
        "heads": [*FINAL_HEADINGS[:3], f"validation {metric}", f"test {metric}"],
        "rows": [_build_final_cells(item, metric) for item in summarize_finals(report)],
    }


def _build_final_cells(summary: FinalSummary, metric: str) -> list[str]:
    def format_pair(pair: tuple[float, float] | None) -> str:
        if pair is None:
            return "trained on"
        mean = formatting.format_metric(metric, pair[0])
        return (
            mean if np.isnan(pair[1]) else f"{mean} +- {formatting.format_metric(metric, pair[1])}"
        )

    return [
        summary.model,
        str(summary.epochs),
        str(summary.count),
        format_pair(summary.val),
        format_pair(summary.test),
    ]


@dataclass(frozen=True)
class FinalSummary:
    """The final trainings of a model.

    Attributes:
        model: Id of the model.
        epochs: Epochs of each training.
        count: Number of trainings.
        val, test: (mean, sample standard deviation) of the main metric; the deviation is NaN for
            one training; `val` is None if validation data were trained on.
    """

    model: str
    epochs: int
    count: int
    val: tuple[float, float] | None
    test: tuple[float, float]


def summarize_finals(report: SearchReport) -> list[FinalSummary]:
    """Return one summary per model, in the order of the front, then models that are not on it."""
    by_model: dict[str, list[FinalTraining]] = {}
    for record in report.finals:
        by_model.setdefault(record.model, []).append(record)
    order = [name for name in report.front if name in by_model]
    order += [name for name in by_model if name not in order]
    metric = report.objectives[0]
    return [_summarize_model(name, by_model[name], metric) for name in order]


def _summarize_model(model: str, records: Sequence[FinalTraining], metric: str) -> FinalSummary:
    vals = [record.val[metric] for record in records if metric in record.val]
    return FinalSummary(
        model,
        records[0].epochs,
        len(records),
        _compute_mean(vals) if len(vals) == len(records) else None,
        _compute_mean([record.test[metric] for record in records]),
    )


def _compute_mean(values: Sequence[float]) -> tuple[float, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def build_candidates_section(report: SearchReport) -> dict[str, Any]:
    """Return all candidates for search.html.j2."""
    metric = report.objectives[0]
    return {
        "line": f"{summarize_search(report)}.",
        "heads": [
            "Model",
            "Outcome",
            f"validation {metric}",
            "MACs",
            "Parameters",
            "seconds",
            "Choices",
        ],
        "rows": [
            [
                item.id,
                "; ".join([describe_ending(item), *item.notes]),
                formatting.format_metric(metric, item.val.get(metric)),
                formatting.format_count(item.macs),
                formatting.format_count(item.params),
                f"{item.seconds:.1f}",
                format_choices(item),
            ]
            for item in report.candidates
        ],
    }


def build_candidate_points(report: SearchReport) -> Points:
    """Return all candidates as points of the live page."""
    metric, candidates = report.objectives[0], report.candidates
    cost_axes = [
        Axis(
            key,
            title,
            COST,
            ESTIMATED_NOTE if report.is_estimated(key) else description,
            tick,
            unit,
        )
        for key, title, description, tick, unit in _COSTS
        if any(getattr(item, key) is not None for item in candidates)
    ]
    axes = [
        Axis("state", "Outcome", OTHER, "How it ended, and why.", drawn=False),
        Axis(
            f"val_{metric}", f"Validation {metric}", QUALITY, "measured, on the validation part",
            ".1%" if is_share(metric) else "~r",
        ),
        *cost_axes,
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
        f"{summarize_search(report)}.",
        axes,
        [_build_row(report, item) for item in candidates],
        cost if cost in {axis.key for axis in axes} else "macs",
        f"val_{metric}",
        GROUPS,
        "candidate",
    )


def _build_row(report: SearchReport, item: Candidate) -> dict[str, Any]:
    metric = report.objectives[0]
    group = {COMPLETE: report.treatment, STOPPED: "stopped early"}.get(item.state, item.state)
    front = item.id in report.front
    value = item.val.get(metric)
    costs = {key: getattr(item, key) for key, *_ in _COSTS}
    texts = {
        key: formatting.format_cost(key, cost) for key, cost in costs.items() if cost is not None
    }
    notes = [*item.notes, format_choices(item), format_replay_command(report, item)]
    return {
        "id": item.id,
        "model": item.id,
        "group": "front" if front else group,
        "counts": item.state == COMPLETE,
        "tags": ["on the front"] if front else [],
        "values": {
            f"val_{metric}": value, **costs, "seconds": item.seconds, "epochs": len(item.history),
        },
        "texts": {
            "state": describe_ending(item), **texts,
            f"val_{metric}": formatting.format_metric(metric, value),
            "seconds": f"{item.seconds:.1f}", "epochs": f"{len(item.history)}",
            "choices": format_choices(item),
        },
        "told": [text for text in notes if text],
    }  # fmt: skip


def describe_ending(candidate: Candidate) -> str:
    """Return a candidate's final state, with the reason if there is one."""
    return f"{candidate.state}: {candidate.reason}" if candidate.reason else candidate.state


def summarize_search(report: SearchReport) -> str:
    """Return a summary of the trials' outcomes and of the epochs saved by early stopping."""
    trained, all_epochs = count_epochs(report.candidates, report.epochs)
    epochs_text = f"; {trained:,} of {all_epochs:,} epochs trained" if trained < all_epochs else ""
    return f"{report.summarize_trials()}{epochs_text}"


def format_choices(candidate: Candidate) -> str:
    """Return a candidate's choices in one line."""
    return ", ".join(
        f"{key}={formatting.format_choice(value)}" for key, value in candidate.choices.items()
    )


def format_replay_command(report: SearchReport, candidate: Candidate) -> str:
    """Return the command that trains a candidate again with its choices and seed.

    Args:
        report: The report of the run, which records the command.
        candidate: The candidate.
    """
    template = str(report.record["shown"].get("replay", ""))
    try:
        words = shlex.split(template)
    except ValueError:
        return template
    # the id is replaced within words of the command, so that its characters are quoted
    return shlex.join(word.replace("{id}", candidate.id) for word in words)

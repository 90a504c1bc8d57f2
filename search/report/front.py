"""Candidates, their front and the final trainings in the report: page, terminal and plot."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from compress.core.summary import truncate_end
from compress.data.tasks import is_share
from compress.measure import formatting
from compress.report.live.charts import COST, OTHER, QUALITY, Axis, Points
from compress.report.markup import Cell
from compress.report.plot import (
    GREY,
    INK,
    MAX_LETTERS,
    cut_failures,
    format_metric_axis,
    get_metric_unit,
    scale_cost_axis,
)
from search.report.search_report import SearchReport
from search.study.directory import COMPLETE, STOPPED, Candidate
from search.study.front import count_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT_COLOUR, STOPPED_COLOUR = "#0072B2", "#D55E00"
_SHOWN_FILES = (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8"))
"""Files of a model that its row shows, as (variant, format)."""
GROUPS = {
    "front": (FRONT_COLOUR, "circle"),
    "trained": ("#8A8F99", "circle-open"),
    "evaluated": ("#8A8F99", "circle-open"),
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
        "MACs and parameters are those before compression. Zeros save bytes and no MACs; removed "
        "channels save both, see the files.",
        "heads": ["Model", f"validation {metric}", "MACs", "Parameters",
                  *report.list_measured_costs(), "original float32: test, size", "pruned float32",
                  "pruned int8"],
        "rows": [_build_cells(report, item) for item in report.list_front_candidates()],
    }  # fmt: skip


def _build_cells(report: SearchReport, item: Candidate) -> list[str | Cell]:
    """Return a front candidate's cells: metric, costs, and test metric and bytes of three files."""
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
                beside=formatting.format_size(file.size_bytes),
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
    factor, _ = unit = get_metric_unit(metric)
    trained = [item for item in report.candidates if item.state == COMPLETE]
    dominated = [item for item in trained if item.id not in report.front]
    front = report.list_front_candidates()
    axes.scatter(
        [getattr(item, cost) for item in dominated],
        [item.val[metric] * factor for item in dominated],
        s=26, facecolors="none", edgecolors=GREY, label=f"candidates ({len(dominated)})",
    )  # fmt: skip
    costs = [getattr(item, cost) for item in front]
    heights = [item.val[metric] * factor for item in front]
    axes.step(costs, heights, where="post", color="#0072B2", linewidth=1.2, alpha=0.6)
    axes.scatter(costs, heights, s=44, color="#0072B2", zorder=3, label=f"front ({len(front)})")
    for item, x, y in zip(front, costs, heights, strict=True):
        axes.annotate(
            truncate_end(item.id, MAX_LETTERS), (x, y), textcoords="offset points", xytext=(0, 7),
            ha="center", fontsize=8, color=INK,
        )  # fmt: skip
    scale_cost_axis(axes, [getattr(item, cost) for item in trained])
    cut_failures(axes, [item.val[metric] * factor for item in trained], heights, unit)
    axes.set_title(f"Search: all {report.treatment} candidates", color=INK)
    source = "" if cost == "latency_ms" else " (counted)"
    axes.set_xlabel(f"{'MACs' if cost == 'macs' else cost}{source}")
    axes.set_ylabel(format_metric_axis(f"validation {metric}", metric))


def build_final_section(report: SearchReport) -> dict[str, Any]:
    """Return the final trainings for front.html.j2; without rows if there are none."""
    metric = report.objectives[0]
    return {
        "lead": "Trained again after the search; the test part is read once per training.",
        "heads": ["Model", "Epochs", f"validation {metric}", f"test {metric}"],
        "rows": _list_final_cells(report),
    }


def _list_final_cells(report: SearchReport) -> list[list[str]]:
    """Return one row per training, in the order of the front, then models that are not on it."""
    metric, front = report.objectives[0], report.front
    return [
        [
            item.model,
            str(item.epochs),
            formatting.format_metric(metric, item.val.get(metric)),
            formatting.format_metric(metric, item.test[metric]),
        ]
        for item in sorted(
            report.finals,
            key=lambda item: front.index(item.model) if item.model in front else len(front),
        )
    ]


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
    """Return a candidate as a point of the live page: values, texts, choices, replay command."""
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

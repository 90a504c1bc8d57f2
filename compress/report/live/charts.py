"""Charts and point sets of the live page: plotly draws them; the page themes and selects.

The exported files of a report are such a point set, with all their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.data.tasks import ERRORS, has_unit, is_share
from compress.measure import formatting
from compress.report.columns import Column, list_columns
from compress.report.file_selection import select_files
from compress.report.plot import STYLES, format_kind
from compress.report.report_data import Report, Row
from compress.report.result_screen import sort_rows
from compress.report.text_report import describe_conditions, describe_metrics, format_other_runtimes

Trace = dict[str, Any]
QUALITY, COST, OTHER = "quality", "cost", "other"


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: Unique id on the page.
        title: Text above the chart.
        caption: Text below the chart.
        traces: Traces of plotly's basic bundle (scatter, bar). `meta` of a trace names its model
            ("model") or its points ("points", "models"). A click selects that, and the selection is
            highlighted.
        layout: plotly layout; the page sets colours and fonts.
        wide: Whether it spans the whole width of the page.
        model: Model whose card shows the chart; "": shown for all models.
        variants: Alternative colourings of the marks: "name", and "colours" by trace index.
    """

    id: str
    title: str
    caption: str
    traces: Sequence[Trace]
    layout: dict[str, Any] = field(default_factory=dict)
    wide: bool = False
    model: str = ""
    variants: Sequence[dict[str, Any]] = ()


def build_line(x: Sequence[Any], y: Sequence[Any], name: str, **more: Any) -> Trace:
    """Return a line trace.

    Args:
        x, y: Coordinates of its points.
        name: Name of the trace.
        **more: Further keys of the trace.
    """
    return {"type": "scatter", "mode": "lines", "x": [*x], "y": [*y], "name": name, **more}


@dataclass(frozen=True)
class Axis:
    """One figure of the points of a set.

    Attributes:
        key: Key in the rows.
        title: Heading.
        role: "quality" (higher is better), "cost" (lower is better), "other".
        how: Description in one sentence, with "measured" or "counted".
        tick: plotly tick format ("~s", ".1%"); "": a text, which cannot be an axis.
        unit: Unit behind the values.
        low, high: Keys of the ends of its interval; "": no interval.
        shown: Whether the table shows it initially.
        drawn: Whether it can be a plot axis.
    """

    key: str
    title: str
    role: str
    how: str
    tick: str = ""
    unit: str = ""
    low: str = ""
    high: str = ""
    shown: bool = True
    drawn: bool = True


@dataclass(frozen=True)
class Points:
    """A set of points.

    Attributes:
        id: Unique id on the page.
        title: Text above the plot.
        lead: Sentences that apply to all points.
        axes: Figures, in the order of the table's columns.
        rows: One dictionary per point: "id", "model" (the model that it is or is made from),
            "group" (points of a group share a mark), "counts" (whether it may be on a Pareto
            front), "tags" (distinctions), "values" (number or null by key) and "texts" (cell text
            by key).
        x, y: Keys of the axes that are shown first.
        groups: Mark of each group: (colour, plotly symbol).
        noun: Noun for a point: "file".
    """

    id: str
    title: str
    lead: str
    axes: Sequence[Axis]
    rows: Sequence[dict[str, Any]]
    x: str
    y: str
    groups: dict[str, tuple[str, str]] = field(default_factory=dict)
    noun: str = "file"


EXTRA_MARKS = (
    ("#117733", "hexagon"),
    ("#44AA99", "bowtie"),
    ("#F0E442", "star"),
    ("#8A8F99", "hourglass"),
    ("#4B0092", "pentagon"),
    ("#994F00", "hexagram"),
)
"""Marks of further groups, in order of appearance."""
SHARES = ("zeros", "sparsity")
_ENDS = {
    "latency_ms": ("latency_low_ms", "latency_high_ms"),
    "speedup": ("speedup_low", "speedup_high"),
}


def build_file_points(report: Report) -> Points | None:
    """Return the exported files as points; None if there are none.

    Args:
        report: The report with the files.
    """
    if not report.rows:
        return None
    metric_names = set(report.qualities)
    bounds = {key for both in _ENDS.values() for key in both}
    file_columns = [item for item in list_columns(report) if item.key not in bounds]
    val_key = f"val_{report.main}"
    axes = [
        Axis("format", "Format", OTHER, "Of the file.", drawn=False),
        Axis(
            val_key, f"Validation {report.main}", COST if report.main in ERRORS else QUALITY,
            "measured: of the exported file itself, on the validation part: it chooses.",
            ".1%" if is_share(report.main) else "~r",
        ),
        *(_build_axis(item, item.key in metric_names, report) for item in file_columns),
    ]  # fmt: skip
    titles_by_file: dict[str, list[str]] = {}
    for item in select_files(report).files:
        titles_by_file.setdefault(item.row.artifact.id, []).append(item.title)
    front = {name for section in report.sections for name in section.front}
    rows = [
        _build_row(report, row, file_columns, val_key, titles_by_file, front)
        for row in sort_rows(report, select_files(report))
    ]
    groups = _assign_marks([row["group"] for row in rows])
    timed = any(row.latency for row in report.rows)
    notes = [describe_metrics(report), describe_conditions(report), *format_other_runtimes(report)]
    return Points(
        "files",
        "Exported files",
        " ".join(notes),
        axes,
        rows,
        "latency_ms" if timed else "gzip_bytes",
        val_key if all(row["values"][val_key] is not None for row in rows) else report.main,
        groups,
    )


def _build_axis(column: Column, is_metric: bool, report: Report) -> Axis:
    """Return the plot axis of a file's figure: its role, tick format and interval keys."""
    higher_is_better = column.key in ("speedup", report.main) or (
        is_metric and not has_unit(column.key)
    )
    # compiled Keras metrics (with ":" in the key) may be better either way
    role = QUALITY if higher_is_better else OTHER if ":" in column.key else COST
    low, high = _ENDS.get(column.key, ("", ""))
    if column.key == report.main:
        low, high = "test_low", "test_high"
    by_unit = {"B": "~s", "ms": "~s", "x": ".3~r"}
    tick = by_unit.get(column.unit, "~s" if role == COST else "~r")
    # columns that the table shows initially
    shown = ("macs", "size_bytes", "gzip_bytes", "latency_ms", "speedup", report.main)
    share = (is_metric and is_share(column.key)) or column.key in SHARES
    return Axis(
        column.key,
        f"Test {_lower_first(column.title)}" if is_metric else column.title,
        OTHER if column.key in SHARES else role,
        f"{column.kind}: {column.how}",
        ".1%" if share else tick,
        f" {column.unit}" if column.unit in ("B", "ms") else column.unit,
        low,
        high,
        column.key in shown,
    )


def _build_row(
    report: Report, row: Row, file_columns: list[Column], val_key: str,
    titles_by_file: dict[str, list[str]], front: set[str],
) -> dict[str, Any]:  # fmt: skip
    """Return an exported file as a point: values, texts by column, and tags of the selection."""
    item, timed = row.artifact, row.latency
    values: dict[str, Any] = {column.key: column.get(row) for column in file_columns}
    values[val_key] = item.val.get(report.main)
    ends = report.interval(row, report.main)
    values["test_low"], values["test_high"] = ends or (None, None)
    if timed is not None:
        values |= {
            "latency_low_ms": timed.low_ms, "latency_high_ms": timed.high_ms,
            "speedup_low": timed.ratio_low, "speedup_high": timed.ratio_high,
        }  # fmt: skip
    texts = {column.key: _format_cell(report, row, column) for column in file_columns}
    texts[val_key] = formatting.format_metric(report.main, values[val_key])
    texts["format"] = format_kind(item.variant, item.format)
    # the front of the search can differ from the front of the exported files
    tags = [
        *titles_by_file.get(item.id, ()),
        *(["on the search's front"] if item.model in front else []),
    ]
    return {
        "id": item.id,
        "model": item.model,
        "group": format_kind(item.variant, item.format),
        "counts": True,
        "tags": tags,
        "values": values,
        "texts": texts,
    }


def _format_cell(report: Report, row: Row, column: Column) -> str:
    """Return the text of a cell, with the interval if the figure has one."""
    value = column.get(row)
    if value is None:
        return "-"
    if column.key in report.qualities:
        ends = formatting.format_interval(column.key, report.interval(row, column.key))
        return f"{formatting.format_metric(column.key, value)} {ends}".strip()
    if column.key in _ENDS:
        format_with_interval = (
            formatting.format_latency if column.key == "latency_ms" else formatting.format_speedup
        )
        return format_with_interval(row.latency)
    by_unit = {"ms": formatting.format_time, "B": formatting.format_size}
    format_plain = (
        formatting.format_percent
        if column.key in SHARES
        else by_unit.get(column.unit, formatting.format_count)
    )
    text = format_plain(value)
    return f"{text} +?" if column.key == "macs" and row.artifact.unsupported else text


def _lower_first(title: str) -> str:
    """Return a title for the middle of a line: "accuracy", but "F1"."""
    return title if title[1:2].isupper() or title[1:2].isdigit() else title[:1].lower() + title[1:]


def _assign_marks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, plotly symbol) by group: that of the PNG plots, or a further one."""
    # matplotlib marker -> plotly symbol
    symbols = {
        "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond",
        "P": "cross", "X": "x",
    }  # fmt: skip
    plot_marks = {
        format_kind(variant, kind): (colour, symbols[marker])
        for (variant, kind), (colour, marker) in STYLES.items()
    }
    seen = list(dict.fromkeys(names))
    further_names = [name for name in seen if name not in plot_marks]
    further_marks = {
        name: EXTRA_MARKS[index % len(EXTRA_MARKS)] for index, name in enumerate(further_names)
    }
    return {name: plot_marks.get(name) or further_marks[name] for name in seen}

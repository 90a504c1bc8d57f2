"""Charts and points of the page: plotly draws them, the page themes and selects.

The exported files of a report are such points: every figure of every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.data.tasks import ERRORS, in_units, is_share
from compress.measure import formats
from compress.report.columns import Column, columns
from compress.report.plot import STYLES
from compress.report.rows import Report, Row
from compress.report.standouts import standouts
from compress.report.words import conditions, judged, other_runtimes

Trace = dict[str, Any]
QUALITY, COST, OTHER = "quality", "cost", "other"


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: Different for each chart of a page.
        title: Above it.
        caption: Below it.
        traces: plotly's, of the kinds that its basic bundle knows (scatter, bar). `meta` of a
            trace names the model that it shows ("model"), or its points ("points", "models"): a
            click selects that, and what is selected stands out.
        layout: plotly's; colours and fonts are the page's.
        wide: Over the whole width of the page.
        model: Of one model alone: it is shown with that model's card; "": of all.
        variants: Ways to colour the marks, of which one is chosen: "name", and "colours" by the
            place of a trace.
    """

    id: str
    title: str
    caption: str
    traces: Sequence[Trace]
    layout: dict[str, Any] = field(default_factory=dict)
    wide: bool = False
    model: str = ""
    variants: Sequence[dict[str, Any]] = ()


def line(x: Sequence[Any], y: Sequence[Any], name: str, **more: Any) -> Trace:
    """Return a line.

    Args:
        x, y: Its points.
        name: Of what it shows.
        **more: Further keys of the trace.
    """
    return {"type": "scatter", "mode": "lines", "x": [*x], "y": [*y], "name": name, **more}


@dataclass(frozen=True)
class Axis:
    """One figure that points have.

    Attributes:
        key: In rows.
        title: Heading.
        role: "quality" (the higher the better), "cost" (the lower the better), "other".
        how: What it is, in a sentence, and whether it is measured or counted.
        tick: How plotly writes its values ("~s", ".1%"); "": it is a text, and no axis.
        unit: Behind them.
        low, high: Keys of the ends of its interval; "": it has none.
        shown: Whether the table begins with it.
        drawn: Whether it can be an axis.
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
        id: Different for each set of a page.
        title: Above it.
        lead: What there is to say of all of them, in sentences.
        axes: Figures, in the order of the table's columns.
        rows: One point each: "id", "model" (which it is, or is made of), "group" (points of one
            have one mark), "counts" (whether fronts may hold it), "tags" (what it stands out by),
            "values" (numbers or null by key) and "texts" (what cells show).
        x, y: Keys of the axes that are drawn first.
        groups: Mark of each group: (colour, plotly's symbol).
        noun: What a point is: "file".
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


OTHERS = (
    ("#117733", "hexagon"),
    ("#CC79A7", "x"),
    ("#F0E442", "star"),
    ("#8A8F99", "triangle-down"),
    ("#4B0092", "pentagon"),
    ("#994F00", "hexagram"),
)
"""Marks of groups that the plot has none for, in the order in which they come."""
SHARES = ("zeros", "sparsity")
_ENDS = {
    "latency_ms": ("latency_low_ms", "latency_high_ms"),
    "speedup": ("speedup_low", "speedup_high"),
}


def file_points(report: Report) -> Points | None:
    """Return the files; None where there are none."""
    if not report.rows:
        return None
    qualities = set(report.qualities)
    bounds = {key for both in _ENDS.values() for key in both}
    of_files = [item for item in columns(report) if item.key not in bounds]
    validated = f"val_{report.main}"
    axes = [
        Axis("format", "Format", OTHER, "Of the file.", drawn=False),
        Axis(
            validated, f"Validation {report.main}", COST if report.main in ERRORS else QUALITY,
            "measured: of the exported file itself, on the validation part: it chooses.",
            ".1%" if is_share(report.main) else "~r",
        ),
        *(_axis(item, item.key in qualities, report) for item in of_files),
    ]  # fmt: skip
    stand: dict[str, list[str]] = {}
    for item in standouts(report).chosen:
        stand.setdefault(item.row.artifact.id, []).append(item.title)
    front = {name for section in report.sections for name in section.front}
    rows = [_row(report, row, of_files, validated, stand, front) for row in report.rows]
    groups = _groups([row["group"] for row in rows])
    timed = any(row.latency for row in report.rows)
    lead = [judged(report), conditions(report), *other_runtimes(report)]
    return Points(
        "files",
        "Exported files",
        " ".join(lead),
        axes,
        rows,
        "latency_ms" if timed else "gzip_bytes",
        validated if all(row["values"][validated] is not None for row in rows) else report.main,
        groups,
    )


def _axis(column: Column, quality: bool, report: Report) -> Axis:
    better = column.key in ("speedup", report.main) or (quality and not in_units(column.key))
    # of a metric that a model was compiled with it is not known which way is better
    role = QUALITY if better else OTHER if ":" in column.key else COST
    low, high = _ENDS.get(column.key, ("", ""))
    if column.key == report.main:
        low, high = "test_low", "test_high"
    by_unit = {"B": "~s", "ms": "~s", "x": ".3~r"}
    tick = by_unit.get(column.unit, "~s" if role == COST else "~r")
    # columns that the table begins with, beside the main quality
    shown = ("macs", "size_bytes", "gzip_bytes", "latency_ms", "speedup", report.main)
    share = (quality and is_share(column.key)) or column.key in SHARES
    return Axis(
        column.key,
        f"Test {column.title}" if quality else column.title,
        OTHER if column.key in SHARES else role,
        f"{column.kind}: {column.how}",
        ".1%" if share else tick,
        f" {column.unit}" if column.unit in ("B", "ms") else column.unit,
        low,
        high,
        column.key in shown,
    )


def _row(
    report: Report, row: Row, of_files: list[Column], validated: str,
    stand: dict[str, list[str]], front: set[str],
) -> dict[str, Any]:  # fmt: skip
    item, timed = row.artifact, row.latency
    values: dict[str, Any] = {column.key: column.get(row) for column in of_files}
    values[validated] = item.val.get(report.main)
    ends = report.interval(row, report.main)
    values["test_low"], values["test_high"] = ends or (None, None)
    if timed is not None:
        values |= {
            "latency_low_ms": timed.low_ms, "latency_high_ms": timed.high_ms,
            "speedup_low": timed.ratio_low, "speedup_high": timed.ratio_high,
        }  # fmt: skip
    texts = {column.key: _text(report, row, column) for column in of_files}
    texts[validated] = formats.quality(report.main, values[validated])
    texts["format"] = f"{item.variant} {item.format}"
    # the files of models on the search's front may not be on that of all files
    tags = [*stand.get(item.id, ()), *(["on the search's front"] if item.model in front else [])]
    return {
        "id": item.id,
        "model": item.model,
        "group": f"{item.variant} {item.format}",
        "counts": True,
        "tags": tags,
        "values": values,
        "texts": texts,
    }


def _text(report: Report, row: Row, column: Column) -> str:
    """Return a cell: of what has an interval, with it."""
    value = column.get(row)
    if value is None:
        return "-"
    if column.key in report.qualities:
        ends = formats.interval(column.key, report.interval(row, column.key))
        return f"{formats.quality(column.key, value)} {ends}".strip()
    if column.key in _ENDS:
        write = formats.latency if column.key == "latency_ms" else formats.speedup
        return write(row.latency)
    by_unit = {"ms": formats.time, "B": formats.size}
    plain = formats.percent if column.key in SHARES else by_unit.get(column.unit, formats.count)
    text = plain(value)
    return f"{text} +?" if column.key == "macs" and row.artifact.unsupported else text


def _groups(names: list[str]) -> dict[str, tuple[str, str]]:
    # plotly's names of the plot's markers
    symbols = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "P": "cross"}
    known = {
        f"{variant} {kind}": (colour, symbols[marker])
        for (variant, kind), (colour, marker, _) in STYLES.items()
    }
    seen = list(dict.fromkeys(names))
    rest = [name for name in seen if name not in known]
    others = {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(rest)}
    return {name: known.get(name) or others[name] for name in seen}

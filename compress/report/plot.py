"""The Pareto plot: quality against MACs, file size and measured latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compress.core.visible import short
from compress.report.canvas import GREY, INK, as_png, as_svg, drawing, finish
from compress.report.markup import Html
from compress.report.rows import Report, Row
from compress.run.records import COMPLETE
from compress.task import MEANING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Okabe & Ito 2008); markers differ too, so that grey prints read.
STYLES = {
    ("dense", "float32"): ("#0072B2", "o", "dense float32"),
    ("dense", "int8"): ("#56B4E9", "s", "dense int8"),
    ("pruned", "float32"): ("#D55E00", "^", "pruned float32"),
    ("pruned", "int8"): ("#E69F00", "D", "pruned int8"),
}
LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
LETTERS = 14
"""Of a name in a picture."""
ROOM = 3.0
"""Points of quality that stay below the lowest point which is never cut."""


def render_plot(report: Report) -> bytes:
    """Draws the report's plot as PNG.

    Args:
        report: From `load_report`.

    Returns:
        The file's content; equal reports give equal bytes.
    """
    with drawing("pareto"):
        return as_png(_figure(report))


def plot_svg(report: Report) -> Html:
    """Draws the same for the page.

    Args:
        report: From `load_report`.
    """
    with drawing("pareto"):
        return as_svg(_figure(report), "pareto")


def _figure(report: Report) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawers: list[Any] = []
    if any(item.state == COMPLETE for item in report.candidates):
        drawers.append(_search_panel)
    if report.rows:
        drawers.append(_size_panel)
        if any(row.latency for row in report.rows):
            drawers.append(_latency_panel)
        if not report.candidates:
            drawers.insert(0, _macs_panel)
    figure = Figure(figsize=(5.2 * max(1, len(drawers)), 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    for index, draw in enumerate(drawers):
        axes = figure.add_subplot(1, len(drawers), index + 1)
        draw(axes, report)
        finish(axes, columns=2)
        axes.margins(x=0.12, y=0.12)
    return figure


def _scale(axes: Axes, xs: Sequence[float], unit: str = "") -> None:
    """Sets a log axis where the values span a range, and readable ticks either way."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    if max(xs) / min(xs) >= LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(unit, sep=" "))


def _search_panel(axes: Axes, report: Report) -> None:
    quality, cost = report.objectives[:2]
    trained = {item.id: item for item in report.candidates if item.state == COMPLETE}
    rest = [item for name, item in trained.items() if name not in report.front]
    front = [trained[name] for name in report.front]
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
    _scale(axes, [getattr(item, cost) for item in trained.values()])
    cut_floor(axes, [item.val[quality] * 100 for item in trained.values()], heights)
    axes.set_title("Search: all trained candidates", color=INK)
    axes.set_xlabel("MACs (counted)" if cost == "macs" else f"{cost} (counted)")
    axes.set_ylabel(f"validation {quality} in %")


def cut_floor(axes: Axes, heights: list[float], shown: list[float]) -> None:
    """Cuts failures near chance off the picture, and says how many.

    Args:
        axes: What is drawn on.
        heights: Of all points, in %.
        shown: Heights that are never cut: what the picture is about.
    """
    best = max(heights)
    floor = best - max(12.0, 3.0 * (best - sorted(heights)[len(heights) // 2]))
    floor = min(floor, min(shown, default=best) - ROOM)
    hidden = sum(height < floor for height in heights)
    if hidden:
        axes.set_ylim(bottom=floor)
        axes.text(
            0.02, 0.02, f"{hidden} below {floor:.0f} %", transform=axes.transAxes, fontsize=8,
            color=GREY, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip


def _macs_panel(axes: Axes, report: Report) -> None:
    _files_panel(axes, report, "macs")
    axes.set_title("Exported files", color=INK)
    axes.set_xlabel("MACs (counted, zeros included)")


def _size_panel(axes: Axes, report: Report) -> None:
    _files_panel(axes, report, "size")
    axes.set_title("Exported files: size", color=INK)
    axes.set_xlabel("gzipped file (counted)")


def _latency_panel(axes: Axes, report: Report) -> None:
    _files_panel(axes, report, "latency")
    timed = next(row.latency for row in report.rows if row.latency)
    axes.set_title("Exported files: latency", color=INK)
    threads = f"{timed.threads} thread{'s' if timed.threads > 1 else ''}"
    runtime = short(timed.runtime.split(" (")[0], 2 * LETTERS)
    axes.set_xlabel(f"one inference (measured, {runtime}, {threads})")


def _position(row: Row, axis: str) -> float | None:
    if axis == "macs":
        return row.artifact.macs
    if axis == "size":
        return row.artifact.gzip_bytes
    return row.latency.median_ms / 1e3 if row.latency else None


def _files_panel(axes: Axes, report: Report, axis: str) -> None:
    placed = [(row, x) for row in report.rows if (x := _position(row, axis)) is not None]
    # from each model's dense float32 file a line to the files made of it
    origins = {row.artifact.id: (row, x) for row, x in placed}
    for row, x in placed:
        base, base_x = origins.get(row.artifact.baseline, (row, x))
        heights = [item.artifact.test[report.main] * 100 for item in (base, row)]
        axes.plot([base_x, x], heights, color="#d5d9e0", linewidth=0.9, zorder=1)
    for (variant, file_format), (color, marker, label) in STYLES.items():
        style = (variant, file_format)
        chosen = [
            (row, x) for row, x in placed if (row.artifact.variant, row.artifact.format) == style
        ]
        if not chosen:
            continue
        xs = [x for _, x in chosen]
        ys = [row.artifact.test[report.main] * 100 for row, _ in chosen]
        if axis == "latency":
            spans = [((row.latency.median_ms - row.latency.low_ms) / 1e3,
                      (row.latency.high_ms - row.latency.median_ms) / 1e3)
                     for row, _ in chosen if row.latency]  # fmt: skip
            axes.errorbar(xs, ys, xerr=list(zip(*spans, strict=True)), fmt="none",
                          ecolor=color, elinewidth=1, alpha=0.7)  # fmt: skip
        axes.scatter(xs, ys, s=38, color=color, marker=marker, label=label, zorder=3)
    # the files made of a model may have failed; the models themselves are the front
    models = [origins.get(row.artifact.baseline, (row, x))[0] for row, x in placed]
    heights, shown = (
        [row.artifact.test[report.main] * 100 for row in rows]
        for rows in ([row for row, _ in placed], models)
    )
    cut_floor(axes, heights, shown)
    _scale(axes, [x for _, x in placed], {"size": "B", "latency": "s"}.get(axis, ""))
    name = report.main if report.main == "accuracy" else MEANING[report.main][0]
    axes.set_ylabel(f"test {name} in %")

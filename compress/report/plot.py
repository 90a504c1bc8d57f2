"""The Pareto plot: quality against MACs, file size and measured latency of files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from compress.core.quantities import threads_text
from compress.core.visible import short
from compress.report.canvas import GREY, INK, as_png, as_svg, drawing, finish
from compress.report.rows import Report, Row
from compress.task import meaning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Okabe & Ito 2008); markers differ too, so that grey prints read.
STYLES = {
    ("dense", "float32"): ("#0072B2", "o", "dense float32"),
    ("dense", "int8"): ("#56B4E9", "s", "dense int8"),
    ("pruned", "float32"): ("#D55E00", "^", "pruned float32"),
    ("pruned", "int8"): ("#E69F00", "D", "pruned int8"),
    ("pruned", "int8-qat"): ("#009E73", "P", "pruned int8, trained so"),
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
        The file's content; equal reports give equal bytes. Empty where there is nothing to draw.
    """
    with drawing("pareto"):
        figure = _figure(report)
        return as_png(figure) if figure else b""


def plot_svg(report: Report) -> Markup:
    """Draws the same for the page.

    Args:
        report: From `load_report`.
    """
    with drawing("pareto"):
        figure = _figure(report)
        return as_svg(figure, "pareto") if figure else Markup()


def _figure(report: Report) -> Figure | None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawers = [panel for section in report.sections for panel in section.panels()]
    if report.rows:
        if not drawers:
            drawers.append(partial(_macs_panel, report=report))
        drawers.append(partial(_size_panel, report=report))
        if any(row.latency for row in report.rows):
            drawers.append(partial(_latency_panel, report=report))
    if not drawers:
        return None
    figure = Figure(figsize=(5.2 * len(drawers), 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    for index, draw in enumerate(drawers):
        axes = figure.add_subplot(1, len(drawers), index + 1)
        draw(axes)
        finish(axes, columns=2)
        axes.margins(x=0.12, y=0.12)
    return figure


def scale_costs(axes: Axes, xs: Sequence[float], unit: str = "") -> None:
    """Sets a log axis where the values span a range, and readable ticks either way.

    Args:
        axes: What is drawn on.
        xs: All values, above 0.
        unit: Of the values: "B", "s".
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    if max(xs) / min(xs) >= LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(unit, sep=" "))


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
    runtime = short(timed.runtime.split(" (")[0], 2 * LETTERS)
    axes.set_xlabel(f"one inference (measured, {runtime}, {threads_text(timed.threads)})")


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
    # the files made of a model may have failed; the models themselves are never cut
    models = [origins.get(row.artifact.baseline, (row, x))[0] for row, x in placed]
    heights, shown = (
        [row.artifact.test[report.main] * 100 for row in rows]
        for rows in ([row for row, _ in placed], models)
    )
    cut_floor(axes, heights, shown)
    scale_costs(axes, [x for _, x in placed], {"size": "B", "latency": "s"}.get(axis, ""))
    name = report.main if report.main == "accuracy" else meaning(report.main)[0]
    axes.set_ylabel(f"test {name} in %")

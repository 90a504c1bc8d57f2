"""PNG plots: the Pareto plot, and the shared drawing functions."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from compress.core.quantities import format_threads
from compress.core.summary import escape_text, truncate_end
from compress.data.tasks import describe_metric, is_share
from compress.report.report_data import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#8a8f98"
INK = "#1f2430"
# Colour-blind safe (Okabe & Ito 2008); markers differ too, for greyscale prints.
STYLES = {
    ("dense", "float32"): ("#0072B2", "o"),
    ("dense", "int8"): ("#56B4E9", "s"),
    ("pruned", "float32"): ("#D55E00", "^"),
    ("pruned", "int8"): ("#E69F00", "D"),
    ("pruned", "int8-qat"): ("#009E73", "P"),
    ("tuned", "float32"): ("#CC79A7", "v"),
    ("tuned", "int8"): ("#882255", "X"),
}
AXES = {
    "macs": ("Exported files", "MACs (counted, zeros included)"),
    "size": ("Exported files: size", "gzipped file (counted)"),
    "latency": ("Exported files: latency", "one inference (measured, {}, {})"),
}
"""Titles of the panels of files, and labels of their costs."""
LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
MAX_LETTERS = 14
"""Maximum length of a name in a plot."""


def format_kind(variant: str, file_format: str) -> str:
    """Return the kind of a file: "original float32", "pruned int8", "fine-tuned float32".

    Args:
        variant: Variant of the model, as recorded.
        file_format: Format of the file.
    """
    names = {"dense": "original", "tuned": "fine-tuned"}
    return f"{names.get(variant, variant)} {file_format}"


def render_plot(report: Report) -> bytes:
    """Return the Pareto plot: main metric against MACs, file size and latency of files.

    Args:
        report: From `load_report`.

    Returns:
        Content of a PNG file, equal for equal reports; empty if there is nothing to draw.
    """
    panels = [panel for section in report.sections for panel in section.list_panels()]
    if report.rows:
        shown = ["size"] if panels else ["macs", "size"]
        if any(row.latency for row in report.rows):
            shown.append("latency")
        panels += [partial(_draw_files_panel, report=report, axis=axis) for axis in shown]
    if not panels:
        return b""
    size = (5.2 * len(panels), 4.9)
    return render_png(size, [partial(_draw_styled, panel=panel) for panel in panels])


def render_png(size: tuple[float, float], panels: Sequence[Callable[[Axes], None]]) -> bytes:
    """Return a figure of panels side by side.

    Args:
        size: Width and height in inches.
        panels: Functions that each draw on their axes.

    Returns:
        Content of a PNG file, equal for equal drawings.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    # a dollar sign in a name must not start a formula
    settings: dict[Any, Any] = {"font.size": 10, "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # names come from users: a character that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for index, draw in enumerate(panels):
            draw(figure.add_subplot(1, len(panels), index + 1))
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            # matplotlib cannot draw lone surrogates
            text.set_text(escape_text(text.get_text()))
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=150, metadata={"Software": None})
    return sink.getvalue()


def _draw_styled(axes: Axes, panel: Callable[[Axes], None]) -> None:
    """Draw a panel in the report's style, with its legend below."""
    panel(axes)
    axes.grid(True, which="major", color="#e3e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8bdc7")
    axes.tick_params(colors=INK, which="both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16)
        )
    axes.margins(x=0.12, y=0.12)


def scale_cost_axis(axes: Axes, xs: Sequence[float], unit: str = "") -> None:
    """Set a logarithmic x axis if the values span a wide range, and readable ticks.

    Args:
        axes: Axes of the panel.
        xs: All values, above 0.
        unit: Unit of the values: "B", "s".
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    if max(xs) >= LOG_FROM * min(xs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(unit, sep=" "))


def get_metric_unit(name: str) -> tuple[float, str]:
    """Return the factor and the unit by which plots show a metric: shares are in %.

    Args:
        name: Name of the metric.
    """
    return (100.0, " %") if is_share(name) else (1.0, "")


def format_metric_axis(text: str, name: str) -> str:
    """Return the title of a metric's axis, with its unit: "test accuracy in %", "test R2".

    Args:
        text: Description of the metric.
        name: Name of the metric.
    """
    return f"{text} in %" if is_share(name) else text


def cut_failures(
    axes: Axes, heights: list[float], shown: list[float], unit: tuple[float, str] = (100.0, " %")
) -> None:
    """Crop points far below the best one from the panel and write their number into it.

    The limit is 12 percentage points below the best, or three times the distance of the median.

    Args:
        axes: Axes of the panel.
        heights: Heights of all points.
        shown: Heights that are never cropped.
        unit: See `get_metric_unit`.
    """
    factor, sign = unit
    best = max(heights)
    floor = best - max(0.12 * factor, 3.0 * (best - sorted(heights)[len(heights) // 2]))
    # leave room below the lowest point that is never cropped
    floor = min(floor, min(shown, default=best) - 0.03 * factor)
    hidden = sum(height < floor for height in heights)
    if hidden:
        axes.set_ylim(bottom=floor)
        axes.text(
            0.02, 0.02, f"{hidden} below {floor:.3g}{sign}", transform=axes.transAxes, fontsize=8,
            color=GREY, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip


def _read_cost(row: Row, axis: str) -> float | None:
    if axis == "latency":
        return row.latency.median_ms / 1e3 if row.latency else None
    return row.artifact.macs if axis == "macs" else row.artifact.gzip_bytes


def _draw_files_panel(axes: Axes, report: Report, axis: str) -> None:
    """Draw the test metric of all files over one cost, each joined to its original by a line."""
    points = [(row, x) for row in report.rows if (x := _read_cost(row, axis)) is not None]
    factor, _ = unit = get_metric_unit(report.main)
    # connect each model's original float32 file with the files made from it
    origins = {row.artifact.id: (row, x) for row, x in points}
    for row, x in points:
        base, base_x = origins.get(row.artifact.baseline, (row, x))
        heights = [item.artifact.test[report.main] * factor for item in (base, row)]
        axes.plot([base_x, x], heights, color="#d5d9e0", linewidth=0.9, zorder=1)
    for style, (color, marker) in STYLES.items():
        styled_points = [
            (row, x) for row, x in points if (row.artifact.variant, row.artifact.format) == style
        ]
        if not styled_points:
            continue
        xs = [x for _, x in styled_points]
        ys = [row.artifact.test[report.main] * factor for row, _ in styled_points]
        if axis == "latency":
            spans = [((row.latency.median_ms - row.latency.low_ms) / 1e3,
                      (row.latency.high_ms - row.latency.median_ms) / 1e3)
                     for row, _ in styled_points if row.latency]  # fmt: skip
            axes.errorbar(xs, ys, xerr=list(zip(*spans, strict=True)), fmt="none",
                          ecolor=color, elinewidth=1, alpha=0.7)  # fmt: skip
        axes.scatter(xs, ys, s=38, color=color, marker=marker, label=format_kind(*style), zorder=3)
    # compressed files may have failed; the original models are never cropped
    models = [origins.get(row.artifact.baseline, (row, x))[0] for row, x in points]
    heights, shown = (
        [row.artifact.test[report.main] * factor for row in rows]
        for rows in ([row for row, _ in points], models)
    )
    cut_failures(axes, heights, shown, unit)
    scale_cost_axis(axes, [x for _, x in points], {"size": "B", "latency": "s"}.get(axis, ""))
    title, costs = AXES[axis]
    if axis == "latency":
        timed = next(row.latency for row, _ in points if row.latency)
        runtime = truncate_end(timed.runtime.split(" (")[0], 2 * MAX_LETTERS)
        costs = costs.format(runtime, format_threads(timed.threads))
    axes.set_title(title, color=INK)
    axes.set_xlabel(costs)
    name = report.main if report.main == "accuracy" else describe_metric(report.main)[0]
    axes.set_ylabel(format_metric_axis(f"test {name}", report.main))

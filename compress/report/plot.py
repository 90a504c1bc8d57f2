"""Pictures as PNG: the Pareto plot, and what all of them have in common."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from compress.core.quantities import threads_text
from compress.core.summary import short, visible
from compress.data.tasks import meaning
from compress.report.rows import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#8a8f98"
INK = "#1f2430"
# Colour-blind safe (Okabe & Ito 2008); markers differ too, so that grey prints read.
STYLES = {
    ("dense", "float32"): ("#0072B2", "o", "dense float32"),
    ("dense", "int8"): ("#56B4E9", "s", "dense int8"),
    ("pruned", "float32"): ("#D55E00", "^", "pruned float32"),
    ("pruned", "int8"): ("#E69F00", "D", "pruned int8"),
    ("pruned", "int8-qat"): ("#009E73", "P", "pruned int8, trained so"),
}
AXES = {
    "macs": ("Exported files", "MACs (counted, zeros included)"),
    "size": ("Exported files: size", "gzipped file (counted)"),
    "latency": ("Exported files: latency", "one inference (measured, {}, {})"),
}
"""Titles of the panels of files, and labels of their costs."""
LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
LETTERS = 14
"""Of a name in a picture."""


def has_plot(report: Report) -> bool:
    """Tell whether `render_plot` has anything to draw."""
    return bool(report.rows) or any(section.panels() for section in report.sections)


def render_plot(report: Report) -> bytes:
    """Draw the Pareto plot: quality against MACs, file size and measured latency of files.

    Args:
        report: From `load_report`.

    Returns:
        The content of a PNG file; equal reports give equal bytes. Empty if there is nothing to
        draw.
    """
    panels = [panel for section in report.sections for panel in section.panels()]
    if report.rows:
        shown = ["size"] if panels else ["macs", "size"]
        if any(row.latency for row in report.rows):
            shown.append("latency")
        panels += [partial(_files_panel, report=report, axis=axis) for axis in shown]
    if not panels:
        return b""
    size = (5.2 * len(panels), 4.9)
    return render_png(size, [partial(_styled, panel=panel) for panel in panels])


def render_png(size: tuple[float, float], panels: Sequence[Callable[[Axes], None]]) -> bytes:
    """Draw panels side by side.

    Args:
        size: Width and height in inches.
        panels: Each fills its axes.

    Returns:
        The content of a PNG file; equal drawings give equal bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    # a dollar in a name begins no formula
    settings: dict[Any, Any] = {"font.size": 10, "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # names are the user's: a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for index, draw in enumerate(panels):
            draw(figure.add_subplot(1, len(panels), index + 1))
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            # matplotlib draws no half of a pair
            text.set_text(visible(text.get_text()))
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=150, metadata={"Software": None})
    return sink.getvalue()


def _styled(axes: Axes, panel: Callable[[Axes], None]) -> None:
    """Draw a panel in the report's look, with its legend below."""
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


def scale_costs(axes: Axes, xs: Sequence[float], unit: str = "") -> None:
    """Set a log axis where the values span a range, and readable ticks either way.

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
    """Cut failures near chance off the picture and write their number into it.

    Args:
        axes: What is drawn on.
        heights: Of all points, in %.
        shown: Heights that are never cut: what the picture is about.
    """
    best = max(heights)
    floor = best - max(12.0, 3.0 * (best - sorted(heights)[len(heights) // 2]))
    # some room below the lowest point that is never cut
    floor = min(floor, min(shown, default=best) - 3.0)
    hidden = sum(height < floor for height in heights)
    if hidden:
        axes.set_ylim(bottom=floor)
        axes.text(
            0.02, 0.02, f"{hidden} below {floor:.0f} %", transform=axes.transAxes, fontsize=8,
            color=GREY, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip


def _position(row: Row, axis: str) -> float | None:
    if axis == "latency":
        return row.latency.median_ms / 1e3 if row.latency else None
    return row.artifact.macs if axis == "macs" else row.artifact.gzip_bytes


def _files_panel(axes: Axes, report: Report, axis: str) -> None:
    placed = [(row, x) for row in report.rows if (x := _position(row, axis)) is not None]
    # from each model's dense float32 file a line to the files made of it
    origins = {row.artifact.id: (row, x) for row, x in placed}
    for row, x in placed:
        base, base_x = origins.get(row.artifact.baseline, (row, x))
        heights = [item.artifact.test[report.main] * 100 for item in (base, row)]
        axes.plot([base_x, x], heights, color="#d5d9e0", linewidth=0.9, zorder=1)
    for style, (color, marker, label) in STYLES.items():
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
    title, costs = AXES[axis]
    if axis == "latency":
        timed = next(row.latency for row, _ in placed if row.latency)
        runtime = short(timed.runtime.split(" (")[0], 2 * LETTERS)
        costs = costs.format(runtime, threads_text(timed.threads))
    axes.set_title(title, color=INK)
    axes.set_xlabel(costs)
    name = report.main if report.main == "accuracy" else meaning(report.main)[0]
    axes.set_ylabel(f"test {name} in %")

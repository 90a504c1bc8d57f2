"""A picture of a repair: each layer's error before and after, along the depth of the net."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from compress.core.visible import tail
from compress.reconstruction.report import KEPT, LayerRepair, RepairReport
from compress.report.canvas import GREY, INK, draw_svg, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 24
"""Layers that are named below the axis; of more, they are numbered."""
LETTERS = 16
"""Of a name."""
LEAST = 1e-6
"""An error of less is drawn here: on a logarithmic axis it would squeeze the others."""


def depth_svg(report: RepairReport, name: str) -> Markup:
    """Draws the errors of a repair; nothing where fewer than two layers were broken.

    Layers in front of which nothing is broken have no error, and no place.

    Args:
        report: Of the repair.
        name: Different for each picture of a page.
    """
    layers = [layer for layer in report.layers if layer.before]
    if len(layers) < 2:
        return Markup()
    return draw_svg(name, (5.2, 3.4), partial(_errors, layers=layers))


def _errors(axes: Axes, layers: list[LayerRepair]) -> None:
    before = [max(layer.before or 0.0, LEAST) for layer in layers]
    after = [max(layer.after or 0.0, LEAST) for layer in layers]
    places = list(range(1, len(layers) + 1))
    axes.vlines(places, after, before, color="#d5d9e0", linewidth=1.2, zorder=1)
    axes.scatter(places, before, s=26, facecolors="none", edgecolors=GREY, label="before")
    axes.scatter(places, after, s=26, color="#0072B2", label="repaired", zorder=3)
    kept = [place for place, layer in enumerate(layers) if layer.state == KEPT]
    if kept:
        axes.scatter(
            [places[place] for place in kept], [after[place] for place in kept], s=26,
            marker="x", color="#D55E00", label="kept as it was", zorder=4,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("error on examples held back\n/ spread of the output", color=INK)
    axes.set_xlabel("layer, in the order of the net", color=INK)
    if len(layers) <= NAMED:
        axes.set_xticks(
            places, [tail(layer.name, LETTERS) for layer in layers], rotation=90, fontsize=7
        )
        axes.set_xlabel("")
    finish(axes, "y")
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

"""SVG pictures that stand in the page itself."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GREY = "#8a8f98"
INK = "#1f2430"


def draw_svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """Draws one pair of axes as an `<svg>` element.

    Args:
        name: Different for each picture of a page.
        size: Width and height in inches; 5.2 wide reads on a screen of 480 pixels.
        draw: Fills the axes.

    Returns:
        The element; equal drawings give equal text.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {"svg.hashsalt": name, "svg.fonttype": "path", "font.size": 10}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # names are the user's: a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue().decode("utf-8")
    # matplotlib numbers its ids anew in each picture: on one page they would meet
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg") :])


def finish(axes: Axes, grid: Literal["both", "x", "y"] = "both", columns: int = 3) -> None:
    """Gives axes the report's look.

    Args:
        axes: Drawn.
        grid: Across which axes its lines are.
        columns: Of the legend, below the axes.
    """
    axes.grid(True, axis=grid, which="major", color="#e3e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8bdc7")
    axes.tick_params(colors=INK, which="both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False,
            fontsize=9,
            ncols=columns,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
        )

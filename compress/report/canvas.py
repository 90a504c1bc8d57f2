"""Drawing: the look of all pictures, and SVG that may stand in a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from markupsafe import Markup

from compress.core.visible import visible
from compress.report.markup import ATTRIBUTES, TAGS, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


GREY = "#8a8f98"
INK = "#1f2430"


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Sets matplotlib up while the context lasts.

    Args:
        name: Different for each picture; equal drawings of one name give equal bytes.
    """
    import matplotlib

    # a dollar in a name begins no formula
    settings: dict[Any, Any] = {
        "svg.hashsalt": name, "svg.fonttype": "path", "font.size": 10, "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # names are the user's: a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def draw_svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> Markup:
    """Draws one pair of axes as an `<svg>` element.

    Args:
        name: Different for each picture of a page.
        size: Width and height in inches; 5.2 wide reads on a screen of 480 pixels.
        draw: Fills the axes.

    Returns:
        The element; equal drawings give equal text.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawing(name):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        return as_svg(figure, name)


def as_svg(figure: Figure, name: str) -> Markup:
    """Returns a drawn figure as an `<svg>` element.

    Text is drawn as outlines, its words become labels (matplotlib leaves them as comments).
    Styles become attributes: a page whose policy allows no inline style shows the picture all
    the same.

    Args:
        figure: Drawn within `drawing`.
        name: See `draw_svg`.
    """
    text = _saved(figure, "svg", {"Date": None}).decode("utf-8")
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    parser.feed(text[text.index("<svg") :])
    return _rebuilt(parser.close(), f"{name}-")


def as_png(figure: Figure) -> bytes:
    """Returns a drawn figure as the content of a PNG file; see `as_svg`."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, file_format: str, metadata: dict[str, str | None]) -> bytes:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        # matplotlib draws no half of a pair, and writes control characters into SVG as they are
        text.set_text(visible(text.get_text()))
    sink = io.BytesIO()
    figure.savefig(sink, format=file_format, dpi=150, metadata=metadata)
    return sink.getvalue()


def _rebuilt(node: ElementTree.Element, prefix: str) -> Markup:
    """Makes a picture's element anew, from what pages have."""
    tag = _local(node.tag)
    attributes: dict[str, str] = {}
    if tag == "svg":
        # matplotlib's own style sheet, which would hold for the whole page
        attributes = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    for key, value in node.attrib.items():
        if key == "style":
            rules = (rule.partition(":") for rule in value.split(";") if rule.strip())
            attributes |= {name.strip(): content.strip() for name, _, content in rules}
        else:
            attributes[_local(key)] = value
    shown = {key: value for key, value in attributes.items() if key in ATTRIBUTES}
    # matplotlib numbers its ids anew in each picture: on one page they would meet
    for key in ("id", "href", "clip-path"):
        if key in shown:
            shown[key] = re.sub(r"^(url\(#|#|)", rf"\g<1>{prefix}", shown[key])
    children = []
    for child in node:
        name: object = child.tag
        if name is ElementTree.Comment:
            shown["aria-label"] = unescape(child.text or "").strip()
        elif _local(child.tag) in TAGS:
            children.append(_rebuilt(child, prefix))
    return element(tag, *children, **shown)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


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

"""HTML that cannot be injected into: pages are made of elements, and a string is always text.

Everything that a page shows passes through `element`. A plain string given to it is escaped,
whoever wrote it; only what `element` itself returned is taken as markup. Elements and attributes
that are not in the lists below do not exist: no script, no event handler, no address, no style.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from compress.core.visible import visible


@dataclass(frozen=True)
class Html:
    """Markup. Only this module makes it, from text that it has escaped.

    Attributes:
        source: As it stands in the page.
    """

    source: str

    def __str__(self) -> str:
        # in an f-string it would become text, and be escaped: a tag that shows, no hole
        raise TypeError("Markup is put into a page with element(), not with str() or an f-string.")

    def __bool__(self) -> bool:
        return bool(self.source)


Content: TypeAlias = "Html | str | int | Iterable[Content] | None"

TAGS = frozenset(
    (
        "b", "body", "br", "code", "dd", "details", "div", "dl", "dt", "figcaption", "figure",
        "h1", "h2", "h3", "head", "html", "li", "main", "meta", "p", "pre", "small", "span",
        "summary", "table", "tbody", "td", "th", "thead", "title", "tr", "ul", "svg", "g",
        "defs", "path", "use", "clipPath", "rect", "circle", "line", "polyline", "polygon",
        "ellipse",
    )
)  # fmt: skip
_VOID = frozenset(("meta", "br"))
ATTRIBUTES = frozenset(
    (
        "aria-label", "charset", "class", "content", "http-equiv", "id", "lang", "name", "role",
        "viewBox", "width", "height", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx",
        "ry", "d", "points", "transform", "clip-path", "clip-rule", "fill", "fill-opacity",
        "fill-rule", "opacity", "stroke", "stroke-dasharray", "stroke-dashoffset",
        "stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "stroke-opacity",
        "stroke-width", "href",
    )
)  # fmt: skip
_INSIDE = re.compile(r"#[\w.-]+|url\(#[\w.-]+\)")
_POINTING = ("href", "clip-path")


def element(tag: str, *children: Content, **attributes: str) -> Html:
    """Returns an element.

    Args:
        tag: One of `TAGS`.
        children: Strings and numbers, which are escaped; markup; sequences of these; None and
            empty markup leave nothing.
        attributes: From `ATTRIBUTES`, values are escaped; `class_` and `aria_label` stand for
            what Python cannot call so. Pointers (`href`, `clip-path`) lead inside the page.

    Raises:
        ValueError: An element or attribute that pages do not have, or a pointer that leads out.
    """
    if tag not in TAGS:
        raise ValueError(f"Pages have no element '{tag}'.")
    shown = []
    for given, value in attributes.items():
        name = given.rstrip("_").replace("_", "-")
        if name not in ATTRIBUTES:
            raise ValueError(f"Elements of a page have no attribute '{name}'.")
        if name in _POINTING and not _INSIDE.fullmatch(value):
            raise ValueError(f"'{name}' must point inside the page. Received: {value}.")
        shown.append(f' {name}="{escape(visible(value))}"')
    start = f"<{tag}{''.join(shown)}>"
    return Html(start if tag in _VOID else f"{start}{joined(children).source}</{tag}>")


def joined(content: Content, between: str = "") -> Html:
    """Returns several pieces as one.

    Args:
        content: See `element`.
        between: Text between the pieces; none around empty ones.
    """
    if isinstance(content, Html):
        return content
    if content is None or content == "":
        return Html("")
    if isinstance(content, str | int):
        return Html(escape(visible(content)))
    pieces = [piece.source for item in content if (piece := joined(item))]
    return Html(escape(between).join(pieces))


def document(title: str, policy: str, style: str, *body: Content) -> str:
    """Returns a whole page.

    Args:
        title: As plain text.
        policy: The Content-Security-Policy.
        style: The style sheet, ours; the one thing that is not escaped.
        body: What is in it.
    """
    if "<" in style:
        raise ValueError("A style sheet must hold no markup.")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f"<style>{style}</style>"),
    )
    page = element("html", head, element("body", element("main", *body)), lang="en")
    return f"<!doctype html>\n{page.source}\n"


def paragraph(*children: Content, soft: bool = False) -> Html:
    """Returns a paragraph; a soft one stands back."""
    return element("p", *children, **({"class": "soft"} if soft else {}))


def items(lines: Iterable[Content]) -> Html:
    """Returns a list with a point before each line; nothing for no line."""
    points = [element("li", line) for line in lines]
    return element("ul", *points) if points else Html("")


def folded(summary: str, *children: Content) -> Html:
    """Returns what opens on a click."""
    return element("details", element("summary", summary), *children)


def lines(first: Content, second: Content) -> Html:
    """Returns one above the other, the second one small; tables stay narrow enough so."""
    if second is None or second == "":
        return joined(first)
    return joined([first, element("br"), element("small", second)])


def row(cells: Sequence[Content], kind: str = "", wrapped: Sequence[int] = ()) -> Html:
    """Returns a row of a table.

    Args:
        cells: One a column.
        kind: Class of the row.
        wrapped: Columns whose text may take several lines.
    """
    made = [
        element("td", cell, **({"class": "wrap"} if place in wrapped else {}))
        for place, cell in enumerate(cells)
    ]
    return element("tr", *made, **({"class": kind} if kind else {}))


def table(heads: Sequence[str], rows: Sequence[Html], left: int = 1) -> Html:
    """Returns a table that scrolls in its box where the screen is narrower.

    Args:
        heads: Headings.
        rows: From `row`.
        left: How many columns from the first are aligned to the left.
    """
    cells = [
        element("th", head, **({"class": "left"} if place < left else {}))
        for place, head in enumerate(heads)
    ]
    made = element("table", element("thead", element("tr", *cells)), element("tbody", *rows))
    return element("div", made, class_="scroll")


def picture(svg: Html, label: str, caption: str, kind: str = "small") -> Html:
    """Returns a picture in its box with words below; nothing for an empty picture.

    Args:
        svg: From `canvas`.
        label: What it shows, for those who do not see it.
        caption: Below it.
        kind: "small" pictures read at any width, "wide" ones scroll on a narrow screen.
    """
    if not svg:
        return svg
    return element(
        "figure",
        element("div", svg, class_=kind, role="img", aria_label=label),
        element("figcaption", caption),
        class_=f"plot {kind}",
    )

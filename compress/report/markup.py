"""Pieces of the HTML page that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(heads: Sequence[str], rows: Sequence[str], left: int = 1) -> str:
    """Returns a table that scrolls in its box where the screen is narrower.

    Args:
        heads: Headings, as plain text.
        rows: `<tr>` elements.
        left: How many columns from the first are aligned to the left.
    """
    cells = "".join(
        f"<th{' class=left' if index < left else ''}>{escape(head)}</th>"
        for index, head in enumerate(heads)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def picture(svg: str, label: str, caption: str, kind: str = "small") -> str:
    """Returns a picture in its box with words below; "" for an empty picture.

    Args:
        svg: The `<svg>` element.
        label: What it shows, for those who do not see it.
        caption: As plain text.
        kind: "small" pictures read at any width, "wide" ones scroll on a narrow screen.
    """
    if not svg:
        return ""
    return (
        f'<figure class="plot {kind}"><div class="{kind}" role="img" aria-label="{escape(label)}">'
        f"{svg}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )

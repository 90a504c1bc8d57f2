"""Tables and lines for the terminal in which names are names: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from compress.core.visible import line


def said(text: object, style: str = "") -> Text:
    """Returns one line as it is: brackets are no markup, control characters are spelled out.

    Args:
        text: Whatever is to be read.
        style: Of rich: "dim", "bold".
    """
    return Text(line(text), style=style)


class Grid(Table):
    """A table of the report.

    Args:
        title: Above it.
        heads: Of the columns.
        left: Those that are aligned to the left; the others stand right.
        title_left: Whether the title stands left.
    """

    def __init__(
        self,
        title: str,
        heads: Sequence[str],
        left: Sequence[str] = (),
        *,
        title_left: bool = False,
    ) -> None:
        super().__init__(
            title=said(title) if title else None,
            box=box.SIMPLE_HEAD,
            title_justify="left" if title_left else "center",
        )
        for head in heads:
            self.add_column(said(head), justify="left" if head in left else "right")

    def put(self, cells: Sequence[object]) -> None:
        """Adds a row of plain texts."""
        self.add_row(*map(said, cells))

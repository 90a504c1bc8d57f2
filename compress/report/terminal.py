"""Tables and lines for the terminal in which names are names: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from compress.core.summary import line

GAP = 2
"""Columns between two columns of a table."""
NARROWEST = 12
"""Columns that a column keeps where not even the names fit: they go on in the next line then."""


def said(text: object, style: str = "") -> Text:
    """Returns one line as it is: brackets are no markup, control characters are spelled out.

    Args:
        text: Whatever is to be read.
        style: Of rich: "dim", "bold".
    """
    return Text(line(text), style=style)


@dataclass
class Grid:
    """A table of the report that suits the terminal's width.

    Nothing in it is ever cut. Where it is too wide, columns are left out, in the order of `drop`,
    and a line says which; then intervals go under their figures; a name that is wider than all
    there is goes on in the next line.

    Attributes:
        title: Above it.
        heads: Of the columns.
        left: Those that are aligned to the left; the others stand right.
        title_left: Whether the title stands left.
        wrap: Columns of several words: they may take several lines.
        drop: Columns that may be left out, the least important first.
        same: Columns that may be left out after these, where all rows say the same.
        elsewhere: A sentence that says where the rest stands.
    """

    title: str
    heads: Sequence[str]
    left: Sequence[str] = ()
    title_left: bool = False
    wrap: Sequence[str] = ()
    drop: Sequence[str] = ()
    same: Sequence[str] = ()
    elsewhere: str = ""
    _rows: list[tuple[str, ...]] = field(default_factory=list, init=False)
    _sections: set[int] = field(default_factory=set, init=False)

    def put(self, cells: Sequence[object]) -> None:
        """Adds a row of plain texts."""
        self._rows.append(tuple(line(cell) for cell in cells))

    def add_section(self) -> None:
        """Puts space behind the last row."""
        self._sections.add(len(self._rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws the table in the width that there is."""
        widths, stacked = self._fitted(options.max_width)
        table = Table(
            title=said(self.title) if self.title else None,
            box=box.SIMPLE_HEAD,
            title_justify="left" if self.title_left else "center",
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - 1, 0, 0),
        )
        for place, width in widths.items():
            head = self.heads[place]
            side = "left" if head in self.left else "right"
            table.add_column(said(head), justify=side, width=width, overflow="fold")  # type: ignore[arg-type]
        for number, row in enumerate(self._rows):
            table.add_row(*(Text(self._cell(row, place, stacked)) for place in widths))
            if number in self._sections:
                table.add_section()
        yield Text()
        yield table
        missing = [place for place in range(len(self.heads)) if place not in widths]
        if missing:
            named = ", ".join(self._missing(place) for place in missing)
            text = f"Not shown at {options.max_width} columns: {named}. {self.elsewhere}"
            yield said(text.rstrip(), "dim")

    def _fitted(self, room: int) -> tuple[dict[int, int], bool]:
        """Chooses the columns that are shown, their widths, and whether figures are stacked."""
        every = [*range(len(self.heads))]
        order = [self.heads.index(name) for name in self.drop]
        order += [
            place for place in map(self.heads.index, self.same)
            if len({row[place] for row in self._rows}) == 1
        ]  # fmt: skip
        for stacked in (False, True):
            least = {place: self._widths(place, stacked)[0] for place in every}
            kept, dropped = set(every), list[int]()
            for place in order:
                if _total(least, kept) <= room:
                    break
                kept.remove(place)
                dropped.append(place)
            for place in reversed(dropped):
                if _total(least, kept | {place}) <= room:
                    kept.add(place)
            if _total(least, kept) <= room:
                break
        widths = {place: least[place] for place in every if place in kept}
        self._widen(widths, room, stacked)
        # the widest columns are narrowed until all fit, as far as that goes
        while (excess := _total(widths, widths) - room) > 0:
            widest = max(widths, key=lambda place: widths[place])
            if widths[widest] <= NARROWEST:
                break
            widths[widest] = max(NARROWEST, widths[widest] - excess)
        return widths, stacked

    def _widen(self, widths: dict[int, int], room: int, stacked: bool) -> None:
        """Gives what is left over to the heads, then to columns of several words."""
        texts = [place for place in widths if self.heads[place] in self.wrap]
        for places in ([place for place in widths if place not in texts], texts):
            wanted = {place: self._widths(place, stacked)[1] - widths[place] for place in places}
            spare = room - _total(widths, widths)
            every = sum(wanted.values())
            for place, more in wanted.items():
                if every and spare > 0:
                    widths[place] += min(more, spare * more // every)

    def _widths(self, place: int, stacked: bool) -> tuple[int, int]:
        """Returns the least width of a column, and the one in which nothing is wrapped."""
        head = self.heads[place]
        cells = [self._cell(row, place, stacked) for row in self._rows]
        full = max([cell_len(part) for cell in cells for part in cell.split("\n")], default=0)
        words = [cell_len(word) for cell in cells for word in cell.split()]
        least = max(words, default=0) if head in self.wrap else full
        return max(least, *map(cell_len, head.split() or [""])), max(full, cell_len(head))

    def _cell(self, row: tuple[str, ...], place: int, stacked: bool) -> str:
        """Returns a cell; "123 us [121, 125]" in two lines where figures are stacked."""
        cell = row[place]
        if stacked and self.heads[place] not in self.left:
            for sign in (" [", " ("):
                cell = cell.replace(sign, f"\n{sign[1:]}", 1)
        return cell

    def _missing(self, place: int) -> str:
        values = {row[place] for row in self._rows}
        told = self.heads[place] in self.same and len(values) == 1
        return self.heads[place] + (f" ({values.pop()} in every row)" if told else "")


def _total(widths: dict[int, int], places: set[int] | dict[int, int]) -> int:
    """Returns the width of a table of these columns."""
    return sum(widths[place] for place in places) + GAP * (len(places) - 1)

"""Presentation of results: text screens, notebook tables, progress callbacks, templates.

Text that is not ours (names, notes, choices, paths) is made fit to be shown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import printable

WIDTH = 80
"""Columns of the text."""
LINES = 25
"""Of a screen: of what has no room the last notes are left out first, then the last rows."""
ROWS = 12
"""Of the table that are shown at most."""
NOTES = 4
"""Below the table that are shown at most; one more line says how many are left out."""

_PAGE = """\
<div class="paretune">
{%- for warning in warnings %}
<p><b>{{ warning }}</b></p>
{%- endfor %}
<p><b>{{ title }}</b>{% for line in lines %}<br>{{ line }}{% endfor %}</p>
{%- if rows %}
<table>
<thead><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in rows %}
<tr>{% for cell in row %}<td style="text-align: {{ 'left' if loop.first else 'right' }}">\
{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
{%- endif %}
{%- if notes %}
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{%- endif %}
</div>
"""

OnProgress = Callable[[str, float], None]
"""Called with (what is done, share of it in [0, 1])."""


@dataclass(frozen=True)
class Summary:
    """What of a result is worth a screen.

    Attributes:
        title: The result in one line.
        lines: What stands above the table.
        heads: Of the table's columns; the first stands left, the others right.
        rows: Its cells, as text.
        notes: What the reader should know.
        more: What rows are called where not all are shown: "groups".
        warnings: What stands before everything else, and is always shown.
    """

    title: str
    lines: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    more: str = "rows"
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return at most a screen of text, `WIDTH` columns wide; no name is cut.

        Warnings, what stands above the table, one row and one note are always there: only names
        of many lines make them more than `LINES`.
        """
        rows, notes = min(len(self.rows), ROWS), min(len(self.notes), NOTES)
        while len(text := self._of(rows, notes)) > LINES and (rows > 1 or notes > 1):
            if notes > 1:
                notes -= 1
            else:
                rows -= 1
        return "\n".join(text)

    def _of(self, rows: int, notes: int) -> list[str]:
        """Return the lines of a text with so many of the first rows and notes."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        sink = io.StringIO()
        console = Console(
            file=sink, width=WIDTH, markup=False, emoji=False, highlight=False, no_color=True
        )
        for text in (*self.warnings, self.title, *self.lines):
            console.print(Text(line(text)))
        if self.rows:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for place, head in enumerate(self.heads):
                # a long name goes on in the next line
                table.add_column(
                    Text(line(head)), justify="right" if place else "left", overflow="fold"
                )
            for row in self.rows[:rows]:
                table.add_row(*(Text(line(cell)) for cell in row))
            console.print(table)
        if left := len(self.rows) - rows:
            console.print(Text(f"... and {left} more {self.more}"))
        for note in self.notes[:notes]:
            console.print(Text(f"- {line(note)}"))
        if left := len(self.notes) - notes:
            console.print(Text(f"... and {left} more note{'s' * (left > 1)}"))
        return [text.rstrip() for text in sink.getvalue().rstrip().splitlines()]

    def html(self) -> str:
        """Return the whole table as HTML; what users named is text, not markup."""
        import jinja2

        page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        return page.from_string(_PAGE).render(
            warnings=[line(text) for text in self.warnings],
            title=line(self.title),
            lines=[line(text) for text in self.lines],
            heads=[line(text) for text in self.heads],
            rows=[[line(cell) for cell in row] for row in self.rows],
            notes=[line(note) for note in self.notes],
        )


class Readable:
    """A result that prints as one screen and shows as a table in a notebook.

    A class of this kind has a `screen`; its `repr` is the first line of that.
    """

    def screen(self) -> Summary:
        """Return the summary of one screen."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.screen().text()

    def __repr__(self) -> str:
        screen = self.screen()
        first = next(iter(screen.warnings), screen.title)
        return f"<{type(self).__name__}: {line(first)}>"

    def _repr_html_(self) -> str:
        return self.screen().html()


def visible(text: object) -> str:
    """Return text with every character spelled out that would not be seen as itself.

    Tabs and line feeds stay: a page shows them as spaces, or as they are in a command.

    Args:
        text: Anything; `str` makes text of it.
    """
    return "".join(
        part if part in ("\n", "\t") else printable(part)
        for part in re.split("([\n\t])", str(text))
    )


def line(text: object) -> str:
    """Return the same on one line: line feeds and tabs are spelled out too.

    Args:
        text: Anything; `str` makes text of it.
    """
    return printable(str(text))


def tail(text: object, letters: int) -> str:
    """Return the end of one line, of at most so many letters: by it the layers of a net differ."""
    whole = line(text)
    return whole if len(whole) <= letters else f"…{whole[1 - letters :]}"


def short(text: object, letters: int) -> str:
    """Return one line of at most so many letters; "…" marks the cut."""
    whole = line(text)
    return whole if len(whole) <= letters else f"{whole[: letters - 1]}…"


def silent(text: str, share: float) -> None:
    """Ignore progress."""


def filled(folder: Path, template: str, **values: Any) -> str:
    """Return a template's text; it is no HTML, so nothing is escaped.

    Args:
        folder: Of the templates.
        template: The name of one in it.
        **values: What it names; all of it must be there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=False,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)

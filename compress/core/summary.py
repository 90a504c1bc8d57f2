"""Presentation of results: text summaries, notebook tables, progress callbacks, templates.

Text from users (names, notes, choices, paths) is escaped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import escape_unprintable
from compress.core.registry import build_renamed_getattr

WIDTH = 80
"""Width of the text in columns."""
MAX_LINES = 25
"""Maximum number of lines of a text; the last notes are omitted first, then the last rows."""
MAX_ROWS = 12
"""Maximum number of table rows in a text."""
MAX_NOTES = 4
"""Maximum number of notes in a text; another line counts the omitted ones."""

_HTML_TEMPLATE = """\
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
"""Progress callback, called with the current task and its completed share in [0, 1]."""


@dataclass(frozen=True)
class Summary:
    """Summary of a result that fits on one screen.

    Attributes:
        title: The result in one line.
        lines: Lines above the table.
        headers: Column headers of the table; the first column is left-aligned, others
            right-aligned.
        rows: Cells of the table, as text.
        notes: Notes below the table.
        row_noun: Name of the rows, for the number of omitted ones: "groups".
        warnings: Warnings above everything else, which are always shown.
    """

    title: str
    lines: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    row_noun: str = "rows"
    warnings: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return at most one screen of text, `WIDTH` columns wide, without truncated names.

        Warnings, the lines above the table, one row and one note are always included. The text
        exceeds `MAX_LINES` only if these need more lines.
        """
        rows, notes = min(len(self.rows), MAX_ROWS), min(len(self.notes), MAX_NOTES)
        while len(text := self._format_lines(rows, notes)) > MAX_LINES and (rows > 1 or notes > 1):
            if notes > 1:
                notes -= 1
            else:
                rows -= 1
        return "\n".join(text)

    def _format_lines(self, rows: int, notes: int) -> list[str]:
        """Return the lines of a text with given numbers of rows and notes."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        sink = io.StringIO()
        console = Console(
            file=sink, width=WIDTH, markup=False, emoji=False, highlight=False, no_color=True
        )
        for text in (*self.warnings, self.title, *self.lines):
            console.print(Text(escape_line(text)))
        if self.rows:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for index, header in enumerate(self.headers):
                # wrap long names
                table.add_column(
                    Text(escape_line(header)), justify="right" if index else "left", overflow="fold"
                )
            for row in self.rows[:rows]:
                table.add_row(*(Text(escape_line(cell)) for cell in row))
            console.print(table)
        if left := len(self.rows) - rows:
            console.print(Text(f"... and {left} more {self.row_noun}"))
        for note in self.notes[:notes]:
            console.print(Text(f"- {escape_line(note)}"))
        if left := len(self.notes) - notes:
            console.print(Text(f"... and {left} more note{'s' * (left > 1)}"))
        return [text.rstrip() for text in sink.getvalue().rstrip().splitlines()]

    def to_html(self) -> str:
        """Return the whole summary as HTML, with users' names escaped."""
        import jinja2

        page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        return page.from_string(_HTML_TEMPLATE).render(
            warnings=[escape_line(text) for text in self.warnings],
            title=escape_line(self.title),
            lines=[escape_line(text) for text in self.lines],
            heads=[escape_line(text) for text in self.headers],
            rows=[[escape_line(cell) for cell in row] for row in self.rows],
            notes=[escape_line(note) for note in self.notes],
        )


class DisplayableResult:
    """Result that prints as one screen of text and shows as a table in a notebook.

    Subclasses implement `build_summary`; `repr` is its first line.
    """

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr({"screen": "build_summary"})

    def build_summary(self) -> Summary:
        """Return the summary of the result."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.build_summary().to_text()

    def __repr__(self) -> str:
        summary = self.build_summary()
        first = next(iter(summary.warnings), summary.title)
        return f"<{type(self).__name__}: {escape_line(first)}>"

    def _repr_html_(self) -> str:
        return self.build_summary().to_html()


def escape_text(text: object) -> str:
    """Return text with all characters escaped that are not visible as themselves.

    Tabs and line feeds are kept, because HTML pages show them as spaces or inside commands.

    Args:
        text: Any object; it is converted with `str`.
    """
    return "".join(
        part if part in ("\n", "\t") else escape_unprintable(part)
        for part in re.split("([\n\t])", str(text))
    )


def escape_line(text: object) -> str:
    """Return text on one line, with line feeds and tabs escaped too.

    Args:
        text: Any object; it is converted with `str`.
    """
    return escape_unprintable(str(text))


def truncate_start(text: object, max_length: int) -> str:
    """Return one line without its start if it is too long; the end distinguishes layer names.

    Args:
        text: Any object; it is converted with `str`.
        max_length: Maximum number of characters, including "…".
    """
    full_line = escape_line(text)
    return full_line if len(full_line) <= max_length else f"…{full_line[1 - max_length :]}"


def truncate_end(text: object, max_length: int) -> str:
    """Return one line without its end if it is too long, marked with "…".

    Args:
        text: Any object; it is converted with `str`.
        max_length: Maximum number of characters, including "…".
    """
    full_line = escape_line(text)
    return full_line if len(full_line) <= max_length else f"{full_line[: max_length - 1]}…"


def ignore_progress(text: str, share: float) -> None:
    """Ignore progress."""


def render_template(folder: Path, template: str, **values: Any) -> str:
    """Return the text of a template, without HTML escaping.

    Args:
        folder: Folder of the templates.
        template: Name of the template.
        **values: Values of all its variables.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=False,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)

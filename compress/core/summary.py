"""Presentation of results: text summaries, notebook tables, progress callbacks, templates.

Text from users (names, notes, choices, paths) is escaped.
"""

from __future__ import annotations

import re
import textwrap
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
MIN_COLUMNS = 2
"""Number of table columns that are always shown."""
GAP = 2
"""Spaces between columns."""

_HTML_TEMPLATE = """\
<div class="paretune">
{%- for warning in warnings %}
<p><b>{{ warning }}</b></p>
{%- endfor %}
<p><b>{{ title }}</b>{% for line in lines %}<br>{{ line }}{% endfor %}\
{% for label, value in fields %}<br>{{ label }} {{ value }}{% endfor %}</p>
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
        fields: Labels and values below the lines, such as paths and commands: never broken. A field
            without a label continues the one above in words.
    """

    title: str
    lines: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    row_noun: str = "rows"
    warnings: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()

    def to_text(self, width: int = WIDTH) -> str:
        """Return at most one screen of text, without broken names.

        Warnings, the lines above the table, one row and one note are always included. The text
        exceeds `MAX_LINES` only if these need more lines. Columns that do not fit are omitted from
        the right, with a note.

        Args:
            width: Number of columns; only long names and paths exceed it.
        """
        rows, notes = min(len(self.rows), MAX_ROWS), min(len(self.notes), MAX_NOTES)
        while len(text := self._format_lines(rows, notes, width)) > MAX_LINES and (
            rows > 1 or notes > 1
        ):
            if notes > 1:
                notes -= 1
            else:
                rows -= 1
        return "\n".join(text)

    def _format_lines(self, rows: int, notes: int, width: int) -> list[str]:
        """Return the lines of a text with given numbers of rows and notes."""
        lines = []
        for text in (*self.warnings, self.title, *self.lines):
            lines += _wrap(escape_line(text), width)
        label_width = max((len(label) for label, _ in self.fields), default=0) + 2
        for label, value in self.fields:
            head, text = f"{label:<{label_width}}", escape_line(value)
            # what has no label is words, not a path
            lines += [head + text] if label else _wrap(head + text, width, head)
        if self.rows:
            lines += ["", *self._format_table(rows, width), ""]
        if left := len(self.rows) - rows:
            lines.append(f"... and {left} more {self.row_noun}")
        for note in self.notes[:notes]:
            lines += _wrap(f"- {escape_line(note)}", width, "  ")
        if left := len(self.notes) - notes:
            where = " in report.html" if any(label == "Report" for label, _ in self.fields) else ""
            lines.append(f"... and {left} more note{'s' * (left > 1)}{where}")
        return "\n".join(lines).rstrip().splitlines()

    def _format_table(self, rows: int, width: int) -> list[str]:
        """Return the lines of the table.

        Columns that do not fit are left out from the right. A name that leaves no room for the
        second column has a line of its own.
        """
        from rich.cells import cell_len

        cells = [tuple(map(escape_line, row)) for row in (self.headers, *self.rows[:rows])]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        room = width - sum(GAP + size for size in widths[1:MIN_COLUMNS])
        name_widths = [cell_len(row[0]) for row in cells]
        widths[0] = max((size for size in name_widths if size <= room), default=0)
        count = len(widths)
        while count > MIN_COLUMNS and sum(widths[:count]) + GAP * (count - 1) > width:
            count -= 1
        lines = []
        for name, *figures in cells:
            if cell_len(name) > widths[0]:
                lines.append(name)
                name = ""
            columns = [name + " " * (widths[0] - cell_len(name))]
            columns += [
                " " * (size - cell_len(text)) + text
                for text, size in zip(figures, widths[1:], strict=True)
            ]
            lines.append((" " * GAP).join(columns[:count]).rstrip())
        lines.insert(1, "-" * min(width, sum(widths[:count]) + GAP * (count - 1)))
        if omitted := self.headers[count:]:
            lines.append(f"(a wider terminal shows {', '.join(map(escape_line, omitted))})")
        return lines

    def to_html(self) -> str:
        """Return the whole summary as HTML, with users' names escaped."""
        import jinja2

        page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        return page.from_string(_HTML_TEMPLATE).render(
            warnings=[escape_line(text) for text in self.warnings],
            title=escape_line(self.title),
            lines=[escape_line(text) for text in self.lines],
            fields=[tuple(map(escape_line, field)) for field in self.fields],
            heads=[escape_line(text) for text in self.headers],
            rows=[[escape_line(cell) for cell in row] for row in self.rows],
            notes=[escape_line(note) for note in self.notes],
        )


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Return the lines of a text, broken between words only."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


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

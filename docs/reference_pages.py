"""Parts of pages that are made when the site is built.

A line `<!-- options of NAME -->` becomes the command's usage and a table of its options, which are
the plan's fields; `<!-- source of FILE -->` becomes that file, as code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_BRACES = str.maketrans("", "", "{}")
_ROOT = Path(__file__).parents[1]
_OPTIONS = re.compile(r"^<!-- options of (?P<name>[\w -]+) -->$", re.MULTILINE)
_SOURCE = re.compile(r"^<!-- source of (?P<file>[\w./]+) -->$", re.MULTILINE)


BOOSTS = (("howto/", 4), ("tutorial/", 2), ("troubleshooting", 3), ("reference/", 0.25))
"""Factors of pages in the search by the beginning of their path: jobs come before signatures."""


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Fill a page's marks and set its weight in the search; MkDocs calls it with every page."""
    for start, boost in BOOSTS:
        if page is not None and page.file.src_uri.startswith(start):
            page.meta.setdefault("search", {})["boost"] = boost
    markdown = _OPTIONS.sub(lambda found: options_of(found["name"]), markdown)
    return _SOURCE.sub(lambda found: source_of(found["file"]), markdown)


def source_of(file: str) -> str:
    """Return a file of the repository as a block of code."""
    return f"```python\n{(_ROOT / file).read_text('utf-8').rstrip()}\n```"


def options_of(name: str) -> str:
    """Return a command's usage, arguments and options as Markdown.

    Args:
        name: As users type it behind `paretune`, such as "space describe".
    """
    import typer

    from search.cli import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="paretune")
    for word in name.split():
        command = command.commands[word]
        context = typer.Context(command, info_name=word, parent=context)
    usage = command.get_usage(context).removeprefix("Usage: ").translate(_BRACES)
    parts = [f"```\n{usage}\n```", command.help or ""]
    groups: dict[str, list[tuple[str, str]]] = {}
    for item in command.get_params(context):
        if getattr(item, "hidden", False):
            continue
        if item.param_type_name == "argument":
            name = item.metavar or item.name.upper()
            groups.setdefault("Arguments", []).append((name, item.help or ""))
        else:
            title = getattr(item, "rich_help_panel", None) or "Other"
            flags, text = item.get_help_record(context)
            groups.setdefault(title, []).append((flags, text))
    for last in ("General", "Other"):
        if last in groups:
            groups[last] = groups.pop(last)
    for title, rows in groups.items():
        table = [f"| `{flags}` | {_cell(text)} |" for flags, text in rows]
        parts.append("\n".join([f"**{title}**\n", "| option | meaning |", "| --- | --- |", *table]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    text, _, default = text.replace("|", r"\|").partition("  [default: ")
    shown = f" Default: `{default.removesuffix(']')}`." if default else ""
    return f"{_escaped(text)}.{shown}" if shown else _escaped(text)


def _escaped(text: str) -> str:
    """Return help text with what Markdown would read as markup written out."""
    return re.sub(r"([*_<\[\]])", r"\\\1", text)

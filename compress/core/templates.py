"""Text files from templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def filled(folder: Path, template: str, **values: Any) -> str:
    """Returns a template's text; it is no HTML, so nothing is escaped.

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

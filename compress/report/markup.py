"""Markup that cannot be injected into: it comes from templates alone.

Whatever a template shows is text, whoever wrote it, and is escaped; only what this module made is
taken as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from compress.core.summary import visible

if TYPE_CHECKING:
    from jinja2 import Environment

ROOM = "compress.report"
"""The package whose templates are called "compress/..."."""


@cache
def templates(**rooms: str) -> Environment:
    """Return the templates of this package, and of others that add to its page.

    Args:
        rooms: Packages by the name that their templates have: "own/part.html.j2" is in the
            folder `templates` of the package given as `own`.

    Returns:
        What fills them. A name that is not there is an error, as None is; every other value that
        is no markup is escaped, with characters that would not be seen spelled out.
    """
    from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

    packages = {"compress": ROOM, **rooms}
    return Environment(
        loader=PrefixLoader({name: PackageLoader(room) for name, room in packages.items()}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def filled(environment: Environment, name: str, **values: Any) -> Markup:
    """Return a template, filled.

    Args:
        environment: From `templates`.
        name: "compress/page.html.j2".
        values: What it shows.
    """
    return Markup(environment.get_template(name).render(values))


def style_sheet() -> Markup:
    """Return the page's style sheet: ours, and so not escaped."""
    return Markup(resources.files(ROOM).joinpath("templates", "style.css").read_text("utf-8"))


@cache
def scripts(room: str, library: str, ours: tuple[str, ...]) -> tuple[Markup, ...]:
    """Return the scripts of a live page: files of a package, and so not escaped.

    Args:
        room: The package.
        library: A script of others.
        ours: Put together to one, in this order; their names are theirs alone.
    """
    home = resources.files(room)
    own = "\n".join(home.joinpath(name).read_text("utf-8") for name in ours)
    made = (
        home.joinpath(library).read_text("utf-8"),
        f'(function () {{\n"use strict";\n{own}\n}})();\n',
    )
    return tuple(Markup(text) for text in made)


def digest(text: str) -> str:
    """Return a text's hash as a Content-Security-Policy names it."""
    found = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{found}'"


def embedded(value: Any) -> Markup:
    """Return JSON that holds no markup.

    Characters that would not be seen are spelled out; numbers that JSON has none for are null.

    Args:
        value: Dictionaries, data classes, lists, texts, numbers.
    """
    text = json.dumps(_clean(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {visible(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return _clean(value.item())  # of NumPy


def _shown(value: object) -> object:
    """Return a value as a template shows it, before it is escaped."""
    if value is None:
        raise TypeError("A page must show texts and numbers. Received: None.")
    return value if isinstance(value, Markup) else visible(value)


@dataclass(frozen=True)
class Cell:
    """A text with something small below it or beside it: tables stay narrow enough so.

    Attributes:
        text: The figure.
        below: On a line of its own.
        beside: On the same line.
    """

    text: str
    below: str = ""
    beside: str = ""


def two_lines(text: str) -> Cell:
    """Return "1.5 ms [1.4, 1.6]" with the interval under its value."""
    value, bracket, interval = text.partition(" [")
    return Cell(value, f"[{interval}" if bracket else "")

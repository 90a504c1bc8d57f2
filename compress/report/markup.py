"""HTML markup that is safe from injection: it comes from templates only.

Every value in a template is escaped as text, whatever its source. Only the results of this module
are inserted as markup.
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

from compress.core.summary import escape_text

if TYPE_CHECKING:
    from jinja2 import Environment

PACKAGE = "compress.report"
"""The package of the templates "compress/..."."""


@cache
def load_templates(**other_packages: str) -> Environment:
    """Return the template environment of this package and of others that add to its page.

    Args:
        other_packages: Prefix -> package. With `own="my.package"`, the template "own/part.html.j2"
            is read from the folder templates of my.package.

    Returns:
        The Jinja environment. Undefined names and None are errors. All other values that are not
        markup are escaped, with invisible characters spelled out.
    """
    from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

    packages = {"compress": PACKAGE, **other_packages}
    return Environment(
        loader=PrefixLoader({name: PackageLoader(package) for name, package in packages.items()}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_to_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_template(environment: Environment, name: str, **values: Any) -> Markup:
    """Return a rendered template.

    Args:
        environment: From `load_templates`.
        name: "compress/page.html.j2".
        **values: Variables of the template.
    """
    return Markup(environment.get_template(name).render(values))


def read_style_sheet() -> Markup:
    """Return the page's style sheet, a trusted file of this package, as markup."""
    return Markup(resources.files(PACKAGE).joinpath("templates", "style.css").read_text("utf-8"))


@cache
def read_scripts(package: str, library: str, own_scripts: tuple[str, ...]) -> tuple[Markup, ...]:
    """Return the scripts of a live page, trusted files of a package, as markup.

    Args:
        package: Package with the files.
        library: File name of a third-party script.
        own_scripts: File names of our scripts. They are concatenated in this order into one script
            with its own scope.
    """
    package_files = resources.files(package)
    combined = "\n".join(package_files.joinpath(name).read_text("utf-8") for name in own_scripts)
    texts = (
        package_files.joinpath(library).read_text("utf-8"),
        f'(function () {{\n"use strict";\n{combined}\n}})();\n',
    )
    return tuple(Markup(text) for text in texts)


def compute_digest(text: str) -> str:
    """Return a text's hash in the format of a Content-Security-Policy."""
    encoded = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{encoded}'"


def embed_json(value: Any) -> Markup:
    """Return a value as JSON that is safe inside HTML.

    Invisible characters are spelled out; non-finite numbers become null.

    Args:
        value: Dictionaries, data classes, lists, strings, numbers.
    """
    text = json.dumps(
        _normalize_value(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True
    )
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _normalize_value(value: Any) -> Any:
    """Return a value for JSON: texts escaped, NaN and infinity as None, records as dictionaries."""
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {escape_text(key): _normalize_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalize_value(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return _normalize_value(value.item())  # NumPy scalar


def _to_visible(value: object) -> object:
    """Return a value as a template shows it, before it is escaped."""
    if value is None:
        raise TypeError("A page must show texts and numbers. Received: None.")
    return value if isinstance(value, Markup) else escape_text(value)


@dataclass(frozen=True)
class Cell:
    """A table cell with small print below or beside its text, which keeps tables narrow.

    Attributes:
        text: Main text.
        below: Small print on a line of its own.
        beside: Small print on the same line.
    """

    text: str
    below: str = ""
    beside: str = ""


def split_interval(text: str) -> Cell:
    """Return "1.5 ms [1.4, 1.6]" as a cell with the interval below the value."""
    value, bracket, interval = text.partition(" [")
    return Cell(value, f"[{interval}" if bracket else "")

"""Recipes: plans of `shrink` without model and data, as TOML: what worked once is a word later."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.core.atomic_files import read_file, write_text
from compress.core.errors import InputError, one_line, unknown_name
from compress.plan.fields import plan_fields, value_of
from compress.plan.forms import plain
from compress.plan.shrink import ShrinkPlan

FOLDER = Path(__file__).parent
PLACES = frozenset(
    {"data.source", "device", "goal.latency_table", "memory", "out", "seed", "threads"}
)
"""Options that are of one model, its data and one machine: no recipe holds them."""


def names() -> tuple[str, ...]:
    """Return the recipes that paretune brings."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Read a recipe's sections.

    Args:
        name: Of a recipe that paretune brings, or the path of a TOML file.

    Returns:
        The plan's sections, nested, as `compress.plan.fields.from_nested` takes them.

    Raises:
        InputError: There is none, it is no TOML, or it holds what is of one model.

    Example:
        >>> read_recipe("mobile-int8")["export"]
        {'formats': ['int8']}
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in names():
            raise unknown_name("recipe (or .toml file)", str(name), names())
        path = FOLDER / f"{name}.toml"
    try:
        found = tomllib.loads(read_file(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Recipe '{path}' must be a TOML file ({one_line(error)}).") from None
    for leaf in plan_fields(ShrinkPlan):
        section = found.get(leaf.section, {}) if leaf.section else found
        if leaf.path in PLACES and isinstance(section, Mapping) and leaf.name in section:
            raise InputError(
                f"Recipe '{path}' must be good for any model. Received: {leaf.path}, which is of "
                "one. Give it as an option."
            )
    return found


def save_recipe(plan: ShrinkPlan, path: str | Path, formats: tuple[str, ...] = ()) -> None:
    """Write what a plan says beside model, data and machine, as TOML.

    Args:
        plan: The plan.
        path: The file, ending in .toml.
        formats: Of files that are worth making; default: the plan's.

    Raises:
        InputError: The name ends otherwise.
    """
    place = Path(path)
    if place.suffix != ".toml":
        raise InputError(f"A recipe must be a file ending in .toml. Received: '{place}'.")
    sections: dict[str | None, list[str]] = {None: []}
    for leaf in plan_fields(ShrinkPlan):
        value = value_of(plan, leaf)
        if leaf.path == "export.formats" and formats:
            value = formats
        if leaf.path in PLACES or value == leaf.default or value is None:
            continue
        # numbers, texts and lists of them are the same in JSON and TOML
        sections.setdefault(leaf.section, []).append(f"{leaf.name} = {json.dumps(plain(value))}")
    lines = sections.pop(None)
    for name, items in sections.items():
        lines += [f"[{name}]", *items]
    write_text(place, "\n".join([*lines, ""]))

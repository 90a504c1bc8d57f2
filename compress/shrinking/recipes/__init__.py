"""Recipes: reusable plans of `shrink` in TOML, without model and data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.core.atomic_files import read_file, write_text
from compress.core.errors import InputError, build_unknown_name_error, to_one_line
from compress.plan.conversion import to_plain
from compress.plan.fields import list_plan_fields
from compress.plan.nesting import read_field
from compress.plan.shrink import ShrinkPlan

FOLDER = Path(__file__).parent
MACHINE_OPTIONS = frozenset(
    {"data.source", "device", "goal.latency_table", "memory", "out", "seed", "threads"}
)
"""Options that depend on one model, its data or one machine; recipes do not contain them."""


def list_recipes() -> tuple[str, ...]:
    """Return the names of the built-in recipes."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Return the sections of a recipe.

    Args:
        name: Name of a built-in recipe, or path of a TOML file.

    Returns:
        Nested sections of a plan, as `compress.plan.nesting.from_nested` takes them.

    Raises:
        InputError: The recipe does not exist, is not valid TOML, or contains options of one model.

    Example:
        >>> read_recipe("mobile-int8")["export"]
        {'formats': ['int8']}
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in list_recipes():
            raise build_unknown_name_error("recipe (or .toml file)", str(name), list_recipes())
        path = FOLDER / f"{name}.toml"
    try:
        sections = tomllib.loads(read_file(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Recipe '{path}' must be a TOML file ({to_one_line(error)}).") from None
    for leaf in list_plan_fields(ShrinkPlan):
        section = sections.get(leaf.section, {}) if leaf.section else sections
        if leaf.path in MACHINE_OPTIONS and isinstance(section, Mapping) and leaf.name in section:
            raise InputError(
                f"Recipe '{path}' must be good for any model. Received: {leaf.path}, which is of "
                "one. Give it as an option."
            )
    return sections


def save_recipe(plan: ShrinkPlan, path: str | Path, formats: tuple[str, ...] = ()) -> None:
    """Write a plan as a recipe in TOML, without model, data and machine options.

    Args:
        plan: The plan.
        path: Path of the file, ending in .toml.
        formats: Export formats of the recipe; default: those of the plan.

    Raises:
        InputError: The path has another suffix.
    """
    file = Path(path)
    if file.suffix != ".toml":
        raise InputError(f"A recipe must be a file ending in .toml. Received: '{file}'.")
    sections: dict[str | None, list[str]] = {None: []}
    for leaf in list_plan_fields(ShrinkPlan):
        is_given = leaf.path == "export.formats" and formats
        value = formats if is_given else read_field(plan, leaf)
        if leaf.path in MACHINE_OPTIONS or value == leaf.default or value is None:
            continue
        # numbers, strings and lists of them have the same syntax in JSON and TOML
        sections.setdefault(leaf.section, []).append(f"{leaf.name} = {json.dumps(to_plain(value))}")
    lines = sections.pop(None)
    for name, items in sections.items():
        lines += [f"[{name}]", *items]
    write_text(file, "\n".join([*lines, ""]))

"""`paretune shrink MODEL`: say what is needed, get the file to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.plan.fields import plan_fields
from compress.plan.shrink import ShrinkPlan
from search.cli._console import RichDisplay, display, reporting_errors
from search.cli._help import SECTIONS
from search.cli._options import own_option
from search.cli.run import print_report
from search.plan.engine import EngineOptions
from search.workers import MOST_NETS, Workers

BASIC = (
    "data", "latency", "size", "macs", "params", "max_drop", "min_quality", "budget", "no_train",
    "recipe", "formats", "task", "finetune_epochs", "device", "out",
)  # fmt: skip
"""The options that `paretune shrink --help` shows."""
REFUSED = {
    "max_latency": "Give --latency.",
    "max_size": "Give --size.",
    "max_macs": "Give --macs.",
    "max_params": "Give --params.",
}
"""Limits of a search, which are goals here."""

_OF_ENGINE = (
    ("--engine", "engine", str, "TEXT"),
    ("--address", "address", str, "TEXT"),
    ("--cpus-per-worker", "cpus_per_worker", int, "N"),
    ("--gpus-per-worker", "gpus_per_worker", float, "NUMBER"),
)
OWN = (
    own_option(
        "recipe",
        str,
        "--recipe",
        "NAME",
        "mobile-int8, twice-as-fast, untrained, or a .toml file: what no option says",
        SECTIONS["goal"],
    ),
    own_option(
        "save_recipe",
        Path,
        "--save-recipe",
        "FILE",
        "write what led here as a .toml file, for other models",
        SECTIONS["goal"],
    ),
    own_option(
        "workers",
        int,
        "--workers",
        "N",
        "processes that train nets beside each other; default: none, nets are trained one after "
        f"another; with --engine ray as many as there is room for, {MOST_NETS} at most",
        SECTIONS["engine"],
    ),
    *(
        own_option(name, kind, leaf.flags[0], metavar, leaf.help, SECTIONS["engine"])
        for leaf in plan_fields(EngineOptions)
        for flag, name, kind, metavar in _OF_ENGINE
        if leaf.flags[0] == flag
    ),
)
"""Options that are no fields of the plan."""


def under(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the sections of the recipe that was named.

    Raises:
        InputError: There is none, or the file of a new one ends otherwise than in .toml.
    """
    from compress.shrinking.recipes import read_recipe

    file = given["save_recipe"]
    if file is not None and file.suffix != ".toml":
        raise InputError(f"save_recipe must be a file ending in .toml. Received: '{file}'.")
    return {} if given["recipe"] is None else read_recipe(given["recipe"])


def shrink(
    model: Path, _recipe: str | None, save_recipe: Path | None, *where: Any, plan: ShrinkPlan
) -> None:
    """Shrink a Keras model of your own to a goal: a time, a size, a quality, or a whole front."""
    from compress.shrinking.shrink import shrink as to_goal

    with (
        reporting_errors("The same command goes on where it ended."),
        display() as shown,
    ):
        crew = _crew(where, shown)
        shown.phase(f"Shrinking {model.name}", 0, 1, steps=True)
        result = to_goal(
            model,
            plan=plan,
            crew=crew,
            on_progress=lambda text, share: shown.worker(0, text, share),
        )
    if save_recipe is not None:
        result.save_recipe(save_recipe)
    print_report(result.report)


def _crew(where: Sequence[Any], shown: RichDisplay) -> Workers | None:
    """Returns who trains nets beside this process, where options name somebody.

    Args:
        where: Values of --workers and of the engine's options; None: not given.
        shown: Shows what they do.
    """
    count, *options = where
    names = [name for _, name, _, _ in _OF_ENGINE]
    given = {name: value for name, value in zip(names, options, strict=True) if value is not None}
    if count is None and not given:
        return None
    return Workers(count, **given, display=shown)

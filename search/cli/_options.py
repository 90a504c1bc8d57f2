"""Command-line options made from the fields of a plan, so that defaults live in one place."""

from __future__ import annotations

import inspect
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from compress.core.atomic_files import read_file
from compress.core.errors import InputError, one_line
from compress.data.tasks import qualities
from compress.plan import Plan
from compress.plan.bench import BenchPlan, InputShape
from compress.plan.fields import PlanField, from_nested, nest, overlay, plan_fields
from compress.plan.forms import kind_of
from compress.plan.shrink import explain_bare_latencies
from compress.plugins import SOURCES, TASKS
from search.cli._console import note, reporting_errors
from search.cli._help import GENERAL, SECTIONS
from search.plan import COSTS
from search.plugins import SPACES

PlanT = TypeVar("PlanT", bound=Plan | BenchPlan)
Plugins = Annotated[
    str,
    typer.Option(
        "--plugins",
        metavar="LIST",
        help="modules to import first, with commas: they register plug-ins of yours",
    ),
]
"""The option of commands without a plan."""
_METAVARS = {int: "N", float: "NUMBER", bool: None, Path: "PATH", InputShape: "LIST"}
Names = Callable[[], Iterable[str]]
VALUES: dict[str, Names] = {
    "data": SOURCES.names,
    "task": TASKS.names,
    "space": lambda: (*SPACES.names(), "around:"),
    "objectives": lambda: (*qualities(), *COSTS),
    "prune_pattern": lambda: ("unstructured", "2:4", "1x4"),
    "teacher": lambda: ("auto", "none"),
}
"""What options take that are not declared with all their choices, by their names in Python."""


def list_words(leaf: PlanField) -> Names | None:
    """Return a function that lists an option's words; None: the option takes any text.

    A table of plug-ins is asked when the shell asks: it may have got new names since.
    """
    choices = leaf.choices
    if choices is None:
        return VALUES.get(leaf.flat)
    return lambda: (*leaf.beside, *choices.names())


def own_option(
    name: str, kind: Any, flag: str, metavar: str, text: str, group: str | None = None
) -> inspect.Parameter:
    """Return an option of a command that is no field of its plan; None stands for "not given".

    Args:
        name: In Python.
        kind: What typer reads it as.
        flag: On the command line.
        metavar: What help shows for its value.
        text: Help.
        group: Title under which help shows it.
    """
    option = typer.Option(flag, metavar=metavar, help=text, rich_help_panel=group)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def plan_command(
    plan: type[PlanT],
    body: Callable[..., None],
    *arguments: inspect.Parameter,
    groups: Mapping[str, str] | None = None,
    old: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    under: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """Make a typer command whose options are the plan's fields.

    Each field has one option, its first flag: the same word in every command.

    Args:
        plan: The plan class.
        body: Called with the positional arguments' values, then `plan=`.
        arguments: Further parameters, annotated for typer, put first.
        groups: Titles in help of options that no section gives one, by option.
        old: Names of options in earlier releases, with what they are called now: taken, and told.
        refused: Names that meant another thing here than elsewhere, with what to do instead.
        under: Returns sections that --plan and options go over, from the values of `arguments`.

    Returns:
        A function for `search.cli._help.add_command`.
    """
    own = [argument.name for argument in arguments]
    old, refused = old or {}, refused or {}

    def command(**given_values: Any) -> None:
        given = {name: given_values.pop(name) for name in own}
        file = given_values.pop("plan_file")
        chosen = {name: value for name, value in given_values.items() if value is not None}
        with reporting_errors(""):
            renamed = _rename(chosen, old, refused)
            stored: Mapping[str, Any] = {} if under is None else under(given)
            if file is not None:
                stored = overlay(stored, read_plan_file(file))
            made = from_nested(plan, overlay(stored, nest(plan, chosen)))
        for name, new in renamed.items():
            note(f"{_flag(name)} is the old name of {_flag(new)} in this command.")
        for text in explain_bare_latencies(made):
            note(text)
        body(*given.values(), plan=made)

    leaves = plan_fields(plan)
    parameters = [
        *arguments,
        *(_parameter(leaf, groups or {}) for leaf in leaves),
        *(_hidden(name) for name in (*old, *refused)),
        _PLAN_FILE,
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    command.__doc__ = body.__doc__
    command.__name__ = body.__name__
    return command


def read_plan_file(path: Path) -> dict[str, Any]:
    """Read a plan's sections from TOML.

    Raises:
        InputError: The file is missing or no TOML.
    """
    try:
        return tomllib.loads(read_file(path).decode("utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read plan '{path}': {error.strerror}.") from None
    except RecursionError:
        raise InputError(f"Plan '{path}' must be TOML (it is nested too deeply).") from None
    except ValueError as error:  # of TOML, of UTF-8, or a number of thousands of digits
        raise InputError(f"Plan '{path}' must be TOML ({error}).") from None


_PLAN_FILE = own_option(
    "plan_file",
    Path,
    "--plan",
    "FILE",
    "a TOML file with the plan's sections; options on the command line override it",
)


def _rename(
    chosen: dict[str, Any], old: Mapping[str, str], refused: Mapping[str, str]
) -> dict[str, str]:
    """Put values that were given under old names where they belong.

    Returns:
        The old names that were given, with today's.

    Raises:
        InputError: A name is refused, or given beside its new one.
    """
    for name, remedy in refused.items():
        if name in chosen:
            raise InputError(
                f"{_flag(name)} could mean two things in this command. Received: "
                f"{one_line(chosen[name])}. {remedy}"
            )
    found = {name: new for name, new in old.items() if name in chosen}
    for name, new in found.items():
        if new in chosen:
            raise InputError(
                f"{_flag(new)} must be given once. Received: it and {_flag(name)}, its old name."
            )
        chosen[new] = chosen.pop(name)
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _hidden(name: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(_flag(name), hidden=True)],
    )


def _parameter(leaf: PlanField, groups: Mapping[str, str]) -> inspect.Parameter:
    """Return the option of one field; None stands for "not given"."""
    kind, names = kind_of(leaf.hint)[0], list_words(leaf)
    several = typing.get_origin(kind) is tuple
    metavar = "LIST" if several else _METAVARS.get(kind, "TEXT")
    if kind is not bool:
        kind = str  # the plan reads everything else: lists, counts like 2M, times like 30m
    shown = "" if leaf.default is False else leaf.default_text
    text = f"{leaf.help}  [default: {shown}]" if shown else leaf.help
    option = typer.Option(
        leaf.flags[0],
        help=text,
        show_default=False,
        metavar=metavar,
        rich_help_panel=groups.get(leaf.flat) or SECTIONS.get(leaf.section or "", GENERAL),
        autocompletion=completer(names, several) if names else None,
    )
    return inspect.Parameter(
        leaf.flat,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def completer(names: Names, several: bool) -> Callable[[str], list[str]]:
    """Return the function that typer calls for the completions of a value.

    Args:
        names: Called when the shell asks.
        several: Whether the option takes several with commas: the last one is completed then.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken = before.split(",")
        return [
            f"{before}{comma}{name}"
            for name in names()
            if name.startswith(last) and name not in taken
        ]

    return complete

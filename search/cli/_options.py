"""Command-line options created from the fields of a plan, so that defaults are defined once."""

from __future__ import annotations

import inspect
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from compress.core.atomic_files import read_file
from compress.core.errors import InputError
from compress.data.tasks import list_metrics
from compress.plan import Plan
from compress.plan.bench import BenchPlan, InputShape
from compress.plan.conversion import split_optional
from compress.plan.fields import PlanField, list_plan_fields
from compress.plan.nesting import from_nested, merge_nested, nest_options, replace_former_paths
from compress.plan.shrink import explain_bare_latencies
from compress.plugins import SOURCES, TASKS
from search.cli._console import OUTPUT_MODE, OutputMode, print_note, report_errors
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
"""The option `--plugins` for commands without a plan."""
_METAVARS = {int: "N", float: "NUMBER", bool: None, Path: "PATH", InputShape: "LIST"}
ListNames = Callable[[], Iterable[str]]
OPTION_VALUES: dict[str, ListNames] = {
    "data": SOURCES.names,
    "task": TASKS.names,
    "space": SPACES.names,
    "objectives": lambda: (*list_metrics(), *COSTS),
    "weight_pattern": lambda: ("unstructured", "2:4", "1x4"),
    "teacher": lambda: ("auto", "none"),
}
"""Completions of options that accept further values too, by their names in Python."""


def find_word_lister(leaf: PlanField) -> ListNames | None:
    """Return a function that lists an option's completions; None: the option accepts any text.

    The names of a registry are listed on each call, because plug-ins may have been registered.
    """
    choices = leaf.choices
    if choices is None:
        return OPTION_VALUES.get(leaf.flat_name)
    return lambda: (*leaf.extra_choices, *choices.names())


def create_option(
    name: str, kind: Any, flag: str, metavar: str | None, text: str, group: str | None = None
) -> inspect.Parameter:
    """Return a command's option that is no field of its plan; default None means "not given".

    Args:
        name: Name in Python.
        kind: Type of the value, for typer.
        flag: Flag on the command line.
        metavar: Placeholder of the value in help; None: the option has no value.
        text: Help text.
        group: Title of its group in help; None: no group.
    """
    option = typer.Option(flag, metavar=metavar, help=text, rich_help_panel=group)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


_OUTPUT_OPTIONS = (
    create_option(
        "quiet", bool, "--quiet", None, "print neither progress nor notes, only the result"
    ),
    create_option("as_json", bool, "--json", None, "print the result as one JSON document"),
)


def create_plan_command(
    plan: type[PlanT],
    body: Callable[..., None],
    *arguments: inspect.Parameter,
    groups: Mapping[str, str] | None = None,
    read_base: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """Return a typer command whose options are the plan's fields.

    Each field has one option, with the same name in every command.

    Args:
        plan: The plan class.
        body: Called with the values of the positional arguments and `plan=`.
        *arguments: Further parameters, annotated for typer, which come first.
        groups: Group titles in help of options without a section, by option.
        read_base: Returns the sections that --plan and options override, from the values of
            `arguments`.

    Returns:
        A function for `search.cli._help.add_command`.
    """
    argument_names = [argument.name for argument in arguments]

    def run_command(**given_values: Any) -> None:
        argument_values = {name: given_values.pop(name) for name in argument_names}
        file = given_values.pop("plan_file")
        quiet, as_json = bool(given_values.pop("quiet")), bool(given_values.pop("as_json"))
        OUTPUT_MODE.set(OutputMode(quiet, as_json))
        chosen = {name: value for name, value in given_values.items() if value is not None}
        with report_errors(""):
            base = {} if read_base is None else read_base(argument_values)
            stored = replace_former_paths(plan, base)
            if file is not None:
                stored = merge_nested(stored, replace_former_paths(plan, read_plan_file(file)))
            merged_plan = from_nested(plan, merge_nested(stored, nest_options(plan, chosen)))
        for text in explain_bare_latencies(merged_plan):
            print_note(text)
        body(*argument_values.values(), plan=merged_plan)

    leaves = list_plan_fields(plan)
    refused_options: frozenset[str] = getattr(plan, "refused_options", frozenset())
    parameters = [
        *arguments,
        *(
            _create_plan_option(leaf, groups or {}, hidden=leaf.flat_name in refused_options)
            for leaf in leaves
        ),
        _PLAN_FILE,
        *_OUTPUT_OPTIONS,
    ]
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run_command.__annotations__ = {item.name: item.annotation for item in parameters}
    run_command.__doc__ = body.__doc__
    run_command.__name__ = body.__name__
    return run_command


def read_plan_file(path: Path) -> dict[str, Any]:
    """Return a plan's sections from a TOML file.

    Raises:
        InputError: The file is missing or not valid TOML.
    """
    try:
        return tomllib.loads(read_file(path).decode("utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read plan '{path}': {error.strerror}.") from None
    except RecursionError:
        raise InputError(f"Plan '{path}' must be TOML (it is nested too deeply).") from None
    except ValueError as error:  # invalid TOML or UTF-8, or a number with thousands of digits
        raise InputError(f"Plan '{path}' must be TOML ({error}).") from None


_PLAN_FILE = create_option(
    "plan_file",
    Path,
    "--plan",
    "FILE",
    "a TOML file with the plan's sections; options on the command line override it",
)


def _create_plan_option(
    leaf: PlanField, groups: Mapping[str, str], *, hidden: bool
) -> inspect.Parameter:
    """Return the option of a field; its default None means "not given"."""
    kind, names = split_optional(leaf.hint)[0], find_word_lister(leaf)
    several = typing.get_origin(kind) is tuple
    metavar = "LIST" if several else _METAVARS.get(kind, "TEXT")
    if kind is not bool:
        kind = str  # the plan parses the text: lists, counts like 2M, times like 30m
    flag = f"{leaf.flag}/{leaf.negative_flag}" if leaf.default is True else leaf.flag
    option = typer.Option(
        flag,
        help=leaf.describe(),
        show_default=False,
        hidden=hidden,
        metavar=metavar,
        rich_help_panel=groups.get(leaf.flat_name) or SECTIONS.get(leaf.section or "", GENERAL),
        autocompletion=create_completer(names, several) if names else None,
    )
    return inspect.Parameter(
        leaf.flat_name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def create_completer(names: ListNames, several: bool) -> Callable[[str], list[str]]:
    """Return a completion function for typer.

    Args:
        names: Returns the completions; called on each request of the shell.
        several: Whether the option takes a list separated by commas; its last item is completed.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        entered_names = before.split(",")
        return [
            f"{before}{comma}{name}"
            for name in names()
            if name.startswith(last) and name not in entered_names
        ]

    return complete

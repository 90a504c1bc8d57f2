"""Command-line options made from the fields of a plan, so that defaults live in one place."""

from __future__ import annotations

import inspect
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from compress.core.atomic_files import read_file
from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.fields import PlanField, from_nested, nest, overlay, plan_fields
from search.cli._console import reporting_errors

PlanT = TypeVar("PlanT", bound=Plan | BenchPlan)

_PLAN_FILE = inspect.Parameter(
    "plan_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option("--plan", help="a TOML file with the plan's sections; options go over it"),
    ],
)


def plan_command(
    plan: type[PlanT], body: Callable[..., None], *arguments: inspect.Parameter
) -> Callable[..., None]:
    """Makes a typer command whose options are the plan's fields.

    Args:
        plan: The plan class.
        body: Called with the positional arguments' values, then `plan=`.
        arguments: Further parameters, annotated for typer, put first.

    Returns:
        A function for `typer.Typer.command`.
    """
    own = [argument.name for argument in arguments]

    def command(**values: Any) -> None:
        given = {name: values.pop(name) for name in own}
        file = values.pop("plan_file")
        chosen = {name: value for name, value in values.items() if value is not None}
        with reporting_errors(""):
            stored = read_plan_file(file) if file is not None else {}
            made = from_nested(plan, overlay(stored, nest(plan, chosen)))
        body(*given.values(), plan=made)

    parameters = [*arguments, *(_parameter(leaf) for leaf in plan_fields(plan)), _PLAN_FILE]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    command.__doc__ = body.__doc__
    command.__name__ = body.__name__
    return command


def read_plan_file(path: Path) -> dict[str, Any]:
    """Reads a plan's sections from TOML.

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


def _parameter(leaf: PlanField) -> inspect.Parameter:
    """Returns the option of one field; None stands for "not given"."""
    members = [item for item in typing.get_args(leaf.hint) if item is not type(None)]
    kind = members[0] if type(None) in typing.get_args(leaf.hint) else leaf.hint
    metavar = "INTEGER" if kind is int else None
    if typing.get_origin(kind) is tuple or str in members or kind is int:
        kind = str  # the plan reads lists, and counts like 2M
    shown = ",".join(leaf.default) if isinstance(leaf.default, tuple) else leaf.default
    text = leaf.help if shown in (None, "", False) else f"{leaf.help}  [default: {shown}]"
    option = typer.Option(*leaf.flags, help=text, show_default=False, metavar=metavar)
    return inspect.Parameter(
        leaf.flat,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )

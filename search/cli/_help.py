"""Help in groups: `--help` shows the options that matter first, `--help-all` every one."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from compress.core.errors import InputError, ParetuneError, unknown_name
from compress.plan.fields import RemovedOption, list_removed
from compress.plan.shrink import ShrinkPlan
from search.cli._console import complain
from search.plan import SearchPlan

GENERAL = "General"
SECTIONS = {
    "goal": "Goal",
    "data": "Data",
    "search": "Search",
    "stopping": "Stopping trials early",
    "budget": "End of the search",
    "final": "Training the front once more",
    "engine": "Where workers run",
    "channels": "Removing channels",
    "weights": "Pruning weights",
    "finetune": "Fine-tuning",
    "distill": "Teacher",
    "quantize": "Whole numbers",
    "export": "Exported files",
    "latency": "Timing",
}
"""Titles of the plan's sections, in the order in which `--help-all` shows them."""
WIDEST = 100
"""Columns of help, where the terminal has them: longer lines are hard to read."""
SYNONYMS = {
    "--dataset": "--data",
    "--lr": "--learning-rate",
    "--output": "--out",
    "--output-dir": "--out",
    "--num-trials": "--trials",
    "--n-trials": "--trials",
    "--jobs": "--workers",
    "--flops": "--max-macs",
    "--quantize": "--formats",
    "--prune": "--sparsity",
}
"""What options are called elsewhere, with our names for them."""

_ALL = "paretune.help_all"
_FIRST_COLUMN = 28
_USAGE: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for words that it cannot take; the class has no public name."""


def command_group(name: str, text: str) -> typer.Typer:
    """Return commands below one name.

    Args:
        name: As users type it.
        text: Help.
    """
    group = typer.Typer(
        name=name, cls=Commands, help=text, no_args_is_help=True, rich_markup_mode=None
    )
    # a callback: one command alone keeps its name too
    group.callback(help=text)(lambda: None)
    return group


def add_command(
    app: typer.Typer, name: str, function: Callable[..., None], basic: Sequence[str] = ()
) -> None:
    """Add a command whose help comes in groups.

    Args:
        app: Of paretune, or a group of commands in it.
        name: As users type it.
        function: With parameters annotated for typer.
        basic: Names of the options that `--help` shows, in this order; empty: all of them.
    """
    kind = type("Command", (_Command,), {"basic": tuple(basic)})
    settings = {"max_content_width": WIDEST}
    app.command(name, cls=kind, context_settings=settings)(_with_help_all(function))


class _Command(TyperCommand):
    """A command whose options stand in groups.

    Attributes:
        basic: Names of the options that `--help` shows; empty: all.
    """

    basic: ClassVar[tuple[str, ...]] = ()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options that matter first, or all of them by group."""
        params = [item for item in self.get_params(ctx) if not getattr(item, "hidden", False)]
        options = {item.name: item for item in params if item.param_type_name == "option"}
        arguments = [item for item in params if item.param_type_name == "argument"]
        groups: dict[str, list[Any]] = {}
        if arguments:
            groups["Arguments"] = arguments
        if self.basic and _ALL not in ctx.meta:
            groups["Options"] = [options[name] for name in (*self.basic, "help_all")]
        else:
            for title in (*SECTIONS.values(), "Options"):
                groups[title] = []
            for item in options.values():
                title = getattr(item, "rich_help_panel", None) or "Options"
                groups.setdefault(title, []).append(item)
            # what is no plan's (--plan, --help) stands last
            groups["Options"] = groups.pop("Options")
        rows = {
            title: [self._row(item, ctx, len(options)) for item in items]
            for title, items in groups.items()
            if items
        }
        widest = max(len(name) for found in rows.values() for name, _ in found)
        for title, found in rows.items():
            with formatter.section(title):
                width = min(widest, _FIRST_COLUMN)
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in found], width)

    def _row(self, item: Any, ctx: Any, number: int) -> tuple[str, str]:
        if item.name == "help_all" and self.basic:
            return "--help-all", f"show all {number} options, by group"
        if item.param_type_name == "argument":
            return item.metavar, item.help or ""
        name, text = item.get_help_record(ctx)
        return name, text


class Commands(TyperGroup):
    """A group of commands; of paretune's own, errors take one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with its first sentence in full."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (item.help or "").partition("\n")[0]) for name, item in named if item]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was named.

        Raises:
            InputError: There is none of this name.
        """
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known and args[0][:1] != "-":
            raise unknown_name("command", args[0], known)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; words that it cannot take are told in one line."""

        def run() -> Any:
            return super(Commands, self).main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        try:
            code = run()
        except ParetuneError as error:
            complain(error)
            code = error.exit_code
        except typer.Abort:
            code = 1
        except _USAGE as error:
            code = _told(error)
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: Any) -> int:
    """Print a usage error in one line, and return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    path = error.ctx.command_path if error.ctx is not None else ""
    if path and hasattr(error, "possibilities"):
        name = error.option_name
        removed = _find_removed(name)
        if removed is not None:
            complain(removed.build_error(name))
            return InputError.exit_code
        near = _nearest(name, error.ctx.command.get_params(error.ctx))
        hint = f" Did you mean '{near}'?" if near else ""
        complain(f"Unknown option '{name}' of `{path}`.{hint} `{path} --help-all` lists them.")
    else:
        how = f" `{path} --help` says how." if path else ""
        complain(f"{error.format_message().rstrip('.')}.{how}")
    return int(error.exit_code)


def _find_removed(flag: str) -> RemovedOption | None:
    """Return the option of an earlier version that a flag, or its `--no-` form, belongs to."""
    removed = (item for plan in (SearchPlan, ShrinkPlan) for item in list_removed(plan).values())
    return next((item for item in removed if flag.replace("--no-", "--", 1) == item.flag), None)


def _nearest(name: str, params: Sequence[Any]) -> str:
    """Return the option with the nearest name; empty: none is near."""
    known = [flag for item in params if not getattr(item, "hidden", False) for flag in item.opts]
    meant = SYNONYMS.get(name)
    if meant in known:
        return str(meant)
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _show_all(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        context.meta[_ALL] = True
        typer.echo(context.get_help())
        raise typer.Exit


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all", help="show every option, by group", callback=_show_all, is_eager=True,
            expose_value=False,
        ),
    ],
)  # fmt: skip


def _with_help_all(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option `--help-all`."""

    def command(**values: Any) -> None:
        values.pop(_HELP_ALL.name, None)  # typer hands over even what it should not expose
        function(**values)

    signature = inspect.signature(function, eval_str=True)
    parameters = [
        item.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for item in (*signature.parameters.values(), _HELP_ALL)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command

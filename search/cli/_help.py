"""Help in groups: `--help` shows the most important options, `--help-all` all of them."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from compress.core.errors import (
    InputError,
    ParetuneError,
    build_removed_name_error,
    build_unknown_name_error,
)
from compress.plan.fields import RemovedOption, list_removed_options
from compress.plan.nesting import FORMER_NAMES
from compress.plan.shrink import ShrinkPlan
from search.cli._console import print_error
from search.plan import SearchPlan

GENERAL = "General"
SECTIONS = {
    "goal": "Goal",
    "data": "Data",
    "search": "Search",
    "final": "Final training of the Pareto front",
    "cluster": "Workers",
    "channels": "Channel pruning",
    "weights": "Weight pruning",
    "finetune": "Fine-tuning",
    "distill": "Knowledge distillation",
    "quantize": "Quantization",
    "export": "Exported files",
    "latency": "Latency measurement",
}
"""Titles of the plan's sections, in the order in which `--help-all` shows them."""
MAX_WIDTH = 100
"""Maximum number of columns of the help, because longer lines are hard to read."""
SYNONYMS = {
    "--dataset": "--data",
    "--lr": "--learning-rate",
    "--output": "--out",
    "--output-dir": "--out",
    "--num-trials": "--trials",
    "--n-trials": "--trials",
    "--jobs": "--workers",
    "--json": "--out",
    "--flops": "--max-macs",
    "--quantize": "--formats",
    "--prune": "--sparsity",
}
"""Names of options in other tools -> our names."""
REMOVED_COMMANDS = {
    "dashboard": "Optuna's own shows the study: `pip install optuna-dashboard`, then "
    "`optuna-dashboard RUN/study.journal`, or the URL that --storage had."
}
"""What to use instead of the commands of earlier versions, by name."""

JOBS = {
    "shrink": (
        "Shrink a model to a target",
        ("paretune shrink model.keras --data my.npz --latency 0.5x --max-drop 1",
         "paretune shrink model.keras --data photos/ --size 200KB --no-train"),
    ),
    "run": (
        "Search architectures, compress the best, measure and report",
        ("paretune run --data fashion_mnist --trials 50 --max-minutes 60",
         "paretune run --data my.csv --label price --space mlp --latency 0.5x"),
    ),
    "search": (
        "Search architectures only",
        ("paretune search --data digits --objectives accuracy,latency_ms",),
    ),
    "compress": (
        "Prune, distil and quantize with settings of your own",
        ("paretune compress model.keras --data my.npz --channels 0.5x --sparsity 0.8",
         "paretune compress small.keras --data my.npz --sparsity 0 --teacher big.keras"),
    ),
    "bench": (
        "Measure the latency of models and files",
        ("paretune bench old.keras new.tflite --compare old,new",),
    ),
    "inspect": (
        "Count MACs and parameters, show prunable channels",
        ("paretune inspect model.keras",),
    ),
    "report": (
        "Render a run's report again, or compare runs",
        ("paretune report runs/a runs/b",),
    ),
}  # fmt: skip
"""What a user may want to do, and examples, by command. The first example is also shown by
`paretune` without arguments."""
_ALL = "paretune.help_all"
_FIRST_COLUMN = 28
_USAGE: type[Exception] = typer.BadParameter.__bases__[0]
"""typer's error for invalid arguments; the class has no public name."""


def format_jobs() -> str:
    """Return the jobs of paretune, with an example of each."""
    lines = ["paretune makes Keras models smaller and faster.", ""]
    for title, examples in JOBS.values():
        lines += [f"{title}:", f"  {examples[0]}"]
    hint = (
        "`paretune COMMAND --help` shows the options of a command, `paretune --help` all commands."
    )
    return "\n".join([*lines, "", hint])


def create_command_group(name: str, text: str) -> typer.Typer:
    """Return a group of commands.

    Args:
        name: Name on the command line.
        text: Help text.
    """
    group = typer.Typer(
        name=name, cls=Commands, help=text, no_args_is_help=True, rich_markup_mode=None
    )
    # without a callback, typer drops the name of a group's only command
    group.callback(help=text)(lambda: None)
    return group


def add_command(
    app: typer.Typer, name: str, function: Callable[..., None], basic: Sequence[str] = ()
) -> None:
    """Add a command with grouped help.

    Args:
        app: The application, or a group of commands in it.
        name: Name on the command line.
        function: The command, with parameters annotated for typer.
        basic: Names of the options that `--help` shows, in this order; empty: all of them.
    """
    examples = JOBS.get(name, ("", ()))[1]
    kind = type("Command", (_Command,), {"basic": tuple(basic), "examples": examples})
    settings = {"max_content_width": MAX_WIDTH}
    app.command(name, cls=kind, context_settings=settings)(_add_help_all(function))


class _Command(TyperCommand):
    """A command with grouped options.

    Attributes:
        basic: Names of the options that `--help` shows; empty: all.
        examples: Example command lines, which the help shows first.
    """

    basic: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the description and the examples."""
        super().format_help_text(ctx, formatter)
        if self.examples:
            formatter.write_paragraph()
            shown = self.examples if _ALL in ctx.meta else self.examples[:1]
            with formatter.indentation():
                for example in shown:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the basic options, or all of them by group."""
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
            # options that are no fields of a plan (--plan, --help) come last
            groups["Options"] = groups.pop("Options")
        rows = {
            title: [self._format_row(item, ctx, len(options)) for item in items]
            for title, items in groups.items()
            if items
        }
        widest = max(len(name) for section_rows in rows.values() for name, _ in section_rows)
        for title, section_rows in rows.items():
            with formatter.section(title):
                width = min(widest, _FIRST_COLUMN)
                formatter.write_dl(
                    [(f"{name:<{width}}", text) for name, text in section_rows], width
                )

    def _format_row(self, item: Any, ctx: Any, number: int) -> tuple[str, str]:
        if item.name == "help_all" and self.basic:
            return "--help-all", f"show all {number} options, by group"
        if item.param_type_name == "argument":
            return item.metavar, item.help or ""
        name, text = item.get_help_record(ctx)
        return name, text


class Commands(TyperGroup):
    """A group of commands, whose errors take one line in the top-level group."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with its full first sentence."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (item.help or "").partition("\n")[0]) for name, item in commands if item]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command with the given name.

        Raises:
            InputError: There is no command of this name, or it was removed.
        """
        names = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in names and args[0][:1] != "-":
            if args[0] in REMOVED_COMMANDS:
                raise build_removed_name_error("command", args[0], REMOVED_COMMANDS[args[0]])
            raise build_unknown_name_error("command", args[0], names)
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
        """Run the command line, and report invalid arguments in one line."""

        def run() -> Any:
            return super(Commands, self).main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        try:
            code = run()
        except ParetuneError as error:
            print_error(error)
            code = error.exit_code
        except typer.Abort:
            code = 1
        except _USAGE as error:
            code = _report_usage_error(error)
        sys.exit(code if isinstance(code, int) else 0)


def _report_usage_error(error: Any) -> int:
    """Print a usage error in one line, and return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    path = error.ctx.command_path if error.ctx is not None else ""
    if path and hasattr(error, "possibilities"):
        name = error.option_name
        removed = _find_removed(name)
        if removed is not None:
            print_error(removed.build_error(name))
            return InputError.exit_code
        hint = _suggest_option(name, error.ctx.command.get_params(error.ctx))
        print_error(f"Unknown option '{name}' of `{path}`.{hint} `{path} --help-all` lists them.")
    else:
        hint_text = f" `{path} --help` says how." if path else ""
        print_error(f"{error.format_message().rstrip('.')}.{hint_text}")
    return int(error.exit_code)


def _find_removed(flag: str) -> RemovedOption | None:
    """Return the removed option of an earlier version that matches a flag or its `--no-` form."""
    removed = (
        item for plan in (SearchPlan, ShrinkPlan) for item in list_removed_options(plan).values()
    )
    flags = (flag, flag.replace("--no-", "--", 1))
    return next((item for item in removed if item.flag in flags), None)


def _suggest_option(name: str, params: Sequence[Any]) -> str:
    """Return a sentence that names the option that was meant; empty: none is similar."""
    flags = [flag for item in params for flag in item.opts]
    renamed = FORMER_NAMES.get(name.lstrip("-").replace("-", "_"), "").replace("_", "-")
    if f"--{renamed}" in flags:
        return f" It is called '--{renamed}' now."
    nearest = SYNONYMS.get(name)
    if nearest not in flags:
        nearest = next(iter(difflib.get_close_matches(name, flags, n=1)), "")
    return f" Did you mean '{nearest}'?" if nearest else ""


def _show_all_options(context: typer.Context, is_requested: bool) -> None:
    if is_requested and not context.resilient_parsing:
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
            "--help-all",
            help="show every option, by group",
            callback=_show_all_options,
            is_eager=True,
            expose_value=False,
        ),
    ],
)


def _add_help_all(function: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--help-all` to a command."""

    def run_command(**values: Any) -> None:
        values.pop(_HELP_ALL.name, None)  # typer passes it despite `expose_value=False`
        function(**values)

    signature = inspect.signature(function, eval_str=True)
    parameters = [
        item.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for item in (*signature.parameters.values(), _HELP_ALL)
    ]
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run_command.__annotations__ = {item.name: item.annotation for item in parameters}
    run_command.__doc__ = function.__doc__
    run_command.__name__ = function.__name__
    return run_command

"""The command line, in which each command calls one public function with one plan."""

from __future__ import annotations

import inspect as signatures
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from compress._version import __version__
from compress.core.module_loading import drop_current_folder
from compress.core.native_output import silence_tensorflow_import
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.shrink import ShrinkPlan
from search.cli import bench, run, space, storage
from search.cli._console import report_output_errors
from search.cli._help import MAX_WIDTH, Commands, add_command, format_jobs
from search.cli._options import create_plan_command
from search.plan import SearchPlan

__all__ = ["app", "main"]


app = typer.Typer(
    name="paretune",
    cls=Commands,
    help="Search, shrink and measure Keras models.",
    epilog="`paretune COMMAND --help` shows the options that matter first, `--help-all` every one.",
    context_settings={"max_content_width": MAX_WIDTH},
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"paretune {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Search, shrink and measure Keras models."""
    if context.invoked_subcommand is None and not version:
        typer.echo(format_jobs())


_MODEL = signatures.Parameter(
    "model",
    signatures.Parameter.POSITIONAL_OR_KEYWORD,
    annotation=Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras or .h5 file")],
)

_MODELS = signatures.Parameter(
    "models",
    signatures.Parameter.POSITIONAL_OR_KEYWORD,
    annotation=Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="one or more: .keras, .h5, .tflite, .onnx, .mnn, SavedModel's folder",
        ),
    ],
)

for _name, _command in {
    "run": create_plan_command(SearchPlan, run.run),
    "search": create_plan_command(SearchPlan, run.search),
    "shrink": create_plan_command(
        ShrinkPlan,
        run.shrink,
        _MODEL,
        *run.SHRINK_OPTIONS,
        read_base=run.read_recipe_sections,
    ),
    "compress": create_plan_command(Plan, run.compress, _MODEL),
}.items():
    add_command(app, _name, _command, run.BASIC[_name])
add_command(
    app,
    "bench",
    create_plan_command(BenchPlan, bench.bench, _MODELS, groups=bench.GROUPS),
    bench.BASIC,
)
add_command(app, "inspect", bench.inspect)
add_command(app, "report", run.report)
app.add_typer(space.space)
app.add_typer(bench.latency_table)
app.add_typer(storage.storage)


def main() -> None:
    """Run the command line."""
    # global settings are safe, because this process runs only paretune: TensorFlow logs nothing,
    # and files in the current folder cannot shadow packages
    silence_tensorflow_import()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    drop_current_folder()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # ASCII terminals get escapes for other characters
            stream.reconfigure(errors="backslashreplace")
    with report_output_errors():
        app(prog_name="paretune")

"""The command line: each command calls one public function with one plan."""

from __future__ import annotations

import inspect as signatures
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from compress._version import __version__
from compress.core.interpreter import drop_current_folder
from compress.core.native_output import quiet_tensorflow_here
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.shrink import ShrinkPlan
from search.cli import bench, dashboard, run, space
from search.cli._console import delivering
from search.cli._help import WIDEST, Commands, add_command
from search.cli._options import plan_command
from search.plan import SearchPlan

__all__ = ["app", "main"]


app = typer.Typer(
    name="paretune",
    cls=Commands,
    help="Search, shrink and measure Keras models.",
    epilog="`paretune COMMAND --help` shows the options that matter first, `--help-all` every one.",
    context_settings={"max_content_width": WIDEST},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"paretune {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Search, shrink and measure Keras models."""


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
    "run": plan_command(SearchPlan, run.run, refused=run.SEARCH_REFUSED),
    "search": plan_command(SearchPlan, run.search, refused=run.SEARCH_REFUSED),
    "shrink": plan_command(
        ShrinkPlan,
        run.shrink,
        _MODEL,
        *run.OWN,
        refused=run.SHRINK_REFUSED,
        under=run.under,
    ),
    "compress": plan_command(Plan, run.compress, _MODEL, old=run.OLD),
}.items():
    add_command(app, _name, _command, run.BASIC[_name])
add_command(
    app,
    "bench",
    plan_command(BenchPlan, bench.bench, _MODELS, groups=bench.GROUPS),
    bench.BASIC,
)
add_command(app, "inspect", bench.inspect)
add_command(app, "report", run.report)
add_command(app, "dashboard", dashboard.dashboard)
app.add_typer(space.space)
app.add_typer(bench.latency_table)
app.add_typer(dashboard.storage)


def main() -> None:
    """Run the command line."""
    # this process is ours: quiet TensorFlow, and no file of the current folder in a package's place
    quiet_tensorflow_here()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    drop_current_folder()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal of ASCII alone gets escapes for the rest
            stream.reconfigure(errors="backslashreplace")
    with delivering():
        app(prog_name="paretune")

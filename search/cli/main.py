"""`paretune`: the application and its entry point."""

from __future__ import annotations

import inspect as signatures
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from compress.core.interpreter import drop_current_folder
from compress.core.native_output import quiet_tensorflow_here
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from search.cli._console import delivering
from search.cli._options import plan_command
from search.cli.bench import bench
from search.cli.compress import compress
from search.cli.dashboard import dashboard
from search.cli.inspect import inspect
from search.cli.report import report
from search.cli.run import run
from search.cli.search import search
from search.cli.space import space
from search.plan import SearchPlan

app = typer.Typer(
    name="paretune",
    help="Search, shrink and measure Keras models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
        typer.Argument(metavar="MODEL...", help="files: .keras, .h5, .tflite, .onnx, .mnn"),
    ],
)

app.command("run")(plan_command(SearchPlan, run))
app.command("search")(plan_command(SearchPlan, search))
app.command("compress")(plan_command(Plan, compress, _MODEL))
app.command("bench")(plan_command(BenchPlan, bench, _MODELS))
app.command("inspect")(inspect)
app.command("report")(report)
app.command("dashboard")(dashboard)
app.add_typer(space)


def main() -> None:
    """Runs the command line."""
    # this process is ours: quiet TensorFlow, and no file of the current folder in a package's place
    quiet_tensorflow_here()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    drop_current_folder()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal of ASCII alone gets escapes for the rest
            stream.reconfigure(errors="backslashreplace")
    with delivering():
        app()

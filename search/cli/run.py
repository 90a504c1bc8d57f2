"""`paretune run`, `search`, `shrink`, `compress` and `report`: making models, and their report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.fields import plan_fields
from compress.plan.shrink import ShrinkPlan
from search.cli._console import GOES_ON, RichDisplay, display, outcome, reporting_errors, show
from search.cli._help import SECTIONS
from search.cli._options import Plugins, own_option
from search.plan import SearchPlan
from search.plan.search import EngineOptions
from search.workers import MOST_NETS, Workers

if TYPE_CHECKING:
    from compress.report import Report

BASIC = {
    "run": (
        "data", "space", "trials", "epochs", "max_macs", "max_minutes", "workers", "channels",
        "sparsity", "teacher", "formats", "out",
    ),
    "search": (
        "data", "space", "trials", "epochs", "sampler", "objectives", "max_macs", "max_latency",
        "max_minutes", "stopping", "workers", "out",
    ),
    "shrink": (
        "data", "latency", "size", "macs", "params", "max_drop", "min_quality", "budget",
        "no_train", "recipe", "formats", "task", "finetune_epochs", "device", "out",
    ),
    "compress": (
        "data", "channels", "sparsity", "finetune_epochs", "learning_rate", "teacher", "formats",
        "runtimes", "task", "device", "out",
    ),
}  # fmt: skip
"""The options that `--help` shows of each command."""
SEARCH_REFUSED = {
    "optimizer": "Give --finetune-optimizer, or --optimizers: those that the search samples from."
}
"""Options that meant fine-tuning here, while `--epochs` meant a candidate's training."""
OLD = {"epochs": "finetune_epochs", "optimizer": "finetune_optimizer"}
"""What options were called in the first release, where `--epochs` was fine-tuning's here alone."""
SHRINK_REFUSED = {
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
COMPARISON = Path("compare.html")


def run(plan: SearchPlan) -> None:
    """Search architectures, compress the best, measure and report.

    The best are the front: candidates that no other beats in quality without costing more.
    """
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run(plan=plan, display=shown)
    print_report(report)


def search(plan: SearchPlan) -> None:
    """Search architectures and report the best; nothing is compressed.

    The best are the front: candidates that no other beats in quality without costing more.
    """
    from search import pipeline

    with reporting_errors(GOES_ON), display() as shown:
        report = pipeline.run_search(plan=plan, display=shown)
    print_report(report)


def compress(model: Path, plan: Plan) -> None:
    """Prune, distil, export and measure a Keras model of your own."""
    from compress.shrinking.compression import compress_model

    with (
        reporting_errors("The same command continues after the last whole epoch."),
        display() as shown,
    ):
        shown.phase(f"Compressing {model.name}", 0, 1, steps=True)
        result = compress_model(
            model, plan=plan, on_progress=lambda text, share: shown.worker(0, text, share)
        )
    print_report(result.report)


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


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="a run's --out folder; several: compare"),
    ],
    light: Annotated[
        bool, typer.Option("--light", help="a page without scripts, and of far fewer bytes")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help=f"the page of a comparison  [default: {COMPARISON}]"
        ),
    ] = None,
    explorer: Annotated[
        Path | None,
        typer.Option(
            "--model-explorer",
            metavar="FOLDER",
            help="write the graphs of compressed models for Google's Model Explorer there",
        ),
    ] = None,
    plugins: Plugins = "",
) -> None:
    """Render a run's report again from its folder, or compare runs; nothing is measured."""
    from compress.core.interpreter import import_plugins
    from compress.plan.forms import listed
    from compress.report.live.graphs import export_graphs
    from search.report import render
    from search.report.compare import compare_runs

    with reporting_errors("The same command renders it again."):
        import_plugins(listed(plugins))
        if len(folders) > 1:
            if light or explorer is not None:
                raise InputError(
                    "--light and --model-explorer must go with one run. Received: several to "
                    "compare."
                )
            made = compare_runs(folders, page or COMPARISON)
            rendered = None
        else:
            if page is not None:
                raise InputError(
                    "--out must go with several runs: the report of one lies in its folder. "
                    f"Received: {page} and one run."
                )
            rendered = render(folders[0], light=light)
            if explorer is not None:
                export_graphs(rendered, explorer)
    if rendered is not None:
        print_report(rendered)
    else:
        show(saved=made, last=f"report: {made}")


def under(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sections of the named recipe.

    Raises:
        InputError: There is none, or the file of a new one ends otherwise than in .toml.
    """
    from compress.shrinking.recipes import read_recipe

    file = given["save_recipe"]
    if file is not None and file.suffix != ".toml":
        raise InputError(f"save_recipe must be a file ending in .toml. Received: '{file}'.")
    return {} if given["recipe"] is None else read_recipe(given["recipe"])


def print_report(report: Report) -> None:
    """Print the report's tables on standard output, then where the page is and what to ship."""
    from compress.report import render_tables

    page = report.folder / "report.html"
    show(render_tables(report), saved=page, last=outcome(report))


def _crew(where: Sequence[Any], shown: RichDisplay) -> Workers | None:
    """Return the worker processes that the options ask for; None: none.

    Args:
        where: Values of --workers and of the engine's options; None: not given.
        shown: Shows what they do.
    """
    count, *options = where
    given = {
        name: value
        for (_, name, _, _), value in zip(_OF_ENGINE, options, strict=True)
        if value is not None
    }
    if count is None and not given:
        return None
    return Workers(count, **given, display=shown)

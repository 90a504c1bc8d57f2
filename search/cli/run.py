"""`paretune run`, `search`, `shrink`, `compress` and `report`: creating models and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.fields import list_plan_fields
from compress.plan.shrink import ShrinkPlan
from search.cli._console import (
    RESUME_HINT,
    RichDisplay,
    choose_width,
    report_errors,
    show,
    show_progress,
    show_result,
)
from search.cli._help import SECTIONS
from search.cli._options import Plugins, create_option
from search.plan import SearchPlan
from search.plan.cluster import ClusterOptions
from search.workers import MAX_PARALLEL, Workers

if TYPE_CHECKING:
    from compress.report import Report

BASIC = {
    "run": (
        "data", "space", "trials", "epochs", "budget", "max_macs", "workers", "channels",
        "sparsity", "teacher", "formats", "out",
    ),
    "search": (
        "data", "space", "trials", "epochs", "sampler", "objectives", "max_macs", "max_latency",
        "max_minutes", "stopping", "workers", "out",
    ),
    "shrink": (
        "data", "latency", "size", "macs", "params", "max_drop", "min_metric", "budget",
        "no_train", "recipe", "formats", "finetune_epochs", "device", "out",
    ),
    "compress": (
        "data", "channels", "sparsity", "finetune_epochs", "learning_rate", "teacher", "formats",
        "runtimes", "task", "device", "out",
    ),
}  # fmt: skip
"""Names of the options that `--help` shows, by command."""
_CLUSTER_OPTIONS: dict[str, dict[str, Any]] = {
    "engine": {"kind": str, "metavar": "TEXT"},
    "cpus_per_worker": {"kind": int, "metavar": "N"},
    "gpus_per_worker": {"kind": float, "metavar": "NUMBER"},
}
"""Options of `ClusterOptions` that `shrink` takes too, in their order there."""
SHRINK_OPTIONS = (
    create_option(
        "recipe",
        str,
        "--recipe",
        "NAME",
        "preset of options: mobile-int8, twice-as-fast, untrained, or a .toml file",
        SECTIONS["goal"],
    ),
    create_option(
        "save_recipe",
        Path,
        "--save-recipe",
        "FILE",
        "write the options of this run as a .toml recipe for other models",
        SECTIONS["goal"],
    ),
    create_option(
        "workers",
        int,
        "--workers",
        "N",
        "worker processes that train candidates at the same time; default: none; with --engine "
        f"ray as many as there is room for, at most {MAX_PARALLEL}",
        SECTIONS["cluster"],
    ),
    *(
        create_option(
            leaf.name,
            flag=leaf.flag,
            text=leaf.describe(),
            group=SECTIONS["cluster"],
            **_CLUSTER_OPTIONS[leaf.name],
        )
        for leaf in list_plan_fields(ClusterOptions)
        if leaf.name in _CLUSTER_OPTIONS
    ),
)
"""Options of `shrink` that are no fields of the plan."""
COMPARISON_PAGE = Path("compare.html")


def run(plan: SearchPlan) -> None:
    """Search architectures, compress the best, measure and report.

    The best candidates form the Pareto front: no other is both better and cheaper. A goal
    (--latency 0.5x --max-drop 1) applies to each of them.
    """
    from search import pipeline

    with report_errors(RESUME_HINT), show_progress() as progress:
        report = pipeline.run(plan=plan, display=progress)
    print_report(report)


def search(plan: SearchPlan) -> None:
    """Search architectures and report the best; nothing is compressed.

    The best candidates form the Pareto front: no other candidate is both better and cheaper.
    """
    from search import pipeline

    with report_errors(RESUME_HINT), show_progress() as progress:
        report = pipeline.run_search(plan=plan, display=progress)
    print_report(report)


def compress(model: Path, plan: Plan) -> None:
    """Prune, distil, export and measure a Keras model of your own."""
    from compress.shrinking.compression import compress_model

    with (
        report_errors("The same command continues after the last whole epoch."),
        show_progress() as progress,
    ):
        progress.start_phase(f"Compressing {model.name}", 0, 1, is_stepwise=True)
        result = compress_model(
            model, plan=plan, on_progress=lambda text, share: progress.update_worker(0, text, share)
        )
    print_report(result.report)


def shrink(
    model: Path,
    _recipe: str | None,
    save_recipe: Path | None,
    *worker_options: Any,
    plan: ShrinkPlan,
) -> None:
    """Shrink a Keras model of your own to a goal: a time, a size, a quality, or a whole front."""
    from compress.shrinking.shrink import shrink as shrink_model

    with (
        report_errors("The same command continues where it ended."),
        show_progress() as progress,
    ):
        workers = _create_workers(worker_options, progress)
        progress.start_phase(f"Shrinking {model.name}", 0, 1, is_stepwise=True)
        result = shrink_model(
            model,
            plan=plan,
            workers=workers,
            on_progress=lambda text, share: progress.update_worker(0, text, share),
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
            "--out", metavar="FILE", help=f"the page of a comparison  [default: {COMPARISON_PAGE}]"
        ),
    ] = None,
    plugins: Plugins = "",
) -> None:
    """Render a run's report again from its folder, or compare runs; nothing is measured."""
    from compress.core.module_loading import import_plugins
    from compress.plan.conversion import split_items
    from search.report import render
    from search.report.compare import build_comparison_summary, load_runs, write_comparison

    with report_errors("The same command renders it again."):
        import_plugins(split_items(plugins))
        if len(folders) > 1:
            if light:
                raise InputError("--light must go with one run. Received: several to compare.")
            runs = load_runs(folders)
            comparison_page = write_comparison(runs, page or COMPARISON_PAGE)
            screen = build_comparison_summary(runs, comparison_page)
            show(screen.to_text(choose_width()), saved=comparison_page)
        else:
            if page is not None:
                raise InputError(
                    "--out must go with several runs: the report of one lies in its folder. "
                    f"Received: {page} and one run."
                )
            print_report(render(folders[0], light=light))


def read_recipe_sections(argument_values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sections of the named recipe.

    Args:
        argument_values: Values of the positional parameters, with "recipe" and "save_recipe".

    Raises:
        InputError: The recipe does not exist, or the file for a new one does not end in .toml.
    """
    from compress.shrinking.recipes import read_recipe

    file = argument_values["save_recipe"]
    if file is not None and file.suffix != ".toml":
        raise InputError(f"save_recipe must be a file ending in .toml. Received: '{file}'.")
    return {} if argument_values["recipe"] is None else read_recipe(argument_values["recipe"])


def print_report(report: Report) -> None:
    """Print the result screen of a report, or its JSON, on standard output."""
    from compress.report.columns import as_json

    show_result(report, lambda: as_json(report), report.folder / "report.html")


def _create_workers(worker_options: Sequence[Any], display: RichDisplay) -> Workers | None:
    """Return the worker processes that the options request; None: none.

    Args:
        worker_options: Values of --workers and of the engine's options; None: not given.
        display: Display of the workers' progress.
    """
    count, *options = worker_options
    cluster_options = {
        name: value
        for name, value in zip(_CLUSTER_OPTIONS, options, strict=True)
        if value is not None
    }
    if count is None and not cluster_options:
        return None
    return Workers(count, **cluster_options, display=display)

"""`paretune report RUN...`: render a run's report again, or compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli._console import reporting_errors, show
from search.cli._options import Plugins
from search.cli.run import print_report

DEFAULT = Path("compare.html")


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
            "--out", metavar="FILE", help=f"the page of a comparison  [default: {DEFAULT}]"
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
    from compress.core.errors import InputError
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
            made = compare_runs(folders, page or DEFAULT)
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

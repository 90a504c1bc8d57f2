"""`paretune report RUN`: render the report again from a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli._console import reporting_errors
from search.cli._options import Plugins
from search.cli.run import print_report


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the --out folder of the run")],
    plugins: Plugins = "",
) -> None:
    """Render a run's report again from its folder; nothing is measured."""
    from compress.core.user_code import import_plugins
    from compress.plan.forms import listed
    from search.report import render

    with reporting_errors("The same command renders it again."):
        import_plugins(listed(plugins))
        rendered = render(folder)
    print_report(rendered)

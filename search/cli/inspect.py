"""`paretune inspect MODEL`: what a model costs and which channels can be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli._console import reporting_errors
from search.cli.run import console


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras or .h5 file")],
    json: Annotated[
        Path | None, typer.Option("--json", help="write the tables as JSON too")
    ] = None,
) -> None:
    """Show a model's costs by layer, which channels belong together and what is held."""
    from compress.device import quiet_tensorflow
    from compress.files import write_json
    from compress.io import load_model
    from compress.prune.channels import coupled_groups
    from compress.report.coupling import render_coupling

    with reporting_errors(""):
        quiet_tensorflow()
        loaded = load_model(model)
        coupled = coupled_groups(loaded)
        if json is not None:
            write_json(json, coupled.to_json())
    console().print(render_coupling(loaded.name, coupled))

"""`paretune space describe NAME`: what a search space holds for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.plan import DataOptions
from search.cli._console import reporting_errors, show, written
from search.cli._help import add_command, command_group
from search.cli._options import VALUES, Plugins, completer
from search.plan import SearchData

space = command_group("space", "Describe search spaces.")


def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="cnn, mlp, mobilenet, resnet; around:FILE; module:function",
            autocompletion=completer(VALUES["space"], several=False),
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="TEXT",
            help="the data that the networks are for, as in `run`",
            autocompletion=completer(VALUES["data"], several=False),
        ),
    ] = SearchData.source,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TEXT",
            help="what labels mean, as in `run`",
            autocompletion=completer(VALUES["task"], several=False),
        ),
    ] = DataOptions.task,
    label: Annotated[
        str, typer.Option("--label", metavar="NAMES", help="columns that are labels, as in `run`")
    ] = "",
    seed: Annotated[str, typer.Option("--seed", metavar="N", help="seeds the samples")] = "0",
    samples: Annotated[
        str,
        typer.Option(
            "--samples",
            metavar="N",
            help="networks to build of a space that is a function; default: a few dozen",
        ),
    ] = "",
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="also write it as JSON")
    ] = None,
    plugins: Plugins = "",
) -> None:
    """Show a space's parameters, its size and what its networks cost."""
    from compress.core.atomic_files import write_json
    from compress.core.interpreter import import_plugins
    from compress.core.quantities import MOST_SEED, SEED_BITS, parse_whole_number
    from compress.data import load_data
    from compress.model.kinds import check_model_file
    from compress.plan.forms import listed
    from search.cli._description import render_description
    from search.spaces import Around, space_for
    from search.spaces.describe import SAMPLES
    from search.spaces.describe import describe as described

    with reporting_errors("The same command starts again."):
        import_plugins(listed(plugins))
        options = DataOptions(data, task, label=listed(label))
        number = parse_whole_number(seed, "seed", least=0, most=MOST_SEED, why=SEED_BITS)
        count = parse_whole_number(samples or SAMPLES, "samples", least=1)
        chosen = space_for(name)
        if isinstance(chosen, Around):
            check_model_file(chosen.path)
        found = described(chosen, load_data(options), number, count)
        if json is not None:
            write_json(json, found.to_json())
    show(render_description(found), saved=json or "", last=written([json] if json else []))


add_command(space, "describe", describe)

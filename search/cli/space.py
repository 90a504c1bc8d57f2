"""`paretune space describe NAME`: parameters and size of a search space, for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType

from compress.measure import formats
from compress.plan import DataOptions
from search.cli._console import reporting_errors, show, written
from search.cli._help import add_command, command_group
from search.cli._options import VALUES, Plugins, completer
from search.plan import SearchData

if TYPE_CHECKING:
    from search.spaces.describe import Description

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


def render_description(found: Description) -> RenderableType:
    """Return the table of parameters, the size of the space, and what its models cost."""
    from compress.report.terminal import ELSEWHERE, Grid, said

    shape = " x ".join(str(size) for size in found.input_shape)
    of = f" (of {found.bounds_of} samples)" if found.bounds_of else ""
    example = "baseline" if found.is_baseline else "a sample"
    chosen = found.example.chosen
    told = [item.name for item in found.parameters if item.name in chosen]
    lines = [
        f"Architectures: {_architectures(found)}",
        f"MACs: {_span(found.macs)}{of}",
        f"Parameters: {_span(found.params)}{of}",
        f"Example ({example}): {formats.count(found.example.macs)} MACs, "
        f"{formats.count(found.example.params)} parameters",
        "  " + ", ".join(f"{name}={formats.plain(chosen[name])}" for name in told),
    ]
    if found.failures:
        lines.append(f"{len(found.failures)} samples gave no model; first {found.failures[0]}")
    heads = ("Parameter", "Values", "Asked if")
    table = Grid(
        "", heads, heads, wrap=("Values", "Asked if"), drop=("Asked if",), elsewhere=ELSEWHERE
    )
    for parameter in found.parameters:
        table.put((parameter.name, _values(parameter.distribution), parameter.condition))
    title = said(f"Space {found.space}, for {found.data} ({shape})", "bold")
    return Group(title, table, *map(said, lines))


def _values(distribution: object) -> str:
    from optuna import distributions

    if isinstance(distribution, distributions.CategoricalDistribution):
        return ", ".join(str(value) for value in distribution.choices)
    assert isinstance(distribution, distributions.IntDistribution | distributions.FloatDistribution)
    words = f"{formats.plain(distribution.low)} to {formats.plain(distribution.high)}"
    step = distribution.step
    if step is not None and (
        step != 1 or isinstance(distribution, distributions.FloatDistribution)
    ):
        words += f", step {formats.plain(step)}"
    return f"{words}, log scale" if distribution.log else words


def _span(values: tuple[int, int]) -> str:
    return f"{formats.count(values[0])} to {formats.count(values[1])}"


def _architectures(found: Description) -> str:
    if found.architectures is None:
        return "infinite: a parameter is continuous"
    if found.error is None:
        return f"{found.architectures:,} (complete choices, counted)"
    return (
        f"about {found.architectures:,} (complete choices, estimated from samples, "
        f"standard error {found.error:,.0f})"
    )


add_command(space, "describe", describe)

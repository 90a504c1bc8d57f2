"""`paretune space describe NAME`: what a search space holds for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from compress.measure import formats
from compress.plan import DataOptions
from compress.report.terminal import Grid, said
from search.cli._console import reporting_errors, show
from search.plan import SearchData
from search.spaces.describe import SAMPLES, Description

space = typer.Typer(
    name="space", help="Look at search spaces.", no_args_is_help=True, rich_markup_mode=None
)


@space.callback()
def _group() -> None:
    """Look at search spaces."""


@space.command("describe")
def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="cnn, mlp, mobilenet, resnet; around:FILE; module:function"
        ),
    ],
    data: Annotated[str, typer.Option("--data", help="what it is for; see run")] = (
        SearchData.source
    ),
    task: Annotated[str, typer.Option("--task", help="what labels mean; see run")] = (
        DataOptions.task
    ),
    seed: Annotated[int, typer.Option("--seed", help="of the samples")] = 0,
    samples: Annotated[
        int, typer.Option("--samples", help="models to build of a space that is a function")
    ] = SAMPLES,
    json: Annotated[Path | None, typer.Option("--json", help="write it as JSON too")] = None,
) -> None:
    """Show a space's parameters, its size and what its models cost."""
    from compress.core.atomic_files import write_json
    from compress.data import load_data
    from compress.model.io import check_model_file
    from search.spaces import Around, space_for
    from search.spaces.describe import describe as described

    with reporting_errors("The same command starts again."):
        chosen = space_for(name)
        if isinstance(chosen, Around):
            check_model_file(chosen.path)
        found = described(chosen, load_data(DataOptions(data, task)), seed, samples)
        if json is not None:
            write_json(json, found.to_json())
    show(render_description(found), saved=json or "")


def render_description(found: Description) -> RenderableType:
    """Returns the table of parameters, the size of the space, and what its models cost."""
    shape = " x ".join(str(size) for size in found.input_shape)
    of = f" (of {found.bounds_of} samples)" if found.bounds_of else ""
    example = "baseline" if found.is_baseline else "a sample"
    lines = [
        f"Architectures: {_architectures(found)}",
        f"MACs: {_span(found.macs)}{of}",
        f"Parameters: {_span(found.params)}{of}",
        f"Example ({example}): {formats.count(found.example.macs)} MACs, "
        f"{formats.count(found.example.params)} parameters",
        "  " + ", ".join(f"{key}={formats.plain(value)}" for key, value in _chosen(found)),
    ]
    if found.failures:
        lines.append(f"{len(found.failures)} samples gave no model; first {found.failures[0]}")
    title = said(f"Space {found.space}, for {found.data} ({shape})", "bold")
    return Group(title, _table(found), *map(said, lines))


def _chosen(found: Description) -> list[tuple[str, object]]:
    """Returns the example's choices in the table's order."""
    chosen = found.example.chosen
    return [(item.name, chosen[item.name]) for item in found.parameters if item.name in chosen]


def _table(found: Description) -> Grid:
    heads = ("Parameter", "Values", "Asked if")
    table = Grid("", heads, heads)
    for parameter in found.parameters:
        table.put((parameter.name, _values(parameter.distribution), parameter.condition))
    return table


def _values(distribution: object) -> str:
    """Returns a distribution in words."""
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

"""`paretune space describe NAME`: parameters and size of a search space, for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType

from compress.measure import formatting
from compress.plan import DataOptions
from search.cli._console import format_written, report_errors, show
from search.cli._help import add_command, create_command_group
from search.cli._options import OPTION_VALUES, Plugins, create_completer
from search.plan import SearchData

if TYPE_CHECKING:
    from search.spaces.describe import Description

space = create_command_group("space", "Describe search spaces.")


def describe_space(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="cnn, mlp, mobilenet, resnet; module:function",
            autocompletion=create_completer(OPTION_VALUES["space"], several=False),
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="TEXT",
            help="the data that the networks are for, as in `run`",
            autocompletion=create_completer(OPTION_VALUES["data"], several=False),
        ),
    ] = SearchData.source,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TEXT",
            help="what labels mean, as in `run`",
            autocompletion=create_completer(OPTION_VALUES["task"], several=False),
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
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="also write it as JSON to this file"),
    ] = None,
    plugins: Plugins = "",
) -> None:
    """Show a space's parameters, its size and the costs of its models."""
    from compress.core.atomic_files import write_json
    from compress.core.module_loading import import_plugins
    from compress.core.quantities import MAX_SEED, MAX_SEED_REASON, parse_integer
    from compress.data import load_data
    from compress.plan.conversion import split_items
    from search.spaces import resolve_space
    from search.spaces.describe import SAMPLES
    from search.spaces.describe import describe_space as create_description

    with report_errors("The same command starts again."):
        import_plugins(split_items(plugins))
        options = DataOptions(data, task, label=split_items(label))
        number = parse_integer(seed, "seed", least=0, most=MAX_SEED, why=MAX_SEED_REASON)
        count = parse_integer(samples or SAMPLES, "samples", least=1)
        chosen = resolve_space(name)
        description = create_description(chosen, load_data(options), number, count)
        if out is not None:
            write_json(out, description.to_json())
    show(
        render_description(description),
        saved=out or "",
        last=format_written([out] if out else []),
    )


def render_description(description: Description) -> RenderableType:
    """Return the table of parameters, the size of the space and the costs of its models."""
    from compress.report.terminal import ReportTable, to_text

    shape = " x ".join(str(size) for size in description.input_shape)
    sample_text = f" (of {description.bounds_of} samples)" if description.bounds_of else ""
    example = "baseline" if description.is_baseline else "a sample"
    chosen = description.example.chosen
    chosen_names = [item.name for item in description.parameters if item.name in chosen]
    lines = [
        f"Architectures: {_format_architectures(description)}",
        f"MACs: {_format_range(description.macs)}{sample_text}",
        f"Parameters: {_format_range(description.params)}{sample_text}",
        f"Example ({example}): {formatting.format_count(description.example.macs)} MACs, "
        f"{formatting.format_count(description.example.params)} parameters",
        "  "
        + ", ".join(f"{name}={formatting.format_choice(chosen[name])}" for name in chosen_names),
    ]
    if description.failures:
        lines.append(
            f"{len(description.failures)} samples gave no model; first {description.failures[0]}"
        )
    heads = ("Parameter", "Values", "Asked if")
    table = ReportTable("", heads, heads, wrap=("Values", "Asked if"), drop=("Asked if",))
    for parameter in description.parameters:
        table.add_row((parameter.name, _format_values(parameter.distribution), parameter.condition))
    title = to_text(f"Space {description.space}, for {description.data} ({shape})", "bold")
    return Group(title, table, *map(to_text, lines))


def _format_values(distribution: object) -> str:
    """Return an Optuna distribution as text: its choices, or "low to high" with step and scale."""
    from optuna import distributions

    if isinstance(distribution, distributions.CategoricalDistribution):
        return ", ".join(str(value) for value in distribution.choices)
    assert isinstance(distribution, distributions.IntDistribution | distributions.FloatDistribution)
    low, high = map(formatting.format_choice, (distribution.low, distribution.high))
    words = f"{low} to {high}"
    step = distribution.step
    if step is not None and (
        step != 1 or isinstance(distribution, distributions.FloatDistribution)
    ):
        words += f", step {formatting.format_choice(step)}"
    return f"{words}, log scale" if distribution.log else words


def _format_range(values: tuple[int, int]) -> str:
    return f"{formatting.format_count(values[0])} to {formatting.format_count(values[1])}"


def _format_architectures(description: Description) -> str:
    if description.architectures is None:
        return "infinite: a parameter is continuous"
    if description.error is None:
        return f"{description.architectures:,} (complete choices, counted)"
    return (
        f"about {description.architectures:,} (complete choices, estimated from samples, "
        f"standard error {description.error:,.0f})"
    )


add_command(space, "describe", describe_space)

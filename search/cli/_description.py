"""What `paretune space describe` prints: parameters, size and costs of a space."""

from __future__ import annotations

from rich.console import Group, RenderableType

from compress.measure import formats
from compress.report.terminal import ELSEWHERE, Grid, said
from search.spaces.describe import Description


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
    table = Grid(
        "", heads, heads, wrap=("Values", "Asked if"), drop=("Asked if",), elsewhere=ELSEWHERE
    )
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

"""What of a model can be pruned, on the terminal: groups of channels, what is held."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.prune.channels import Coupled

SHOWN = 4


def render_coupling(coupled: Coupled) -> RenderableType:
    """Returns the tables of channels of `paretune inspect`.

    Args:
        coupled: From `compress.coupled_groups`.
    """
    parts: list[RenderableType] = [_groups(coupled)]
    if coupled.groups:
        least = f"{coupled.least / max(1, coupled.macs):.3f}x"
        parts.append(
            Text(
                f"Channels can be thinned to {least} of the MACs with the default rounding and "
                "minimum.",
                style="dim",
            )
        )
    if coupled.frozen:
        parts.append(_held(coupled))
    for layer, kind, reason in coupled.unknown:
        parts.append(Text(f"{layer} ({kind}): channels around it stay: {reason}"))
    if coupled.opened:
        parts.append(Text(f"Opened into the layers inside: {', '.join(coupled.opened)}"))
    return Group(*parts)


def _groups(coupled: Coupled) -> Table:
    table = _table(
        "Channels that are kept or removed together",
        ("Made by", "Kind", "Number", "MACs they take part in", "Slices weights of"),
    )
    for row, share in zip(coupled.groups, coupled.shares, strict=True):
        held = f" (some held: {row.reason})" if row.reason else ""
        table.add_row(
            _names(row.makers) + held,
            row.kind,
            f"{row.total:,}",
            f"{share * 100:.1f} %",
            _names(row.layers),
        )
    return table


def _held(coupled: Coupled) -> Table:
    table = _table("Channels that stay", ("Reason", "Number", "Made by"))
    for row in coupled.frozen:
        table.add_row(row.reason, f"{row.units:,}", _names(row.made_by))
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    left = ("Layer", "Made by", "Kind", "Slices weights of", "Reason")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

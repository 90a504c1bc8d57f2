"""What of a model can be pruned, on the terminal: groups of channels, blocks, what is held."""

from __future__ import annotations

from rich.console import Group, RenderableType

from compress.prune.channels import Coupled
from compress.report.costs import ELSEWHERE
from compress.report.terminal import Grid, said

SHOWN = 4
TEXTS = (
    "Made by", "Kind", "Slices weights of", "Reason", "Added by", "Layers", "Blocks inside"
)  # fmt: skip
"""Columns that stand left."""


def render_coupling(coupled: Coupled) -> RenderableType:
    """Returns the tables of channels and residual blocks of `paretune inspect`.

    Args:
        coupled: From `compress.coupled_groups`.
    """
    parts: list[RenderableType] = [_groups(coupled)]
    if coupled.groups and coupled.least_share is not None:
        parts.append(
            said(
                f"Channels can be thinned to {coupled.least_share:g}x of the MACs "
                f"({coupled.least:,}) with the default minimum.",
                "dim",
            )
        )
    if coupled.macs is None:
        parts.append(said("MACs are not known: an input size is open. Give --input-shape."))
    if coupled.frozen:
        parts.append(_held(coupled))
    for layer, kind, reason in coupled.unknown:
        parts.append(said(f"{layer} ({kind}): channels around it stay: {reason}"))
    if coupled.blocks:
        parts.append(_blocks(coupled))
    if coupled.held_blocks:
        parts.append(_held_blocks(coupled))
    if coupled.opened:
        parts.append(said(f"Opened into the layers inside: {', '.join(coupled.opened)}"))
    return Group(*parts)


def _groups(coupled: Coupled) -> Grid:
    table = _table(
        "Channels that are kept or removed together",
        ("Made by", "Kind", "Number", "MACs they take part in", "Slices weights of"),
        drop=("Kind", "MACs they take part in", "Slices weights of"),
    )
    shares = coupled.shares or (None,) * len(coupled.groups)
    for row, share in zip(coupled.groups, shares, strict=True):
        held = f" (some held: {row.reason})" if row.reason else ""
        table.put(
            (
                _names(row.makers) + held,
                row.kind,
                f"{row.total:,}",
                "" if share is None else f"{share * 100:.1f} %",
                _names(row.layers),
            )
        )
    return table


def _held(coupled: Coupled) -> Grid:
    table = _table("Channels that stay", ("Reason", "Number", "Made by"), ("Number", "Made by"))
    for row in coupled.frozen:
        table.put((row.reason, f"{row.units:,}", _names(row.made_by)))
    return table


def _blocks(coupled: Coupled) -> Grid:
    nested = ("Blocks inside",) if any(row.inner for row in coupled.blocks) else ()
    table = _table(
        "Residual branches that could leave as a whole",
        ("Added by", "MACs", "Parameters", "Layers", *nested),
        drop=(*nested, "Parameters", "Layers"),
    )
    for row in coupled.blocks:
        macs = "" if row.macs_share is None else f"{row.macs_share * 100:.1f} %"
        cells = [row.name, macs, f"{row.params_share * 100:.1f} %", _names(row.layers)]
        table.put([*cells, *([_names(row.inner)] if nested else [])])
    return table


def _held_blocks(coupled: Coupled) -> Grid:
    """Shows sums and branches that stay, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in coupled.held_blocks:
        by_reason.setdefault(row.reason, []).append(row.name)
    table = _table("Branches that stay", ("Reason", "Number", "Added by"), ("Number", "Added by"))
    for reason, names in by_reason.items():
        table.put((reason, f"{len(names):,}", _names(tuple(dict.fromkeys(names)))))
    return table


def _table(title: str, columns: tuple[str, ...], drop: tuple[str, ...]) -> Grid:
    left = [name for name in columns if name in TEXTS]
    texts = [name for name in left if name != "Kind"]
    return Grid(title, columns, left, title_left=True, wrap=texts, drop=drop, elsewhere=ELSEWHERE)


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

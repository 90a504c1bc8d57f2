"""What `paretune inspect` shows of a model, on the terminal and as JSON.

The costs of each layer, what a SavedModel or a LiteRT file holds, and what can be pruned: groups of
channels, blocks, what is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from compress.measure import Analysis, formats
from compress.measure.graph_files import GraphFile
from compress.measure.graph_files.records import shape_text
from compress.report.terminal import Grid, said

if TYPE_CHECKING:
    from compress.prune.channels import Coupled

Shares = dict[str, float]
ELSEWHERE = "A wider terminal and --json have them."
"""Where the columns are that a narrow terminal has no room for."""
SHOWN = 4
TEXTS = (
    "Made by", "Kind", "Slices weights of", "Reason", "Added by", "Layers", "Blocks inside"
)  # fmt: skip
"""Columns that stand left."""


def render_costs(
    name: str, analysis: Analysis, shares: Shares, how: str, rows: str = "Layer"
) -> RenderableType:
    """Returns the table of layers and the totals.

    Args:
        name: Of the model.
        analysis: From `compress.count_macs`.
        shares: Measured share of the time by layer name; empty: not measured.
        how: On what the shares were measured.
        rows: What a row is.
    """
    sparse = (
        f" ({formats.count(analysis.sparse_macs)} by non-zero weights)"
        if analysis.sparse_macs < analysis.macs
        else ""
    )
    peak = formats.size(analysis.peak_bytes) if analysis.peak_bytes is not None else "unknown"
    lines = [
        f"{name}: {formats.count(analysis.macs)} MACs{sparse} "
        f"({formats.count(2 * analysis.macs)} FLOPs), {formats.count(analysis.other_ops)} "
        f"elementwise operations, {formats.count(analysis.params)} parameters",
        f"{peak} of activations at the peak, {formats.size(analysis.bytes_moved)} moved; all "
        "counted from shapes at batch 1",
    ]
    parts: list[RenderableType] = [*map(said, lines), _table(analysis, shares, rows)]
    if shares:
        parts.append(said(f"Time measured with {how}.", "dim"))
    if analysis.unsupported:
        parts.append(said("Not counted in MACs:"))
        parts += [said(f"  {line}") for line in analysis.unsupported]
    return Group(*parts)


def costs_json(analysis: Analysis, shares: Shares, how: str) -> dict[str, Any]:
    """Returns the same as JSON."""
    return {
        "macs": analysis.macs,
        "flops": 2 * analysis.macs,
        "sparse_macs": analysis.sparse_macs,
        "other_ops": analysis.other_ops,
        "params": analysis.params,
        "nonzero": analysis.nonzero,
        "peak_bytes": analysis.peak_bytes,
        "bytes_moved": analysis.bytes_moved,
        "macs_by_class": analysis.by_class(),
        "unsupported": list(analysis.unsupported),
        "layers": [asdict(layer) for layer in analysis.layers],
        "time_share": shares,
        "time_measured_with": how,
    }


def _table(analysis: Analysis, shares: Shares, rows: str) -> Grid:
    heads = [rows, "Class", "Output", "MACs", "share", "Parameters"]
    heads += ["time"] if shares else []
    table = Grid(
        f"{rows}s", heads, (rows, "Class"), title_left=True,
        drop=("Output", "Class", "share", "Parameters"), elsewhere=ELSEWHERE,
    )  # fmt: skip
    shown: set[str] = set()
    for layer in analysis.layers:
        own = layer.name.rpartition("/")[2]
        if not layer.macs and not layer.params and layer.macs is not None and own not in shares:
            continue
        cells = [
            layer.name,
            layer.kind,
            " x ".join("?" if size is None else str(size) for size in layer.output_shape),
            "not counted" if layer.macs is None else formats.count(layer.macs),
            f"{(layer.macs or 0) / analysis.macs * 100:.1f} %" if analysis.macs else "-",
            formats.count(layer.params),
        ]
        if shares:
            # a layer that is called twice has one time
            cells.append("" if own in shown else f"{shares.get(own, 0.0) * 100:.1f} %")
            shown.add(own)
        table.put(cells)
    rest = sum(share for name, share in shares.items() if name not in shown)
    if rest > 0:
        table.put(["between layers", "", "", "", "", "", f"{rest * 100:.1f} %"])
    return table


def render_graph_file(found: GraphFile) -> RenderableType:
    """Returns inputs and outputs, the table of operators, and what cannot be done with the file.

    Args:
        found: From `compress.measure.graph_files.read_graph_file`.
    """
    title = f"{found.path.name}: {found.what.text}, {formats.size(found.size_bytes)}"
    parts: list[RenderableType] = [said(title, "bold")]
    if len(found.signatures) > 1:
        parts.append(said(f"Signature '{found.signature}' of {', '.join(found.signatures)}"))
    if found.batch:
        parts.append(said(f"Counted at batch {found.batch}, which the file fixes."))
    parts.append(_ports(found))
    parts.append(said(""))
    parts.append(render_costs(found.name, found.costs, {}, "", "Operator"))
    parts.append(said(found.what.verdict, "bold"))
    return Group(*parts)


def _ports(found: GraphFile) -> Grid:
    quantized = any(port.scale for port in (*found.inputs, *found.outputs))
    heads = ["", "Name", "Shape", "Type", *(("Scale", "Zero point") if quantized else ())]
    table = Grid(
        "Inputs and outputs", heads, ("", "Name", "Shape", "Type"), title_left=True,
        drop=("Zero point", "Scale") if quantized else (), elsewhere=ELSEWHERE,
    )  # fmt: skip
    for what, ports in (("input", found.inputs), ("output", found.outputs)):
        for port in ports:
            scale = (f"{port.scale:.6g}", port.zero_point) if port.scale else ("", "")
            cells = (what, port.name, shape_text(port), port.dtype)
            table.put([*cells, *(scale if quantized else ())])
    return table


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
        rows = [(row.reason, f"{row.units:,}", _names(row.made_by)) for row in coupled.frozen]
        heads = ("Reason", "Number", "Made by")
        parts.append(_coupling_table("Channels that stay", heads, heads[1:], rows))
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
    shares = coupled.shares or (None,) * len(coupled.groups)
    return _coupling_table(
        "Channels that are kept or removed together",
        ("Made by", "Kind", "Number", "MACs they take part in", "Slices weights of"),
        ("Kind", "MACs they take part in", "Slices weights of"),
        [
            (
                _names(row.makers) + (f" (some held: {row.reason})" if row.reason else ""),
                row.kind,
                f"{row.total:,}",
                "" if share is None else f"{share * 100:.1f} %",
                _names(row.layers),
            )
            for row, share in zip(coupled.groups, shares, strict=True)
        ],
    )


def _blocks(coupled: Coupled) -> Grid:
    nested = ("Blocks inside",) if any(row.inner for row in coupled.blocks) else ()
    return _coupling_table(
        "Residual branches that could leave as a whole",
        ("Added by", "MACs", "Parameters", "Layers", *nested),
        (*nested, "Parameters", "Layers"),
        [
            (
                row.name,
                "" if row.macs_share is None else f"{row.macs_share * 100:.1f} %",
                f"{row.params_share * 100:.1f} %",
                _names(row.layers),
                *([_names(row.inner)] if nested else []),
            )
            for row in coupled.blocks
        ],
    )


def _held_blocks(coupled: Coupled) -> Grid:
    """Shows sums and branches that stay, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in coupled.held_blocks:
        by_reason.setdefault(row.reason, []).append(row.name)
    return _coupling_table(
        "Branches that stay",
        ("Reason", "Number", "Added by"),
        ("Number", "Added by"),
        [
            (reason, f"{len(names):,}", _names(tuple(dict.fromkeys(names))))
            for reason, names in by_reason.items()
        ],
    )


def _coupling_table(
    title: str, columns: tuple[str, ...], drop: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> Grid:
    left = [name for name in columns if name in TEXTS]
    texts = [name for name in left if name != "Kind"]
    table = Grid(title, columns, left, title_left=True, wrap=texts, drop=drop, elsewhere=ELSEWHERE)
    for row in rows:
        table.put(row)
    return table


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

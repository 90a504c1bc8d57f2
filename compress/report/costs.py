"""What each layer of a model costs, on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType

from compress.measure import Analysis, formats
from compress.report.terminal import Grid, said

Shares = dict[str, float]
ELSEWHERE = "A wider terminal and --json have them."
"""Where the columns are that a narrow terminal has no room for."""


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

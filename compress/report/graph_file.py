"""What a SavedModel or a LiteRT file holds and costs, on the terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType

from compress.measure import formats
from compress.measure.graph_files import GraphFile, Port
from compress.measure.graph_files.records import shape_text
from compress.report.costs import ELSEWHERE, costs_json, render_costs
from compress.report.terminal import Grid, said


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


def graph_file_json(found: GraphFile) -> dict[str, Any]:
    """Returns the same as JSON."""
    return {**found.to_json(), "costs": costs_json(found.costs, {}, "")}


def _ports(found: GraphFile) -> Grid:
    quantized = any(port.scale for port in (*found.inputs, *found.outputs))
    heads = ["", "Name", "Shape", "Type", *(("Scale", "Zero point") if quantized else ())]
    table = Grid(
        "Inputs and outputs", heads, ("", "Name", "Shape", "Type"), title_left=True,
        drop=("Zero point", "Scale") if quantized else (), elsewhere=ELSEWHERE,
    )  # fmt: skip
    for what, ports in (("input", found.inputs), ("output", found.outputs)):
        for port in ports:
            cells = (what, port.name, shape_text(port), port.dtype)
            table.put([*cells, *(_scale(port) if quantized else ())])
    return table


def _scale(port: Port) -> tuple[str, str]:
    return (f"{port.scale:.6g}", str(port.zero_point)) if port.scale else ("", "")

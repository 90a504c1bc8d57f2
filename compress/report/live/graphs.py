"""The graph of a model before and after compression, with one mark per call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compress.core.summary import truncate_start
from compress.measure import formatting
from compress.report.live.charts import Chart, Trace
from compress.run.compressed_model import CallNode, Nodes

MAX_NODES, MAX_NAMED = 400, 40
"""Maximum number of calls of a model that is drawn, and of one whose calls are labelled."""
MACS, PARAMS, TIME, REMOVED = "MACs", "parameters", "latency", "what was removed"


def build_graph_chart(model: str, before: Nodes, after: Nodes) -> Chart | None:
    """Return the chart of both graphs; None for empty graphs or more than `MAX_NODES` calls.

    Args:
        model: Name of the model.
        before, after: From `compress.run.compressed_model.read_graphs`.
    """
    if not before or max(len(before), len(after)) > MAX_NODES:
        return None
    after_by_name = {node.name: node for node in after}
    before_by_name = {node.name: node for node in before}
    before_positions, after_positions = arrange_nodes(before), arrange_nodes(after)
    # distance between the first and the last column
    before_width, after_width = (
        max(x, default=0.0) - min(x, default=0.0) for x, _ in (before_positions, after_positions)
    )
    shift = before_width + 2.5 + after_width / 2
    sides = [
        _build_traces(before, before_positions, -before_width / 2 - 1.25, "before", after_by_name),
        _build_traces(
            after, after_positions, shift - before_width / 2 - 1.25, "after", before_by_name
        ),
    ]
    depth = max((*map(abs, before_positions[1]), *map(abs, after_positions[1]), 1.0))
    timed = any(node.ms is not None for node in (*before, *after))
    figures = (MACS, PARAMS, *([TIME] if timed else []), REMOVED)
    return Chart(
        f"graph-{model}",
        "The model before (left) and after (right)",
        "A mark a call, in the order of computing from above; under the pointer what it is and "
        "costs. MACs and parameters are counted; times, where there are any, are of calls that "
        "were timed one by one, with what is fused into them. What was removed: the share of a "
        "call's MACs that were removed.",
        [trace for side in sides for trace in side],
        {
            "height": int(min(1100, 140 + 22 * depth)),
            "showlegend": False,
            "xaxis": {"visible": False, "range": [-before_width - 3, shift + after_width / 2 + 4]},
            "yaxis": {"visible": False},
        },
        model=model,
        wide=True,
        variants=tuple(
            {
                "name": title,
                "colours": {
                    str(2 * index + 1): _compute_colours(nodes, others, title)
                    for index, (nodes, others) in enumerate(
                        ((before, after_by_name), (after, before_by_name))
                    )
                },
            }
            for title in figures
        ),
    )


def arrange_nodes(nodes: Sequence[CallNode]) -> tuple[list[float], list[float]]:
    """Return the positions of calls: each below its sources, calls of one row side by side.

    Args:
        nodes: Calls in execution order.

    Returns:
        Their columns (x), centred on 0, and their rows (y), downwards from 0.

    Example:
        >>> def call(*sources):
        ...     return CallNode("n", "Dense", (), 0, 0, sources)
        >>> arrange_nodes([call(), call(0), call(0), call(1, 2)])
        ([0.0, -0.5, 0.5, 0.0], [0, -1, -1, -2])
    """
    level: list[int] = []
    for node in nodes:
        level.append(1 + max((level[source] for source in node.sources), default=-1))
    x = [0.0] * len(nodes)
    for row in range(max(level, default=-1) + 1):
        row_indices = [index for index, entry in enumerate(level) if entry == row]
        sources = {index: nodes[index].sources for index in row_indices}
        above = {
            index: sum(x[source] for source in entry) / max(1, len(entry))
            for index, entry in sources.items()
        }
        row_indices.sort(key=lambda index: (above[index], index))
        for position, index in enumerate(row_indices):
            x[index] = position - (len(row_indices) - 1) / 2
    return x, [-entry for entry in level]


def _build_traces(
    nodes: Nodes,
    positions: tuple[list[float], list[float]],
    shift: float,
    side: str,
    other: Mapping[str, CallNode],
) -> list[Trace]:
    """Return the plotly traces of one graph, edges and calls, moved to the right by `shift`."""
    x, y = [value + shift for value in positions[0]], positions[1]
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for index, node in enumerate(nodes):
        for source in node.sources:
            skips = y[source] - y[index] > 1
            # a line over more than one row is bent around the calls between
            middle = [(x[source] + x[index]) / 2 + 0.45] if skips else []
            between = [(y[source] + y[index]) / 2] if skips else []
            lines_x += [x[source], *middle, x[index], None]
            lines_y += [y[source], *between, y[index], None]
    edges: Trace = {
        "type": "scatter", "mode": "lines", "x": lines_x, "y": lines_y, "hoverinfo": "skip",
        "line": {"color": "#8A8F99", "width": 1, "shape": "spline"},
    }  # fmt: skip
    marks: Trace = {
        "type": "scatter", "x": x, "y": y,
        "mode": "markers+text" if len(nodes) <= MAX_NAMED else "markers",
        "text": [truncate_start(node.name, 18) for node in nodes], "textposition": "middle right",
        "marker": {"size": 12, "symbol": "square", "line": {"width": 1, "color": "#8A8F99"},
                   "colorscale": [[0, "#f2e9d8"], [0.5, "#e69f00"], [1, "#8c2d04"]]},
        "customdata": [_describe_node(node, other.get(node.name), side) for node in nodes],
        "hovertemplate": "%{customdata[0]}\n%{customdata[1]}\n%{customdata[2]}\n%{customdata[3]}",
    }  # fmt: skip
    return [edges, marks]


def _describe_node(node: CallNode, other: CallNode | None, side: str) -> list[str]:
    """Return a call's four hover lines; the last compares its MACs with `other` (None: no call)."""
    shape = " x ".join("?" if size is None else str(size) for size in node.shape)
    macs = (
        formatting.format_count(node.macs)
        if node.macs is not None
        else f"not counted: {node.reason}"
    )
    if other is None:
        change_text = "removed" if side == "before" else "added"
    elif other.macs == node.macs:
        change_text = "MACs unchanged"
    else:
        old_macs, new_macs = (
            (node.macs, other.macs) if side == "before" else (other.macs, node.macs)
        )
        change_text = (
            f"MACs {formatting.format_count(old_macs)} -> {formatting.format_count(new_macs)}"
        )
    time_text = (
        f", {formatting.format_time(node.ms)} (from the table of times)"
        if node.ms is not None
        else ""
    )
    return [
        f"{node.name} ({node.kind})", f"output {shape}",
        f"{macs} MACs, {formatting.format_count(node.params)} parameters{time_text}", change_text,
    ]  # fmt: skip


def _compute_colours(nodes: Nodes, other: Mapping[str, CallNode], title: str) -> list[float]:
    """Return the values for the colours of marks: logarithms of costs, or removed shares.

    Costs are MACs, parameters or microseconds; unknown ones count as 0.
    """
    if title == REMOVED:
        return [compute_macs_change(node, other.get(node.name)) for node in nodes]
    costs = [
        {MACS: node.macs or 0, PARAMS: node.params, TIME: 1000 * (node.ms or 0.0)}[title]
        for node in nodes
    ]
    return [math.log10(1 + cost) for cost in costs]


def compute_macs_change(node: CallNode, other: CallNode | None) -> float:
    """Return the change of a call's MACs between two graphs, relative to the larger, in [0, 1].

    Args:
        node: The call.
        other: The same call in the other graph; None if it has none: the result is 1.
    """
    if other is None:
        return 1.0
    most = max(node.macs or 0, other.macs or 0)
    return 1 - min(node.macs or 0, other.macs or 0) / most if most else 0.0

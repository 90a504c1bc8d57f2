"""The graph of a model before and after compression: one mark a call, in chosen colours.

The same graphs and figures are written as files for Google's Model Explorer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.core.summary import tail
from compress.measure import formats
from compress.report.live.charts import Chart, Trace
from compress.report.rows import Report
from compress.run.compressed import CallNode, Nodes, read_graphs
from compress.run.directory import RunFolder

MOST, NAMED = 400, 40
"""Calls of a net of which a picture is drawn, and of one whose calls have their names beside."""
MACS, PARAMS, TIME, REMOVED = "MACs", "parameters", "latency", "what was removed"


def graph_chart(model: str, before: Nodes, after: Nodes) -> Chart | None:
    """Return the picture; None of nets that are empty, or too large for one.

    Args:
        model: Whose card it stands on.
        before, after: From `compress.run.compressed.read_graphs`.
    """
    if not before or max(len(before), len(after)) > MOST:
        return None
    kept = {node.name: node for node in after}
    was = {node.name: node for node in before}
    left, right = placed(before), placed(after)
    # of the columns, from the first to the last
    wide, other = (max(x, default=0.0) - min(x, default=0.0) for x, _ in (left, right))
    shift = wide + 2.5 + other / 2
    sides = [
        _side(before, left, -wide / 2 - 1.25, "before", kept),
        _side(after, right, shift - wide / 2 - 1.25, "after", was),
    ]
    depth = max((*map(abs, left[1]), *map(abs, right[1]), 1.0))
    return Chart(
        f"graph-{model}",
        "The net, before (left) and after (right)",
        "A mark a call, in the order of computing from above; under the pointer what it is and "
        "costs. MACs and parameters are counted; times, where there are any, are of calls that "
        "were timed one by one, with what is fused into them. What was removed: the share of a "
        "call's MACs that left.",
        [trace for side in sides for trace in side],
        {
            "height": int(min(1100, 140 + 22 * depth)), "showlegend": False,
            "xaxis": {"visible": False, "range": [-wide - 3, shift + other / 2 + 4]},
            "yaxis": {"visible": False},
        },
        model=model,
        wide=True,
        variants=tuple(
            {"name": title, "colours": {
                str(2 * place + 1): _colours(nodes, others, title)
                for place, (nodes, others) in enumerate(((before, kept), (after, was)))
            }}
            for title in shown(before, after)
        ),
    )  # fmt: skip


def placed(nodes: Sequence[CallNode]) -> tuple[list[float], list[float]]:
    """Place calls: each below all that it reads, calls of one row beside each other.

    Returns:
        Their columns and their rows.

    Example:
        >>> def call(*sources):
        ...     return CallNode("n", "Dense", (), 0, 0, sources)
        >>> placed([call(), call(0), call(0), call(1, 2)])
        ([0.0, -0.5, 0.5, 0.0], [0, -1, -1, -2])
    """
    level: list[int] = []
    for node in nodes:
        level.append(1 + max((level[source] for source in node.sources), default=-1))
    x = [0.0] * len(nodes)
    for row in range(max(level, default=-1) + 1):
        here = [place for place, own in enumerate(level) if own == row]
        sources = {place: nodes[place].sources for place in here}
        above = {
            place: sum(x[source] for source in own) / max(1, len(own))
            for place, own in sources.items()
        }
        here.sort(key=lambda place: (above[place], place))
        for position, place in enumerate(here):
            x[place] = position - (len(here) - 1) / 2
    return x, [-own for own in level]


def _side(
    nodes: Nodes,
    places: tuple[list[float], list[float]],
    shift: float,
    side: str,
    other: Mapping[str, CallNode],
) -> list[Trace]:
    x, y = [value + shift for value in places[0]], places[1]
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for place, node in enumerate(nodes):
        for source in node.sources:
            skips = y[source] - y[place] > 1
            # a line that skips calls is led aside
            middle = [(x[source] + x[place]) / 2 + 0.45] if skips else []
            between = [(y[source] + y[place]) / 2] if skips else []
            lines_x += [x[source], *middle, x[place], None]
            lines_y += [y[source], *between, y[place], None]
    edges: Trace = {
        "type": "scatter", "mode": "lines", "x": lines_x, "y": lines_y, "hoverinfo": "skip",
        "line": {"color": "#8A8F99", "width": 1, "shape": "spline"},
    }  # fmt: skip
    marks: Trace = {
        "type": "scatter", "x": x, "y": y,
        "mode": "markers+text" if len(nodes) <= NAMED else "markers",
        "text": [tail(node.name, 18) for node in nodes], "textposition": "middle right",
        "marker": {"size": 12, "symbol": "square", "line": {"width": 1, "color": "#8A8F99"},
                   "colorscale": [[0, "#f2e9d8"], [0.5, "#e69f00"], [1, "#8c2d04"]]},
        "customdata": [_told(node, other.get(node.name), side) for node in nodes],
        "hovertemplate": "%{customdata[0]}\n%{customdata[1]}\n%{customdata[2]}\n%{customdata[3]}",
    }  # fmt: skip
    return [edges, marks]


def _told(node: CallNode, other: CallNode | None, side: str) -> list[str]:
    shape = " x ".join("?" if size is None else str(size) for size in node.shape)
    macs = formats.count(node.macs) if node.macs is not None else f"not counted: {node.reason}"
    if other is None:
        where = "it left" if side == "before" else "it is new"
    elif other.macs == node.macs:
        where = "MACs unchanged"
    else:
        old, new = (node.macs, other.macs) if side == "before" else (other.macs, node.macs)
        where = f"MACs {formats.count(old)} -> {formats.count(new)}"
    time = f", {formats.time(node.ms)} (from the table of times)" if node.ms is not None else ""
    return [
        f"{node.name} ({node.kind})", f"output {shape}",
        f"{macs} MACs, {formats.count(node.params)} parameters{time}", where,
    ]  # fmt: skip


def _colours(nodes: Nodes, other: Mapping[str, CallNode], title: str) -> list[float]:
    """Return the figures of marks' colours: logarithms of costs, or the share removed."""
    values = figures(nodes, other, title)
    return values if title == REMOVED else [math.log10(1 + value) for value in values]


def shown(before: Nodes, after: Nodes) -> tuple[str, ...]:
    """Return the names of figures that can colour calls; time where one was timed."""
    timed = any(node.ms is not None for node in (*before, *after))
    return (MACS, PARAMS, *([TIME] if timed else []), REMOVED)


def figures(nodes: Nodes, other: Mapping[str, CallNode], title: str) -> list[float]:
    """Return MACs, parameters or microseconds of calls, or the share that left.

    Args:
        nodes: Of one net; 0 is returned of what is not known.
        other: The calls of the other net, by name.
        title: One of `shown`.
    """
    if title == REMOVED:
        return [share_left(node, other.get(node.name)) for node in nodes]
    if title == TIME:
        return [1000 * (node.ms or 0.0) for node in nodes]
    return [float((node.macs or 0) if title == MACS else node.params) for node in nodes]


def share_left(node: CallNode, other: CallNode | None) -> float:
    """Return the share of a call's MACs that left or came; 1 where the other net lacks it."""
    if other is None:
        return 1.0
    most = max(node.macs or 0, other.macs or 0)
    return 1 - min(node.macs or 0, other.macs or 0) / most if most else 0.0


def export_graphs(report: Report, out: str | Path) -> list[Path]:
    """Write the graphs of all compressed models of a run as Model Explorer reads them.

    Args:
        report: Of the run.
        out: A folder: MODEL.json with the graphs "before" and "after", and for each figure
            MODEL-FIGURE.json, which Model Explorer lays over them.

    Raises:
        InputError: No model of the run has a graph on record.

    Returns:
        The files.
    """
    place, made = Path(out), list[Path]()
    for record in report.compressed:
        graphs = read_graphs(RunFolder(report.folder).graphs_of(record.model))
        if graphs is None:
            continue
        place.mkdir(parents=True, exist_ok=True)
        contents = {"": explorer_graphs(record.model, *graphs)}
        contents |= {
            f"-{name.replace(' ', '_')}": data for name, data in explorer_data(*graphs).items()
        }
        for end, content in contents.items():
            path = place / f"{record.model}{end}.json"
            write_json(path, content)
            made.append(path)
    if not made:
        raise InputError(
            f"A model of '{report.folder}' must have its graph on record. Received: none has; "
            "older versions kept none."
        )
    return made


def explorer_graphs(model: str, before: Nodes, after: Nodes) -> dict[str, Any]:
    """Return both graphs as Google's Model Explorer reads them.

    Reference:
        https://github.com/google-ai-edge/model-explorer, graph_builder.py: a collection of graphs,
        nodes with namespaces and incoming edges.
    """
    return {
        "label": model,
        "graphs": [
            {"id": name, "nodes": [_node(place, node)
                                   for place, node in enumerate(nodes)]}
            for name, nodes in (("before", before), ("after", after))
        ],
    }  # fmt: skip


def _node(place: int, node: CallNode) -> dict[str, Any]:
    space, _, _ = node.name.rpartition("/")
    shape = " x ".join("?" if size is None else str(size) for size in node.shape)
    attrs = {
        "layer": node.name, "output": shape, "parameters": str(node.params),
        "MACs": str(node.macs) if node.macs is not None else f"not counted: {node.reason}",
    }  # fmt: skip
    return {
        "id": str(place),
        "label": node.kind,
        "namespace": space,
        "attrs": [{"key": key, "value": value} for key, value in attrs.items()],
        "incomingEdges": [
            {"sourceNodeId": str(source), "sourceNodeOutputId": "0", "targetNodeInputId": str(at)}
            for at, source in enumerate(node.sources)
        ],
    }


def explorer_data(before: Nodes, after: Nodes) -> dict[str, dict[str, Any]]:
    """Return figures that Model Explorer lays over the graphs, by name.

    Reference:
        node_data_builder.py there: results by node of each graph, coloured from 0 to 1.
    """
    others = {
        "before": {node.name: node for node in after}, "after": {node.name: node for node in before}
    }  # fmt: skip
    return {
        title: {
            name: {
                "name": title,
                "results": {
                    str(place): {"value": value}
                    for place, value in enumerate(figures(nodes, others[name], title))
                },
                "gradient": [
                    {"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d55e00"},
                ],
            }
            for name, nodes in (("before", before), ("after", after))
        }
        for title in shown(before, after)
    }  # fmt: skip

"""The picture of a net before and after: one mark a call, coloured by what is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.core.summary import tail
from compress.measure import formats
from compress.report.live.charts import Chart, Trace
from compress.run.compressed import CallNode, Nodes

MOST, NAMED = 400, 40
"""Calls of a net of which a picture is drawn, and of one whose calls have their names beside."""
LETTERS = 18
"""Of a name."""
MACS, PARAMS, REMOVED = "MACs", "parameters", "what was removed"
TIME = "latency"
ASIDE = 0.45
"""By how much a line that skips calls is led aside."""


@dataclass(frozen=True)
class _Placed:
    """Where the calls of a net stand: columns and rows."""

    x: list[float]
    y: list[float]

    @property
    def width(self) -> float:
        """From the first column to the last."""
        return max(self.x, default=0.0) - min(self.x, default=0.0)


def graph_chart(model: str, before: Nodes, after: Nodes) -> Chart | None:
    """Returns the picture; None of nets that are empty, or too large for one.

    Args:
        model: Whose card it stands on.
        before, after: From `compress.run.compressed.read_graphs`.
    """
    if not before or max(len(before), len(after)) > MOST:
        return None
    kept = {node.name: node for node in after}
    was = {node.name: node for node in before}
    left, right = placed(before), placed(after)
    shift = left.width + 2.5 + right.width / 2
    sides = [
        _side(before, left, -left.width / 2 - 1.25, "before", kept),
        _side(after, right, shift - left.width / 2 - 1.25, "after", was),
    ]
    depth = max((*map(abs, left.y), *map(abs, right.y), 1.0))
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
            "xaxis": {"visible": False, "range": [-left.width - 3, shift + right.width / 2 + 4]},
            "yaxis": {"visible": False},
        },
        model=model,
        wide=True,
        variants=tuple(
            {"name": title, "colours": {
                str(2 * place + 1): _colours(nodes, other, title)
                for place, (nodes, other) in enumerate(((before, kept), (after, was)))
            }}
            for title in shown(before, after)
        ),
    )  # fmt: skip


def placed(nodes: Sequence[CallNode]) -> _Placed:
    """Places calls: each below all that it reads, calls of one row beside each other.

    Example:
        >>> def call(*sources):
        ...     return CallNode("n", "Dense", (), 0, 0, sources)
        >>> spots = placed([call(), call(0), call(0), call(1, 2)])
        >>> spots.y, spots.x
        ([0, -1, -1, -2], [0.0, -0.5, 0.5, 0.0])
    """
    level: list[int] = []
    for node in nodes:
        level.append(1 + max((level[source] for source in node.sources), default=-1))
    x = [0.0] * len(nodes)
    for row in range(max(level, default=-1) + 1):
        here = [place for place, own in enumerate(level) if own == row]
        above = {place: _middle(nodes[place], x) for place in here}
        here.sort(key=lambda place: (above[place], place))
        for position, place in enumerate(here):
            x[place] = position - (len(here) - 1) / 2
    return _Placed(x, [-own for own in level])


def _middle(node: CallNode, x: Sequence[float]) -> float:
    return sum(x[source] for source in node.sources) / max(1, len(node.sources))


def _side(
    nodes: Nodes, spots: _Placed, shift: float, side: str, other: Mapping[str, CallNode]
) -> list[Trace]:
    x = [value + shift for value in spots.x]
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for place, node in enumerate(nodes):
        for source in node.sources:
            skips = spots.y[source] - spots.y[place] > 1
            middle = [(x[source] + x[place]) / 2 + ASIDE] if skips else []
            between = [(spots.y[source] + spots.y[place]) / 2] if skips else []
            lines_x += [x[source], *middle, x[place], None]
            lines_y += [spots.y[source], *between, spots.y[place], None]
    edges: Trace = {
        "type": "scatter", "mode": "lines", "x": lines_x, "y": lines_y, "hoverinfo": "skip",
        "line": {"color": "#8A8F99", "width": 1, "shape": "spline"},
    }  # fmt: skip
    marks: Trace = {
        "type": "scatter", "x": x, "y": list(spots.y),
        "mode": "markers+text" if len(nodes) <= NAMED else "markers",
        "text": [tail(node.name, LETTERS) for node in nodes], "textposition": "middle right",
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
    """Returns what marks are coloured by: logarithms of costs, or the share that left."""
    values = figures(nodes, other, title)
    return values if title == REMOVED else [math.log10(1 + value) for value in values]


def shown(before: Nodes, after: Nodes) -> tuple[str, ...]:
    """Returns what calls can be coloured by: by time where one was timed."""
    timed = any(node.ms is not None for node in (*before, *after))
    return (MACS, PARAMS, *([TIME] if timed else []), REMOVED)


def figures(nodes: Nodes, other: Mapping[str, CallNode], title: str) -> list[float]:
    """Returns MACs, parameters or microseconds of calls, or the share that left.

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
    """Returns the share of a call's MACs that left or came; 1 where the other net lacks it."""
    if other is None:
        return 1.0
    most = max(node.macs or 0, other.macs or 0)
    return 1 - min(node.macs or 0, other.macs or 0) / most if most else 0.0

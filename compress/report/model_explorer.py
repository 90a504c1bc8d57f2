"""Graphs of a run for Google's Model Explorer: the nets, and figures to lay over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.report.live.graphs import figures, shown
from compress.report.rows import Report
from compress.run.compressed import CallNode, Nodes, read_graphs
from compress.run.directory import RunFolder


def export_graphs(report: Report, out: str | Path) -> list[Path]:
    """Writes the graphs of all compressed models of a run as Model Explorer reads them.

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
    """Returns both graphs as Google's Model Explorer reads them.

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
    """Returns figures that Model Explorer lays over the graphs, by what they are.

    Reference:
        node_data_builder.py there: results by node of each graph, coloured from 0 to 1.
    """
    others = {
        "before": {node.name: node for node in after}, "after": {node.name: node for node in before}
    }  # fmt: skip
    made: dict[str, dict[str, Any]] = {}
    for title in shown(before, after):
        made[title] = {
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
        }  # fmt: skip
    return made

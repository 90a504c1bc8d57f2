"""What the page shows of the model that is selected: words, files, and charts of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from compress.reconstruction.report import KEPT, repair_of
from compress.report.live.charts import Chart
from compress.report.live.deciding import file_panels
from compress.report.live.feeding import feeding
from compress.report.live.graphs import graph_chart
from compress.report.precisions import precisions
from compress.report.rows import Report
from compress.run.compressed import Compressed
from compress.run.directory import RunFolder
from compress.run.exports import read_decisions, read_graphs

LEAST = 1e-6
"""A smaller error is drawn here: on a logarithmic axis it would squeeze the others."""


def cards(report: Report, told: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the cards by model.

    Args:
        report: With the files.
        told: What the page says of each model, from `compress.report.models_section`.
    """
    shipped = {section.shipped: section.shipped_file for section in report.sections}
    found = {}
    for card in told:
        files = [row.artifact for row in report.rows if row.artifact.model == card["model"]]
        decisions = read_decisions(RunFolder(report.folder).decisions_of(card["model"]))
        found[card["model"]] = {
            **{key: value for key, value in card.items() if key != "precisions"},
            "files": {
                item.id: {
                    "path": item.file,
                    "ship": shipped.get(item.id, ""),
                    "baseline": item.baseline,
                    "feeding": feeding(item.file, item.id.rpartition(".")[0], report.data),
                    "panels": [*file_panels(decisions, item.id)],
                    "precisions": precisions(item) if item.layers else None,
                }
                for item in files
            },
        }
    return found


def model_charts(report: Report) -> Iterator[Chart]:
    """Yields the charts of each model: what it lost, and what repair gave back."""
    folder = RunFolder(report.folder)
    for record in report.compressed:
        for panel in PANELS:
            yield from panel(record, folder)


def _widths(record: Compressed, _folder: RunFolder) -> Iterator[Chart]:
    """Yields widths before and after along the net; nothing where no channel left."""
    groups = (record.channels or {}).get("groups", [])
    if not groups:
        return
    names = [f"{place + 1}. {item['name']}" for place, item in enumerate(groups)]
    reasons = [item["reason"] or "" for item in groups]
    kinds = [f"{item['kept']:,} of {item['total']:,} {item['kind']}" for item in groups]
    common = {
        "type": "bar", "x": names, "customdata": [*zip(kinds, reasons, strict=True)],
        "hovertemplate": "%{x}\n%{customdata[0]} kept\n%{customdata[1]}",
    }  # fmt: skip
    yield Chart(
        f"widths-{record.model}",
        "Widths, before and after",
        "A bar a group of channels that leave together, in the order of the net; held groups say "
        "why under the pointer and in the list of layers.",
        [
            {**common, "y": [item["total"] for item in groups], "name": "before",
             "marker": {"color": "rgba(128,136,150,0.35)", "line": {"width": 1}}},
            {**common, "y": [item["kept"] for item in groups], "name": "kept",
             "marker": {"color": "#0072B2"}},
        ],
        {"barmode": "overlay", "yaxis": {"title": {"text": "units"}},
         "xaxis": {"showticklabels": len(groups) <= 24, "automargin": True}},
        model=record.model,
    )  # fmt: skip


def _errors(record: Compressed, _folder: RunFolder) -> Iterator[Chart]:
    """Yields the errors of layers before and after each repair."""
    for what, part in (("channels", record.channels), ("weights", record.weights)):
        stored = (part or {}).get("repair")
        if stored is None:
            continue
        layers = [layer for layer in repair_of(stored).layers if layer.before]
        if len(layers) < 2:
            continue
        names = [layer.name for layer in layers]
        reasons = [layer.reason or layer.target for layer in layers]
        marks = {
            "type": "scatter", "mode": "markers", "x": names, "customdata": reasons,
            "hovertemplate": "%{x}: %{y:.2~e}\n%{customdata}",
        }  # fmt: skip
        yield Chart(
            f"repair-{what}-{record.model}",
            f"Errors of layers behind {what} that left",
            "Sum of squares over that of the dense model's spread, measured on examples held "
            "back, before and after the weights behind were solved for anew. A cross marks a layer "
            "that was kept as it was.",
            [
                {**marks, "y": [max(layer.before or 0, LEAST) for layer in layers],
                 "name": "before",
                 "marker": {"symbol": "circle-open", "size": 9, "color": "#8A8F99"}},
                {**marks, "y": [max(layer.after or 0, LEAST) for layer in layers],
                 "name": "repaired",
                 "marker": {"size": 9, "color": "#0072B2",
                            "symbol": ["x" if layer.state == KEPT else "circle"
                                       for layer in layers]}},
            ],
            {"yaxis": {"type": "log", "title": {"text": "error / spread"}},
             "xaxis": {"showticklabels": len(layers) <= 24, "automargin": True}},
            model=record.model,
        )  # fmt: skip


def _graph(record: Compressed, folder: RunFolder) -> Iterator[Chart]:
    """Yields the net before and after, where it is on record and not too large."""
    graphs = read_graphs(folder.graphs_of(record.model))
    if graphs is not None and (chart := graph_chart(record.model, *graphs)) is not None:
        yield chart


PANELS: tuple[Callable[[Compressed, RunFolder], Iterator[Chart]], ...] = (_widths, _errors, _graph)
"""What is drawn of a model, in this order: whoever does more to models adds a function."""

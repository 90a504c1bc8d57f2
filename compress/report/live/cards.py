"""What the page shows of the model that is selected: words, files, and charts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.reconstruction.report import KEPT, repair_of
from compress.report.live.charts import Chart
from compress.report.live.deciding import file_panels
from compress.report.live.feeding import feeding
from compress.report.live.graphs import graph_chart
from compress.report.models_section import models_section
from compress.report.rows import Report
from compress.run.compressed import Compressed
from compress.run.decisions import read_decisions
from compress.run.directory import RunFolder
from compress.run.graphs import read_graphs

LEAST = 1e-6
"""An error of less is drawn here: on a logarithmic axis it would squeeze the others."""


def cards(report: Report) -> dict[str, dict[str, Any]]:
    """Returns the cards by model; pictures in them are left to the charts."""
    shipped = {section.shipped: section.shipped_file for section in report.sections}
    found = {}
    for card in models_section(report):
        files = [row.artifact for row in report.rows if row.artifact.model == card["model"]]
        decisions = read_decisions(RunFolder(report.folder).decisions_of(card["model"]))
        found[card["model"]] = {
            **{key: value for key, value in card.items() if key != "depths"},
            "files": {
                item.id: {
                    "path": item.file,
                    "ship": shipped.get(item.id, ""),
                    "baseline": item.baseline,
                    "feeding": feeding(item.file, item.id.rpartition(".")[0], report.data),
                    "panels": [*file_panels(decisions, item.id)],
                }
                for item in files
            },
        }
    return found


def model_charts(report: Report) -> Iterator[Chart]:
    """Yields the charts of each model: what it lost, and what repair gave back."""
    for record in report.compressed:
        yield from (chart for chart in (_widths(record), *_errors(record)) if chart is not None)
        graphs = read_graphs(RunFolder(report.folder).graphs_of(record.model))
        if graphs is not None and (chart := graph_chart(record.model, *graphs)) is not None:
            yield chart
        for panel in PANELS:
            yield from panel(record)


PANELS: list[Any] = []
"""Functions of a record that yield further charts of a model: whoever does more to models adds
one."""


def _widths(record: Compressed) -> Chart | None:
    """Returns widths before and after along the net; None where no channel left."""
    groups = (record.channels or {}).get("groups", [])
    if not groups:
        return None
    names = [f"{place + 1}. {item['name']}" for place, item in enumerate(groups)]
    reasons = [item["reason"] or "" for item in groups]
    kinds = [f"{item['kept']:,} of {item['total']:,} {item['kind']}" for item in groups]
    common = {
        "type": "bar", "x": names, "customdata": [*zip(kinds, reasons, strict=True)],
        "hovertemplate": "%{x}\n%{customdata[0]} kept\n%{customdata[1]}",
    }  # fmt: skip
    return Chart(
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


def _errors(record: Compressed) -> Iterator[Chart]:
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
            "back, before and after the weights behind were solved for anew.",
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

"""The interactive half of the page: data as JSON, scripts, and the scripts' hashes.

A card shows the model that is selected: words, files, and charts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from compress.reconstruction.report import KEPT, RepairReport, repair_of
from compress.report.columns import precisions
from compress.report.live.charts import Chart, Points, file_points
from compress.report.live.graphs import graph_chart
from compress.report.markup import digest, embedded, scripts
from compress.report.rows import Report
from compress.report.standouts import standouts
from compress.run.compressed import Compressed, Decisions, read_decisions, read_graphs
from compress.run.directory import RunFolder

ROOM = "compress.report.live"
PLOTLY = "plotly-basic-4.1.1.min.js"
"""plotly.js's basic bundle as npm has it (MIT, see the license beside it): scatter and bar, 1.2 MB,
and no code made of text, so that the page needs no `unsafe-eval`. plotly.py's own bundle is four
times as large and does; the strict one is as large. Parallel coordinates are lines here: the basic
bundle has no kind for them."""
OURS = ("dom.js", "plots.js", "table.js", "explorer.js", "card.js", "app.js")
"""Put together in this order."""

LEAST = 1e-6
"""A smaller error is drawn here: on a logarithmic axis it would squeeze the others."""
FORMS = {
    ".tflite": """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter({file!r}).get_signature_runner()
{fed}
for name, info in run.get_input_details().items():
    scale, zero = info["quantization"]
    values = np.round(fed[name] / scale) + zero if scale else fed[name]
    least, most = (-128, 127) if scale else (-np.inf, np.inf)
    fed[name] = np.clip(values, least, most).astype(info["dtype"])
answers = run(**fed)  # of an int8 file: (answer - zero) * scale, by run.get_output_details()""",
    ".onnx": """\
import onnxruntime

net = onnxruntime.InferenceSession({file!r})
{fed}
answers = net.run(None, fed)""",
    ".keras": """\
import keras

net = keras.saving.load_model({file!r})
{fed}
answers = net(fed, training=False)""",
}
"""Code that feeds a file, by its suffix."""
_ONE = {
    ".tflite": "fed = dict.fromkeys(run.get_input_details(), x)",
    ".onnx": "fed = {item.name: x for item in net.get_inputs()}",
    ".keras": "fed = x",
}


def live(report: Report, told: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the data and scripts of a report's page; None where there is nothing to draw.

    Args:
        report: With all sections that it has to show.
        told: What the page says of each model, from `compress.report.html`.
    """
    files = file_points(report)
    sets = [] if files is None else [files]
    sets += [points for section in report.sections for points in section.points()]
    if not sets:
        return None
    own = [chart for section in report.sections for chart in section.charts()]
    chosen = standouts(report).to_ship
    return alive(
        sets=sets,
        charts=[*own, *model_charts(report)],
        cards=cards(report, told),
        selected="" if chosen is None else chosen.row.artifact.id,
    )


def alive(
    *, sets: Sequence[Points], charts: Sequence[Chart], cards: dict[str, Any], selected: str
) -> dict[str, Any]:
    """Return a page's data as JSON, its scripts, and their hashes.

    Args:
        sets: At least one.
        charts: Beside them.
        cards: By model, see `cards`.
        selected: Id of the point that is selected first; "": what stands out.
    """
    found = {"sets": sets, "charts": charts, "cards": cards, "selected": selected}
    texts = scripts(ROOM, PLOTLY, OURS)
    return {"data": embedded(found), "scripts": texts, "sources": " ".join(map(digest, texts))}


def cards(report: Report, told: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the cards by model.

    Args:
        report: With the files.
        told: What the page says of each model, from `compress.report.html`.
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
    """Yield the charts of each model: widths, errors before and after repair, graphs."""
    folder = RunFolder(report.folder)
    for record in report.compressed:
        yield from _widths(record)
        yield from _errors(record)
        graphs = read_graphs(folder.graphs_of(record.model))
        if graphs is not None and (chart := graph_chart(record.model, *graphs)) is not None:
            yield chart


def file_panels(decisions: Decisions | None, artifact: str) -> Iterator[dict[str, Any]]:
    """Yield the panels of a file; none where its decisions are not on record.

    Args:
        decisions: Of the model's files.
        artifact: Id of the file.
    """
    if decisions is None or artifact not in decisions["files"]:
        return
    names, found = decisions["class_names"], decisions["files"][artifact]
    total = sum(map(sum, found["confusion"]))
    yield {
        "kind": "matrix",
        "title": "What is taken for what",
        "caption": f"Of {total:,} test examples, how many of each class (rows) this file takes for "
        "each class (columns).",
        "corner": "class",
        "rows": list(names),
        "columns": list(names),
        "cells": found["confusion"],
    }
    if found["baseline"] == artifact:
        return
    yield {
        "kind": "examples",
        "title": f"Where it differs from {found['baseline']}",
        "caption": f"{found['differ']:,} of {total:,} test examples are decided otherwise"
        + (
            f"; {len(found['examples'])} of them, first what was lost, then what was won:"
            if found["examples"]
            else "."
        ),
        "items": [
            {
                "picture": item["picture"],
                "text": f"example {item['place']}: {names[item['label']]}; original says "
                f"{names[item['before']]}, this {names[item['after']]}",
            }
            for item in found["examples"]
        ],
    }


def feeding(file: str, stem: str, data: dict[str, Any]) -> str:
    """Return code that feeds a file; empty for kinds without a short way.

    Args:
        file: Its path, in the run's folder.
        stem: Of its model: `exports/STEM.json` says how inputs are scaled.
        data: data.json: shapes of the inputs.

    Example:
        >>> print(feeding("exports/m.keras", "m", {"input_shape": [8, 8, 1]}))
        # x: float32 of shape (1, 8, 8, 1), scaled as exports/m.json says
        import keras
        <BLANKLINE>
        net = keras.saving.load_model('exports/m.keras')
        fed = x
        answers = net(fed, training=False)
    """
    path = PurePosixPath(file)
    if path.suffix not in FORMS:
        return ""
    shapes = data.get("input_shapes") or {"x": data.get("input_shape", ())}
    names = ["x"] if len(shapes) == 1 else [f"x{place}" for place in range(len(shapes))]
    told = "\n".join(
        f"# {name}: float32 of shape ({', '.join(map(str, (1, *shape)))}), scaled as "
        f"exports/{stem}.json says"
        for name, shape in zip(names, shapes.values(), strict=True)
    )
    items = ", ".join(f"{own!r}: {name}" for own, name in zip(shapes, names, strict=True))
    fed = _ONE[path.suffix] if len(names) == 1 else f"fed = {{{items}}}"
    return f"{told}\n{FORMS[path.suffix].format(file=file, fed=fed)}"


def _widths(record: Compressed) -> Iterator[Chart]:
    """Yield widths before and after along the net; nothing where no channel left."""
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


def _errors(record: Compressed) -> Iterator[Chart]:
    """Yield the errors of layers before and after each repair."""
    for what, report in repairs(record):
        layers = [layer for layer in report.layers if layer.before]
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


def repairs(record: Compressed) -> Iterator[tuple[str, RepairReport]]:
    """Yield the repair reports of removed channels and of zeroed weights."""
    for what, part in (("channels", record.channels), ("weights", record.weights)):
        if (report := (part or {}).get("repair")) is not None:
            yield what, repair_of(report)

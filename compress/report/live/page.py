"""The interactive part of the page: data as JSON, scripts, and hashes of the scripts.

A card shows the selected model: texts, files and charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from compress.reconstruction.report import KEPT, RepairReport, parse_repair_report
from compress.report.columns import build_precision_table
from compress.report.file_selection import select_files
from compress.report.live.charts import Chart, Points, build_file_points
from compress.report.live.graphs import build_graph_chart
from compress.report.markup import compute_digest, embed_json, read_scripts
from compress.report.report_data import Report
from compress.report.text_report import describe_file
from compress.run.compressed_model import CompressedModel, Decisions, read_decisions, read_graphs
from compress.run.directory import RunFolder

PACKAGE = "compress.report.live"
PLOTLY = "plotly-basic-4.1.1.min.js"
"""The basic bundle of plotly.js from npm (MIT, see its license file): scatter and bar, 1.2 MB. It
does not evaluate strings as code, so the page needs no `unsafe-eval`. plotly.py's own bundle is
four times as large and needs it; the strict bundle is as large."""
OWN_SCRIPTS = ("dom.js", "plots.js", "table.js", "explorer.js", "card.js", "app.js")
"""Our scripts, in the order of concatenation."""

MIN_ERROR = 1e-6
"""Smaller errors are drawn at this value, so that they do not stretch the logarithmic axis."""
FEEDING_CODE = {
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
"""Code that runs a file, by its suffix."""
_ONE = {
    ".tflite": "fed = dict.fromkeys(run.get_input_details(), x)",
    ".onnx": "fed = {item.name: x for item in net.get_inputs()}",
    ".keras": "fed = x",
}


def build_live_page(
    report: Report, summaries: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return the data and scripts of a report's page; None if there is nothing to draw.

    Args:
        report: Report with all its sections.
        summaries: Contents of the card of each model, from `compress.report.html`.
    """
    files = build_file_points(report)
    sets = [] if files is None else [files]
    sets += [points for section in report.sections for points in section.list_points()]
    if not sets:
        return None
    section_charts = [chart for section in report.sections for chart in section.list_charts()]
    chosen = select_files(report).to_ship
    return build_page_data(
        sets=sets,
        charts=[*section_charts, *build_model_charts(report)],
        cards=build_cards(report, summaries),
        selected="" if chosen is None else chosen.row.artifact.id,
    )


def build_page_data(
    *, sets: Sequence[Points], charts: Sequence[Chart], cards: dict[str, Any], selected: str
) -> dict[str, Any]:
    """Return a page's data as JSON, its scripts, and their hashes.

    Args:
        sets: Point sets, at least one.
        charts: Further charts.
        cards: Cards by model, see `build_cards`.
        selected: Id of the initially selected point; "": a highlighted point.
    """
    content = {"sets": sets, "charts": charts, "cards": cards, "selected": selected}
    texts = read_scripts(PACKAGE, PLOTLY, OWN_SCRIPTS)
    return {
        "data": embed_json(content),
        "scripts": texts,
        "sources": " ".join(map(compute_digest, texts)),
    }


def build_cards(
    report: Report, summaries: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the cards by model.

    Args:
        report: The report with the files.
        summaries: Contents of the card of each model, from `compress.report.html`.
    """
    ship = RunFolder(report.folder).ship
    cards_by_model = {}
    for card in summaries:
        rows = [row for row in report.rows if row.artifact.model == card["model"]]
        decisions = read_decisions(RunFolder(report.folder).get_decisions_path(card["model"]))
        cards_by_model[card["model"]] = {
            **{
                key: value
                for key, value in card.items()
                if key not in ("precisions", "training", "verdict")
            },
            "files": {
                item.id: {
                    "effect": f"{describe_file(report, row)}.",
                    "training": "" if item.variant == "dense" else card["training"],
                    "path": item.file,
                    "ship": f"{ship.name}/{copy.name}" if copy.exists() else "",
                    "baseline": item.baseline,
                    "feeding": format_feeding_code(
                        item.file, item.id.rpartition(".")[0], report.data
                    ),
                    "panels": [*build_file_panels(decisions, item.id)],
                    "precisions": build_precision_table(item) if item.layers else None,
                }
                for row in rows
                for item in (row.artifact,)
                for copy in (ship / PurePosixPath(item.file).name,)
            },
        }
    return cards_by_model


def build_model_charts(report: Report) -> Iterator[Chart]:
    """Yield the charts of each model: channel counts, errors around repair, graphs.

    Args:
        report: The report with the models.
    """
    folder = RunFolder(report.folder)
    for record in report.compressed:
        yield from _build_channel_chart(record)
        yield from _build_error_charts(record)
        graphs = read_graphs(folder.get_graphs_path(record.model))
        if graphs is None:
            continue
        chart = build_graph_chart(record.model, graphs.before, graphs.after)
        if chart is not None:
            yield chart


def build_file_panels(decisions: Decisions | None, artifact: str) -> Iterator[dict[str, Any]]:
    """Yield the panels of a file; none if its decisions are not recorded.

    Args:
        decisions: Decisions of the model's files; None: not recorded.
        artifact: Id of the file.
    """
    if decisions is None or artifact not in decisions["files"]:
        return
    names, file_decisions = decisions["class_names"], decisions["files"][artifact]
    total = sum(map(sum, file_decisions["confusion"]))
    yield {
        "kind": "matrix",
        "title": "What is taken for what",
        "caption": f"Of {total:,} test examples, how many of each class (rows) this file takes for "
        "each class (columns).",
        "corner": "class",
        "rows": list(names),
        "columns": list(names),
        "cells": file_decisions["confusion"],
    }
    if file_decisions["baseline"] == artifact:
        return
    yield {
        "kind": "examples",
        "title": f"Where it differs from {file_decisions['baseline']}",
        "caption": f"{file_decisions['differ']:,} of {total:,} test examples are decided otherwise"
        + (
            f"; {len(file_decisions['examples'])} of them, first what was lost, then what was won:"
            if file_decisions["examples"]
            else "."
        ),
        "items": [
            {
                "picture": item["picture"],
                "text": f"example {item['place']}: {names[item['label']]}; original says "
                f"{names[item['before']]}, this {names[item['after']]}",
            }
            for item in file_decisions["examples"]
        ],
    }


def format_feeding_code(file: str, stem: str, data: dict[str, Any]) -> str:
    """Return code that runs a file; empty for formats without a short example.

    Args:
        file: Path of the file in the run's folder.
        stem: Name of its model: `exports/STEM.json` has the scaling of the inputs.
        data: Content of data.json, with the shapes of the inputs.

    Example:
        >>> print(format_feeding_code("exports/m.keras", "m", {"input_shape": [8, 8, 1]}))
        # x: float32 of shape (1, 8, 8, 1), scaled as exports/m.json says
        import keras
        <BLANKLINE>
        net = keras.saving.load_model('exports/m.keras')
        fed = x
        answers = net(fed, training=False)
    """
    path = PurePosixPath(file)
    if path.suffix not in FEEDING_CODE:
        return ""
    shapes = data.get("input_shapes") or {"x": data.get("input_shape", ())}
    names = ["x"] if len(shapes) == 1 else [f"x{index}" for index in range(len(shapes))]
    comments = "\n".join(
        f"# {name}: float32 of shape ({', '.join(map(str, (1, *shape)))}), scaled as "
        f"exports/{stem}.json says"
        for name, shape in zip(names, shapes.values(), strict=True)
    )
    items = ", ".join(
        f"{input_name!r}: {name}" for input_name, name in zip(shapes, names, strict=True)
    )
    fed = _ONE[path.suffix] if len(names) == 1 else f"fed = {{{items}}}"
    return f"{comments}\n{FEEDING_CODE[path.suffix].format(file=file, fed=fed)}"


def _build_channel_chart(record: CompressedModel) -> Iterator[Chart]:
    """Yield the chart of channel counts before and after; nothing if none was removed."""
    groups = (record.channels or {}).get("groups", [])
    if not groups:
        return
    names = [f"{index + 1}. {item['name']}" for index, item in enumerate(groups)]
    reasons = [item["reason"] or "" for item in groups]
    kinds = [f"{item['kept']:,} of {item['total']:,} {item['kind']}" for item in groups]
    common = {
        "type": "bar", "x": names, "customdata": [*zip(kinds, reasons, strict=True)],
        "hovertemplate": "%{x}\n%{customdata[0]} kept\n%{customdata[1]}",
    }  # fmt: skip
    yield Chart(
        f"widths-{record.model}",
        "Channel counts before and after",
        "One bar per group of channels that are kept or removed together, in the order of the "
        "model; the reasons for protected groups are under the pointer and in the list of layers.",
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


def _build_error_charts(record: CompressedModel) -> Iterator[Chart]:
    """Yield charts of the layers' output errors before and after each repair."""
    for removed, report in iterate_repairs(record):
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
            f"repair-{removed}-{record.model}",
            f"Errors of layers behind removed {removed}",
            "Sum of squares over that of the original model's spread, measured on held-out "
            "examples, before and after the weights behind were reconstructed again. A cross marks "
            "a layer that was kept as it was.",
            [
                {**marks, "y": [max(layer.before or 0, MIN_ERROR) for layer in layers],
                 "name": "before",
                 "marker": {"symbol": "circle-open", "size": 9, "color": "#8A8F99"}},
                {**marks, "y": [max(layer.after or 0, MIN_ERROR) for layer in layers],
                 "name": "repaired",
                 "marker": {"size": 9, "color": "#0072B2",
                            "symbol": ["x" if layer.state == KEPT else "circle"
                                       for layer in layers]}},
            ],
            {"yaxis": {"type": "log", "title": {"text": "error / spread"}},
             "xaxis": {"showticklabels": len(layers) <= 24, "automargin": True}},
            model=record.model,
        )  # fmt: skip


def iterate_repairs(record: CompressedModel) -> Iterator[tuple[str, RepairReport]]:
    """Yield the repair reports of removed channels and of zeroed weights.

    Args:
        record: Record of the model.

    Yields:
        "channels" or "weights", and the report.
    """
    for removed, part in (("channels", record.channels), ("weights", record.weights)):
        if (report := (part or {}).get("repair")) is not None:
            yield removed, parse_repair_report(report)

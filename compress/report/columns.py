"""Figures of exported files with their descriptions, and the JSON and CSV reports.

Keys and columns are fixed since the first release; values that no section provides stay empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compress.core.summary import escape_text
from compress.data.tasks import describe_metric
from compress.plan.output import MIXED
from compress.report.file_selection import select_files
from compress.report.report_data import Report, Row
from compress.run.compressed_model import Artifact

_RATIO = "the time of the original's file / this file's, paired by round"


@dataclass(frozen=True)
class Column:
    """One figure of an exported file.

    Attributes:
        key: Field name in JSON and CSV.
        title: Heading.
        unit: Unit; empty for shares, counts and metrics.
        kind: "measured" or "counted" (exact, from shapes and bytes).
        how: Description in one sentence.
        get: Row -> value; None if it was not measured.
    """

    key: str
    title: str
    unit: str
    kind: str
    how: str
    get: Callable[[Row], float | None]


def list_columns(report: Report) -> tuple[Column, ...]:
    """Return the figures of a file: metrics, then costs.

    Args:
        report: The report with the files.
    """
    metric_columns = [
        Column(name, describe_metric(name)[0], "", "measured",
               f"{describe_metric(name)[1]}, of the exported file itself, on the test part.",
               lambda row, name=name: row.artifact.test.get(name))  # type: ignore[misc]
        for name in report.qualities
    ]  # fmt: skip
    return (*metric_columns, *COSTS)


def collect_values(report: Report, row: Row) -> dict[str, float | None]:
    """Return the figures of a row by column key.

    Args:
        report: The report with the file.
        row: The file.
    """
    return {column.key: column.get(row) for column in list_columns(report)}


def as_json(report: Report) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        report: The report.
    """
    content: dict[str, Any] = {
        **report.record,
        "data": report.data,
        "columns": {
            column.key: {"unit": column.unit, "kind": column.kind, "how": column.how}
            for column in list_columns(report)
        },
        "chosen": select_files(report).to_json(report),
        "front": [],
        "candidates": [],
        "final": [],
    }
    for section in report.sections:
        content |= section.to_json()
    return {
        **content,
        "compressed": [record.to_json() for record in report.compressed],
        "files": [
            {
                **row.artifact.to_json(),
                **collect_values(report, row),
                "latency": row.latency.to_json() if row.latency else None,
            }
            for row in report.rows
        ],
    }


def as_csv(report: Report) -> str:
    """Return the content of candidates.csv; column `record` is the kind of each line.

    Args:
        report: The report.
    """
    keys = [column.key for column in list_columns(report)]
    names = ["record", "id", "model", "variant", "format", "state", "reason", "on_front",
             f"val_{report.main}", *keys, "spread", "runtime", "threads", "device",
             "choices"]  # fmt: skip
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, restval="", lineterminator="\n")
    writer.writeheader()
    front = {name for section in report.sections for name in section.front}
    lines = [line for section in report.sections for line in section.list_csv_rows(report.main)]
    lines += [_build_file_row(report, row, row.artifact.model in front) for row in report.rows]
    for line in lines:
        writer.writerow({key: _escape_cell(value) for key, value in line.items()})
    return sink.getvalue()


def build_precision_table(item: Artifact) -> dict[str, Any]:
    """Return the precision table of one file: a row per layer, in the model's order.

    Args:
        item: File with recorded layers.
    """
    columns = tuple(dict.fromkeys(name for row in item.layers for name in row["losses"]))
    sums = {name: sum(row["losses"].get(name, 0.0) for row in item.layers) for name in columns}
    has_reasons = any(row["why"] for row in item.layers)
    rows = []
    for row in item.layers:
        cells = [row["layer"], row["precision"]]
        for name in columns:
            loss = row["losses"].get(name)
            share = f" ({loss / sums[name]:.0%})" if loss is not None and sums[name] else ""
            cells.append("-" if loss is None else f"{loss:.2g}{share}")
        rows.append([*cells, row["why"]] if has_reasons else cells)
    about = (
        "How far the outputs move where the layer alone has that precision, measured on training "
        "examples: the divergence of class probabilities, or the squared error by the spread; in "
        "brackets its share of the column."
        if item.format == MIXED
        else "Squared error of the values behind the layer by their spread, measured on 64 "
        "training examples; in brackets its share of the column."
    )
    return {
        "title": f"Precision of layers: {item.id}",
        "about": about,
        "heads": ["layer", "precision", *columns, *(["why"] if has_reasons else [])],
        "wrapped": (2 + len(columns),),
        "rows": rows,
    }


def _build_latency_getter(name: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.latency, name) if row.latency else None


COSTS = (
    Column(
        "macs",
        "MACs",
        "",
        "counted",
        "Multiply-accumulates of one forward pass at batch 1; zeros count.",
        lambda row: row.artifact.macs,
    ),
    Column("flops", "FLOPs", "", "counted", "2 x MACs.", lambda row: 2 * row.artifact.macs),
    Column(
        "sparse_macs",
        "Sparse MACs",
        "",
        "counted",
        "MACs whose weight is not zero: what a runtime that skips zeros would do.",
        lambda row: row.artifact.sparse_macs,
    ),
    Column(
        "params",
        "Parameters",
        "",
        "counted",
        "All weights, zero or not.",
        lambda row: row.artifact.params,
    ),
    Column(
        "nonzero",
        "Non-zero",
        "",
        "counted",
        "Parameters of the Keras model that are not zero.",
        lambda row: row.artifact.nonzero,
    ),
    Column(
        "zeros",
        "Zeros",
        "",
        "counted",
        "Share of all parameters that are zero.",
        lambda row: row.artifact.zeros,
    ),
    Column(
        "sparsity",
        "Sparsity",
        "",
        "counted",
        "Share of zeros in the kernels that were pruned, which are a part of all parameters.",
        lambda row: row.artifact.sparsity,
    ),
    Column(
        "size_bytes",
        "Size",
        "B",
        "counted",
        "Size of the file.",
        lambda row: row.artifact.size_bytes,
    ),
    Column(
        "gzip_bytes",
        "Gzipped",
        "B",
        "counted",
        "Size of the file after gzip -9.",
        lambda row: row.artifact.gzip_bytes,
    ),
    Column(
        "arena_bytes",
        "Memory",
        "B",
        "measured",
        "What LiteRT's built-in kernels set aside for activations (its arena), at batch 1.",
        lambda row: row.artifact.arena_bytes,
    ),
    Column(
        "latency_ms",
        "Latency",
        "ms",
        "measured",
        "Median of one inference at batch 1.",
        _build_latency_getter("median_ms"),
    ),
    Column(
        "latency_low_ms",
        "low",
        "ms",
        "measured",
        "Lower end of the median's 95 % interval or range.",
        _build_latency_getter("low_ms"),
    ),
    Column(
        "latency_high_ms",
        "high",
        "ms",
        "measured",
        "Upper end of the median's 95 % interval or range.",
        _build_latency_getter("high_ms"),
    ),
    Column(
        "latency_p95_ms",
        "p95",
        "ms",
        "measured",
        "95th percentile of single runs.",
        _build_latency_getter("p95_ms"),
    ),
    Column(
        "speedup",
        "Speed-up",
        "x",
        "measured",
        f"old/new: {_RATIO}.",
        _build_latency_getter("ratio"),
    ),
    Column(
        "speedup_low",
        "low",
        "x",
        "measured",
        "Lower end of its 95 % interval or range.",
        _build_latency_getter("ratio_low"),
    ),
    Column(
        "speedup_high",
        "high",
        "x",
        "measured",
        "Upper end of its 95 % interval or range.",
        _build_latency_getter("ratio_high"),
    ),
)


def _build_file_row(report: Report, row: Row, on_front: bool) -> dict[str, Any]:
    """Return an exported file's line of candidates.csv by column; unknown values are ""."""
    timed = row.latency
    return {
        "record": "file",
        "id": row.artifact.id,
        "model": row.artifact.model,
        "variant": row.artifact.variant,
        "format": row.artifact.format,
        "on_front": on_front,
        **{
            key: "" if value is None else value
            for key, value in collect_values(report, row).items()
        },
        "spread": timed.spread if timed else "",
        "runtime": timed.runtime if timed else "",
        "threads": timed.threads if timed else "",
        "device": timed.device if timed else "",
    }


def _escape_cell(value: Any) -> Any:
    """Return a cell; a text that would start a spreadsheet formula is quoted."""
    if not isinstance(value, str):
        return value
    text = escape_text(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

"""What a report leaves for programs: report.json and candidates.csv.

Keys and columns are those of the first release, whatever was run: what a section does not fill
stays empty.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from compress.core.summary import visible
from compress.report.columns import columns, values
from compress.report.rows import Report, Row
from compress.report.standouts import standouts

EMPTY: dict[str, Any] = {"front": [], "candidates": [], "final": []}


def as_json(report: Report) -> dict[str, Any]:
    """Returns the content of report.json."""
    made: dict[str, Any] = {
        **report.record,
        "data": report.data,
        "columns": {
            column.key: {"unit": column.unit, "kind": column.kind, "how": column.how}
            for column in columns(report)
        },
        "chosen": standouts(report).to_json(report),
        **EMPTY,
    }
    for section in report.sections:
        made |= section.to_json()
    return {
        **made,
        "compressed": [record.to_json() for record in report.compressed],
        "files": [
            {
                **row.artifact.to_json(),
                **values(report, row),
                "latency": row.latency.to_json() if row.latency else None,
            }
            for row in report.rows
        ],
    }


def as_csv(report: Report) -> str:
    """Returns the content of candidates.csv: `record` says what a line is of."""
    keys = [column.key for column in columns(report)]
    names = ["record", "id", "model", "variant", "format", "state", "reason", "on_front",
             f"val_{report.main}", *keys, "spread", "runtime", "threads", "device",
             "choices"]  # fmt: skip
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, restval="", lineterminator="\n")
    writer.writeheader()
    front = {name for section in report.sections for name in section.front}
    lines = [line for section in report.sections for line in section.csv_rows(report.main)]
    lines += [_file(report, row, row.artifact.model in front) for row in report.rows]
    for line in lines:
        writer.writerow({key: _cell(value) for key, value in line.items()})
    return sink.getvalue()


def _file(report: Report, row: Row, on_front: bool) -> dict[str, Any]:
    timed = row.latency
    return {
        "record": "file",
        "id": row.artifact.id,
        "model": row.artifact.model,
        "variant": row.artifact.variant,
        "format": row.artifact.format,
        "on_front": on_front,
        **{key: "" if value is None else value for key, value in values(report, row).items()},
        "spread": timed.spread if timed else "",
        "runtime": timed.runtime if timed else "",
        "threads": timed.threads if timed else "",
        "device": timed.device if timed else "",
    }


def _cell(value: Any) -> Any:
    """Returns a cell; a text of the folder's that would begin a formula is quoted."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

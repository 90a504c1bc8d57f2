"""Reports: `render` turns a run's folder into table, JSON, CSV, plot and one HTML page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_bytes, write_json, write_text
from compress.core.visible import visible
from compress.report.html import render_html
from compress.report.plot import render_plot
from compress.report.rows import Report, Row, load_report, values
from compress.report.search_facts import SearchFacts, search_facts
from compress.report.standouts import standouts
from compress.report.tables import render_tables

__all__ = ["Report", "Row", "load_report", "render", "render_tables"]


def render(path: str | Path) -> Report:
    """Writes report.html, report.json, candidates.csv and pareto.png into a run's folder.

    Args:
        path: The `--out` folder of `paretune run`, `search` or `compress`.

    Returns:
        What they show; `render_tables` prints it.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
    """
    report = load_report(path)
    folder = report.folder
    facts = search_facts(report)
    write_json(folder / "report.json", _json(report, facts))
    write_text(folder / "candidates.csv", _csv(report))
    if report.rows or report.front:
        write_bytes(folder / "pareto.png", render_plot(report))
    write_text(folder / "report.html", render_html(report, facts))
    return report


def _json(report: Report, facts: SearchFacts | None) -> dict[str, Any]:
    return {
        **report.record,
        "data": report.data,
        "columns": {
            column.key: {"unit": column.unit, "kind": column.kind, "how": column.how}
            for column in report.columns
        },
        "front": list(report.front),
        "chosen": standouts(report).to_json(report),
        **({"search": facts.to_json()} if facts else {}),
        "candidates": [candidate.to_json() for candidate in report.candidates],
        "final": [record.to_json() for record in report.finals],
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


def _csv(report: Report) -> str:
    """One line a candidate and one a file; `record` tells them apart."""
    keys = [column.key for column in report.columns]
    names = ["record", "id", "model", "variant", "format", "state", "reason", "on_front",
             f"val_{report.main}", *keys, "spread", "runtime", "threads", "device",
             "choices"]  # fmt: skip
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, restval="", lineterminator="\n")
    writer.writeheader()

    def write(cells: dict[str, Any]) -> None:
        writer.writerow({key: _cell(value) for key, value in cells.items()})

    for item in report.candidates:
        write(
            {
                "record": "candidate",
                "id": item.id,
                "model": item.id,
                "state": item.state,
                "reason": item.reason,
                "on_front": item.id in report.front,
                f"val_{report.main}": item.val.get(report.main, ""),
                "macs": "" if item.macs is None else item.macs,
                "params": "" if item.params is None else item.params,
                "device": item.device,
                "choices": "; ".join(f"{key}={value}" for key, value in item.choices.items()),
            }
        )
    for row in report.rows:
        timed = row.latency
        write(
            {
                "record": "file",
                "id": row.artifact.id,
                "model": row.artifact.model,
                "variant": row.artifact.variant,
                "format": row.artifact.format,
                "on_front": row.artifact.model in report.front,
                **{
                    key: "" if value is None else value
                    for key, value in values(report, row).items()
                },
                "spread": timed.spread if timed else "",
                "runtime": timed.runtime if timed else "",
                "threads": timed.threads if timed else "",
                "device": timed.device if timed else "",
            }
        )
    return sink.getvalue()


def _cell(value: Any) -> Any:
    """Returns a cell; a text of the folder's that would begin a formula is quoted."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

"""The page's table of exported files."""

from __future__ import annotations

from typing import Any

from compress.data.tasks import meaning
from compress.measure import formats
from compress.report.cells import Cell, two_lines
from compress.report.outputs import TITLE, outputs_table
from compress.report.rows import Report, Row
from compress.report.words import conditions, judged, other_runtimes


def files_section(report: Report) -> dict[str, Any] | None:
    """Returns what files.html.j2 shows; None where there are no files."""
    if not report.rows:
        return None
    models = [row.artifact.model for row in report.rows]
    qualities = [meaning(name)[0] for name in report.qualities]
    return {
        "judged": judged(report),
        "conditions": conditions(report),
        "heads": ["File", *qualities, "MACs", "Sparse MACs", "Parameters", "Non-zero",
                  "Size", "Gzipped", "Zstd", "Latency", "p95", "Speed-up"],
        "rows": [_cells(report, row) for row in report.rows],
        "first": [place for place in range(1, len(models)) if models[place] != models[place - 1]],
        "others": other_runtimes(report),
        "outputs": outputs_table(report),
        "outputs_title": TITLE,
    }  # fmt: skip


def _cells(report: Report, row: Row) -> list[str | Cell]:
    item = row.artifact
    return [
        item.id,
        *(_tested(report, row, name) for name in report.qualities),
        Cell(
            f"{formats.count(item.macs)}{' +?' if item.unsupported else ''}",
            f"{formats.count(2 * item.macs)} FLOPs",
        ),
        formats.count(item.sparse_macs),
        formats.count(item.params),
        Cell(formats.count(item.nonzero), f"{formats.percent(item.zeros)} zero"),
        formats.size(item.size_bytes),
        formats.size(item.gzip_bytes),
        formats.size(item.zstd_bytes),
        two_lines(formats.latency(row.latency)),
        formats.time(row.latency.p95_ms) if row.latency else "-",
        two_lines(formats.speedup(row.latency)),
    ]


def _tested(report: Report, row: Row, name: str) -> Cell:
    value = formats.quality(name, row.artifact.test.get(name))
    return Cell(value, formats.interval(name, report.interval(row, name)))

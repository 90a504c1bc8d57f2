"""The report on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.report import formats
from compress.report.final import final_table
from compress.report.rows import Report
from compress.report.words import (
    conditions,
    measured_cells,
    measured_costs,
    other_runtimes,
    search_line,
    verdict,
)
from compress.task import MEANING


def render_tables(report: Report) -> RenderableType:
    """Returns the terminal's report: the front, the exported files, how they were measured."""
    parts: list[RenderableType] = []
    if report.candidates:
        parts += [_front(report), Text(search_line(report), style="dim")]
    if report.finals:
        parts.append(final_table(report))
    if report.rows:
        parts += [_files(report), Text(conditions(report), style="dim")]
    parts += [Text(line) for line in other_runtimes(report)]
    for record in report.compressed:
        parts.append(Text(f"{record.model}: {verdict(report, record.model)}"))
    return Group(*parts)


def _front(report: Report) -> Table:
    quality, *costs = report.objectives
    title = f"Front: validation {quality} against {' and '.join(costs)}"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    measured = measured_costs(report)
    for title in ("Model", quality, "MACs", "Parameters", *measured, "Choices"):
        table.add_column(title, justify="left" if title in ("Model", "Choices") else "right")
    by_id = {candidate.id: candidate for candidate in report.candidates}
    for name in report.front:
        candidate = by_id[name]
        table.add_row(
            name,
            formats.share(candidate.val[quality]),
            formats.count(candidate.macs),
            formats.count(candidate.params),
            *measured_cells(report, candidate),
            ", ".join(f"{key}={formats.plain(v)}" for key, v in candidate.choices.items()),
        )
    return table


def _files(report: Report) -> Table:
    table = Table(title="Exported files, measured on the test part", box=box.SIMPLE_HEAD)
    shown = report.qualities[:2]
    titles = (
        "File",
        *(MEANING[name][0] for name in shown),
        "MACs",
        "Non-zero",
        "Size",
        "Gzipped",
        "Zstd",
        "Latency",
        "Speed-up",
    )
    for title in titles:
        table.add_column(title, justify="left" if title == "File" else "right")
    last = None
    for row in report.rows:
        artifact = row.artifact
        if last not in (None, artifact.model):
            table.add_section()
        last = artifact.model
        table.add_row(
            artifact.id,
            *(formats.quality(name, artifact.test.get(name)) for name in shown),
            formats.count(artifact.macs),
            formats.count(artifact.nonzero),
            formats.size(artifact.size_bytes),
            formats.size(artifact.gzip_bytes),
            formats.size(artifact.zstd_bytes),
            formats.latency(row.latency),
            formats.speedup(row.latency),
        )
    return table

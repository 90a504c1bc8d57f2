"""The report on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType

from compress.measure import formats
from compress.report.final import final_table
from compress.report.rows import Report
from compress.report.standouts import standouts
from compress.report.terminal import Grid, said
from compress.report.words import (
    chosen_lines,
    conditions,
    judged,
    learnt_lines,
    measured_cells,
    measured_costs,
    other_runtimes,
    search_line,
    training,
    verdict,
)
from compress.task import MEANING


def render_tables(report: Report) -> RenderableType:
    """Returns the terminal's report: the front, the exported files, how they were measured."""
    parts: list[RenderableType] = []
    if report.candidates:
        parts += [_front(report), said(search_line(report), "dim")]
    if report.finals:
        parts.append(final_table(report))
    if report.rows:
        parts += [_files(report), said(conditions(report), "dim")]
    parts += map(said, other_runtimes(report))
    for record in report.compressed:
        parts.append(said(f"{record.model}: {verdict(report, record.model)}"))
        parts.append(said(training(report, record), "dim"))
    parts += [said(line, "bold") for line in learnt_lines(report)]
    if report.rows:
        parts.append(said(judged(report), "dim"))
        parts += map(said, chosen_lines(report, standouts(report)))
    return Group(*parts)


def _front(report: Report) -> Grid:
    quality, *costs = report.objectives
    grid = Grid(
        f"Front: validation {quality} against {' and '.join(costs)}",
        ("Model", quality, "MACs", "Parameters", *measured_costs(report), "Choices"),
        ("Model", "Choices"),
    )
    by_id = {candidate.id: candidate for candidate in report.candidates}
    for name in report.front:
        candidate = by_id[name]
        grid.put(
            (
                name,
                formats.share(candidate.val[quality]),
                formats.count(candidate.macs),
                formats.count(candidate.params),
                *measured_cells(report, candidate),
                ", ".join(f"{key}={formats.plain(v)}" for key, v in candidate.choices.items()),
            )
        )
    return grid


def _files(report: Report) -> Grid:
    shown = report.qualities[:2]
    grid = Grid(
        "Exported files, measured on the test part",
        ("File", *(MEANING[name][0] for name in shown), "MACs", "Non-zero", "Size", "Gzipped",
         "Zstd", "Latency", "Speed-up"),
        ("File",),
    )  # fmt: skip
    last = None
    for row in report.rows:
        artifact = row.artifact
        if last not in (None, artifact.model):
            grid.add_section()
        last = artifact.model
        grid.put(
            (
                artifact.id,
                *(formats.quality(name, artifact.test.get(name)) for name in shown),
                formats.count(artifact.macs),
                f"{formats.count(artifact.nonzero)} ({formats.percent(artifact.zeros)} zero)",
                formats.size(artifact.size_bytes),
                formats.size(artifact.gzip_bytes),
                formats.size(artifact.zstd_bytes),
                formats.latency(row.latency),
                formats.speedup(row.latency),
            )
        )
    return grid

"""The report on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType

from compress.data.tasks import meaning
from compress.measure import formats
from compress.report.agreement import agreement_lines
from compress.report.outputs import TITLE, outputs_table
from compress.report.rows import Report
from compress.report.standouts import standouts
from compress.report.terminal import Grid, said
from compress.report.trade import training, verdict
from compress.report.words import chosen_lines, conditions, judged, learnt_lines, other_runtimes

ELSEWHERE = "A wider terminal, report.html and candidates.csv have them."
"""Where the columns are that a narrow terminal has no room for."""


def render_tables(report: Report) -> RenderableType:
    """Returns the terminal's report: sections, the exported files, how they were measured."""
    parts: list[RenderableType] = [said(line, "bold") for line in agreement_lines(report)]
    for section in report.sections:
        parts += section.tables()
    if report.rows:
        parts += [_files(report), said(conditions(report), "dim"), *_outputs(report)]
    parts += map(said, other_runtimes(report))
    for record in report.compressed:
        parts.append(said(f"{record.model}: {verdict(report, record.model)}"))
        parts.append(said(training(report, record), "dim"))
    parts += [said(line, "bold") for line in learnt_lines(report)]
    if report.rows:
        parts.append(said(judged(report), "dim"))
        parts += map(said, chosen_lines(report, standouts(report)))
    return Group(*parts)


def _outputs(report: Report) -> list[Grid]:
    found = outputs_table(report)
    if found is None:
        return []
    heads, rows = found
    grid = Grid(TITLE, heads, heads[:1], elsewhere=ELSEWHERE, drop=heads[:0:-1])
    for row in rows:
        grid.put(row)
    return [grid]


def _files(report: Report) -> Grid:
    shown = report.qualities[:2]
    grid = Grid(
        "Exported files, measured on the test part",
        ("File", *(meaning(name)[0] for name in shown), "MACs", "Non-zero", "Size", "Gzipped",
         "Zstd", "Latency", "Speed-up"),
        ("File",),
        drop=("Zstd", *(meaning(name)[0] for name in shown[1:]), "MACs", "Size", "Non-zero",
              "Gzipped"),
        elsewhere=ELSEWHERE,
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

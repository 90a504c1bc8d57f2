"""The report on the terminal, and what of it is worth a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from compress.core.summary import Summary
from compress.data.tasks import meaning, output_of
from compress.measure import formats
from compress.report.standouts import agreement_lines, standouts
from compress.report.terminal import Grid, said
from compress.report.words import (
    chosen_lines,
    conditions,
    judged,
    learnt_lines,
    other_runtimes,
    training,
    verdict,
)

if TYPE_CHECKING:
    from compress.report.rows import Report, Row

ELSEWHERE = "A wider terminal, report.html and candidates.csv have them."
"""Where the columns are that a narrow terminal has no room for."""
TITLE = "Outputs, test part: original -> chosen"


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


def files_screen(report: Report) -> Summary:
    """Returns one row a file, dense and compressed, with its qualities and costs."""
    main = report.main
    verdict = standouts(report).verdict
    models = ", ".join(f"'{record.model}'" for record in report.compressed)
    return Summary(
        f"{len(report.rows)} files of {models or 'no model'} in '{report.folder}'",
        (
            *((verdict.line,) if verdict is not None else ()),
            f"report, with intervals: {report.folder / 'report.html'}",
        ),
        ("File", f"test {main}", "MACs", "size", "latency", "speed-up"),
        tuple(
            (
                row.artifact.id,
                formats.quality(main, row.artifact.test.get(main)),
                formats.count(row.artifact.macs),
                formats.size(row.artifact.size_bytes),
                formats.time(row.latency.median_ms) if row.latency else "-",
                f"{row.latency.ratio:.2f}x" if row.latency else "-",
            )
            for row in report.rows
        ),
        tuple(f"{record.model}: {note}" for record in report.compressed for note in record.notes),
        "files",
        tuple(agreement_lines(report)),
    )


def outputs_table(report: Report) -> tuple[list[str], list[list[str]]] | None:
    """Return heads and a row for each output of what is chosen; None: there are not several.

    A metric that an output does not have is "-".
    """
    by_output: dict[str, dict[str, str]] = {}
    for name in report.qualities:
        output, metric = output_of(name)
        if output:
            by_output.setdefault(output, {})[metric] = name
    chosen = standouts(report).to_ship
    if chosen is None or len(by_output) < 2:
        return None
    original = _original_file(report, chosen.row)
    metrics = list(dict.fromkeys(metric for names in by_output.values() for metric in names))
    rows = []
    for output, names in by_output.items():
        cells = [
            _change(names[metric], original, chosen.row) if metric in names else "-"
            for metric in metrics
        ]
        rows.append([output, *cells])
    return ["Output", *(meaning(metric)[0] for metric in metrics)], rows


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


def _original_file(report: Report, chosen: Row) -> Row | None:
    """Return the original's file: in the chosen format, else the first that there is."""
    dense = [
        row
        for row in report.rows
        if row.artifact.variant == "dense" and row.artifact.model == chosen.artifact.model
    ]
    alike = [row for row in dense if row.artifact.format == chosen.artifact.format]
    return next(iter(alike or dense), None)


def _change(name: str, original: Row | None, chosen: Row) -> str:
    after = formats.quality(name, chosen.artifact.test.get(name))
    if original is None or original is chosen:
        return after
    return f"{formats.quality(name, original.artifact.test.get(name))} -> {after}"

"""What of a report is worth a screen: the files that were made, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.summary import Summary
from compress.measure import formats
from compress.report.agreement import agreement_lines
from compress.report.standouts import standouts

if TYPE_CHECKING:
    from compress.report.rows import Report


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

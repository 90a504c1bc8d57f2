"""The page's tables of files: the front before and after compression, every exported file."""

from __future__ import annotations

from compress.measure import formats
from compress.report.markup import (
    Content,
    Html,
    element,
    items,
    joined,
    lines,
    paragraph,
    row,
    table,
)
from compress.report.rows import Report, Row
from compress.report.words import conditions, judged, measured_cells, measured_costs, other_runtimes
from compress.task import MEANING


def front_section(report: Report) -> Html:
    """Returns the front's table, empty without a search."""
    if not report.front:
        return Html("")
    quality, *costs = report.objectives
    by_id = {candidate.id: candidate for candidate in report.candidates}
    rows = []
    for name in report.front:
        item = by_id[name]
        files = {(found.artifact.variant, found.artifact.format): found.artifact
                 for found in report.rows if found.artifact.model == name}  # fmt: skip
        cells: list[Content] = [
            name,
            formats.share(item.val[quality]),
            formats.count(item.macs),
            formats.count(item.params),
            *measured_cells(report, item),
        ]
        for key in (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8")):
            made = files.get(key)
            cells.append(
                [f"{formats.share(made.test[report.main])} ",
                 element("small", formats.size(made.gzip_bytes))] if made else "-"
            )  # fmt: skip
        rows.append(row(cells))
    heads = ["Model", f"validation {quality}", "MACs", "Parameters", *measured_costs(report),
             "dense float32: test, gzipped", "pruned float32", "pruned int8"]  # fmt: skip
    return joined(
        [
            element("h2", "The front before and after compression"),
            paragraph(
                f"Non-dominated in validation {quality} (up) and {', '.join(costs)} (down). "
                "Pruned weights are zeros: they save bytes, and MACs stay what they are."
            ),
            table(heads, rows),
        ]
    )


def files_section(report: Report) -> Html:
    """Returns the table of exported files, empty where there are none."""
    if not report.rows:
        return Html("")
    rows = []
    for index, found in enumerate(report.rows):
        item = found.artifact
        first = index > 0 and report.rows[index - 1].artifact.model != item.model
        cells: list[Content] = [
            item.id,
            *(_tested(report, found, name) for name in report.qualities),
            lines(
                f"{formats.count(item.macs)}{' +?' if item.unsupported else ''}",
                f"{formats.count(2 * item.macs)} FLOPs",
            ),
            formats.count(item.sparse_macs),
            formats.count(item.params),
            lines(formats.count(item.nonzero), f"{formats.percent(item.zeros)} zero"),
            formats.size(item.size_bytes),
            formats.size(item.gzip_bytes),
            formats.size(item.zstd_bytes),
            _two_lines(formats.latency(found.latency)),
            formats.time(found.latency.p95_ms) if found.latency else "-",
            _two_lines(formats.speedup(found.latency)),
        ]
        rows.append(row(cells, "first" if first else ""))
    qualities = [MEANING[name][0] for name in report.qualities]
    heads = ["File", *qualities, "MACs", "Sparse MACs", "Parameters", "Non-zero",
             "Size", "Gzipped", "Zstd", "Latency", "p95", "Speed-up"]  # fmt: skip
    return joined(
        [
            element("h2", "Exported files"),
            paragraph(judged(report)),
            paragraph(conditions(report)),
            table(heads, rows),
            items(other_runtimes(report)),
        ]
    )


def _tested(report: Report, found: Row, name: str) -> Content:
    value = formats.quality(name, found.artifact.test.get(name))
    return lines(value, formats.interval(name, report.interval(found, name)))


def _two_lines(text: str) -> Html:
    """Puts the interval under its value: tables stay narrow enough for a screen."""
    value, bracket, interval = text.partition(" [")
    return lines(value, f"[{interval}" if bracket else "")

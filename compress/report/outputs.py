"""Metrics of each output of a model that has several: the original file beside the chosen one."""

from __future__ import annotations

from compress.data.tasks import meaning, output_of
from compress.measure import formats
from compress.report.rows import Report, Row
from compress.report.standouts import standouts

TITLE = "Outputs, test part: original -> chosen"


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
    original = _original(report, chosen.row)
    metrics = list(dict.fromkeys(metric for names in by_output.values() for metric in names))
    rows = []
    for output, names in by_output.items():
        cells = [
            _change(names[metric], original, chosen.row) if metric in names else "-"
            for metric in metrics
        ]
        rows.append([output, *cells])
    return ["Output", *(meaning(metric)[0] for metric in metrics)], rows


def _original(report: Report, chosen: Row) -> Row | None:
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

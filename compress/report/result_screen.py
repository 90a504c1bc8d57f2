"""The result screen of a run: verdict, file to ship, next command, files, footnotes.

`print(result)` and the command line show the same screen. The report page has everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.quantities import format_threads
from compress.core.summary import Summary
from compress.measure import formatting
from compress.measure.latency_record import INTERVAL
from compress.report.file_selection import (
    GOAL,
    FileSelection,
    SelectedFile,
    find_original,
    find_shipped_file,
    format_agreement_warnings,
    select_files,
)
from compress.report.text_report import (
    build_outputs_table,
    describe_file,
    describe_training,
    format_other_runtimes,
    format_test_metric,
)

if TYPE_CHECKING:
    from compress.report.report_data import Report, Row

SHIPPED_MARK = "> "
"""Mark of the shipped file in the table."""


def build_result_screen(report: Report) -> Summary:
    """Return the screen of a run with exported files.

    Args:
        report: The report with the files.
    """
    selection = select_files(report)
    lines = list(list_verdict_lines(report, selection))
    shipped = selection.to_ship
    rows = sort_rows(report, selection)
    return Summary(
        lines[0],
        tuple(lines[1:]),
        ("File", f"test {report.main}", "size", "latency", "faster", "smaller", "MACs"),
        tuple(
            _build_table_row(report, row, shipped is not None and row is shipped.row)
            for row in rows
        ),
        tuple(_list_footnotes(report, selection)),
        "files",
        tuple(format_agreement_warnings(report)),
        fields=list_fields(report, shipped),
    )


def list_verdict_lines(report: Report, selection: FileSelection) -> list[str]:
    """Return the verdict, the lines of goals and outputs, and the comparison of pruned files.

    Args:
        report: The report with the files.
        selection: Its selected files.
    """
    titles = [section.verdict_title for section in report.sections if section.verdict_title]
    lines = [line for section in report.sections for line in section.verdict_lines]
    if selection.to_ship is None:
        lines = [f"No file is chosen to ship: {selection.reason}", *titles, *lines]
    elif titles and selection.to_ship.role == GOAL:
        lines = [titles[0][:1].upper() + titles[0][1:], *lines]
    elif selection.verdict is not None:
        line = selection.verdict.line
        lines = [line[:1].upper() + line[1:]]
    else:
        metric_text = format_test_metric(report, selection.to_ship.row)
        lines = [f"Test {report.main}: {metric_text}"]
    return [*lines, *_list_output_lines(report), *report.describe_pruned_files()]


def _list_output_lines(report: Report) -> list[str]:
    """Return a line per output with its metrics before and after; empty for a single output."""
    heads, rows = build_outputs_table(report) or ([], [])
    return [
        f"{output}: " + ", ".join(
            f"{head} {cell}" for head, cell in zip(heads[1:], cells, strict=True)
            if cell != "-"
        )
        for output, *cells in rows
    ]  # fmt: skip


def list_fields(report: Report, shipped: SelectedFile | None) -> tuple[tuple[str, str], ...]:
    """Return the labelled lines: what to ship, what it costs, what to run next, the report.

    Args:
        report: The report with the files.
        shipped: The file to ship; None if none is selected.
    """
    fields = []
    if shipped is not None:
        file = find_shipped_file(report, shipped.row)
        fields += [("Ship", str(file)), ("", _describe_costs(report, shipped.row))]
        script = file.parent / "feed.py"
        if script.exists():
            fields += [("Next", f"python {script}"), ("", "runs the file on an example")]
        else:
            fields += [("Next", f"paretune bench {file}"), ("", "measures the file's latency")]
    return (*fields, ("Report", str(report.folder / "report.html")))


def _describe_costs(report: Report, row: Row) -> str:
    """Return size and latency of a file, with their ratios to the original's."""
    artifact = row.artifact
    texts = [formatting.format_size(artifact.size_bytes)]
    if row.latency is not None:
        texts.append(formatting.format_latency(row.latency))
    original = find_original(report, row)
    if original is None:
        return ", ".join(texts)
    if original is row:
        return f"{', '.join(texts)}; this is the original in {artifact.format}"
    ratios = [format_smaller(original, row) + " smaller"]
    if row.latency is not None:
        ratios.append(formatting.format_speedup(row.latency).partition(" [")[0] + " faster")
    return f"{', '.join(texts)}; {', '.join(ratios)} than {original.artifact.id}"


def format_smaller(original: Row, row: Row) -> str:
    """Return the ratio of the original's size to a file's size as text, like "3.54x"."""
    return f"{original.artifact.size_bytes / max(1, row.artifact.size_bytes):.2f}x"


def sort_rows(report: Report, selection: FileSelection) -> list[Row]:
    """Return the shipped file, then the others by falling test metric and rising latency.

    Args:
        report: The report with the files.
        selection: Its selected files.
    """
    shipped = selection.to_ship.row if selection.to_ship is not None else None

    def rank(row: Row) -> tuple[bool, float, float]:
        metric = row.artifact.test.get(report.main, float("-inf"))
        latency = row.latency.median_ms if row.latency is not None else float("inf")
        return row is not shipped, -round(metric, 4), latency

    return sorted(report.rows, key=rank)


def _build_table_row(report: Report, row: Row, is_shipped: bool) -> tuple[str, ...]:
    """Return a file's cells on the result screen, with a mark if shipped; "-" where unknown."""
    artifact, latency = row.artifact, row.latency
    original = find_original(report, row)
    mark = SHIPPED_MARK if is_shipped else " " * len(SHIPPED_MARK)
    return (
        mark + artifact.id,
        formatting.format_metric(report.main, artifact.test.get(report.main)),
        formatting.format_size(artifact.size_bytes),
        formatting.format_time(latency.median_ms) if latency is not None else "-",
        f"{latency.ratio:.2f}x" if latency is not None else "-",
        format_smaller(original, row) if original is not None else "-",
        formatting.format_count(artifact.macs),
    )


def _list_footnotes(report: Report, selection: FileSelection) -> list[str]:
    """Return the footnotes: meaning and sources of the figures, each once."""
    notes = [_describe_measurement(report)]
    timed = next((row.latency for row in report.rows if row.latency is not None), None)
    notes += [f"warning: {text}" for text in (timed.warnings if timed is not None else ())]
    shipped = selection.to_ship
    if shipped is not None:
        artifact = shipped.row.artifact
        if artifact.variant == "dense":
            notes.append(describe_file(report, shipped.row))
        else:
            records = (item for item in report.compressed if item.model == artifact.model)
            notes += [describe_training(report, record) for record in records]
        notes += format_other_runtimes(report, artifact.id)
        best = selection.best
        if best.row is not shipped.row:
            val = formatting.format_metric(selection.metric, best.val)
            notes.append(f"best on validation data: {best.row.artifact.id} ({val})")
    notes += [note for section in report.sections for note in section.screen_notes]
    for record in report.compressed:
        prefix = f"{record.model}: " if len(report.compressed) > 1 else ""
        notes += [prefix + note for note in record.notes]
    return list(dict.fromkeys(notes))


def _describe_measurement(report: Report) -> str:
    """Return one sentence on test examples, runtime, device and comparison."""
    first = report.rows[0]
    count = report.count_test_examples(first)
    texts = [f"{count:,} test examples" if count is not None else "the test part"]
    timed = next((row.latency for row in report.rows if row.latency is not None), None)
    if timed is None:
        return f"{SHIPPED_MARK}ships; metric: {texts[0]}; latency was not measured"
    spread = "95 % intervals in brackets" if timed.spread == INTERVAL else "ranges in brackets"
    texts.append(
        f"latency: median on {timed.runtime}, {timed.device}, {format_threads(timed.threads)}, "
        f"batch 1, measured"
    )
    baseline = timed.baseline.rpartition(".")[2]
    return (
        f"{SHIPPED_MARK}ships; metric: {texts[0]}; {texts[1]}; {spread}; faster, smaller: old/new "
        f"against the original's {baseline} file"
    )

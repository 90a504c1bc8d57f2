"""Sentences of the report: under which conditions it was measured, judged and chosen."""

from __future__ import annotations

from compress.core.quantities import threads_text
from compress.data.tasks import TASKS
from compress.measure import formats
from compress.report.rows import Report, Row
from compress.report.standouts import BEST, GOAL, Standouts
from compress.run.compressed import Compressed


def conditions(report: Report) -> str:
    """Says on what, by what and how often latency was measured."""
    timed = next((row.latency for row in report.rows if row.latency), None)
    if timed is None:
        return "Latency was not measured."
    threads = "1 thread" if timed.threads == 1 else f"{timed.threads} threads"
    why = {
        "precision": "stopped when every interval was narrow enough",
        "budget": "stopped when the time budget was spent",
    }[timed.stopped_by]
    text = (
        f"Latency measured with {timed.runtime} on {timed.device}, {threads}, batch 1: median "
        f"and {formats.rounds(timed)}; {why}. "
        f"Speed-up is old/new against the model's own dense {timed.baseline.rpartition('.')[2]} "
        "file."
    )
    return " ".join([text, *(f"Warning: {warning}." for warning in timed.warnings)])


def tested(report: Report, row: Row) -> str:
    """Says how good a file is on the test part: "94.00 % [91.05, 96.01], n = 360"."""
    text = formats.quality(report.main, row.artifact.test.get(report.main))
    ends = formats.interval(report.main, report.interval(row, report.main))
    count = report.tested(row)
    return "".join(
        [text, f" {ends}" if ends else "", f", n = {count:,}" if count is not None else ""]
    )


def judged(report: Report) -> str:
    """Says what the qualities of exported files are of, and what the brackets mean."""
    if not report.rows:
        return ""
    first = report.rows[0]
    count = report.tested(first)
    of = f"{count:,} test examples" if count is not None else "the test part"
    text = f"Qualities are those of the exported files themselves on {of}"
    if report.interval(first, report.main) is None:
        return f"{text}; there is no interval of {report.main} on record."
    how = (
        "a 95 % interval by a jackknife over the examples"
        if report.main not in TASKS[report.kind].shares
        else "Wilson's 95 % interval (1927)"
    )
    return f"{text}; in brackets {how}."


def chosen_lines(report: Report, found: Standouts) -> list[str]:
    """Says which files stand out, and how good they are on the test part."""
    if found.missing:
        return [f"No file is chosen to ship: {found.missing}."]
    lines = []
    for item in found.chosen:
        val = formats.quality(found.quality, item.val)
        figures = (
            f"({val})" if item.what == BEST else f"{item.figure(found.quality)} (validation {val})"
        )
        comma = " " if item.what == BEST else ", "
        lines.append(
            f"{item.title(found.quality)}: {item.row.artifact.id}{comma}{figures}; "
            f"test {tested(report, item.row)}"
        )
    if found.verdict is not None and found.chosen[0].what != GOAL:  # a goal has said it
        lines.insert(0, f"{found.verdict.line}.")
    return lines


def learnt_lines(report: Report) -> list[str]:
    """Says which models have learnt the validation part, and what that means."""
    found = [text for section in report.sections for text in section.warnings()]
    return found + [learnt_line(record) for record in report.compressed if record.val_learnt]


def learnt_line(record: Compressed) -> str:
    """Says that a model's compression was not selected by validation data, and why."""
    return (
        f"{record.model}: the model or its teacher has learnt the validation part. It selected "
        "nothing (the last epoch was kept), and its figures are too good."
    )


def other_runtimes(report: Report) -> list[str]:
    """Says for each runtime beside LiteRT what it measured, or why it did not."""
    lines = []
    for other in report.others:
        if other.skipped:
            lines.append(f"{other.name} was not measured: {other.skipped}")
            continue
        for name, latency in other.latency.items():
            against = (
                "the baseline"
                if latency.baseline == name
                else f"{formats.speedup(latency)} against {latency.baseline}"
            )
            threads = threads_text(latency.threads)
            lines.append(
                f"{latency.runtime}, {threads}: {name} {formats.latency(latency)}, {against}"
            )
    return lines

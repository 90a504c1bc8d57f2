"""Sentences of the report: under which conditions, and what was traded for what."""

from __future__ import annotations

from compress.records import Candidate
from compress.report import formats
from compress.report.progress import epochs_trained
from compress.report.rows import Report, Row
from compress.task import MEANING

NEGLIGIBLE = 0.02
"""Ratios closer to 1 than this are not called a gain: instances of one file differ as much."""


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
        f"and 95 % interval of {timed.rounds} rounds, {timed.instances} instances a file; {why}. "
        f"Speed-up is old/new against the model's own dense {timed.baseline.rpartition('.')[2]} "
        "file."
    )
    return " ".join([text, *(f"Warning: {warning}." for warning in timed.warnings)])


def search_line(report: Report) -> str:
    """Says how many trials ended how, and how many epochs early endings saved."""
    full = report.record["plan"].get("search", {}).get("epochs", 0)
    trained, all_epochs = epochs_trained(report.candidates, full)
    saved = f"; {trained:,} of {all_epochs:,} epochs trained" if trained < all_epochs else ""
    return f"{report.summary()}{saved}"


def verdict(report: Report, model: str) -> str:
    """Says what compression changed: accuracy, bytes, time; dense against pruned files."""
    rows = [row for row in report.rows if row.artifact.model == model]
    dense = [row for row in rows if row.artifact.variant == "dense"]
    pruned = [row for row in rows if row.artifact.variant == "pruned"]
    if not dense or not pruned:
        return "not compressed"
    alone = {row.artifact.format: row for row in dense}
    old = next((row for row in dense if row.artifact.id == row.artifact.baseline), dense[0])
    return "; ".join(
        _trade(old, row, alone.get(row.artifact.format), report.main) for row in pruned
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
            threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
            lines.append(
                f"{latency.runtime}, {threads}: {name} {formats.latency(latency)}, {against}"
            )
    return lines


def _trade(old: Row, new: Row, unpruned: Row | None, main: str) -> str:
    """Compares a pruned file with the dense baseline; says what the format alone gives."""
    points = (new.artifact.test[main] - old.artifact.test[main]) * 100
    quality = main if main == "accuracy" else MEANING[main][0]
    smaller = old.artifact.gzip_bytes / new.artifact.gzip_bytes
    what = [new.artifact.format]
    if 0 < new.artifact.macs < old.artifact.macs:
        what.append(f"with {old.artifact.macs / new.artifact.macs:.2f}x fewer MACs")
    if new.artifact.sparsity > 0 or len(what) == 1:
        what.append(f"at {new.artifact.sparsity * 100:.0f} % sparsity")
    text = (
        f"{' '.join(what)}: "
        f"{points:+.2f} points of {quality}, {smaller:.2f}x smaller gzipped, {_time(new)}"
    )
    if unpruned is not None and unpruned is not old and unpruned.latency is not None:
        text += f" where {new.artifact.format} alone gives {unpruned.latency.ratio:.2f}x"
    if _only_bytes(new, unpruned):
        text += ": the zeros save bytes, no time"
    if new.artifact.unsupported:
        text += f" (MACs leave out {len(new.artifact.unsupported)} operations)"
    return text


def _only_bytes(new: Row, unpruned: Row | None) -> bool:
    """Tells whether pruned weights made a file smaller but not faster than its format alone."""
    if new.artifact.sparsity == 0 or new.latency is None:
        return False
    alone = unpruned.latency.ratio if unpruned is not None and unpruned.latency else 1.0
    unchanged = unpruned is None or unpruned.artifact.macs == new.artifact.macs
    return unchanged and new.latency.ratio < alone * (1 + NEGLIGIBLE)


def _time(row: Row) -> str:
    latency = row.latency
    if latency is None:
        return "not timed"
    if latency.ratio_low <= 1.0 <= latency.ratio_high:
        return "no difference in time that this run can show"
    if abs(latency.ratio - 1.0) < NEGLIGIBLE:
        return f"the same time within {NEGLIGIBLE:.0%}"
    word = "faster" if latency.ratio > 1 else "slower"
    ratio = latency.ratio if latency.ratio > 1 else 1 / latency.ratio
    return f"{ratio:.2f}x {word} ({formats.latency(latency)})"


# costs that not every search has: headings
_MEASURED = {"size_bytes": "File", "latency_ms": "Latency"}


def measured_costs(report: Report) -> list[str]:
    """Returns headings of the measured costs that the search traded against quality."""
    return [_MEASURED[cost] for cost in report.objectives[1:] if cost in _MEASURED]


def measured_cells(report: Report, candidate: Candidate) -> list[str]:
    """Returns a candidate's measured costs, in the order of `measured_costs`."""
    return [
        formats.cost(cost, getattr(candidate, cost))
        for cost in report.objectives[1:]
        if cost in _MEASURED
    ]

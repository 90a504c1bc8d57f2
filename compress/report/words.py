"""Sentences of the report: what was traded, and how files were measured, judged and chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.quantities import threads_text
from compress.data.tasks import TASKS, meaning
from compress.measure import formats
from compress.report.standouts import BEST, GOAL, Standouts
from compress.run.compressed import Artifact, Compressed
from compress.run.origin import UNKNOWN, Trained

if TYPE_CHECKING:
    from compress.report.rows import Report, Row

NEGLIGIBLE = 0.02
"""Ratios closer to 1 than this are not called a gain: instances of one file differ as much."""


def verdict(report: Report, model: str) -> str:
    """Says what compression changed: accuracy, bytes, time; dense against pruned files."""
    rows = [row for row in report.rows if row.artifact.model == model]
    record = next(item for item in report.compressed if item.model == model)
    dense = [row for row in rows if row.artifact.variant == "dense"]
    pruned = [row for row in rows if row.artifact.variant == "pruned"]
    if not dense or not pruned:
        return "not compressed"
    alone = {row.artifact.format: row for row in dense}
    old = next((row for row in dense if row.artifact.id == row.artifact.baseline), dense[0])
    return "; ".join(
        _trade(old, row, alone.get(row.artifact.format), report.main, record) for row in pruned
    )


def training(report: Report, record: Compressed) -> str:
    """Says how long the dense and the compressed model were trained, and what that means.

    What a compressed model gains over one that was trained for less long, or without its
    teacher, is not compression's.
    """
    before = dense_training(report, record)
    epochs = "epoch" if before.epochs == 1 else "epochs"
    dense = (
        "how long the dense model was trained is not known"
        if before.epochs is None
        else f"the dense model was trained for {before.epochs} {epochs}"
        + (", from weights that came trained" if before.begun else "")
    )
    taught = f", taught by {record.teacher}" if record.teacher else ""
    text = f"Training: {dense}, then for {_more(record)} while it was compressed{taught}. "
    if record.as_long is not None:
        reached = formats.quality(report.main, record.as_long["test"].get(report.main))
        return (
            f"{text}Trained on for just as long, in the same way but not compressed, the Keras "
            f"model reaches test {report.main} {reached}."
        )
    if _finetuned(record) == 0:
        return f"Training: {dense}; compression trained nothing."
    maybe = "training and the teacher" if record.teacher else "training"
    return (
        f"{text}No dense model was trained for as long (paretune compress --as-long does that): "
        f"gains may come from {maybe}, not from compression."
    )


def dense_training(report: Report, record: Compressed) -> Trained:
    """Returns how long a model was trained before; of older records other sections may know."""
    if record.dense_epochs is not None or record.finetuned is not None:
        return Trained(record.dense_epochs, record.dense_begun)
    told = (section.known(record.model).epochs for section in report.sections)
    # a history of nothing is none
    known = [epochs for epochs in told if epochs]
    return Trained(known[0]) if known else UNKNOWN


def time_traded(row: Row) -> str:
    """Says how much faster or slower a file is than its baseline, where this run can tell."""
    latency = row.latency
    if latency is None:
        return "not timed"
    if latency.ratio_low <= 1.0 <= latency.ratio_high:
        return "no difference in time that this run can detect"
    if abs(latency.ratio - 1.0) < NEGLIGIBLE:
        return f"the same time within {NEGLIGIBLE:.0%}"
    word = "faster" if latency.ratio > 1 else "slower"
    ratio = latency.ratio if latency.ratio > 1 else 1 / latency.ratio
    return f"{ratio:.2f}x {word} ({formats.latency(latency)})"


def zeros(artifact: Artifact) -> str:
    """Says how much of a model is zero: of the pruned kernels, and of all parameters."""
    return (
        f"{formats.percent(artifact.sparsity)} of the pruned kernels, "
        f"{formats.percent(artifact.zeros)} of all parameters are zero"
    )


def conditions(report: Report) -> str:
    """Says on what, by what and how often latency was measured."""
    timed = next((row.latency for row in report.rows if row.latency), None)
    if timed is None:
        return "Latency was not measured."
    why = {
        "precision": "stopped when every interval was narrow enough",
        "budget": "stopped when the time budget was spent",
    }[timed.stopped_by]
    text = (
        f"Latency measured with {timed.runtime} on {timed.device}, "
        f"{threads_text(timed.threads)}, batch 1: median and {formats.rounds(timed)}; {why}. "
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


def _finetuned(record: Compressed, file: str = "") -> int | None:
    """Returns the epochs of the fine-tuning of a file's net, or the most of any net's.

    Args:
        record: Of the model.
        file: Id of the file.

    Returns:
        None: records of older versions do not tell.
    """
    if not record.each:
        return record.finetuned
    if not file:
        return max(record.each.values())
    return record.each.get(file.rpartition(".")[0], record.finetuned)


def _more(record: Compressed, file: str = "") -> str:
    """Returns how many epochs compression trained; see `_finetuned`."""
    count, least = _finetuned(record, file), ""
    if count is not None:
        if not file and len(set(record.each.values())) > 1:
            least = "up to "
    else:
        # older records hold the last fine-tuning alone, and channels may leave in several steps
        count, least = record.epochs, "at least " if record.channels else ""
    return f"{least}{count} more epoch{'' if count == 1 else 's'}"


def _trade(old: Row, new: Row, unpruned: Row | None, main: str, record: Compressed) -> str:
    """Compares a pruned file with the dense baseline; says what the format alone gives."""
    gained = formats.change(main, new.artifact.test[main] - old.artifact.test[main])
    quality = main if main == "accuracy" else meaning(main)[0]
    smaller = old.artifact.gzip_bytes / new.artifact.gzip_bytes
    what = [new.artifact.format]
    if 0 < new.artifact.macs < old.artifact.macs:
        what.append(f"with {old.artifact.macs / new.artifact.macs:.2f}x fewer MACs")
    if new.artifact.sparsity > 0:
        what.append(f"({zeros(new.artifact)})")
    elif len(what) == 1:
        what.append("(nothing was removed)")
    against = ""
    if record.as_long is not None and main in record.as_long["test"]:
        longer = formats.change(main, new.artifact.test[main] - record.as_long["test"][main])
        against = f" ({longer} against the dense model trained as long)"
    own = new.artifact.id
    trained = (
        "without training"
        if _finetuned(record, own) == 0
        else f"after {_more(record, own)} of training"
    )
    text = (
        f"{' '.join(what)}: {gained} of test {quality} {trained}{against}, "
        f"{smaller:.2f}x smaller gzipped, {time_traded(new)}"
    )
    if unpruned is not None and unpruned is not old and unpruned.latency is not None:
        text += f" where {new.artifact.format} alone gives {unpruned.latency.ratio:.2f}x"
    if _only_bytes(new, unpruned):
        text += ": the zeros save bytes but no time"
    if new.artifact.unsupported:
        left = len(new.artifact.unsupported)
        text += f" (MACs leave out {left} operation{'' if left == 1 else 's'})"
    return text


def _only_bytes(new: Row, unpruned: Row | None) -> bool:
    """Tells whether pruned weights made a file smaller but not faster than its format alone."""
    if new.artifact.sparsity == 0 or new.latency is None:
        return False
    alone = unpruned.latency.ratio if unpruned is not None and unpruned.latency else 1.0
    unchanged = unpruned is None or unpruned.artifact.macs == new.artifact.macs
    return unchanged and new.latency.ratio < alone * (1 + NEGLIGIBLE)

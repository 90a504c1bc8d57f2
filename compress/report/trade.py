"""What compression traded for what, and how long a model was trained for it."""

from __future__ import annotations

from compress.data.tasks import meaning
from compress.measure import formats
from compress.report.rows import Report, Row
from compress.run.compressed import Artifact, Compressed
from compress.run.origin import UNKNOWN, Trained

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

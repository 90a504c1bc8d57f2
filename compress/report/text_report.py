"""Sentences of the report on effects, training, measurement and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.quantities import format_threads
from compress.data.tasks import TASKS, describe_metric, split_metric_name
from compress.measure import formatting
from compress.report.file_selection import find_original, select_files
from compress.run.compressed_model import CompressedModel
from compress.run.origin import TrainingHistory

if TYPE_CHECKING:
    from compress.report.report_data import Report, Row

OUTPUTS_TITLE = "Outputs, test part: original -> chosen"
NEGLIGIBLE = 0.02
"""Ratios within this distance of 1 are no gain: instances of one file differ as much."""


def build_outputs_table(report: Report) -> tuple[list[str], list[list[str]]] | None:
    """Return the headings and a row per output of the selected file.

    None for a single output or if no file is selected. A metric that an output does not have is
    "-".

    Args:
        report: The report with the files.
    """
    by_output: dict[str, dict[str, str]] = {}
    for name in report.qualities:
        output, metric = split_metric_name(name)
        if output:
            by_output.setdefault(output, {})[metric] = name
    selected = select_files(report).to_ship
    if selected is None or len(by_output) < 2:
        return None
    original = find_original(report, selected.row)
    metrics = list(dict.fromkeys(metric for names in by_output.values() for metric in names))
    rows = []
    for output, names in by_output.items():
        cells = [
            _format_change(names[metric], original, selected.row) if metric in names else "-"
            for metric in metrics
        ]
        rows.append([output, *cells])
    return ["Output", *(describe_metric(metric)[0] for metric in metrics)], rows


def _format_change(name: str, original: Row | None, chosen: Row) -> str:
    after = formatting.format_metric(name, chosen.artifact.test.get(name))
    if original is None or original is chosen:
        return after
    return f"{formatting.format_metric(name, original.artifact.test.get(name))} -> {after}"


def describe_effect(report: Report, model: str) -> str:
    """Return a sentence on the effect of compression: metric, bytes and time of the new files.

    Args:
        report: The report with the files.
        model: Name of the model.
    """
    rows = [row for row in report.rows if row.artifact.model == model]
    new_rows = [row for row in rows if row.artifact.variant != "dense"]
    if not new_rows or len(new_rows) == len(rows):
        return "not compressed"
    return "; ".join(describe_file_effect(report, row) for row in new_rows)


def describe_file(report: Report, row: Row) -> str:
    """Return a sentence on a file: the effect of its compression, or that it is the original.

    Args:
        report: The report with the files.
        row: The file.
    """
    if row.artifact.variant == "dense":
        return f"{row.artifact.id} is the original model in {row.artifact.format}, not pruned"
    if find_original(report, row) is None:
        return f"the file that {row.artifact.id} is compared with is not in this report"
    return describe_file_effect(report, row)


def describe_file_effect(report: Report, row: Row) -> str:
    """Return the gain of a new file over the original, and that of the format alone.

    Args:
        report: The report with the files.
        row: A file that is not the original's; files of the original are in the report, too.
    """
    model = row.artifact.model
    record = next(item for item in report.compressed if item.model == model)
    originals = [
        item
        for item in report.rows
        if item.artifact.model == model and item.artifact.variant == "dense"
    ]
    by_format = {item.artifact.format: item for item in originals}
    baseline = next(
        (item for item in originals if item.artifact.id == item.artifact.baseline), originals[0]
    )
    return _describe_file_effect(
        baseline, row, by_format.get(row.artifact.format), report.main, record
    )


def describe_training(report: Report, record: CompressedModel) -> str:
    """Return a sentence on the training of the original and of the compressed model.

    Longer training or a teacher can improve a compressed model; such a gain is not due to
    compression.

    Args:
        report: The report.
        record: Record of the model.
    """
    before = TrainingHistory(record.dense_epochs, record.dense_begun)
    epochs = "epoch" if before.epochs == 1 else "epochs"
    original_text = (
        "for how many epochs the original was trained is unknown"
        if before.epochs is None
        else f"the original was trained for {before.epochs} {epochs}"
        + (", from pretrained weights" if before.is_continued else "")
    )
    if record.as_long is None and _find_finetuning_epochs(record) == 0:
        return f"Training: {original_text}; the smaller model was not fine-tuned."
    teacher_text = f", distilled from {record.teacher}" if record.teacher else ""
    text = (
        f"Training: {original_text}; the smaller model was fine-tuned for "
        f"{_describe_epochs(record)}{teacher_text}. "
    )
    if record.as_long is not None:
        long_metric = formatting.format_metric(report.main, record.as_long["test"].get(report.main))
        return (
            f"{text}The original, trained on in the same way for as long, reaches test "
            f"{report.main} {long_metric}."
        )
    possible_causes = "training and the teacher" if record.teacher else "training"
    return (
        f"{text}The original was not trained on for as long (paretune compress --as-long does "
        f"that): a gain may come from {possible_causes}."
    )


def describe_speedup(row: Row) -> str:
    """Return the speed-up or slow-down of a file relative to its baseline, as text."""
    latency = row.latency
    if latency is None:
        return "not timed"
    if latency.ratio_low <= 1.0 <= latency.ratio_high:
        return "no difference in time that this run can detect"
    if abs(latency.ratio - 1.0) < NEGLIGIBLE:
        return f"the same time within {NEGLIGIBLE:.0%}"
    direction = "faster" if latency.ratio > 1 else "slower"
    ratio = latency.ratio if latency.ratio > 1 else 1 / latency.ratio
    return f"{ratio:.2f}x {direction} ({formatting.format_latency(latency)})"


def describe_conditions(report: Report) -> str:
    """Return a sentence on the conditions of the latency measurement."""
    timed = next((row.latency for row in report.rows if row.latency), None)
    if timed is None:
        return "Latency was not measured."
    stop_reason = {
        "precision": "stopped when every interval was narrow enough",
        "budget": "stopped when the time budget was spent",
    }[timed.stopped_by]
    text = (
        f"Latency measured with {timed.runtime} on {timed.device}, "
        f"{format_threads(timed.threads)}, batch 1: median and "
        f"{formatting.describe_rounds(timed)}; {stop_reason}. "
        f"Speed-up is old/new against the original's {timed.baseline.rpartition('.')[2]} "
        "file."
    )
    return " ".join([text, *(f"Warning: {warning}." for warning in timed.warnings)])


def format_test_metric(report: Report, row: Row) -> str:
    """Return a file's test metric: "94.00 % [91.05, 96.01], n = 360"."""
    text = formatting.format_metric(report.main, row.artifact.test.get(report.main))
    ends = formatting.format_interval(report.main, report.interval(row, report.main))
    count = report.count_test_examples(row)
    return "".join(
        [text, f" {ends}" if ends else "", f", n = {count:,}" if count is not None else ""]
    )


def describe_metrics(report: Report) -> str:
    """Return a sentence on the source of the metrics and the meaning of brackets."""
    if not report.rows:
        return ""
    first = report.rows[0]
    count = report.count_test_examples(first)
    examples_text = f"{count:,} test examples" if count is not None else "the test part"
    text = f"Metrics are those of the exported files on {examples_text}"
    if report.interval(first, report.main) is None:
        return f"{text}; there is no interval of {report.main} on record."
    interval_text = (
        "a 95 % interval by a jackknife over the examples"
        if report.main not in TASKS[report.kind].shares
        else "Wilson's 95 % interval (1927)"
    )
    return f"{text}; in brackets {interval_text}."


def format_other_runtimes(report: Report, file: str = "") -> list[str]:
    """Return a line per file of each further runtime, or the reason that it was skipped.

    Args:
        report: The report with the files.
        file: Id of the only file to list; empty: all files.
    """
    lines = []
    for runtime, result in report.others.items():
        if isinstance(result, str):
            lines.append(f"{runtime} was not measured: {result}")
            continue
        for name, latency in result.items():
            if file not in ("", name):
                continue
            against = (
                "the baseline"
                if latency.baseline == name
                else f"{formatting.format_speedup(latency)} against {latency.baseline}"
            )
            threads = format_threads(latency.threads)
            lines.append(
                f"{latency.runtime}, {threads}: {name} {formatting.format_latency(latency)}, "
                f"{against}"
            )
    return lines


def _find_finetuning_epochs(record: CompressedModel, file: str = "") -> int | None:
    """Return the epochs of fine-tuning of one file's model, or the most of all files.

    Args:
        record: Record of the model.
        file: Id of the file; empty: all files.

    Returns:
        Number of epochs; None if records of older versions lack it.
    """
    if not record.each:
        return record.finetuned
    if not file:
        return max(record.each.values())
    return record.each.get(file.rpartition(".")[0], record.finetuned)


def _describe_epochs(record: CompressedModel, file: str = "") -> str:
    """Return the number of fine-tuning epochs as text, see `_find_finetuning_epochs`."""
    count, least = _find_finetuning_epochs(record, file), ""
    if count is not None and not file and len(set(record.each.values())) > 1:
        least = "up to "
    if count is None:
        # older records only hold the last fine-tuning; channels may be removed in several steps
        count, least = record.epochs, "at least " if record.channels else ""
    return f"{least}{count} more epoch{'' if count == 1 else 's'}"


def _describe_file_effect(
    old: Row, new: Row, unpruned: Row | None, main: str, record: CompressedModel
) -> str:
    """Return the gain of a new file over the original, and that of the format alone."""
    metric_change = formatting.format_change(
        main, new.artifact.test[main] - old.artifact.test[main]
    )
    metric_title = main if main == "accuracy" else describe_metric(main)[0]
    size_ratio = old.artifact.size_bytes / max(1, new.artifact.size_bytes)
    changes = [new.artifact.format]
    if 0 < new.artifact.macs < old.artifact.macs:
        changes.append(f"with {old.artifact.macs / new.artifact.macs:.2f}x fewer MACs")
    if new.artifact.sparsity > 0:
        changes.append(
            f"({formatting.format_percent(new.artifact.sparsity)} of the pruned kernels, "
            f"{formatting.format_percent(new.artifact.zeros)} of all parameters are zero)"
        )
    elif len(changes) == 1:
        changes.append("(nothing was removed)")
    long_text = ""
    if record.as_long is not None and main in record.as_long["test"]:
        long_change = formatting.format_change(
            main, new.artifact.test[main] - record.as_long["test"][main]
        )
        long_text = f" ({long_change} against the original trained as long)"
    file_id = new.artifact.id
    training_text = (
        "without training"
        if _find_finetuning_epochs(record, file_id) == 0
        else f"after {_describe_epochs(record, file_id)} of training"
    )
    text = (
        f"{' '.join(changes)}: {metric_change} of test {metric_title} {training_text}{long_text}, "
        f"{size_ratio:.2f}x smaller, {describe_speedup(new)}"
    )
    if unpruned is not None and unpruned is not old and unpruned.latency is not None:
        text += f" where {new.artifact.format} alone gives {unpruned.latency.ratio:.2f}x"
    unpruned_ratio = unpruned.latency.ratio if unpruned is not None and unpruned.latency else 1.0
    same_macs = unpruned is None or unpruned.artifact.macs == new.artifact.macs
    is_slow = new.latency is not None and new.latency.ratio < unpruned_ratio * (1 + NEGLIGIBLE)
    if new.artifact.sparsity != 0 and same_macs and is_slow:
        text += ": the zeros save no time, and bytes only where the file is compressed"
    if new.artifact.unsupported:
        num_uncounted = len(new.artifact.unsupported)
        text += f" (MACs leave out {num_uncounted} operation{'' if num_uncounted == 1 else 's'})"
    return text

"""The report on the terminal, and its sentences about trades, measurement and choice.

They say what was traded, and how files were measured, judged and chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from compress.core.quantities import threads_text
from compress.core.summary import Summary
from compress.data.tasks import TASKS, meaning, output_of
from compress.measure import formats
from compress.report.standouts import GOAL, Standouts, agreement_lines, standouts
from compress.report.terminal import Grid, said
from compress.run.compressed import Compressed
from compress.run.origin import UNKNOWN, Trained

if TYPE_CHECKING:
    from compress.report.rows import Report, Row

ELSEWHERE = "A wider terminal, report.html and candidates.csv have them."
"""Where the columns are that a narrow terminal has no room for."""
TITLE = "Outputs, test part: original -> chosen"
NEGLIGIBLE = 0.02
"""Ratios closer to 1 than this are not called a gain: instances of one file differ as much."""


def render_tables(report: Report) -> RenderableType:
    """Return the terminal's report: sections, exported files, measurement conditions."""
    parts: list[RenderableType] = [said(line, "bold") for line in agreement_lines(report)]
    for section in report.sections:
        parts += section.tables()
    if report.rows:
        parts += [_files(report), said(conditions(report), "dim")]
    if (outputs := outputs_table(report)) is not None:
        heads, rows = outputs
        grid = Grid(TITLE, heads, heads[:1], elsewhere=ELSEWHERE, drop=heads[:0:-1])
        for row in rows:
            grid.put(row)
        parts.append(grid)
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
    """Return one row a file, dense and compressed, with its qualities and costs."""
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
    """Return heads and a row for each output of the chosen file; None: it has only one.

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
    dense = [
        row
        for row in report.rows
        if row.artifact.variant == "dense" and row.artifact.model == chosen.row.artifact.model
    ]
    # in the chosen format, else the first that there is
    alike = [row for row in dense if row.artifact.format == chosen.row.artifact.format]
    original = next(iter(alike or dense), None)
    metrics = list(dict.fromkeys(metric for names in by_output.values() for metric in names))
    rows = []
    for output, names in by_output.items():
        cells = [
            _change(names[metric], original, chosen.row) if metric in names else "-"
            for metric in metrics
        ]
        rows.append([output, *cells])
    return ["Output", *(meaning(metric)[0] for metric in metrics)], rows


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


def _change(name: str, original: Row | None, chosen: Row) -> str:
    after = formats.quality(name, chosen.artifact.test.get(name))
    if original is None or original is chosen:
        return after
    return f"{formats.quality(name, original.artifact.test.get(name))} -> {after}"


def verdict(report: Report, model: str) -> str:
    """Return a sentence on compression's effect: accuracy, bytes, time, dense against pruned."""
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
    """Return a sentence on the training of the dense and the compressed model.

    What a compressed model gains over one that was trained for less long, or without its
    teacher, is not compression's.
    """
    before = Trained(record.dense_epochs, record.dense_begun)
    if record.dense_epochs is None and record.finetuned is None:
        # of older records other sections may know; a history of nothing is none
        told = (section.known(record.model).epochs for section in report.sections)
        before = next((Trained(epochs) for epochs in told if epochs), UNKNOWN)
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


def time_traded(row: Row) -> str:
    """Return a file's gain or loss of time against its baseline, in words."""
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


def conditions(report: Report) -> str:
    """Return a sentence on the conditions of the latency measurement."""
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
    """Return a file's test quality: "94.00 % [91.05, 96.01], n = 360"."""
    text = formats.quality(report.main, row.artifact.test.get(report.main))
    ends = formats.interval(report.main, report.interval(row, report.main))
    count = report.tested(row)
    return "".join(
        [text, f" {ends}" if ends else "", f", n = {count:,}" if count is not None else ""]
    )


def judged(report: Report) -> str:
    """Return a sentence on the origin of files' qualities and the meaning of brackets."""
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
    """Return sentences on the files that stand out, with their test qualities."""
    if found.to_ship is None:
        return [f"No file is chosen to ship: {found.missing}."]
    ship, best = found.to_ship, found.best
    val = formats.quality(found.quality, ship.val)
    lines = [
        f"{ship.title}: {ship.row.artifact.id}, {ship.figure} (validation {val}); "
        f"test {tested(report, ship.row)}",
        f"{best.title}: {best.row.artifact.id} ({best.figure}); test {tested(report, best.row)}",
    ]
    if found.verdict is not None and ship.what != GOAL:  # a goal has said it
        lines.insert(0, f"{found.verdict.line}.")
    return lines


def learnt_lines(report: Report) -> list[str]:
    """Return warnings about models that were trained on the validation part."""
    found = [text for section in report.sections for text in section.warnings()]
    return found + [learnt_line(record) for record in report.compressed if record.val_learnt]


def learnt_line(record: Compressed) -> str:
    """Return the warning that a model or its teacher was trained on the validation part."""
    return (
        f"{record.model}: the model or its teacher has learnt the validation part. It selected "
        "nothing (the last epoch was kept), and its figures are too good."
    )


def other_runtimes(report: Report) -> list[str]:
    """Return a line for each further runtime: its times, or the reason that it was skipped."""
    lines = []
    for runtime, found in report.others.items():
        if isinstance(found, str):
            lines.append(f"{runtime} was not measured: {found}")
            continue
        for name, latency in found.items():
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
    """Return the epochs of the fine-tuning of a file's net, or the most of any net's.

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
    """Return the number of compression's epochs in words; see `_finetuned`."""
    count, least = _finetuned(record, file), ""
    if count is not None and not file and len(set(record.each.values())) > 1:
        least = "up to "
    if count is None:
        # older records hold the last fine-tuning alone, and channels may leave in several steps
        count, least = record.epochs, "at least " if record.channels else ""
    return f"{least}{count} more epoch{'' if count == 1 else 's'}"


def _trade(old: Row, new: Row, unpruned: Row | None, main: str, record: Compressed) -> str:
    """Compare a pruned file with the dense baseline and say what the format alone gives."""
    gained = formats.change(main, new.artifact.test[main] - old.artifact.test[main])
    quality = main if main == "accuracy" else meaning(main)[0]
    smaller = old.artifact.gzip_bytes / new.artifact.gzip_bytes
    what = [new.artifact.format]
    if 0 < new.artifact.macs < old.artifact.macs:
        what.append(f"with {old.artifact.macs / new.artifact.macs:.2f}x fewer MACs")
    if new.artifact.sparsity > 0:
        what.append(
            f"({formats.percent(new.artifact.sparsity)} of the pruned kernels, "
            f"{formats.percent(new.artifact.zeros)} of all parameters are zero)"
        )
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
    alone = unpruned.latency.ratio if unpruned is not None and unpruned.latency else 1.0
    unchanged = unpruned is None or unpruned.artifact.macs == new.artifact.macs
    slow = new.latency is not None and new.latency.ratio < alone * (1 + NEGLIGIBLE)
    if new.artifact.sparsity != 0 and unchanged and slow:
        text += ": the zeros save bytes but no time"
    if new.artifact.unsupported:
        left = len(new.artifact.unsupported)
        text += f" (MACs leave out {left} operation{'' if left == 1 else 's'})"
    return text

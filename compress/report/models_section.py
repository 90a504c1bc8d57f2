"""The page's section on each model: the trade, what was pruned, how to reproduce it."""

from __future__ import annotations

import shlex

from compress.measure import formats
from compress.report.markup import Html, element, folded, items, joined, paragraph
from compress.report.rows import Report
from compress.report.words import learnt_line, training, verdict
from compress.run.records import Candidate, Compressed


def models_section(report: Report) -> Html:
    """Returns the section, empty where nothing was compressed."""
    if not report.compressed:
        return Html("")
    order = {row.artifact.model: None for row in report.rows}
    by_model = {record.model: record for record in report.compressed}
    return joined(
        [
            element("h2", "Each model: the trade, and how to reproduce it"),
            element("div", [_card(report, by_model[name]) for name in order], class_="cards"),
        ]
    )


def choices_of(candidate: Candidate) -> str:
    """Returns what the sampler chose, in one line."""
    return ", ".join(f"{key}={formats.plain(value)}" for key, value in candidate.choices.items())


def replay_command(report: Report, candidate: Candidate) -> str:
    """Returns the command that trains a candidate anew with its choices and seed."""
    template = str(report.record["shown"].get("replay", ""))
    try:
        words = shlex.split(template)
    except ValueError:
        return template
    # an id is part of a word of the command, whatever it holds
    return shlex.join(word.replace("{id}", candidate.id) for word in words)


def _card(report: Report, record: Compressed) -> Html:
    candidate = next((item for item in report.candidates if item.id == record.model), None)
    files = [row.artifact for row in report.rows if row.artifact.model == record.model]
    taught = f"taught by {record.teacher}" if record.teacher else "labels only"
    checks = "; ".join(
        f"{item.id}: agreement {item.agreement * 100:.1f} % on {item.checked} validation "
        f"examples, largest difference {item.max_difference:.2g}" for item in files
    )  # fmt: skip
    unsupported = sorted({name for item in files for name in item.unsupported})
    commands = [f"# compress it again\n{record.command}"]
    if candidate is not None:
        commands.append(f"# train it again\n{replay_command(report, candidate)}")
    return element(
        "div",
        element("h3", record.model),
        paragraph(f"{verdict(report, record.model)}."),
        paragraph(training(report, record)),
        element("p", learnt_line(record), class_="warning") if record.val_learnt else None,
        paragraph(choices_of(candidate), soft=True) if candidate is not None else None,
        paragraph(
            f"Last fine-tuning: {record.epochs} epochs (best: {record.best_epoch}), {taught}; "
            f"{record.seconds:.0f} s in all on {record.device}; validation {report.main} "
            f"{formats.share(record.val['dense'][report.main])} before, "
            f"{formats.share(record.val['pruned'][report.main])} after training on.",
            soft=True,
        ),
        [paragraph(f"Note: {note}", soft=True) for note in record.notes],
        folded("Layers pruned and kept", items([*_channels(record), *_weights(record)])),
        [paragraph("Not counted in MACs:"), items(unsupported)] if unsupported else None,
        folded("Files against the Keras model", checks),
        [element("pre", command) for command in commands],
        class_="card",
    )


def _weights(record: Compressed) -> list[str]:
    pruned = [
        f"{item['layer']}: {item['zeros']:,} of {item['size']:,} weights are zero "
        f"({item['zeros'] / item['size'] * 100:.1f} % of its {item.get('weight', 'kernels')})"
        for item in record.weights["pruned"]
    ]
    return pruned + [f"{item['layer']} kept: {item['reason']}" for item in record.weights["kept"]]


def _channels(record: Compressed) -> list[str]:
    """Lists the groups of channels, what was held and the layers without a rule."""
    if record.channels is None:
        return []
    found = [
        f"{item['name']}: {item['kept']:,} of {item['total']:,} {item['kind']} kept"
        + (f" ({item['reason']})" if item["reason"] else "")
        for item in record.channels["groups"]
    ]
    found += [
        f"{', '.join(item['made_by']) or item['layer']}: {item['units']:,} units held: "
        f"{item['reason']}"
        for item in record.channels["frozen"]
    ]
    return found + [
        f"{name} ({kind}): channels around it stay: {reason}"
        for name, kind, reason in record.channels["unknown"]
    ]

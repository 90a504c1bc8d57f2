"""The page's section on each model: the trade, what was pruned, how to reproduce it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.measure import formats
from compress.reconstruction.report import RepairReport, repair_of
from compress.report.precisions import precisions
from compress.report.rows import Report
from compress.report.trade import training, verdict
from compress.report.words import learnt_line
from compress.run.compressed import Compressed


def models_section(report: Report) -> list[dict[str, Any]]:
    """Returns what models.html.j2 shows, one card a model."""
    order = dict.fromkeys(row.artifact.model for row in report.rows)
    by_model = {record.model: record for record in report.compressed}
    return [_card(report, by_model[name]) for name in order]


def _card(report: Report, record: Compressed) -> dict[str, Any]:
    known = [section.known(record.model) for section in report.sections]
    files = [row.artifact for row in report.rows if row.artifact.model == record.model]
    taught = f"taught by {record.teacher}" if record.teacher else "labels only"
    tuned = (
        f"Last fine-tuning: {record.epochs} epochs (best: {record.best_epoch}), {taught}; "
        if record.epochs
        else "Not fine-tuned; "
    )
    return {
        "model": record.model,
        "verdict": f"{verdict(report, record.model)}.",
        "training": training(report, record),
        "warning": learnt_line(record) if record.val_learnt else "",
        "choices": [item.choices for item in known if item.choices],
        "finetuning": f"{_repair(record)}{tuned}{record.seconds:.0f} s in all on {record.device}; "
        "validation "
        f"{report.main} {formats.quality(report.main, record.val['dense'][report.main])} before, "
        f"{formats.quality(report.main, record.val['pruned'][report.main])} after.",
        "notes": record.notes,
        "layers": [*_channels(record), *_weights(record)],
        "precisions": [precisions(item) for item in files if item.layers],
        "uncounted": sorted({name for item in files for name in item.unsupported}),
        "checks": "; ".join(
            f"{item.id}: agreement {item.agreement * 100:.1f} % on {item.checked} validation "
            f"examples, largest difference {item.max_difference:.2g}" for item in files
        ),
        "commands": [
            f"# compress it again\n{record.command}",
            *(command for item in known for command in item.commands),
        ],
    }  # fmt: skip


def _weights(record: Compressed) -> list[str]:
    pruned = [
        f"{item['layer']}: {item['zeros']:,} of {item['size']:,} weights are zero "
        f"({item['zeros'] / item['size'] * 100:.1f} % of its {item.get('weight', 'kernels')})"
        for item in record.weights["pruned"]
    ]
    return pruned + [f"{item['layer']} kept: {item['reason']}" for item in record.weights["kept"]]


def _repairs(record: Compressed) -> Iterator[tuple[str, RepairReport]]:
    """Yields what was solved for after channels left, and after weights were zeroed."""
    for what, part in (("channels", record.channels), ("weights", record.weights)):
        report = (part or {}).get("repair")
        if report is not None:
            yield what, repair_of(report)


def _repair(record: Compressed) -> str:
    return "".join(
        f"Behind {what} that left: {report.line()}. " for what, report in _repairs(record)
    )


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

"""The report as one self-contained HTML page: no request to anywhere.

What it says stands in it as text and tables. Over that lies a live half (charts, a table to sort
and filter, a card of what is selected), which the page's own scripts make of data in it; a light
page is without.
"""

from __future__ import annotations

from typing import Any

from compress.data.tasks import TASKS, meaning
from compress.measure import formats
from compress.report.columns import columns, precisions
from compress.report.live.page import live, repairs
from compress.report.markup import Cell, digest, filled, style_sheet, templates, two_lines
from compress.report.plot import has_plot
from compress.report.rows import Report, Row, Tile
from compress.report.standouts import BEST, Standout, Standouts, agreement_lines, standouts
from compress.report.words import (
    TITLE,
    conditions,
    judged,
    learnt_line,
    learnt_lines,
    other_runtimes,
    outputs_table,
    tested,
    time_traded,
    training,
    verdict,
)
from compress.run.compressed import Compressed


def render_html(report: Report, *, light: bool = False) -> str:
    """Return the page.

    Args:
        report: With all sections that it has to show.
        light: Without scripts, and of far fewer bytes.
    """
    by_model = {record.model: record for record in report.compressed}
    cards = [
        _card(report, by_model[name])
        for name in dict.fromkeys(row.artifact.model for row in report.rows)
    ]
    style = style_sheet()
    alive = None if light else live(report, cards)
    page = filled(
        templates(),
        "compress/page.html.j2",
        policy=policy(style, alive["sources"] if alive else ""),
        style=style,
        live=alive,
        head=_head(report),
        plot=has_plot(report),
        above=[section.above() for section in report.sections],
        files=files_section(report),
        cards=cards,
        below=[section.below() for section in report.sections],
        method=_method(report),
    )
    return str(page)


def policy(style: str, scripts: str = "") -> str:
    """Return the page's Content-Security-Policy, which allows only its own style and scripts.

    Args:
        style: The text of the page's `<style>`.
        scripts: Hashes of its scripts; "": there are none. plotly then sets styles of its own, and
            makes images of its charts to be saved.
    """
    parts = ["default-src 'none'"]
    if scripts:
        parts += [f"script-src {scripts}", "style-src 'unsafe-inline'", "img-src data: blob:"]
    else:
        parts += [f"style-src {digest(style)}"]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def files_section(report: Report) -> dict[str, Any] | None:
    """Return the values of files.html.j2; None where there are no files."""
    if not report.rows:
        return None
    models = [row.artifact.model for row in report.rows]
    qualities = [meaning(name)[0] for name in report.qualities]
    return {
        "judged": judged(report),
        "conditions": conditions(report),
        "heads": ["File", *qualities, "MACs", "Sparse MACs", "Parameters", "Non-zero",
                  "Size", "Gzipped", "Zstd", "Latency", "p95", "Speed-up"],
        "rows": [_cells(report, row) for row in report.rows],
        "first": [place for place in range(1, len(models)) if models[place] != models[place - 1]],
        "others": other_runtimes(report),
        "outputs": outputs_table(report),
        "outputs_title": TITLE,
    }  # fmt: skip


def _head(report: Report) -> dict[str, Any]:
    """Return the values of head.html.j2: run, data, and the files that stand out."""
    data, kind = report.data, report.kind
    noun = TASKS[kind].noun if kind in TASKS else "outputs"
    sizes = data.get("examples", {})
    parts = {
        name: f"{sizes[name]:,}" if name in sizes else _examples(counts, kind)
        for name, counts in data.get("counts", {}).items()
    }
    shapes = data.get("input_shapes", {"": data.get("input_shape", ())})
    shape = ", ".join(
        f"{name} {' x '.join(map(str, sizes))}".strip() for name, sizes in shapes.items()
    )
    counted = ", ".join(f"{count} {name}" for name, count in parts.items())
    judged = [section.judged for section in report.sections if section.judged]
    judged = [*judged, "exported files"] if judged else ["the exported files"]
    found = standouts(report)
    by = f"Chosen by the validation {found.quality} of {found.by}, never by test data."
    if found.missing:
        by = f"No file is chosen to ship: {found.missing}."
    tiles = [tile for section in report.sections for tile in section.tiles()]
    tiles += [_tile(report, found, item) for item in found.chosen]
    return {
        "command": report.record["command"],
        "source": str(data.get("source", report.folder.name)),
        "lead": f"{len(data.get('class_names', []))} {noun}, inputs of {shape}; {counted}. "
        "Training data trained, validation data selected, test data judged "
        f"{' and '.join(judged)} once.",
        "answer": _answer(report, found),
        "warnings": [*agreement_lines(report), *learnt_lines(report)],
        "tiles": [(two_lines(tile.figure), tile.label) for tile in tiles],
        "chosen_by": by if report.rows else "",
        "notes": data.get("notes", ()),
    }


def _examples(counts: list[int], kind: str) -> str:
    """Return the number of examples of a part as older records tell it: of several labels, the
    numbers that have each."""
    total = TASKS[kind].counted(counts)
    return "/".join(str(count) for count in counts) if total is None else f"{total:,}"


def _tile(report: Report, found: Standouts, item: Standout) -> Tile:
    file, val = item.row.artifact.id, formats.quality(found.quality, item.val)
    title, judged = item.title, tested(report, item.row)
    if item.what == BEST:
        # the largest figure of a page is one that nothing was chosen by
        value, mark, count = judged.partition(", n")
        return Tile(value, f"test {found.quality} of {file}{mark}{count}. {title}: {val}")
    return Tile(item.figure, f"{title}: {file}, validation {val}, test {judged}")


def _answer(report: Report, found: Standouts) -> str:
    """Return a sentence on the file to ship, its quality and gain; empty where none is chosen."""
    if found.to_ship is None:
        return ""
    row = found.to_ship.row
    item = row.artifact
    place = next((part.shipped_file for part in report.sections if part.shipped == item.id), "")
    gains = []
    base = next((other for other in report.rows if other.artifact.id == item.baseline), None)
    if base is not None and base is not row:
        smaller = base.artifact.gzip_bytes / item.gzip_bytes
        gains = [f"{smaller:.2f}x smaller gzipped", time_traded(row)]
    against = f"; against {item.baseline}: {', '.join(gains)}" if gains else ""
    judged = f"test {found.quality} {tested(report, row)}"
    if found.verdict is not None:
        judged = found.verdict.line
    return f"Ship {place or item.file}: {judged}{against}."


def _method(report: Report) -> dict[str, Any]:
    """Return the values of method.html.j2: the meaning of columns, versions, the command."""
    trained_on = [device for section in report.sections for device in section.devices]
    trained_on += [item.device for item in report.compressed]
    devices = sorted({device for device in trained_on if device})
    versions = ", ".join(f"{name} {version}" for name, version in report.record["versions"].items())
    scaling = report.data.get("preprocess", {})
    facts = [
        f"Trained on {'; '.join(devices)}." if devices else "",
        f"Versions: {versions}.",
        f"Model inputs: {scaling.get('formula', '')}; scale {scaling.get('scale', 0):.6g}, mean "
        f"{_short(scaling.get('mean', []))}, std {_short(scaling.get('std', []))} (data.json and "
        "exports/*.json have the full values)." if scaling else "",
    ]  # fmt: skip
    return {
        "terms": [
            column
            for column in columns(report)
            if "low" not in column.key and "high" not in column.key
        ],
        "facts": " ".join(fact for fact in facts if fact),
        "command": report.record["shown"].get("command", ""),
    }


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.4g}" for number in numbers[:4])
    return f"({shown}{', ...' if len(numbers) > 4 else ''})"


def _cells(report: Report, row: Row) -> list[str | Cell]:
    item = row.artifact
    return [
        item.id,
        *(
            Cell(
                formats.quality(name, item.test.get(name)),
                formats.interval(name, report.interval(row, name)),
            )
            for name in report.qualities
        ),
        Cell(
            f"{formats.count(item.macs)}{' +?' if item.unsupported else ''}",
            f"{formats.count(2 * item.macs)} FLOPs",
        ),
        formats.count(item.sparse_macs),
        formats.count(item.params),
        Cell(formats.count(item.nonzero), f"{formats.percent(item.zeros)} zero"),
        formats.size(item.size_bytes),
        formats.size(item.gzip_bytes),
        formats.size(item.zstd_bytes),
        two_lines(formats.latency(row.latency)),
        formats.time(row.latency.p95_ms) if row.latency else "-",
        two_lines(formats.speedup(row.latency)),
    ]


def _card(report: Report, record: Compressed) -> dict[str, Any]:
    known = [section.known(record.model) for section in report.sections]
    files = [row.artifact for row in report.rows if row.artifact.model == record.model]
    repaired = "".join(
        f"Behind {what} that left: {found.line()}. " for what, found in repairs(record)
    )
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
        "finetuning": f"{repaired}{tuned}{record.seconds:.0f} s in all on {record.device}; "
        "validation "
        f"{report.main} {formats.quality(report.main, record.val['dense'][report.main])} before, "
        f"{formats.quality(report.main, record.val['pruned'][report.main])} after.",
        "notes": record.notes,
        "layers": _layers(record),
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


def _layers(record: Compressed) -> list[str]:
    """List removed channels and weights, held ones, and layers without a rule."""
    found = []
    if record.channels is not None:
        found += [
            f"{item['name']}: {item['kept']:,} of {item['total']:,} {item['kind']} kept"
            + (f" ({item['reason']})" if item["reason"] else "")
            for item in record.channels["groups"]
        ]
        found += [
            f"{', '.join(item['made_by']) or item['layer']}: {item['units']:,} units held: "
            f"{item['reason']}"
            for item in record.channels["frozen"]
        ]
        found += [
            f"{name} ({kind}): channels around it stay: {reason}"
            for name, kind, reason in record.channels["unknown"]
        ]
    found += [
        f"{item['layer']}: {item['zeros']:,} of {item['size']:,} weights are zero "
        f"({item['zeros'] / item['size'] * 100:.1f} % of its {item.get('weight', 'kernels')})"
        for item in record.weights["pruned"]
    ]
    return found + [f"{item['layer']} kept: {item['reason']}" for item in record.weights["kept"]]

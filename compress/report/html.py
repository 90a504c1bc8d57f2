"""The report as one self-contained HTML page, without external requests.

The contents are on the page as text and tables. Scripts in the page add an interactive part
(charts, a table to sort and filter, a card of the selection) from embedded data. A light page has
no scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.data.tasks import TASKS, describe_metric
from compress.measure import formatting
from compress.report.columns import build_precision_table, list_columns
from compress.report.file_selection import (
    SelectedFile,
    find_original,
    format_agreement_warnings,
    select_files,
)
from compress.report.live.page import build_live_page, iterate_repairs
from compress.report.markup import (
    Cell,
    compute_digest,
    load_templates,
    read_style_sheet,
    render_template,
    split_interval,
)
from compress.report.report_data import Report, Row
from compress.report.result_screen import (
    format_smaller,
    list_fields,
    list_verdict_lines,
    sort_rows,
)
from compress.report.text_report import (
    OUTPUTS_TITLE,
    build_outputs_table,
    describe_conditions,
    describe_effect,
    describe_metrics,
    describe_speedup,
    describe_training,
    format_other_runtimes,
)
from compress.run.compressed_model import CompressedModel


def render_html(report: Report, *, light: bool = False) -> str:
    """Return the page.

    Args:
        report: Report with all its sections.
        light: Whether to leave out scripts, which makes the page much smaller.
    """
    by_model = {record.model: record for record in report.compressed}
    cards = [
        _build_card(report, by_model[name])
        for name in dict.fromkeys(row.artifact.model for row in report.rows)
    ]
    style = read_style_sheet()
    live_data = None if light else build_live_page(report, cards)
    page = render_template(
        load_templates(),
        "compress/page.html.j2",
        policy=build_policy(style, live_data["sources"] if live_data else ""),
        style=style,
        live=live_data,
        head=_build_head(report),
        plot=bool(report.rows) or any(section.list_panels() for section in report.sections),
        above=[section.render_above() for section in report.sections],
        files=build_files_section(report),
        cards=cards,
        below=[section.render_below() for section in report.sections],
        method=_build_method(report),
    )
    return str(page)


def build_policy(style: str, scripts: str = "") -> str:
    """Return the page's Content-Security-Policy, which allows only its own style and scripts.

    Args:
        style: Text of the page's `<style>`.
        scripts: Hashes of its scripts; "" if there are none. With scripts, inline styles and images
            are allowed: plotly sets styles and creates images of its charts for download.
    """
    parts = ["default-src 'none'"]
    if scripts:
        parts += [f"script-src {scripts}", "style-src 'unsafe-inline'", "img-src data: blob:"]
    else:
        parts += [f"style-src {compute_digest(style)}"]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def build_files_section(report: Report) -> dict[str, Any] | None:
    """Return the values of files.html.j2; None if there are no files.

    Args:
        report: The report with the files.
    """
    if not report.rows:
        return None
    selection = select_files(report)
    rows = sort_rows(report, selection)
    shipped = selection.to_ship.row if selection.to_ship is not None else None
    metric_titles = [describe_metric(name)[0] for name in report.qualities]
    return {
        "judged": describe_metrics(report),
        "conditions": describe_conditions(report),
        "heads": ["File", *metric_titles, "MACs", "Sparse MACs", "Parameters", "Non-zero",
                  "Size", "Gzipped", "Latency", "p95", "Speed-up"],
        "rows": [_build_cells(report, row, is_shipped=row is shipped) for row in rows],
        "first": [1] if shipped is not None and len(rows) > 1 else [],
        "others": format_other_runtimes(report),
        "outputs": build_outputs_table(report),
        "outputs_title": OUTPUTS_TITLE,
    }  # fmt: skip


def _build_head(report: Report) -> dict[str, Any]:
    """Return the values of head.html.j2: run, data and selected files."""
    data, kind = report.data, report.kind
    noun = TASKS[kind].noun if kind in TASKS else "outputs"
    sizes = data.get("examples", {})
    parts = {
        name: f"{sizes[name]:,}" if name in sizes else _format_examples(counts, kind)
        for name, counts in data.get("counts", {}).items()
    }
    shapes = data.get("input_shapes", {"": data.get("input_shape", ())})
    shape = ", ".join(
        f"{name} {' x '.join(map(str, sizes))}".strip() for name, sizes in shapes.items()
    )
    counts_text = ", ".join(f"{count} {name}" for name, count in parts.items())
    evaluated_on_test = [
        section.evaluated_on_test for section in report.sections if section.evaluated_on_test
    ]
    evaluated_on_test = (
        [*evaluated_on_test, "exported files"] if evaluated_on_test else ["the exported files"]
    )
    selection = select_files(report)
    selected_by = (
        f"No file is chosen to ship: {selection.reason}."
        if selection.reason
        else f"Chosen by the validation {selection.metric} of {selection.source}, never by test "
        "data."
    )
    return {
        "title": build_title(report),
        "lead": f"Data: {data.get('source', report.folder.name)}; "
        f"{len(data.get('class_names', []))} {noun}, inputs of {shape}; {counts_text}. "
        "Training data trained, validation data selected, test data evaluated "
        f"{' and '.join(evaluated_on_test)} once.",
        "verdict": list_verdict_lines(report, selection) if report.rows else [],
        "fields": list_fields(report, selection.to_ship) if report.rows else (),
        "warnings": format_agreement_warnings(report),
        "tiles": [
            # a unit stays beside its number
            (split_interval(figure.replace(" ", "\u00a0", 1)), label)
            for figure, label in (
                _list_tiles(report, selection.to_ship) if selection.to_ship else ()
            )
        ],
        "chosen_by": selected_by if report.rows else "",
        "notes": data.get("notes", ()),
    }


def _format_examples(counts: list[int], kind: str) -> str:
    """Return the number of examples of a part from older records.

    Tasks with several labels only record the number of examples per label; these are joined by "/".
    """
    total = TASKS[kind].counted(counts)
    return "/".join(str(count) for count in counts) if total is None else f"{total:,}"


def build_title(report: Report) -> str:
    """Return the title of the page: the model or the data, and the target."""
    plan, models = report.record["plan"], [record.model for record in report.compressed]
    subject = models[0] if len(models) == 1 else report.data.get("source", report.folder.name)
    targets = [section.target for section in report.sections if section.target]
    if not targets:
        channels = plan.get("channels", {}).get("target")
        sparsity = plan.get("weights", {}).get("sparsity")
        targets += [f"channels {channels}"] if channels else []
        targets += [f"sparsity {sparsity:g}"] if sparsity else []
    return f"paretune {report.record['command']}: {', '.join([str(subject), *targets])}"


def _list_tiles(report: Report, shipped: SelectedFile) -> Iterator[tuple[str, str]]:
    """Yield figure and label: the test metric, the latency and the size of the shipped file."""
    row, name = shipped.row, report.main
    original = find_original(report, row)
    value = formatting.format_metric(name, row.artifact.test.get(name))
    ends = formatting.format_interval(name, report.interval(row, name))
    before = ""
    if original is not None and original is not row:
        before_text = formatting.format_metric(name, original.artifact.test.get(name))
        before = f", {before_text} before"
    count = report.count_test_examples(row)
    count_text = f", {count:,} examples" if count is not None else ""
    label = f"test {name} of {row.artifact.id}{before}{count_text}"
    yield f"{value} {ends}".strip(), label
    if row.latency is not None:
        is_own = row.artifact.baseline == row.artifact.id
        against = "" if is_own else f"against {row.artifact.baseline}: "
        speed = against + describe_speedup(row).partition(" (")[0]
        where = f"{row.latency.runtime}, {row.latency.device}"
        yield formatting.format_latency(row.latency), f"latency, {speed}; {where}, measured"
    size = formatting.format_size(row.artifact.size_bytes)
    smaller = (
        ""
        if original is None or original is row
        else f", {format_smaller(original, row)} smaller than {original.artifact.id}"
    )
    yield size, f"size of the file as it ships{smaller}"


def _build_method(report: Report) -> dict[str, Any]:
    """Return the values of method.html.j2: descriptions of columns, versions, command."""
    trained_on = [device for section in report.sections for device in section.devices]
    trained_on += [item.device for item in report.compressed]
    devices = sorted({device for device in trained_on if device})
    versions = ", ".join(f"{name} {version}" for name, version in report.record["versions"].items())
    scaling = report.data.get("preprocess", {})
    facts = [
        f"Trained on {'; '.join(devices)}." if devices else "",
        f"Versions: {versions}.",
        f"Model inputs: {scaling.get('formula', '')}; scale {scaling.get('scale', 0):.6g}, mean "
        f"{_format_numbers(scaling.get('mean', []))}, std "
        f"{_format_numbers(scaling.get('std', []))} (data.json and "
        "exports/*.json have the full values)."
        if scaling
        else "",
    ]
    return {
        "terms": [
            column
            for column in list_columns(report)
            if "low" not in column.key and "high" not in column.key
        ],
        "facts": " ".join(fact for fact in facts if fact),
        "command": report.record["shown"].get("command", ""),
    }


def _format_numbers(numbers: list[float]) -> str:
    text = ", ".join(f"{number:.4g}" for number in numbers[:4])
    return f"({text}{', ...' if len(numbers) > 4 else ''})"


def _build_cells(report: Report, row: Row, *, is_shipped: bool) -> list[str | Cell]:
    """Return an exported file's cells in the page's table; that of a shipped file is marked."""
    item = row.artifact
    return [
        Cell(item.id, beside="ships") if is_shipped else item.id,
        *(
            Cell(
                formatting.format_metric(name, item.test.get(name)),
                formatting.format_interval(name, report.interval(row, name)),
            )
            for name in report.qualities
        ),
        Cell(
            f"{formatting.format_count(item.macs)}{' +?' if item.unsupported else ''}",
            f"{formatting.format_count(2 * item.macs)} FLOPs",
        ),
        formatting.format_count(item.sparse_macs),
        formatting.format_count(item.params),
        Cell(
            formatting.format_count(item.nonzero), f"{formatting.format_percent(item.zeros)} zero"
        ),
        formatting.format_size(item.size_bytes),
        formatting.format_size(item.gzip_bytes),
        split_interval(formatting.format_latency(row.latency)),
        formatting.format_time(row.latency.p95_ms) if row.latency else "-",
        split_interval(formatting.format_speedup(row.latency)),
    ]


def _build_card(report: Report, record: CompressedModel) -> dict[str, Any]:
    """Return the template values of one compressed model: verdict, training, layers, checks, ..."""
    details = [section.describe_model(record.model) for section in report.sections]
    files = [row.artifact for row in report.rows if row.artifact.model == record.model]
    repairs = "".join(
        f"Behind removed {removed}: {repair_report.summarize()}. "
        for removed, repair_report in iterate_repairs(record)
    )
    labels_text = f"distilled from {record.teacher}" if record.teacher else "labels only"
    tuning_text = (
        f"Last fine-tuning: {record.epochs} epochs (best: {record.best_epoch}), {labels_text}; "
        if record.epochs
        else "Not fine-tuned; "
    )
    return {
        "model": record.model,
        "verdict": f"{describe_effect(report, record.model)}.",
        "training": describe_training(report, record),
        "choices": [item.choices for item in details if item.choices],
        "finetuning": f"{repairs}{tuning_text}{record.seconds:.0f} s in all on {record.device}; "
        f"validation {report.main} "
        f"{formatting.format_metric(report.main, record.val['dense'][report.main])} before, "
        f"{formatting.format_metric(report.main, record.val['pruned'][report.main])} after.",
        "notes": record.notes,
        "layers": _describe_layers(record),
        "precisions": [build_precision_table(item) for item in files if item.layers],
        "uncounted": sorted({name for item in files for name in item.unsupported}),
        "checks": "; ".join(
            f"{item.id}: agreement {item.agreement * 100:.1f} % on {item.checked} validation "
            f"examples, largest difference {item.max_difference:.2g}"
            for item in files
        ),
        "commands": [
            f"# compress it again\n{record.command}",
            *(command for item in details for command in item.commands),
        ],
    }


def _describe_layers(record: CompressedModel) -> list[str]:
    """Return a line per layer: removed and protected channels, and zeroed weights."""
    lines = []
    if record.channels is not None:
        lines += [
            f"{item['name']}: {item['kept']:,} of {item['total']:,} {item['kind']} kept"
            + (f" ({item['reason']})" if item["reason"] else "")
            for item in record.channels["groups"]
        ]
        lines += [
            f"{', '.join(item['made_by']) or item['layer']}: {item['units']:,} units not prunable: "
            f"{item['reason']}"
            for item in record.channels["frozen"]
        ]
        lines += [
            f"{name} ({kind}): channels around it are kept: {reason}"
            for name, kind, reason in record.channels["unknown"]
        ]
    lines += [
        f"{item['layer']}: {item['zeros']:,} of {item['size']:,} weights are zero "
        f"({item['zeros'] / item['size'] * 100:.1f} % of its {item.get('weight', 'kernels')})"
        for item in record.weights["pruned"]
    ]
    return lines + [f"{item['layer']} kept: {item['reason']}" for item in record.weights["kept"]]

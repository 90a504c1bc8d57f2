"""The report as one self-contained HTML page: no script, no request to anywhere."""

from __future__ import annotations

from html import escape
from importlib import resources

from compress.records import COMPLETE, Candidate, Compressed
from compress.report import formats
from compress.report.final import final_html
from compress.report.markup import table
from compress.report.plot import render_plot
from compress.report.rows import Report
from compress.report.search_facts import SearchFacts
from compress.report.search_section import search_section
from compress.report.words import (
    conditions,
    measured_cells,
    measured_costs,
    other_runtimes,
    search_line,
    verdict,
)
from compress.task import MEANING

_NOUNS = {
    "multiclass": "classes",
    "binary": "classes",
    "multilabel": "labels",
    "regression": "targets",
}


def render_html(report: Report, facts: SearchFacts | None = None) -> str:
    """Returns the page.

    Args:
        report: From `load_report`.
        facts: From `search_facts`; None: the page has no section on the search.
    """
    style = resources.files("compress.report").joinpath("style.css").read_text("utf-8")
    body = "\n".join(
        part
        for part in (
            _head(report),
            _plot(report),
            _front(report),
            final_html(report),
            _files(report),
            _models(report),
            search_section(report, facts) if facts else "",
            _candidates(report),
            _method(report),
        )
        if part
    )
    title = escape(f"paretune: {_source(report)}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main>\n{body}\n"
        "</main></body></html>\n"
    )


def _head(report: Report) -> str:
    data, kind = report.data, report.data.get("task", "multiclass")
    parts = {name: _examples(counts, kind) for name, counts in data.get("counts", {}).items()}
    shape = " x ".join(str(size) for size in data.get("input_shape", []))
    sizes = ", ".join(f"{count} {name}" for name, count in parts.items())
    lines = [
        f"<h1>paretune {escape(report.record['command'])}: {escape(_source(report))}</h1>",
        f'<p class="soft">{len(data.get("class_names", []))} {_NOUNS[kind]}, inputs of {shape}; '
        f"{sizes}. Training data trained, validation data selected, test data judged "
        f"{'final trainings and ' if report.finals else 'the '}exported files once.</p>",
    ]
    tiles = _tiles(report)
    if tiles:
        cells = "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for value, label in tiles
        )
        lines.append(f'<div class="tiles">{cells}</div>')
    lines += [f'<p class="soft">Note: {escape(note)}</p>' for note in data.get("notes", [])]
    return "\n".join(lines)


def _examples(counts: list[int], kind: str) -> str:
    """Returns the number of examples of a part; of several labels the numbers that have each."""
    if kind == "multilabel":
        return "/".join(str(count) for count in counts)
    return f"{counts[0] if kind == 'regression' else sum(counts):,}"


def _source(report: Report) -> str:
    """Returns what was searched or compressed, and the data."""
    return str(report.data.get("source", report.folder.name))


def _tiles(report: Report) -> list[tuple[str, str]]:
    tiles = []
    if report.candidates:
        tiles.append((str(report.count(COMPLETE)), report.summary()))
    if not report.rows:
        return tiles
    scores = {row.artifact.id: row.artifact.test[report.main] for row in report.rows}
    best = max(scores, key=lambda name: scores[name])
    tiles.append((formats.share(scores[best]), f"best test {report.main}: {best}"))
    # the smallest file among those that cost at most one point against the best
    near = [row for row in report.rows if scores[row.artifact.id] >= scores[best] - 0.01]
    small = min(near, key=lambda row: row.artifact.gzip_bytes)
    tiles.append(
        (
            formats.size(small.artifact.gzip_bytes),
            f"smallest file (gzipped) within 1 point of it: {small.artifact.id}",
        )
    )
    timed = [row for row in near if row.latency]
    if timed:
        fast = min(timed, key=lambda row: row.latency.median_ms if row.latency else 0.0)
        if fast.latency:
            tiles.append((formats.time(fast.latency.median_ms),
                          f"fastest within 1 point of it: {fast.artifact.id}"))  # fmt: skip
    return tiles


def _plot(report: Report) -> str:
    if not report.rows and not any(item.state == COMPLETE for item in report.candidates):
        return ""
    svg = render_plot(report, "svg").decode("utf-8")
    return f'<div class="plot" role="img" aria-label="Pareto plot">{svg[svg.index("<svg") :]}</div>'


def _choices(candidate: Candidate) -> str:
    return escape(", ".join(f"{k}={formats.plain(v)}" for k, v in candidate.choices.items()))


def _front(report: Report) -> str:
    if not report.front:
        return ""
    quality, *costs = report.objectives
    by_id = {candidate.id: candidate for candidate in report.candidates}
    rows = []
    for name in report.front:
        item = by_id[name]
        files = {(row.artifact.variant, row.artifact.format): row.artifact
                 for row in report.rows if row.artifact.model == name}  # fmt: skip
        cells = [f"{formats.share(item.val[quality])}", formats.count(item.macs),
                 formats.count(item.params), *measured_cells(report, item)]  # fmt: skip
        for key in (("dense", "float32"), ("pruned", "float32"), ("pruned", "int8")):
            made = files.get(key)
            cells.append(
                f"{formats.share(made.test[report.main])} <small>{formats.size(made.gzip_bytes)}"
                "</small>" if made else "-"
            )  # fmt: skip
        rows.append(f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ["Model", f"validation {quality}", "MACs", "Parameters", *measured_costs(report),
             "dense float32: test, gzipped", "pruned float32", "pruned int8"]  # fmt: skip
    return (
        "<h2>The front before and after compression</h2>"
        f"<p>Non-dominated in validation {escape(quality)} (up) and {escape(', '.join(costs))} "
        "(down). Pruned weights are zeros: they save bytes, and MACs stay what they are.</p>"
        + table(heads, rows)
    )


def _files(report: Report) -> str:
    if not report.rows:
        return ""
    rows = []
    for index, row in enumerate(report.rows):
        item = row.artifact
        first = index > 0 and report.rows[index - 1].artifact.model != item.model
        cells = [
            *(formats.quality(name, item.test.get(name)) for name in report.qualities),
            f"{formats.count(item.macs)}{' +?' if item.unsupported else ''}"
            f"<br><small>{formats.count(2 * item.macs)} FLOPs</small>",
            formats.count(item.sparse_macs),
            formats.count(item.params),
            formats.count(item.nonzero),
            formats.size(item.size_bytes),
            formats.size(item.gzip_bytes),
            formats.size(item.zstd_bytes),
            _two_lines(formats.latency(row.latency)),
            formats.time(row.latency.p95_ms) if row.latency else "-",
            _two_lines(formats.speedup(row.latency)),
        ]
        mark = ' class="first"' if first else ""
        rows.append(f"<tr{mark}><td>{item.id}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    qualities = [MEANING[name][0] for name in report.qualities]
    heads = ["File", *qualities, "MACs", "Sparse MACs", "Parameters", "Non-zero",
             "Size", "Gzipped", "Zstd", "Latency", "p95", "Speed-up"]  # fmt: skip
    others = "".join(f"<li>{escape(line)}</li>" for line in other_runtimes(report))
    return (
        f"<h2>Exported files</h2><p>{escape(conditions(report))}</p>"
        + table(heads, rows)
        + (f"<ul>{others}</ul>" if others else "")
    )


def _two_lines(text: str) -> str:
    """Puts the interval under its value: tables stay narrow enough for a screen."""
    value, bracket, interval = text.partition(" [")
    return f"{value}<br><small>[{interval}</small>" if bracket else value


def _models(report: Report) -> str:
    if not report.compressed:
        return ""
    order = {row.artifact.model: None for row in report.rows}
    by_model = {record.model: record for record in report.compressed}
    cards = "".join(_card(report, by_model[name]) for name in order)
    return (
        f'<h2>Each model: the trade, and how to reproduce it</h2><div class="cards">{cards}</div>'
    )


def _card(report: Report, record: Compressed) -> str:
    candidate = next((item for item in report.candidates if item.id == record.model), None)
    lines = [f"<h3>{escape(record.model)}</h3>", f"<p>{escape(verdict(report, record.model))}.</p>"]
    if candidate is not None:
        lines.append(f'<p class="soft">{_choices(candidate)}</p>')
    taught = f"taught by {record.teacher}" if record.teacher else "labels only"
    lines.append(
        f'<p class="soft">Fine-tuned for {record.epochs} epochs (best: {record.best_epoch}), '
        f"{escape(taught)}, {record.seconds:.0f} s on {escape(record.device)}; validation "
        f"{report.main} {formats.share(record.val['dense'][report.main])} before, "
        f"{formats.share(record.val['pruned'][report.main])} after.</p>"
    )
    lines += [f'<p class="soft">Note: {escape(note)}</p>' for note in record.notes]
    lines.append(f"<details><summary>Layers pruned and kept</summary>{_layers(record)}</details>")
    files = [row.artifact for row in report.rows if row.artifact.model == record.model]
    checks = "; ".join(
        f"{item.id}: agreement {item.agreement * 100:.1f} % on {item.checked} validation "
        f"examples, largest difference {item.max_difference:.2g}" for item in files
    )  # fmt: skip
    unsupported = sorted({name for item in files for name in item.unsupported})
    if unsupported:
        names = "".join(f"<li>{escape(name)}</li>" for name in unsupported)
        lines.append(f"<p>Not counted in MACs:</p><ul>{names}</ul>")
    lines.append(
        f"<details><summary>Files against the Keras model</summary>{escape(checks)}</details>"
    )
    commands = [f"# compress it again\n{record.command}"]
    if candidate is not None:
        commands.append(f"# train it again\n{replay_command(report, candidate)}")
    lines += [f"<pre>{escape(command)}</pre>" for command in commands]
    return f'<div class="card">{"".join(lines)}</div>'


def replay_command(report: Report, candidate: Candidate) -> str:
    """Returns the command that trains a candidate anew with its choices and seed."""
    return str(report.record["shown"].get("replay", "")).replace("{id}", candidate.id)


def _layers(record: Compressed) -> str:
    pruned = "".join(
        f"<li>{escape(item['layer'])}: {item['zeros']:,} of {item['size']:,} weights are zero "
        f"({item['zeros'] / item['size'] * 100:.1f} % of its {item.get('weight', 'kernels')})</li>"
        for item in record.weights["pruned"]
    )
    kept = "".join(
        f"<li>{escape(item['layer'])} kept: {escape(item['reason'])}</li>"
        for item in record.weights["kept"]
    )
    return f"<ul>{_channels(record)}{pruned}{kept}</ul>"


def _channels(record: Compressed) -> str:
    """Lists the groups of channels, what was held and the layers without a rule."""
    if record.channels is None:
        return ""
    lines = [
        f"{item['name']}: {item['kept']:,} of {item['total']:,} {item['kind']} kept"
        + (f" ({item['reason']})" if item["reason"] else "")
        for item in record.channels["groups"]
    ]
    lines += [
        f"{', '.join(item['made_by']) or item['layer']}: {item['units']:,} units held: "
        f"{item['reason']}"
        for item in record.channels["frozen"]
    ]
    lines += [
        f"{name} ({kind}): channels around it stay: {reason}"
        for name, kind, reason in record.channels["unknown"]
    ]
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _candidates(report: Report) -> str:
    if not report.candidates:
        return ""
    quality = report.objectives[0]
    rows = []
    for item in report.candidates:
        ending = f"{item.state}: {item.reason}" if item.reason else item.state
        state = "; ".join([ending, *item.notes])
        cells = [
            formats.share(item.val.get(quality)),
            formats.count(item.macs),
            formats.count(item.params),
            f"{item.seconds:.1f}",
        ]
        rows.append(
            f'<tr><td>{item.id}</td><td class="wrap">{escape(state)}</td>'
            f"{''.join(f'<td>{cell}</td>' for cell in cells)}"
            f'<td class="wrap">{_choices(item)}</td></tr>'
        )
    heads = [
        "Model",
        "Outcome",
        f"validation {quality}",
        "MACs",
        "Parameters",
        "seconds",
        "Choices",
    ]
    return (
        "<h2>Everything that was searched</h2>"
        f"<p>{escape(search_line(report))}.</p><details><summary>All candidates</summary>"
        f"{table(heads, rows, left=2)}</details>"
    )


def _method(report: Report) -> str:
    terms = "".join(
        f"<dt>{escape(column.title)}</dt><dd>{escape(column.kind)}: {escape(column.how)}</dd>"
        for column in report.columns
        if "low" not in column.key and "high" not in column.key
    )
    trained_on = [item.device for item in report.candidates]
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
    text = " ".join(escape(fact) for fact in facts if fact)
    command = report.record["shown"].get("command", "")
    shown = f"<pre>{escape(command)}</pre>" if command else ""
    return f"<h2>What the figures mean</h2><dl>{terms}</dl><h2>The run</h2><p>{text}</p>{shown}"


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.4g}" for number in numbers[:4])
    return f"({shown}{', ...' if len(numbers) > 4 else ''})"

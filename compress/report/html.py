"""The report as one self-contained HTML page: no script, no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from compress.measure import formats
from compress.report.files_section import files_section, front_section
from compress.report.final import final_html
from compress.report.markup import (
    Html,
    document,
    element,
    folded,
    joined,
    paragraph,
    row,
    table,
)
from compress.report.models_section import choices_of, models_section
from compress.report.plot import plot_svg
from compress.report.rows import Report
from compress.report.search_facts import SearchFacts
from compress.report.search_section import search_section
from compress.report.standouts import Standouts, standouts
from compress.report.words import learnt_lines, search_line, tested
from compress.run.records import COMPLETE

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
    parts = (
        _head(report),
        _plot(report),
        front_section(report),
        final_html(report),
        files_section(report),
        models_section(report),
        search_section(report, facts) if facts else None,
        _candidates(report),
        _method(report),
    )
    return document(f"paretune: {_source(report)}", policy(style), style, joined(parts, "\n"))


def policy(style: str) -> str:
    """Returns the page's Content-Security-Policy: this style sheet, and nothing else at all.

    Args:
        style: The text of the page's `<style>`.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _head(report: Report) -> Html:
    data, kind = report.data, report.kind
    parts = {name: _examples(counts, kind) for name, counts in data.get("counts", {}).items()}
    shape = " x ".join(str(size) for size in data.get("input_shape", []))
    sizes = ", ".join(f"{count} {name}" for name, count in parts.items())
    return joined(
        [
            element("h1", f"paretune {report.record['command']}: {_source(report)}"),
            paragraph(
                f"{len(data.get('class_names', []))} {_NOUNS[kind]}, inputs of {shape}; {sizes}. "
                "Training data trained, validation data selected, test data judged "
                f"{'final trainings and ' if report.finals else 'the '}exported files once.",
                soft=True,
            ),
            [element("p", text, class_="warning") for text in learnt_lines(report)],
            _tiles(report, standouts(report)),
            [paragraph(f"Note: {note}", soft=True) for note in data.get("notes", [])],
        ],
        "\n",
    )


def _examples(counts: list[int], kind: str) -> str:
    """Returns the number of examples of a part; of several labels the numbers that have each."""
    if kind == "multilabel":
        return "/".join(str(count) for count in counts)
    return f"{counts[0] if kind == 'regression' else sum(counts):,}"


def _source(report: Report) -> str:
    """Returns what was searched or compressed, and the data."""
    return str(report.data.get("source", report.folder.name))


def _tiles(report: Report, found: Standouts) -> Html:
    tiles = []
    if report.candidates:
        tiles.append(_tile(str(report.count(COMPLETE)), report.summary()))
    for item in found.chosen:
        file, val = item.row.artifact.id, formats.quality(found.quality, item.val)
        title, judged = item.title(found.quality), f"test {tested(report, item.row)}"
        if item.what == "best":
            # the largest figure of a page is one that nothing was chosen by
            value, mark, count = tested(report, item.row).partition(", n")
            text = f"test {found.quality} of {file}{mark}{count}. {title}: {val}"
            tiles.append(_tile(value, text))
        else:
            text = f"{title}: {file}, validation {val}, {judged}"
            tiles.append(_tile(item.figure(found.quality), text))
    note = (
        f"No file is named best, smallest or fastest: {found.missing}."
        if found.missing
        else f"Chosen by the validation {found.quality} of {found.by}, never by test data."
    )
    return joined(
        [
            element("div", tiles, class_="tiles") if tiles else None,
            paragraph(note, soft=True) if report.rows else None,
        ]
    )


def _tile(value: str, label: str) -> Html:
    figure, bracket, rest = value.partition(" [")
    ends = element("small", f" [{rest}") if bracket else None
    return element("div", element("b", figure, ends), element("span", label), class_="tile")


def _plot(report: Report) -> Html:
    if not report.rows and not any(item.state == COMPLETE for item in report.candidates):
        return Html("")
    return element("div", plot_svg(report), class_="plot", role="img", aria_label="Pareto plot")


def _candidates(report: Report) -> Html:
    if not report.candidates:
        return Html("")
    quality = report.objectives[0]
    rows = []
    for item in report.candidates:
        ending = f"{item.state}: {item.reason}" if item.reason else item.state
        cells = [
            item.id,
            "; ".join([ending, *item.notes]),
            formats.share(item.val.get(quality)),
            formats.count(item.macs),
            formats.count(item.params),
            f"{item.seconds:.1f}",
            choices_of(item),
        ]
        rows.append(row(cells, wrapped=(1, 6)))
    heads = ["Model", "Outcome", f"validation {quality}", "MACs", "Parameters", "seconds",
             "Choices"]  # fmt: skip
    return joined(
        [
            element("h2", "Everything that was searched"),
            paragraph(f"{search_line(report)}."),
            folded("All candidates", table(heads, rows, left=2)),
        ]
    )


def _method(report: Report) -> Html:
    terms = [
        (element("dt", column.title), element("dd", f"{column.kind}: {column.how}"))
        for column in report.columns
        if "low" not in column.key and "high" not in column.key
    ]
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
    command = report.record["shown"].get("command", "")
    return joined(
        [
            element("h2", "What the figures mean"),
            element("dl", terms),
            element("h2", "The run"),
            paragraph(" ".join(fact for fact in facts if fact)),
            element("pre", command) if command else None,
        ]
    )


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.4g}" for number in numbers[:4])
    return f"({shown}{', ...' if len(numbers) > 4 else ''})"

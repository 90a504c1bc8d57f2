"""A run's folder of a stranger's: what is written in it is shown, and does nothing."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from rich.console import Console
from rich.progress import Progress, TextColumn

import compress.report
import search.report
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.core.summary import escape_line, escape_text, truncate_end
from compress.report.live.page import OWN_SCRIPTS, PACKAGE
from compress.report.live.page import PLOTLY as LIBRARY
from compress.report.markup import embed_json, load_templates, read_scripts, read_style_sheet
from compress.report.terminal import ReportTable
from search.cli._console import RichDisplay
from search.report import load_report, render
from search.report.front import format_replay_command
from search.study.directory import Candidate, FinalTraining, SearchFolder
from tests.compress.report.test_report import (
    folder,  # noqa: F401
    latency,
)

NAME = "<img src=x onerror=alert(1)>\"'&-->$x^{[red]\x1b[31m\udc80\n"
"""Stands before every name that is part of a path."""
TEXT = NAME + "[/b]</style></title></svg></script><script>alert(1)</script>]]>\u202e\x00"
"""Stands before every other text."""
NAMES = {"id", "model", "baseline", "file"}
# words that the report understands, and that say what stands on the page
KEPT = {"state", "stopped_by", "task", "objectives", "variant", "format"}


class Structure(HTMLParser):
    """Collects elements with their attributes, comments and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Any]] = []
        self.comments: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.text += data


def poisoned(value: Any, key: str = "") -> Any:
    """Puts the payload before every text, so that what was equal is equal still."""
    if isinstance(value, str):
        return (NAME if key in NAMES else TEXT) + value
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    if isinstance(value, dict):
        return {
            (TEXT + name if key in {"choices", "versions"} else name): (
                item if name in KEPT else poisoned(item, name)
            )
            for name, item in value.items()
        }
    return value


@pytest.fixture
def full(folder: SearchFolder) -> SearchFolder:  # noqa: F811
    """The folder with everything that a report shows."""
    for number in range(6, 20):
        made = Candidate(
            f"{number:04d}", "complete", {"width": number % 4, "kind": "ab"[number % 2]}, 1,
            macs=1000 * (number % 4 + 1), params=10, val={"accuracy": (number % 4) / 4},
            history=({"epoch": 1, "val": {"accuracy": 0.5}, "seconds": 1.0},), notes=("n",),
        )  # fmt: skip
        folder.write_candidate(made)
    folder.write_final(FinalTraining("0001", 0, 1, 5, 5, {"accuracy": 0.8}, {"accuracy": 0.8}, 1.0))
    path = folder.compressed / "0001.json"
    channels = {
        "groups": [{"name": "g", "kept": 1, "total": 2, "kind": "channels", "reason": "why"}],
        "frozen": [{"layer": "x", "made_by": ["a", "b"], "units": 3, "reason": "held"}],
        "unknown": [["odd", "Odd", "no rule"]],
    }
    write_json(path, {**read_json(path), "channels": channels})
    timed = {"0001.float32": latency(1.0).to_json(), "0001-p80.float32": latency(2.0).to_json()}
    write_json(folder.get_latency_path("mnn"), timed)
    write_json(folder.get_latency_path("onnx"), {"skipped": "there are no onnx files"})
    return folder


def poison(root: Path) -> None:
    """Puts the payload into every record, and into the names of files."""
    for path in sorted(root.rglob("*.json")):
        content = read_json(path)
        if path.name.startswith("latency"):
            made = {
                (key if key == "skipped" else NAME + key): poisoned(item)
                for key, item in content.items()
            }
        else:
            made = poisoned(content)
        path.unlink()
        write_json(path if path.parent == root else path.with_name(NAME + path.name), made)


def test_a_strangers_words_are_words(full: SearchFolder) -> None:
    render(full.path)
    page = (full.path / "report.html").read_text("utf-8")
    for path in ("report.html", "report.json"):
        (full.path / path).unlink()
    clean = Structure(page)
    poison(full.path)
    report = render(full.path)
    page = (full.path / "report.html").read_text("utf-8")
    found = Structure(page)
    # the same elements with the same attributes: nothing of the payload became any of them
    assert found.elements == clean.elements
    assert found.comments == []
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", page)
    # and it can be read, wherever the clean page had a text of the folder's
    for told in ("0001-p80.float32", "no rule", "held", "a note", "3 files skipped",
                 "CPU X", "A <CPU>", "too many MACs", "paretune run --data x", "bn", "width",
                 "LiteRT 1.0", "there are no onnx files"):  # fmt: skip
        before = clean.text.count(told)
        assert before > 0, told
        assert found.text.count(told) == before, told
    assert found.text.count("<img src=x onerror=alert(1)>\"'&") > 100
    assert "\\x1b[31m\\udc80" in found.text
    # JSON says it as it is, tables are valid text
    content = json.loads((full.path / "report.json").read_text("utf-8"))
    assert content["candidates"][0]["id"] == f"{NAME}0000"
    (full.path / "candidates.csv").read_text("utf-8")
    shown = report.build_summary().to_text(5000)
    assert f"{escape_line(NAME)}0001-p80.int8" in shown
    assert "[/b]" in shown
    assert "\x1b" not in shown
    shown.encode("utf-8")


def test_words_that_the_report_knows_may_be_others(full: SearchFolder) -> None:
    path = full.compressed / "0001.json"
    content = read_json(path)
    for item in content["artifacts"]:
        item["format"] = TEXT + item["format"]
    write_json(path, content)
    render(full.path)
    found = Structure((full.path / "report.html").read_text("utf-8"))
    tags = [tag for tag, _ in found.elements]
    assert "img" not in tags
    assert tags.count("script") == 3
    assert f"{escape_text(TEXT)}float32 (80 % of the pruned kernels" in found.text
    path = full.candidates / "0004.json"
    write_json(path, {**read_json(path), "state": TEXT})
    with pytest.raises(InputError, match="state must be one of complete, rejected"):
        render(full.path)


def policy_of(page: str) -> list[str]:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return unescape(policy).split("; ")


def test_the_policy_of_a_live_page_names_its_scripts(folder: SearchFolder) -> None:  # noqa: F811
    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    ]
    assert len(digests) == 2
    assert policy_of(page) == [
        "default-src 'none'", f"script-src {' '.join(digests)}", "style-src 'unsafe-inline'",
        "img-src data: blob:", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    # what is not run has a type, and what runs is in the package
    assert page.count("<script") == 3
    assert '<script type="application/json"' in page
    # plotly's library is the one that npm has: its hash is written here by hand
    assert hashlib.sha256(scripts[0].encode()).hexdigest() == PLOTLY


PLOTLY = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"


def test_our_styles_and_scripts_hold_nothing_that_ends_their_element() -> None:
    assert "<" not in read_style_sheet()
    for text in read_scripts(PACKAGE, LIBRARY, OWN_SCRIPTS):
        assert "</script" not in text.lower()
        assert "<!--" not in text


def test_data_in_a_page_are_no_markup() -> None:
    made = embed_json(
        {"a</script>": ["<!--", "&amp;", "\u2028\u202e", float("nan"), 1.5, None, True]}
    )
    assert not set("<>&\u2028\u202e") & set(made)
    assert json.loads(made) == {
        "a</script>": ["<!--", "&amp;", "\\u2028\\u202e", None, 1.5, None, True]
    }


def test_the_policy_of_a_light_page_names_the_style_sheet_and_nothing_else(
    folder: SearchFolder,  # noqa: F811
) -> None:
    render(folder.path, light=True)
    page = (folder.path / "report.html").read_text("utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy_of(page) == [
        "default-src 'none'", f"style-src 'sha256-{digest}'", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip
    # it stands before what it governs, and what it forbids is not there
    assert page.index("Content-Security-Policy") < page.index("<style>")
    for _, attrs in Structure(page).elements:
        assert not {name for name, _ in attrs} & {"style", "src", "onload", "onclick"}


def test_a_value_is_text_whoever_wrote_it() -> None:
    page = load_templates().from_string('<p class="{{ kind }}">{{ first }}{{ second }}</p>')
    made = page.render(kind='"x', first="a<b&\x1b", second=3)
    assert made == '<p class="&#34;x">a&lt;b&amp;\\x1b3</p>'
    # what was made of markup is text again
    inner = Markup("<b>")
    shown = page.render(kind="k", first=inner, second=f"{inner}")
    assert shown.count("<b>") == shown.count("&lt;b&gt;") == 1
    with pytest.raises(UndefinedError):
        page.render(kind="k", first="a")
    with pytest.raises(TypeError, match="None"):
        page.render(kind="k", first="a", second=None)


ROOMS = [Path(compress.report.__file__).parent, Path(search.report.__file__).parent]


@pytest.mark.parametrize(
    "path", [path for room in ROOMS for path in room.glob("templates/*.j2")], ids=lambda p: p.name
)
def test_a_template_can_do_no_more_than_show(path: Path) -> None:
    """Nothing that escapes less, no element that loads or runs, values in quotes or between."""
    text = path.read_text("utf-8")
    inside = re.findall(r"{{.*?}}|{%.*?%}", text, re.DOTALL)
    assert inside
    for words in inside:
        # filters and joined texts might go by what spells characters out
        assert not re.search(r"\||~|\bsafe\b|autoescape|\braw\b|\bcall\b", words), words
    assert set(re.findall(r"{%-?\s*(\w+)", text)) <= {
        "if", "elif", "else", "endif", "for", "endfor", "include", "from", "macro", "endmacro",
    }  # fmt: skip
    bare = re.sub(r"{{.*?}}", "VALUE", re.sub(r"{%.*?%}|{#.*?#}", "", text, flags=re.DOTALL))
    for tag in re.findall(r"<[^>]*>", bare):
        assert "VALUE" not in re.sub(r'"[^"]*"', "", tag), tag
    found = Structure(bare)
    for tag, attrs in found.elements:
        assert tag in ELEMENTS, tag
        assert {name for name, _ in attrs} <= {
            "lang", "charset", "http-equiv", "content", "name", "class", "role", "aria-label", "id",
            "type", "data-static", "scope", "tabindex",
        }  # fmt: skip


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "b",
    "code", "small", "span", "br", "ul", "li", "dl", "dt", "dd", "pre", "details", "summary",
    "table", "thead", "tbody", "tr", "th", "td", "section", "script", "noscript",
}  # fmt: skip


def test_only_templates_and_the_markup_module_write_markup() -> None:
    for path in [path for room in ROOMS for path in room.rglob("*.py")]:
        if path.name == "markup.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                # docstrings may name an element
                assert not re.search(r"<[a-z]+[ >]|</", node.value.replace("`<", "")), path
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Markup":
                assert (node.args, node.keywords) == ([], []), path


def test_what_steers_is_spelled_out() -> None:
    assert escape_text("a\x1b[1m\x7f\x9b\u202e\ud800\u2028b\tc\n") == (
        "a\\x1b[1m\\x7f\\x9b\\u202e\\ud800\\u2028b\tc\n"
    )
    assert escape_text("é 日本 🎈 \u200d") == "é 日本 🎈 \u200d"
    assert escape_line("a\nb\tc\r") == "a\\nb\\tc\\r"
    assert truncate_end("abcdef", 6) == "abcdef"
    assert truncate_end("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("candidates/0001.json", "id", "../../0001"),
        ("candidates/0001.json", "id", "0002"),
        ("compressed/0001.json", "model", "/tmp/0001"),
        ("final/0001-final0.json", "model", "../0001"),
        ("final/0001-final0.json", "place", 7),
    ],
)
def test_a_record_has_the_name_of_its_file(
    full: SearchFolder, file: str, key: str, value: object
) -> None:
    path = full.path / file
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(InputError, match="named"):
        load_report(full.path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "0002"),
        ("id", "../../up"),
        ("id", ".."),
        ("id", ""),
        ("file", "/etc/passwd"),
        ("file", "exports/../../up.tflite"),
        ("file", "exports/a\x00b"),
    ],
)
def test_files_of_a_folder_lie_in_it(full: SearchFolder, key: str, value: str) -> None:
    path = full.compressed / "0001.json"
    content = read_json(path)
    content["artifacts"][1][key] = value
    write_json(path, content)
    with pytest.raises(InputError, match="0001.json"):
        load_report(full.path)


def test_an_id_is_one_word_of_the_command_that_is_shown(full: SearchFolder) -> None:
    report = load_report(full.path)
    made = format_replay_command(report, Candidate("a; rm -rf ~ #", "complete", {}, 1))
    assert made == "paretune search --warm-start 'r/a; rm -rf ~ #.json'"


def test_a_cell_of_the_table_begins_no_formula(full: SearchFolder) -> None:
    path = full.candidates / "0000.json"
    write_json(path, {**read_json(path), "reason": "=HYPERLINK(1)", "device": "@x"})
    render(full.path)
    text = (full.path / "candidates.csv").read_text("utf-8")
    assert ",'=HYPERLINK(1)," in text
    assert ",'@x," in text


def test_names_on_the_terminal_are_names() -> None:
    grid = ReportTable("of [red]x", ("Model",), ("Model",))
    grid.add_row(("[/bold] [red]name\x1b[2J",))
    out = StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    console.print(grid)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        shown = RichDisplay(progress)
        shown.start_phase("Compressing [/x]", 0, 1)
        shown.update_worker(0, "testing [/y]\x1b[2J", 0.5)
    assert "of [red]x" in out.getvalue()
    assert "[/bold] [red]name\\x1b[2J" in out.getvalue()
    assert "testing [/y]\\x1b[2J" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()

"""README and docs: every table is the rendering of a stored result, every command exists."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _docs, _stored
from benchmarks._common import Benchmark, table
from benchmarks._docs import Block, blocks
from benchmarks._stored import ROOT, Stored, read
from compress.core.errors import InputError

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
STORED = sorted((ROOT / "benchmarks" / "results").glob("*/*.json"))


def benchmark_of(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


def all_blocks() -> list[tuple[Path, Block]]:
    return [
        (document, block) for document in DOCUMENTS for block in blocks(document.read_text("utf-8"))
    ]


def test_there_are_documents_and_blocks() -> None:
    assert ROOT / "docs" / "results" / "search.md" in DOCUMENTS
    assert len(all_blocks()) >= 10
    assert len(STORED) >= 14


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_stored_result_says_where_it_comes_from_and_can_be_shown(path: Path) -> None:
    stored = read(path, path.parent.name)
    commit = stored.provenance["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stored.provenance["date"])
    assert re.fullmatch(f"{stored.provenance['date'][:10]}-{commit[:7]}" + r"(-\d+)?", path.stem)
    assert stored.provenance["machine"]["cpu"]
    assert stored.provenance["seeds"]
    made = [table(stored.result) for table in benchmark_of(stored.benchmark).tables.values()]
    assert any(made)


@pytest.mark.parametrize(
    ("document", "block"), all_blocks(),
    ids=lambda item: item.name if isinstance(item, Path) else f"{item.benchmark}:{item.table}",
)  # fmt: skip
def test_a_block_is_what_its_stored_result_renders(document: Path, block: Block) -> None:
    """Repair with `python -m benchmarks._docs`."""
    benchmark = benchmark_of(block.benchmark)
    assert block.table in benchmark.tables
    stored = None
    if block.file != _docs.NONE:
        stored = read(ROOT / block.file, block.benchmark)
        assert stored.provenance["complete"]
    assert block.body == _docs.body(benchmark, block.table, stored)


def test_every_marker_belongs_to_a_whole_block() -> None:
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        found = len(blocks(text))
        assert text.count("<!-- benchmarks.") == found, document
        assert text.count("<!-- / -->") == found, document


def outside(text: str) -> str:
    """The document without blocks, whose commands are of the past."""
    return _docs._BLOCK.sub("", text)


def commands(text: str) -> list[list[str]]:
    """The words of every `python -m benchmarks...` in a document's own text."""
    flat = re.sub(r"\s+", " ", text)
    found = re.findall(r"python -m (benchmarks(?:\.\w+)*[^`\n<|;)]*)", flat)
    return [shlex.split(command) for command in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    for name in re.findall(r"(?<!runs/)benchmarks/[\w./-]+\w", text):
        assert (ROOT / name).exists(), name
    for module, *words in commands(outside(text)):
        if module == "benchmarks":
            continue
        parser = benchmark_of(module.removeprefix("benchmarks."))._parser()
        parser.parse_args(words)


def test_there_are_commands() -> None:
    found = [line for path in DOCUMENTS for line in commands(outside(path.read_text("utf-8")))]
    assert len(found) >= 5


# --write, on documents of our own


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_docs, "ROOT", tmp_path)
    monkeypatch.setattr(_stored, "RESULTS", tmp_path / "benchmarks" / "results")
    return tmp_path


def measured(peers: dict[str, str], **result: Any) -> Stored:
    stored = _stored.begin("fake", {}, [0, 1])
    command = "python -m benchmarks.fake"
    stored.provenance |= {"peers": peers, "complete": True, "command": command}
    stored.save(**result)
    return stored


def fake() -> Benchmark:
    def measure(given: argparse.Namespace, stored: Stored) -> None:
        raise AssertionError("showing measures nothing")

    def times(result: dict[str, Any]) -> str:
        return table(["seconds"], [[result["seconds"]]])

    def others(result: dict[str, Any]) -> str | None:
        return table(["other"], [[result["other"]]]) if "other" in result else None

    return Benchmark("fake", "", measure, {"times": times, "others": others})


TEXT = """# Title

<!-- benchmarks.fake:times none -->
Not measured yet: `python -m benchmarks.fake`.
<!-- / -->
Words between.
<!-- benchmarks.fake:others none -->
old
<!-- / -->
<!-- benchmarks.real:times none -->
kept
<!-- / -->
"""


def test_write_puts_tables_into_their_blocks_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = root / "page.md"
    document.write_text(TEXT)
    stored = measured({}, seconds=2.5)
    fake().run(["--show", str(stored.path), "--write", str(document)])
    text = document.read_text()
    first, other, real = blocks(text)
    assert stored.path is not None
    assert first.file == stored.path.relative_to(root).as_posix()
    assert first.body.startswith("| seconds |\n| --- |\n| 2.5 |\n\n")
    assert f"{stored.provenance['date'][:10]}, commit {stored.short_commit}" in first.body
    assert first.body.endswith("; seeds 0, 1.\n")
    # this result says nothing of the other table, and the third is another benchmark's
    assert (other.file, other.body) == ("none", "old\n")
    assert real.body == "kept\n"
    assert (
        text.replace(first.body, "Not measured yet: `python -m benchmarks.fake`.\n").replace(
            first.file, "none"
        )
        == TEXT
    )
    assert "written to" in capsys.readouterr().out
    before = text
    fake().run(["--show", str(stored.path), "--write", str(document)])
    assert document.read_text() == before


def test_write_refuses_what_would_lose_a_peer(root: Path) -> None:
    document = root / "page.md"
    document.write_text(TEXT)
    old = measured({"tool": "tool 1.0"}, seconds=1)
    _docs.write(document, fake(), old)
    before = document.read_text()
    new = measured({"tool": "not run: tool not installed"}, seconds=2)
    with pytest.raises(InputError, match="must have what the document shows of tool"):
        _docs.write(document, fake(), new)
    with pytest.raises(InputError, match="tool"):
        _docs.write(document, fake(), measured({}, seconds=2))
    assert document.read_text() == before
    _docs.write(document, fake(), measured({"tool": "tool 1.1"}, seconds=3))
    assert "| 3 |" in document.read_text()


def test_write_refuses_parts_and_pages_without_a_block(root: Path) -> None:
    document = root / "page.md"
    document.write_text(TEXT)
    part = measured({}, seconds=1)
    part.provenance["complete"] = False
    with pytest.raises(InputError, match="must be complete"):
        _docs.write(document, fake(), part)
    (root / "bare.md").write_text("# Nothing\n")
    whole = measured({}, seconds=1)
    with pytest.raises(InputError, match="must have a block"):
        _docs.write(root / "bare.md", fake(), whole)
    with pytest.raises(InputError, match="Cannot read"):
        _docs.write(root / "nowhere.md", fake(), whole)
    assert document.read_text() == TEXT
    assert json.loads(whole.path.read_text())["result"] == {"seconds": 1} if whole.path else False


def test_every_module_that_a_page_runs_is_there() -> None:
    """A command in the documents names a module that there is."""
    named = re.compile(r"python -m ((?:benchmarks|tests|compress|search|paretune)[\w.]*)")
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    modules = {found for page in pages for found in named.findall(page.read_text("utf-8"))}
    assert len(modules) > 10
    gone = [name for name in modules if importlib.util.find_spec(name.rstrip(".")) is None]
    assert gone == []

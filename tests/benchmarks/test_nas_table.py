"""A benchmark from its command line: samplers on a table of networks that is made up."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from benchmarks import _stored, search_nas_table

SAMPLERS = ("pareto", *search_nas_table.ABLATED, "random")


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """A table where each wider choice costs 2 and gains less than the one before."""
    made = {}
    for choices in product(search_nas_table.KINDS, repeat=search_nas_table.LAYERS):
        work = sum(map(int, choices))
        accuracy = 95 - 14 * 0.8**work
        made["".join(choices)] = {
            "mean_acc": accuracy, "test_acc": [accuracy - 1, accuracy, accuracy + 1],
            "flops": 10.0 + 2 * work,
        }  # fmt: skip
    file = tmp_path / "table.json"
    file.write_text(json.dumps(made))
    return file


def test_a_benchmark_from_its_command_line(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(_stored, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(search_nas_table, "AT", (5, 20))
    words = ["--table", str(networks), "--trials", "20", "--reads", "mean", "--seeds", "0"]
    search_nas_table.BENCHMARK.run([*SAMPLERS, *words])
    (file,) = (tmp_path / "results").glob("search_nas_table/*.json")
    stored = _stored.read(file)
    assert stored.provenance["complete"]
    assert stored.provenance["settings"]["table"] == "table.json"  # it lies outside
    shares = {name: stored.result["runs"][f"{name}, mean"]["0"]["shares"] for name in SAMPLERS}
    for found in shares.values():
        assert 0 < found["5"] <= found["20"] <= 1
    assert shares["pareto"]["20"] > shares["random"]["20"]
    assert "| `pareto` | mean of three trainings | 1 |" in capsys.readouterr().out


def test_without_its_table_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_stored, "RESULTS", tmp_path)
    search_nas_table.BENCHMARK.run(["--table", str(tmp_path / "none.json")])
    assert "the table is missing: give it by --table" in capsys.readouterr().out

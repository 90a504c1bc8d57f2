"""The last line of a command names the files that it made, and the one to ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compress.benchmarking import BenchResult
from compress.benchmarking.models import BenchModel
from compress.benchmarking.result import Timing, write_result
from compress.plan.bench import BenchPlan
from search.cli import app
from search.cli._console import format_written
from search.plan import SearchPlan
from search.report import load_report
from search.study.directory import Candidate, SearchFolder
from tests.compress.report.test_file_selection import FILES, run_with
from tests.compress.report.test_report import latency


def test_the_file_to_ship_is_the_cheapest_near_the_best_by_validation(tmp_path: Path) -> None:
    """Not m.int8: 5 points ahead on test data, and 2 behind on validation data."""
    folder = run_with(tmp_path / "run", FILES)
    lines = str(load_report(folder.path)).splitlines()
    assert lines[:6] == [
        "Test accuracy: 94.00 % -> 93.00 %, -1.00 pp",
        f"Ship    {folder.path}/exports/m-p80.float32",
        "        10.0 kB, 455 us [445, 464]; 1.00x smaller, 1.10x faster than m.float32",
        f"Next    paretune bench {folder.path}/exports/m-p80.float32",
        "        measures the file's latency",
        f"Report  {folder.path}/report.html",
    ]


def test_the_best_may_be_the_cheapest_too(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [(*FILES[0][:3], 10, 1.2), *FILES[1:]])
    assert f"Ship    {folder.path}/exports/m.float32" in str(load_report(folder.path))


@pytest.fixture
def searched(tmp_path: Path) -> SearchFolder:
    folder = SearchFolder(tmp_path / "r\nun")
    folder.claim("search", SearchPlan())
    for number, accuracy in enumerate((0.8, 0.95, 0.9)):
        folder.write_candidate(
            Candidate(f"{number:04d}", "complete", {}, 1, macs=10 + number, params=3,
                      val={"accuracy": accuracy})
        )  # fmt: skip
    return folder


def test_a_search_names_its_best_model_and_the_next_command(searched: SearchFolder) -> None:
    done = CliRunner().invoke(app, ["report", str(searched.path)])
    assert done.exit_code == 0, done.stderr
    place = str(searched.path).replace("\n", "\\n")
    model = f"{place}/candidates/0001.keras"
    lines = done.stdout.splitlines()
    assert lines[0] == "Pareto front: 2 models, validation accuracy against macs"
    assert lines[2:5] == [
        f"Best    {model}",
        f"Next    paretune shrink '{model}' --data digits --latency 0.5x",
        f"Report  {place}/report.html",
    ]


def test_a_search_without_a_candidate_names_its_report(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan())
    assert str(load_report(folder.path)).endswith(f"Report  {folder.path}/report.html")


def test_bench_names_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bench(models: list[Path], plan: BenchPlan, **_: Any) -> BenchResult:
        rows = (Timing("m", "litert", "float32", 10, latency(1.0)),)
        result = BenchResult((BenchModel("m", models[0]),), rows, (), plan)
        if plan.out:
            write_result(result, Path(plan.out))
        return result

    monkeypatch.setattr("compress.benchmarking.bench", bench)
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    done = CliRunner().invoke(app, ["bench", "m.tflite", "--out", "b"])
    # of a model without MACs there is no picture
    lines = done.stdout.splitlines()
    assert lines[1:3] == ["Saved  b/bench.json", "Saved  b/bench.csv"]
    assert "Saved" not in CliRunner().invoke(app, ["bench", "m.tflite"]).stdout
    done = CliRunner().invoke(app, ["bench", "m.tflite", "--json", "--quiet"])
    assert json.loads(done.stdout)["timed"][0]["model"] == "m"


def test_what_is_not_there_is_not_named(tmp_path: Path) -> None:
    made = tmp_path / "a.json"
    assert format_written([made, tmp_path / "b.csv"]) == ""
    made.touch()
    assert format_written([made, tmp_path / "b.csv"]) == f"written: {made}"

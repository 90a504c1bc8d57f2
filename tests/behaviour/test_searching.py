"""`search` and `run`: candidates, their front, what a folder holds, and going on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import paretune as pt
from tests.behaviour.conftest import Command, accuracy, answers

SEARCH = ("search", "--data", "digits", "--space", "mlp", "--epochs", 2, "--workers", 1,
          "--sampler", "random", "--device", "cpu")  # fmt: skip


def candidates(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text()) for path in (folder / "candidates").glob("*.json")
    }


def is_beaten(one: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    """Tell whether another candidate is at least as good in both, and better in one."""

    def values(item: dict[str, Any]) -> tuple[float, float]:
        return item["val"]["accuracy"], -item["macs"]

    return any(
        all(a >= b for a, b in zip(values(other), values(one), strict=True))
        and values(other) != values(one)
        for other in others
    )


def test_a_search_extends_repeats_and_reports(paretune: Command, tmp_path: Path) -> None:
    assert paretune(*SEARCH, "--trials", 2, "--out", "a").code == 0
    first = candidates(tmp_path / "a")
    assert len(first) == 2
    assert paretune(*SEARCH, "--trials", 4, "--out", "a").code == 0
    made = candidates(tmp_path / "a")
    assert len(made) == 4
    assert {name: made[name] for name in first} == first
    # one worker and one seed: the same candidates
    assert paretune(*SEARCH, "--trials", 2, "--out", "b").code == 0
    repeated = candidates(tmp_path / "b")
    for name, record in first.items():
        assert repeated[name]["choices"] == record["choices"]
        assert repeated[name]["val"] == record["val"]
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    rows = report["candidates"]
    front = {row["id"] for row in rows if not is_beaten(row, rows)}
    assert set(report["front"]) == front
    # the page is made again from the folder; another search stands beside it
    page = tmp_path / "a" / "report.html"
    page.unlink()
    assert paretune("report", "a").code == 0
    assert page.stat().st_size > 0
    assert paretune("report", "a", "b", "--out", "both.html").code == 0
    assert (tmp_path / "both.html").stat().st_size > 0
    # another plan is refused, and told apart
    refused = paretune(*SEARCH, "--trials", 4, "--epochs", 3, "--out", "a")
    assert refused.code == 2
    assert "epochs" in refused.said


def test_limits_reject_before_training(paretune: Command, tmp_path: Path) -> None:
    done = paretune(*SEARCH, "--trials", 4, "--max-macs", "3k", "--out", "r")
    assert done.code == 0, done.said
    states = candidates(tmp_path / "r").values()
    for record in states:
        assert (record["state"] == "rejected") == (record["macs"] > 3000)
        assert bool(record["history"]) == (record["macs"] <= 3000)
    assert {True, False} == {bool(record["history"]) for record in states}


def test_a_run_ends_in_files_to_ship(paretune: Command, tmp_path: Path) -> None:
    words = ("run", "--data", "digits", "--space", "mlp", "--trials", 2, "--epochs", 2,
             "--finetune-epochs", 1, "--workers", 1, "--formats", "float32",
             "--latency-budget", 0.5, "--device", "cpu", "--out", "r")  # fmt: skip
    done = paretune(*words)
    assert done.code == 0, done.said
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    data = pt.load_data("digits")
    assert {row["variant"] for row in report["files"]} == {"dense", "pruned"}
    for row in report["files"]:
        found = accuracy(answers(tmp_path / "r" / row["file"], data.inputs("test")), data.test.y)
        assert row["test"]["accuracy"] == pytest.approx(found, abs=0.003)
    # the screen names the file, and the command that runs it on an example
    lines = done.out.splitlines()
    assert len(lines) <= 25
    (shipped,) = (line.split()[1] for line in lines if line.startswith("Ship "))
    assert sorted((tmp_path / "r" / "ship").glob("*.tflite")) == [tmp_path / shipped]
    (command,) = (line.split()[1:3] for line in lines if line.startswith("Next "))
    fed = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True)
    assert fed.returncode == 0, fed.stderr
    # the same command has nothing to do; its result as JSON, and nothing else
    again = paretune(*words, "--json", "--quiet")
    assert (again.code, again.said) == (0, "")
    assert json.loads(again.out)["files"] == report["files"]


def test_a_space_of_ones_own(paretune: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def build(trial, data):\n"
        "    width = trial.suggest_int('width', 4, 8)\n"
        "    inputs = keras.Input(data.input_shape)\n"
        "    x = keras.layers.Flatten()(inputs)\n"
        "    x = keras.layers.Dense(width, activation='relu')(x)\n"
        "    return keras.Model(inputs, keras.layers.Dense(data.num_classes)(x))\n"
    )
    done = paretune("search", "--data", "digits", "--space", "mine:build", "--trials", 2,
                    "--epochs", 1, "--workers", 1, "--out", "r", "--device", "cpu")  # fmt: skip
    assert done.code == 0, done.said
    for record in candidates(tmp_path / "r").values():
        width = record["choices"]["width"]
        assert record["macs"] == 64 * width + width * 10


def test_the_search_in_python(tmp_path: Path) -> None:
    found = pt.run_search(
        "digits", space="mlp", trials=2, epochs=1, workers=1, out=tmp_path / "r", device="cpu"
    )
    made = candidates(tmp_path / "r")
    assert len(made) == 2
    rows = list(made.values())
    assert set(found.front) == {name for name, row in made.items() if not is_beaten(row, rows)}
    for name in found.front:
        assert name in str(found)

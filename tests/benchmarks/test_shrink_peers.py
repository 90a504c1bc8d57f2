"""Which of our files stands beside which of the others', and what the picture shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.shrink_peers import (
    BENCHMARK,
    DENSE,
    best_settings,
    equal,
    list_settings,
    picture,
    points,
)


def result(*seeds: dict[str, tuple[float, float, float]]) -> dict[str, Any]:
    """Files by name: (times faster than the dense one, validation, test accuracy)."""
    runs: dict[str, Any] = {}
    times: dict[str, Any] = {}
    for seed, files in enumerate(seeds):
        times[f"seed {seed}"] = {name: {"ratio": item[0]} for name, item in files.items()}
        for name, (_, val, test) in files.items():
            way = name.rsplit(", ", 2)[0]
            run = runs.setdefault(f"{way}, seed {seed}", {"files": {}})
            run["files"][name] = {
                "val": val, "test": test, "format": name[-7:], "bytes": 1000, "macs": 10,
            }  # fmt: skip
    return {"runs": runs, "times": times, "torch-pruning": {"not run": "torch is missing"}}


FIRST = {
    DENSE: (1.0, 0.94, 0.93),
    "int8, itself, int8": (2.0, 0.93, 0.92),
    "shrink, a.float32": (2.0, 0.935, 0.925),
    "shrink, b.int8": (4.0, 0.93, 0.92),
    # better on test data, which do not choose
    "shrink, c.int8": (4.0, 0.92, 0.99),
    "narrower, 0.5x, int8": (4.0, 0.9, 0.91),
    "narrower, 0.37x, int8": (8.0, 0.9, 0.91),
}
SECOND = {**FIRST, "shrink, b.int8": (4.0, 0.93, 0.94)}


def test_a_file_is_held_against_the_best_of_ours_that_takes_no_more_time() -> None:
    rows = {
        tuple(cell.strip() for cell in line.split("|")[1:3]): [
            cell.strip() for cell in line.split("|")[3:-1]
        ]
        for line in (equal(result(FIRST, SECOND)) or "").splitlines()[2:]
    }
    assert rows["the net itself", "int8"] == [
        # "a" is no int8; of both that are, validation data choose "b"
        "0.500x", "1 kB", "92.00 +- 0.00 %", "0.250x", "1 kB", "93.00 +- 1.00 %", "+1.00, a tie",
    ]  # fmt: skip
    # 92 and 94 against 91 %: a mean of 93 with a standard error of 1
    assert rows["uniformly narrower, from scratch, six times as long, 0.5x", "int8"] == [
        "0.250x", "1 kB", "91.00 +- 0.00 %", "0.250x", "1 kB", "93.00 +- 1.00 %", "+2.00, a tie",
    ]  # fmt: skip
    assert rows["uniformly narrower, from scratch, six times as long, 0.37x", "int8"] == [
        "0.125x", "1 kB", "91.00 +- 0.00 %", "none as fast", "", "", "",
    ]  # fmt: skip
    assert rows["torch-pruning", "not run: torch is missing"] == [""] * 7
    assert len(rows) == 4  # the dense file is what all are held against


def test_torch_pruning_is_shown_at_the_setting_that_validation_data_prefer() -> None:
    once = "torch-pruning, 0.5x over all layers in 1"
    twice = "torch-pruning, 0.5x over all layers in 2"
    quarter = "torch-pruning, 0.25x in every layer in 1"
    # validation data prefer the second of the float32 files, whatever test data and int8 say
    first = {
        f"{once}, float32": (2.0, 0.90, 0.95), f"{twice}, float32": (2.0, 0.91, 0.90),
        f"{once}, int8": (4.0, 0.93, 0.91), f"{twice}, int8": (4.0, 0.91, 0.91),
        f"{quarter}, float32": (3.0, 0.5, 0.5),
    }  # fmt: skip
    second = {name: item for name, item in first.items() if not name.startswith(once)}
    found = result(FIRST | first, FIRST | second)
    assert best_settings(found["runs"]) == [
        "0.5x over all layers in 2",
        "0.25x in every layer in 1",
    ]
    assert best_settings({}) is None
    shown = [
        tuple(cell.strip() for cell in line.split("|")[1:3])
        for line in (equal(found) or "").splitlines()
        if "torch-pruning, l2" in line
    ]
    label = "torch-pruning, l2, trained as ours"
    assert shown == [
        (f"{label}, 0.5x over all layers in 2", "float32"),
        (f"{label}, 0.5x over all layers in 2", "int8"),
        (f"{label}, 0.25x in every layer in 1", "float32"),
    ]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (list_settings(found) or "").splitlines()[2:]
    ]
    assert rows == [
        ["0.5x over all layers in 1", "0.500x", "90.00 %", "95.00 %", ""],
        ["0.5x over all layers in 2", "0.500x", "91.00 %", "90.00 %", "yes"],
        ["0.25x in every layer in 1", "0.333x", "50.00 %", "50.00 %", "yes"],
    ]
    assert list_settings(result(FIRST)) is None


def test_a_seed_counts_when_its_files_are_timed() -> None:
    found = result(FIRST, SECOND)
    del found["times"]["seed 1"]
    assert list(points(found)) == [0]
    assert points(found)[0]["shrink, b.int8"]["time"] == 0.25
    assert equal(found | {"times": {}}) is None


def test_the_picture_holds_every_file(tmp_path: Path) -> None:
    pictured = FIRST | {"shrink, c.int8": (4.0, 0.92, 0.90)}
    figure = picture(result(pictured, pictured))
    (axes,) = figure.axes
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(marks) == 2 * (len(FIRST) - 1)
    # "c" is as fast as "b" and worse
    fronts = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [list(line.get_xdata()) for line in fronts] == [[0.25, 0.5]] * 2
    assert [list(line.get_ydata()) for line in fronts] == [[92.0, 92.5]] * 2
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "paretune shrink", "uniformly narrower, from scratch, six times as long",
        "the net itself",
    }  # fmt: skip


def test_a_picture_needs_a_result(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        BENCHMARK.run(["--picture", str(tmp_path / "x.svg")])
    assert ended.value.code == 2
    assert "--picture must have a stored result" in capsys.readouterr().err

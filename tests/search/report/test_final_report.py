"""Final trainings in the report: means and deviations by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from compress.plan import Plan
from search.report import load_report, render
from search.report.front import summarize_finals
from search.study.directory import Candidate, FinalTraining, SearchFolder


def folder_with(path: Path, *records: FinalTraining) -> SearchFolder:
    folder = SearchFolder(path)
    folder.claim("search", Plan())
    for name, accuracy, macs in (("0001", 0.8, 500), ("0002", 0.9, 9000)):
        folder.write_candidate(
            Candidate(
                name, "complete", {"x": 1}, 1, macs=macs, params=3, val={"accuracy": accuracy}
            )
        )
    for record in records:
        folder.write_final(record)
    return folder


def final(model: str, place: int, val: float | None, test: float) -> FinalTraining:
    vals = {} if val is None else {"accuracy": val}
    return FinalTraining(model, place, 1, 5, 5, val is None, vals, {"accuracy": test}, 1.0)


def test_means_and_deviations(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path / "run",
        final("0002", 0, 0.90, 0.88),
        final("0002", 1, 0.92, 0.90),
        final("0001", 0, 0.80, 0.79),
    )
    first, second = summarize_finals(load_report(folder.path))
    # by rising cost; one training has no deviation
    assert (first.model, first.count, first.test[0]) == ("0001", 1, 0.79)
    assert math.isnan(first.test[1])
    assert (second.model, second.epochs, second.count) == ("0002", 5, 2)
    # of two values half of their difference times the root of 2
    assert second.val == pytest.approx((0.91, 0.01 * math.sqrt(2)))
    assert second.test == pytest.approx((0.89, 0.01 * math.sqrt(2)))

    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "89.00 % +- 1.41 %" in page
    assert "test data evaluated final trainings and exported files once" in page
    assert len(json.loads((folder.path / "report.json").read_text())["final"]) == 3
    assert "91.00 % +- 1.41 %" in page


def test_with_the_validation_part_there_is_no_validation_figure(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", final("0001", 0, None, 0.5))
    (only,) = summarize_finals(load_report(folder.path))
    assert only.val is None
    render(folder.path)
    assert "trained on" in (folder.path / "report.html").read_text("utf-8")


def test_no_section_without_final_trainings(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run")
    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "Final trainings" not in page
    assert "test data evaluated the exported files once" in page

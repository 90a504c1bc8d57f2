"""Final trainings in the report."""

from __future__ import annotations

import json
from pathlib import Path

from compress.plan import Plan
from search.report import load_report, render
from search.report.front import build_final_section
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


def final(model: str, place: int, val: float, test: float) -> FinalTraining:
    return FinalTraining(model, place, 1, 5, 5, {"accuracy": val}, {"accuracy": test}, 1.0)


def test_a_row_for_each_training(tmp_path: Path) -> None:
    """Runs of earlier versions may have several of a model."""
    folder = folder_with(
        tmp_path / "run",
        final("0002", 0, 0.90, 0.88),
        final("0002", 1, 0.92, 0.90),
        final("0001", 0, 0.80, 0.79),
        final("0000", 0, 0.60, 0.5),
    )
    # by rising cost, then models that are not on the front
    assert build_final_section(load_report(folder.path))["rows"] == [
        ["0001", "5", "80.00 %", "79.00 %"],
        ["0002", "5", "90.00 %", "88.00 %"],
        ["0002", "5", "92.00 %", "90.00 %"],
        ["0000", "5", "60.00 %", "50.00 %"],
    ]
    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "test data evaluated final trainings and exported files once" in page
    assert len(json.loads((folder.path / "report.json").read_text())["final"]) == 4
    assert "92.00 %" in page


def test_no_section_without_final_trainings(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run")
    render(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "Final trainings" not in page
    assert "test data evaluated the exported files once" in page

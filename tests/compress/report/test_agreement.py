"""Files that agree too little with their Keras models: what a report says of them first."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.atomic_files import read_json, write_json
from compress.report import Report
from compress.report.file_selection import can_ship, format_agreement_warnings
from search.report import load_report, render
from tests.compress.report.test_file_selection import FILES, run_with

EXPECTED = (
    "warning: m.int8 agrees with the Keras model on only 61.0 % of 200 examples (at least 90 % "
    "expected): it ships only if its format is the only one asked for"
)


def stored(path: Path, agreements: dict[str, float], formats: list[str] | None = None) -> Report:
    """Makes a run whose files have these agreements on 200 examples, the others 1."""
    folder = run_with(path, FILES)
    record = folder.path / "compressed" / "m.json"
    content = read_json(record)
    for item in content["artifacts"]:
        item |= {"checked": 200, "agreement": agreements.get(item["id"], 1.0)}
    write_json(record, content)
    plan = folder.path / "plan.json"
    content = read_json(plan)
    if formats is not None:
        content["plan"]["export"]["formats"] = formats
        write_json(plan, content)
    return render(folder.path)


def printed(report: Report) -> str:
    return report.build_summary().to_text(250)


def test_a_warning_comes_first_everywhere(tmp_path: Path) -> None:
    # a share of 0.87 on 200 examples may be 0.9 of all of them
    report = stored(tmp_path / "run", {"m.int8": 0.61, "m-p80.int8": 0.87})
    assert format_agreement_warnings(report) == [EXPECTED]
    assert printed(report).startswith(EXPECTED)
    assert " ".join(str(report).split()).startswith(EXPECTED)
    page = (report.folder / "report.html").read_text("utf-8")
    assert f'<p class="warning">{EXPECTED}</p>' in page
    assert [can_ship(report, row) for row in report.rows] == [
        row.artifact.id != "m.int8" for row in report.rows
    ]


def test_files_that_agree_have_no_warning(tmp_path: Path) -> None:
    report = stored(tmp_path / "run", {"m.int8": 0.9})
    assert format_agreement_warnings(report) == []
    assert "warning:" not in printed(report)
    assert all(can_ship(report, row) for row in report.rows)


def test_the_only_format_ships(tmp_path: Path) -> None:
    report = stored(tmp_path / "run", {"m.int8": 0.61}, ["int8"])
    (line,) = format_agreement_warnings(report)
    assert line.endswith("(at least 90 % expected): it ships because no other format was asked for")
    assert all(can_ship(report, row) for row in report.rows)


def test_the_worst_are_named_and_the_others_counted(tmp_path: Path) -> None:
    low = dict(zip((name for name, *_ in FILES), (0.4, 0.3, 0.2, 0.1), strict=True))
    lines = format_agreement_warnings(stored(tmp_path / "run", low))
    assert [line.split()[1] for line in lines[:3]] == ["m-p80.int8", "m-p80.float32", "m.int8"]
    assert lines[3:] == ["warning: 1 more file agrees as little with its Keras model"]


@pytest.mark.parametrize("checked", [0, 200])
def test_a_record_without_a_check_is_read(tmp_path: Path, checked: int) -> None:
    folder = run_with(tmp_path / "run", FILES)
    record = folder.path / "compressed" / "m.json"
    content = read_json(record)
    for item in content["artifacts"]:
        item |= {"checked": checked, "agreement": 0.0}
    write_json(record, content)
    plan = folder.path / "plan.json"
    content = read_json(plan)
    del content["plan"]["export"]
    write_json(plan, content)
    report = load_report(folder.path)
    assert all(can_ship(report, row) == (checked == 0) for row in report.rows)

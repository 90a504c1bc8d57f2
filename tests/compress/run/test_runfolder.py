"""Whose a folder is, and what it refuses."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core.atomic_files import list_complete_files
from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.run.directory import LOG, RunFolder
from search.plan import SearchPlan
from search.study.directory import Candidate, SearchFolder


def test_the_same_plan_may_come_back(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("run", SearchPlan(), {"data": "abc"})
    folder.claim("run", from_flat(SearchPlan, {"trials": 50}), {"data": "abc"})
    stored = folder.read_plan_record()
    assert stored["plan"]["search"]["trials"] == 50
    assert stored["versions"]["keras"].startswith("3.")


@pytest.mark.parametrize(
    ("command", "values", "fact", "message"),
    [
        ("run", {"seed": 1}, "abc", "seed was 0, now 1"),
        ("run", {"sparsity": 0.5}, "abc", "sparsity was 0.8, now 0.5"),
        ("search", {}, "abc", "command was run, now search"),
        ("run", {}, "xyz", "data was 'abc', now 'xyz'"),
    ],
)
def test_another_plan_is_refused_and_nothing_changes(
    tmp_path: Path, command: str, values: dict[str, object], fact: str, message: str
) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("run", SearchPlan(), {"data": "abc"})
    folder.write_candidate(Candidate("0000", "failed", {}, 0))
    before = folder.plan_path.read_bytes()
    with pytest.raises(InputError, match=message):
        folder.claim(command, from_flat(SearchPlan, values), {"data": fact})
    assert folder.plan_path.read_bytes() == before


def test_what_a_killed_writer_left_behind_is_no_record(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("run", SearchPlan(), {"data": "abc"})
    folder.write_candidate(Candidate("0000", "failed", {}, 0))
    for place in (folder.candidates, folder.final, folder.compressed):
        (place / ".0001-x2f9.json").write_text('{"id": "00')
        (place / ".0001-x2f9.keras").write_text("PK")
    assert [item.id for item in folder.read_candidates()] == ["0000"]
    assert folder.read_finals() == folder.read_compressed() == []
    assert list_complete_files(folder.candidates, ".keras") == []


def test_what_a_killed_writer_left_behind_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim("compress", Plan())
    # the writer is killed between its bytes and the rename
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from compress.core.atomic_files import replace_file\n"
        "open_ = [replace_file(Path(name)) for name in sys.argv[1:]]\n"
        "for context in open_: context.__enter__().write_bytes(b'PK')\n"
        "os.kill(os.getpid(), 9)"
    )
    whole = folder.models / "0001.keras"
    targets = [whole, folder.models / "0001.json", folder.path / "study.journal", folder.path / "a"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, targets)], check=False)
    assert done.returncode == -9
    left = [path for path in folder.path.rglob(".*") if path.is_file()]
    assert len(left) == len(targets)
    whole.write_bytes(b"PK whole")
    kept = [folder.path / ".gitignore", folder.path / ".my-settings.json", whole]
    for path in kept[:-1]:
        path.write_text("mine")
    with folder.log_to_file():
        folder.remove_half_written()
        folder.remove_half_written()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in left)
    assert folder.log.read_text().count("removed 4 file(s)") == 1


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="must be empty or an earlier run's"):
        SearchFolder(tmp_path).claim("run", Plan())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="no plan.json"):
        SearchFolder(tmp_path).read_plan_record()


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    folder.claim("run", Plan())
    record = folder.read_plan_record() | {"format": 2}
    folder.plan_path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="must have format 1. Received: 2"):
        folder.read_plan_record()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    folder.claim("run", Plan())
    with (
        folder.hold_lock(),
        pytest.raises(InputError, match="in use by another paretune process"),
        SearchFolder(tmp_path).hold_lock(),
    ):
        pass
    with folder.hold_lock():
        pass


def test_log_and_candidates(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    folder.claim("run", Plan())
    with folder.log_to_file():
        LOG.info("hello %d", 3)
    LOG.log(logging.INFO, "not this")
    assert folder.log.read_text().endswith("hello 3\n")
    made = Candidate("0003", "complete", {"a": 1}, 7, macs=5, val={"accuracy": 0.5})
    folder.write_candidate(made)
    assert folder.read_candidates() == [made]
    (folder.candidates / "0004.json").write_text('{"id": "0004", "colour": 1}')
    with pytest.raises(InputError, match=r"0004\.json' must have the keys id, state"):
        folder.read_candidates()

"""What the command line does at its edges: paths, output that cannot be written, odd names."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from search.cli import _console, app
from search.plan import SearchPlan
from search.study.directory import Candidate, SearchFolder
from tests.patience import PATIENCE
from tests.search.test_run import COMMAND, environment


@pytest.fixture
def finished(tmp_path: Path) -> SearchFolder:
    """A run with two candidates whose report can be made."""
    folder = SearchFolder(tmp_path / "r[/b]un")
    folder.claim("search", SearchPlan(), {}, {"command": "c", "replay": "r {id}"})
    for number, accuracy in ((0, 0.9), (1, 0.95)):
        folder.write_candidate(
            Candidate(f"{number:04d}", "complete", {"né [x]": 1}, 1, macs=10 + number, params=3,
                      val={"accuracy": accuracy})
        )  # fmt: skip
    return folder


def test_a_full_disk_behind_standard_output(finished: SearchFolder) -> None:
    """The report is on disk by then: one line says so, and where."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "report", finished.path], env=environment(), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "paretune: error: Standard output must take what is printed (No space left on device). "
        f"The work is done: see '{finished.path / 'report.html'}'.\n"
    )
    assert (finished.path / "report.html").exists()


def test_help_into_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "--help"], env=environment(), stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_terminal_of_ascii(finished: SearchFolder) -> None:
    done = subprocess.run(
        [*COMMAND, "report", finished.path], capture_output=True, timeout=PATIENCE,
        env={**environment(), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"2 candidates trained" in done.stdout


def test_names_with_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("Model")
    table.add_row("m[/bold].keras :smile:")
    _console.show(table, "[red]x", last="report: runs/[/b]/report.html")
    printed = capsys.readouterr().out
    for text in ("m[/bold].keras :smile:", "[red]x", "runs/[/b]/report.html\n"):
        assert text in printed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "loop"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "m.keras"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "r/plan.json"), 1),
        (OSError(errno.EMFILE, "Too many open files"), 1),
    ],
)
def test_errors_of_paths_are_the_users(
    error: OSError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, _console.report_errors(""):
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unexpected_error_stays_visible() -> None:
    with pytest.raises(KeyError), _console.report_errors(""):
        raise KeyError("a bug")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--data", "x" * 5000], "File name too long"),
        (["run", "--out", "x" * 5000], "File name too long"),
        (["report", "x" * 5000], "File name too long"),
        (["run", "--plan", "x" * 5000], "File name too long"),
        (["run", "--data", "loop.npz"], "data must be a path that exists"),
        (["run", "--out", "loop.npz"], "must be writable: File exists"),
        (["run", "--data", "pipe.npz"], "data must be a file or a folder"),
        (["run", "--plan", "pipe.npz"], "it is a named pipe"),
        (["run", "--plan", "deep.toml"], "nested too deeply"),
        (["run", "--plan", "digits.toml"], "must be TOML"),
        (["run", "--plan", "five.toml", "--data", "digits"], "section 'data' must be a table"),
        (["run", "--sampler", "a\nb"], "Unknown sampler 'a\\nb'"),
    ],
)
def test_one_line_and_exit_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    (tmp_path / "digits.toml").write_text("seed = " + "9" * 5000)
    (tmp_path / "five.toml").write_text("data = 5")
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before

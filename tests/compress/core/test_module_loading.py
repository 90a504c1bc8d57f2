"""A file of the current folder never takes a package's place; `module:function` still finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core import module_loading
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]
PACKAGES = ("keras", "tensorflow", "numpy", "optuna", "typer", "argparse", "fcntl")
"""What commands and workers import; those of the current folder leave a mark and end."""


def traps(folder: Path) -> None:
    """Puts files with the names of packages into a folder; each leaves a mark when it is run."""
    for name in PACKAGES:
        (folder / f"{name}.py").write_text(
            f"open({str(folder / 'run.txt')!r}, 'a').write('{name} ')\nraise SystemExit('trapped')"
        )


def python(*words: str, cwd: Path, path: object = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip


@pytest.mark.slow
def test_commands_run_no_file_of_the_current_folder(tmp_path: Path) -> None:
    """As `python -m` starts a command: the current folder comes first until ours begins."""
    folder, start = tmp_path / "here", tmp_path / "start"
    folder.mkdir()
    start.mkdir()
    # imported before our entry point runs, as the installed command does
    (start / "started.py").write_text(
        "import os, sys\nhere = sys.path.pop(0)\nfrom search.cli import main\n"
        "sys.path.insert(0, here)\nmain()\n"
    )
    traps(folder)
    (folder / "m.keras").write_bytes(b"no model")
    path = f"{start}{os.pathsep}{ROOT}"
    done = python("-m", "started", "inspect", "m.keras", cwd=folder, path=path)
    assert not (folder / "run.txt").exists(), (folder / "run.txt").read_text()
    assert done.returncode == 2, done.stderr
    assert "Keras 3 must be able to read" in done.stderr


def test_workers_and_other_processes_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traps(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        module_loading.build_module_command("search.engines.worker", "--help"),
        env=module_loading.build_module_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "--sharers" in done.stdout
    assert not (tmp_path / "run.txt").exists()


def test_a_function_of_the_current_folder_is_found_last(tmp_path: Path) -> None:
    traps(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import sys, tempfile\nfrom compress import load_data\n"
        "def make():\n    print(sys.path[-1])\n    return load_data('digits')\n"
    )
    code = (
        "import sys; sys.path.pop(0); from compress.core.module_loading import "
        "drop_current_folder\n"
        "drop_current_folder(); from compress import load_data\n"
        "print(len(load_data('mine:make').train))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(tmp_path)
    assert not (tmp_path / "run.txt").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["", "lib"], ["lib"]),
        (["HERE", "lib"], ["lib"]),
        (["bin", "HERE", "lib"], ["bin", "HERE", "lib"]),  # PYTHONPATH names it
        (["", "HERE", "lib"], ["HERE", "lib"]),
    ],
)
def test_what_the_interpreter_put_first_is_dropped(
    before: list[str], after: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = [str(tmp_path) if item == "HERE" else item for item in before]
    monkeypatch.setattr(sys, "path", here)
    module_loading.drop_current_folder()
    assert sys.path == [str(tmp_path) if item == "HERE" else item for item in after]


def test_our_own_source_tree_goes_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", ["", "lib"])
    module_loading.drop_current_folder()
    assert sys.path == ["lib", str(ROOT)]


def test_a_current_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "lib"])
    module_loading.drop_current_folder()
    module_loading.add_current_folder()
    assert sys.path == ["lib"]
    assert module_loading.build_module_environment()["PYTHONPATH"] == "lib"

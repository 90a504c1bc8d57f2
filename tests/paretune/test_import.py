"""The face of the package: names without imports, the same ones everywhere."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compress
import paretune
import search

ROOT = Path(__file__).parents[2]
HEAVY = (
    "tensorflow",
    "keras",
    "optuna",
    "sklearn",
    "scipy",
    "matplotlib",
    "numpy",
    "rich",
    "typer",
)


@pytest.mark.parametrize("package", ["paretune", "compress", "search"])
def test_importing_imports_nothing_heavy(package: str) -> None:
    script = f"import json, sys, {package}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []
    # so little of our own that an import stays quick on any machine
    own = [name for name in loaded if name.partition(".")[0] in ("compress", "search", "paretune")]
    assert len(own) < 16, own


@pytest.mark.parametrize("package", [compress, search, paretune])
def test_every_public_name_is_there_and_typed(package: object) -> None:
    """`__all__`, what is found at run time and what type checkers see are the same names."""
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    for name in names:
        assert getattr(package, name) is not None, name
    assert dir(package) == names
    source = Path(package.__file__).read_text("utf-8")  # type: ignore[attr-defined]
    typed = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for found in node.body
        if isinstance(found, ast.ImportFrom)
        for alias in found.names
    }
    assert typed | {"__version__"} == {*names, "__version__"}


@pytest.mark.slow
def test_a_checkout_needs_none_of_the_modules_that_the_build_writes() -> None:
    """Keywords by name are for type checkers alone."""
    script = (
        "import sys, paretune\n"
        "sys.modules.update({'compress.plan.settings': None, 'search.plan.settings': None})\n"
        "for name in paretune.__all__:\n    getattr(paretune, name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_paretune_has_all_that_compress_and_search_have() -> None:
    assert {*paretune.__all__} == {*compress.__all__, *search.__all__}
    assert paretune.prune_channels is compress.prune_channels
    assert paretune.run is search.run


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'paretune' has no attribute 'prune_chanels'"):
        paretune.prune_chanels  # noqa: B018
    assert not hasattr(compress, "__wrapped__")


def test_python_m_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m paretune` runs the console script's function, which calls itself paretune."""
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["paretune"] == "paretune.__main__:main"
    done = subprocess.run(
        [sys.executable, "-m", "paretune", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert "Usage: paretune " in done.stdout
    from search.cli import app

    assert "inspect" in CliRunner().invoke(app, ["--help"], prog_name="paretune").output


@pytest.mark.parametrize("name", ["search.py", "compress.py", "search/__init__.py"])
@pytest.mark.parametrize("words", [("script.py",), ("-c", "import paretune"), ("-m", "paretune")])
def test_files_of_users_that_bear_our_names(
    name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("raise SystemExit('this is mine')\n")
    (tmp_path / "script.py").write_text(
        "import paretune as pt\nassert pt.WeightOptions().sparsity == 0.8\n"
        "assert pt.SearchPlan().search.space == 'cnn'\n"
    )
    further = ("--version",) if words[0] == "-m" else ()
    done = subprocess.run(
        [sys.executable, *words, *further], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_module_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import search, paretune"], cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: paretune must import its own package 'search'. Received: ")
    assert str(tmp_path / "search.py") in last


@pytest.mark.slow
def test_workers_are_ours_beside_files_of_users(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text("raise SystemExit('this is mine')\n")
    (tmp_path / "script.py").write_text(
        "import paretune as pt\n"
        "pt.run_search('digits', space='mlp', trials=1, epochs=1, workers=1, out='out')\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "report.html").exists()

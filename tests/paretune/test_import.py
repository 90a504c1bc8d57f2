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
    module, _, name = scripts["paretune"].partition(":")
    main = ast.parse((ROOT / "paretune" / "__main__.py").read_text())
    (imported,) = (node for node in ast.walk(main) if isinstance(node, ast.ImportFrom))
    assert (imported.module, imported.names[0].name) == (module, name)
    done = subprocess.run(
        [sys.executable, "-m", "paretune", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert "Usage: paretune " in done.stdout
    from search.cli import app

    assert "inspect" in CliRunner().invoke(app, ["--help"], prog_name="paretune").output

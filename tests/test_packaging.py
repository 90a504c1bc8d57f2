"""What is shipped: the wheel and what lies in it, extras, the files for those who work on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from compress.core.module_loading import INSTALL_TARGETS
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent
PACKAGES = [name for name in ("compress", "search", "paretune") if (ROOT / name).is_dir()]
BUILT = {"compress/plan/settings.py", "search/plan/settings.py"}
"""What the build makes."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def named(requirement: str) -> str:
    """Returns a requirement without its versions."""
    found = re.match(r"[\w.-]+(\[[\w,-]+\])?", requirement)
    assert found is not None
    return found[0]


def test_the_table_of_extras_is_what_there_is(project: dict[str, Any]) -> None:
    extras = {
        name: {named(requirement) for requirement in requirements}
        for name, requirements in project["optional-dependencies"].items()
    }
    table = {}
    for line in (ROOT / "docs" / "install.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            table[cells[0].strip("`")] = set(re.findall("`([^`]+)`", cells[1]))
            assert cells[3] in ("small", "medium", "large")
    assert table == extras


def test_what_to_install_for_a_package_brings_it(project: dict[str, Any]) -> None:
    for package, what in INSTALL_TARGETS.items():
        (extra,) = re.findall(r"^'paretune\[(\w+)\]'$", what)
        brought = map(named, project["optional-dependencies"][extra])
        # of MLflow the part without a server is enough
        wanted = {"mlflow": "mlflow-skinny"}.get(package, package)
        assert normal(wanted) in map(normal, brought)


def test_what_installs_anywhere_is_in_all(project: dict[str, Any]) -> None:
    (line,) = project["optional-dependencies"]["all"]
    extras = set(re.findall(r"\w+", line)) - {"paretune"}
    others = {"all", "dev", "docs", "gpu", "test", "tfds"}
    assert extras == set(project["optional-dependencies"]) - others


def test_the_lowest_versions_are_those_that_are_claimed(project: dict[str, Any]) -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints-lowest.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    lowest = {normal(name): version for name, version in pins.items()}
    extras = project["optional-dependencies"]
    tested = re.findall(r"\w+", named(extras["test"][0]))[1:]
    claims = [
        *project["dependencies"],
        *(one for name in ("test", *tested) for one in extras[name]),
    ]
    for requirement in claims:
        name = named(requirement)
        if name.startswith("paretune["):
            continue
        (claimed,) = re.findall(r"[>=]=([\d.]+)", requirement)
        assert numbers(lowest[normal(name)]) == numbers(claimed), requirement


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> list[int]:
    found = [int(part) for part in version.split(".")]
    while found[-1] == 0 and len(found) > 1:
        found.pop()
    return found


def test_commits_are_checked_as_make_check_does() -> None:
    rule = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert rule is not None
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in rule[1].splitlines()]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (repository,) = config["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == commands
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert not hook["pass_filenames"]


def test_contributing_names_what_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:compress|search|tests|docs|benchmarks)/[^`*]*)`", text)
    assert len(paths) > 30
    for path in paths:
        file, _, name = path.partition("::")
        assert (ROOT / file).exists(), path
        assert name in (ROOT / file).read_text("utf-8") if name else True, path
    for module, table in re.findall(r"`([A-Z_]+)` in `([\w/]+\.py)`", text):
        assert re.search(rf"^{module}\b", (ROOT / table).read_text("utf-8"), re.M), module


def test_code_of_others_has_its_license_beside_it() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    bundles = [path for package in PACKAGES for path in (ROOT / package).rglob("*.min.js")]
    assert bundles
    for bundle in bundles:
        text = bundle.with_name(bundle.name.replace(".min.js", ".LICENSE")).read_text("utf-8")
        assert re.search(r"Copyright \(c\) .*Plotly", text)
        assert "this permission notice shall be included in" in text
    assert "*.LICENSE" in tables["package-data"]["*"]


def shipped(folder: Path) -> set[str]:
    """Return the files of the packages as they are committed, relative to `folder`."""
    found = set()
    for package in PACKAGES:
        for path in (folder / package).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                found.add(path.relative_to(folder).as_posix())
    return found - BUILT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of a copy of this tree."""
    tree, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in shipped(ROOT):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    ):
        shutil.copy(ROOT / name, tree)
    for path in ROOT.glob("constraints*.txt"):
        shutil.copy(path, tree)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(tree)],
        capture_output=True, text=True, timeout=PATIENCE, cwd=made,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.slow
def test_wheel_and_sdist_hold_all_of_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == shipped(ROOT) | BUILT
    assert {Path(name).suffix for name in inside} >= {".py", ".typed", ".css", ".LICENSE"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    shutil.unpack_archive(sdist, built / "sdist", filter="data")
    (tree,) = (built / "sdist").iterdir()
    assert shipped(tree) == shipped(ROOT)
    assert (tree / "setup.py").exists()
    assert (tree / "constraints-lowest.txt").exists()


@pytest.mark.slow
def test_the_wheel_does_its_main_job_without_the_repository(built: Path, tmp_path: Path) -> None:
    """In an environment that sees the tested packages, but not this tree."""
    (wheel,) = built.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    # a .pth file of a folder that a .pth file names is not read: no editable install comes along
    (site,) = home.glob("lib/python*/site-packages")
    (site / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run(
            [*map(str, words)], capture_output=True, text=True, timeout=PATIENCE,
            cwd=tmp_path / "empty", env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "empty").mkdir()
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps",
        "--python", python, wheel)  # fmt: skip
    where = run(python, "-c", "import compress, search; print(compress.__file__, search.__file__)")
    assert [Path(path).is_relative_to(home) for path in where.split()] == [True, True]
    run(home / "bin" / "paretune", "run", "--data", "digits", "--space", "mlp", "--trials", 1,
        "--epochs", 1, "--finetune-epochs", 1, "--workers", 1, "--formats", "int8",
        "--latency-budget", 0.2, "--out", "r")  # fmt: skip
    made = tmp_path / "empty" / "r"
    assert "<style>" in (made / "report.html").read_text("utf-8")
    assert list((made / "exports").glob("*.int8.tflite"))

"""The examples, run as a stranger would: by their command, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.slow


def run(folder: Path, name: str, *words: str) -> str:
    """Runs an example and returns what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        cwd=folder, capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """The packages of this clone, wherever the example runs."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PATH": path_with_python()}


def path_with_python() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def test_there_is_a_test_for_each() -> None:
    source = Path(__file__).read_text("utf-8")
    for file in EXAMPLES.iterdir():
        if file.suffix in (".py", ".ipynb"):
            assert f'"{file.name}"' in source
        if file.suffix == ".py":
            assert len(file.read_text("utf-8").splitlines()) < 60


def test_shrink_my_model(tmp_path: Path) -> None:
    printed = run(tmp_path, "shrink_my_model.py", "--epochs", "2")
    file = tmp_path / re.search("to ship: (.*)", printed)[1]  # type: ignore[index]
    assert file.suffix == ".tflite"
    assert file.stat().st_size > 1000


def test_distil(tmp_path: Path) -> None:
    printed = run(tmp_path, "distil.py", "--epochs", "2")
    macs = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) MACs", printed)]

    def by_hand(width: int) -> int:
        return 64 * 9 * width + 64 * 9 * width * 2 * width + 16 * 2 * width * 10

    assert macs == [by_hand(32), by_hand(8), by_hand(8)]


def test_find_a_network(tmp_path: Path) -> None:
    printed = run(tmp_path, "find_a_network.py", "--trials", "2", "--epochs", "1")
    assert "open runs/example/report.html" in printed
    assert (tmp_path / "runs/example/report.html").is_file()
    # those that exceeded the limit have a record too
    assert len(list((tmp_path / "runs/example/candidates").glob("*.json"))) >= 2


def test_bench(tmp_path: Path) -> None:
    printed = run(tmp_path, "bench.py", "--runtimes", "litert", "--budget", "1")
    verdict = printed.splitlines()[-1]
    assert "litert" in verdict
    assert "small" in verdict
    assert "big" in verdict


def test_custom_layer_rule(tmp_path: Path) -> None:
    printed = run(tmp_path, "custom_layer_rule.py")
    assert "without a rule, gated is held: no rule for this class" in printed
    left = int(re.search(r"gates left: (\d+) of 32", printed)[1])  # type: ignore[index]
    assert 0 < left < 32


@pytest.mark.parametrize("name", ["shrink_a_model.ipynb", "read_a_report.ipynb"])
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    """In a kernel of their own; a cell that raises fails."""
    pytest.importorskip("nbclient")
    script = (
        "import sys, nbformat, nbclient\n"
        "book = nbformat.read(sys.argv[1], as_version=4)\n"
        "resources = {'metadata': {'path': sys.argv[2]}}\n"
        "nbclient.NotebookClient(book, timeout=300, resources=resources).execute()\n"
        "nbformat.write(book, sys.argv[3])\n"
    )
    done = tmp_path / "done.ipynb"
    subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLES / name), str(tmp_path), str(done)],
        env=environment(), check=True, timeout=600,
    )  # fmt: skip
    text = done.read_text("utf-8")
    assert "paretune" in text
    assert '"output_type": "error"' not in text

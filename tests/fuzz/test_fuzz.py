"""The driver finds what is planted, and nothing in inputs of every family."""

from __future__ import annotations

import ctypes
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from compress.core.module_loading import build_module_command, build_module_environment
from tests.fuzz import watch
from tests.fuzz.families import FAMILIES, Shelf
from tests.fuzz.watch import Watched
from tests.patience import PATIENCE

ERROR = "paretune: error: x must be y. Received: z.\n"


def planted(words: list[str]) -> tuple[int, str, BaseException | None]:
    """Does what a command should never do, by name."""
    (what,) = words
    if what == "traceback":
        try:
            {}["missing"]
        except KeyError as error:
            return 1, "", error
    if what == "crash":
        ctypes.string_at(0)
    if what == "leaves":
        raise SystemExit(7)
    if what == "hang":
        time.sleep(60)
    if what == "memory":
        held = np.ones(80 * watch.MIB, np.uint8)
        time.sleep(60)
        return int(held[0]), "", None
    if what == "half":
        Path("left").mkdir()
        return 2, ERROR, None
    if what == "temporary":
        Path(".m-1234.keras").write_text("")
        return 0, "", None
    if what == "two lines":
        return 2, ERROR * 2, None
    if what == "exit 1":
        return 1, ERROR, None
    return (2, ERROR, None) if what == "refused" else (0, "", None)


@pytest.mark.parametrize(
    ("what", "kind", "detail"),
    [
        ("traceback", watch.TRACEBACK, "KeyError: 'missing' (test_fuzz.py:"),
        ("crash", watch.CRASH, "SIGSEGV"),
        ("leaves", watch.CRASH, "exit code 1"),
        ("hang", watch.HANG, "over 0.5 s"),
        ("memory", watch.MEMORY, "over 40 MiB more"),
        ("half", watch.HALF, "left after: paretune: error"),
        ("temporary", watch.HALF, ".m-1234.keras"),
        ("two lines", watch.LINES, ERROR),
        ("exit 1", watch.EXIT_1, "x must be y"),
        ("refused", watch.REFUSED, "x must be y"),
        ("accepted", watch.ACCEPTED, ""),
    ],
)
def test_what_is_planted_is_found(what: str, kind: str, detail: str, tmp_path: Path) -> None:
    # only what hangs may take its time: a busy machine is no defect
    seconds = 0.5 if what == "hang" else 30.0
    with Watched(planted, seconds=seconds, growth=40 * watch.MIB) as watched:
        for _ in range(2):  # a child that was lost is replaced
            outcome = watched.run([what], tmp_path)
            assert outcome.kind == kind, outcome
            assert detail in outcome.detail
            for path in tmp_path.iterdir():
                path.rmdir() if path.is_dir() else path.unlink()


def test_an_input_is_made_again_from_its_numbers(tmp_path: Path) -> None:
    """So that a failure can be looked at: the same words, the same files."""
    shelf = Shelf({"small.keras": b"PK", "small.h5": b"HDF"}, {"plan.json": b'{"format": 1}'})
    for name in ("npz_members", "npz_arrays", "idx", "plans", "paths", "options", "functions"):
        made = []
        for place in ("one", "two"):
            folder = tmp_path / f"{name}-{place}"
            folder.mkdir()
            rng = np.random.default_rng([3, list(FAMILIES).index(name), 5])
            words = FAMILIES[name](rng, folder, shelf)
            files = sorted(
                (path.name, path.is_file() and len(path.read_bytes())) for path in folder.rglob("*")
                if not path.is_symlink()
            )  # fmt: skip
            made.append((words, files))
        assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [8, pytest.param(20, marks=pytest.mark.matrix)])
def test_inputs_of_every_family(number: int, tmp_path: Path) -> None:
    # in a process of its own: forks of one in which TensorFlow has begun to work would hang
    results, inputs = tmp_path / "results.json", len(FAMILIES) * number
    done = subprocess.run(
        build_module_command(
            "tests.fuzz", "--inputs", str(inputs), "--seed", "1", "--results", str(results)
        ),
        env=build_module_environment(), capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    found = json.loads(results.read_text())
    assert found["bad"] == []
    assert found["inputs"] == inputs
    assert {
        name: sum(kinds.values()) for name, kinds in found["families"].items()
    } == dict.fromkeys(FAMILIES, number)
    # the inputs are malformed, and not all of them by the same rule
    assert len({reason[:60] for reason in found["reasons"]}) > 2 * number

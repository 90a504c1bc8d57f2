"""Plant faults at random places in our sources, one at a time, and count those that tests catch.

    pip install coverage
    python -m tests.mutate --map map.json           # once for a commit: what covers what
    python -m tests.mutate --use map.json --count 100 --seed 0 --out caught.json

--map takes several files or folders, so that two processes share the work, and --use their maps.

A fault is one operator, condition, number or truth value that is another one. The map says which
tests run a line; what fixtures and child processes run is not seen, and tests that fail are left
out. Of a planted line the tests that the map names are run, the shortest first, until one fails or
until the next one would exceed --seconds; a line that no test runs counts as not caught. Work is
done in a copy of the committed files.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("compress", "search", "paretune")
DEFAULT = "not slow and not matrix"
LONGEST = 1800
"""Seconds after which the tests of a fault are taken to hang: it is caught."""
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        path: Of the file, relative to the root.
        line: Where it stands, from 1.
        start, end: Offsets in the file, in bytes.
        before, after: The source text, and what takes its place.
    """

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str


def list_faults() -> list[Fault]:
    """List every fault that could be planted, in a fixed order."""
    faults = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            faults += list(_faults_of(path))
    return faults


def _faults_of(path: Path) -> Iterator[Fault]:
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    seen = set[tuple[int, int]]()
    for node in (inner for function in functions for part in function.body
                 for inner in ast.walk(part)):  # fmt: skip
        changed = _change(node)
        if changed is None or not isinstance(node, ast.expr):
            continue
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        if (start, end) not in seen:
            seen.add((start, end))
            before = source[start:end].decode()
            yield Fault(str(path.relative_to(ROOT)), node.lineno, start, end, before, changed)


def _change(node: ast.AST) -> str | None:
    """Return the text of a changed expression; None: it is none that is changed."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in OTHER:
            changed: ast.expr = ast.Compare(
                node.left,
                [OTHER[type(operator)](), *node.ops[1:]],
                node.comparators,  # type: ignore[list-item]
            )
        case ast.BoolOp(op=operator):
            changed = ast.BoolOp(OTHER[type(operator)](), node.values)  # type: ignore[arg-type]
        case ast.BinOp(op=operator) if type(operator) in OTHER:
            changed = ast.BinOp(node.left, OTHER[type(operator)](), node.right)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.Not()):
            changed = node.operand
        case ast.IfExp():
            changed = ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant(value=bool(value)):
            changed = ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            changed = ast.Constant(value + 1)
        case _:
            return None
    return f"({ast.unparse(changed)})"


def make_map(out: Path, tests: Sequence[str]) -> None:
    """Run tests once and write which of them run each line, and how long each takes.

    Args:
        out: A JSON file.
        tests: Files or folders of tests; what is not slow in them is run.
    """
    import coverage

    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "coveragerc"
        settings.write_text(
            f"[run]\ndata_file = {place}/data\nsource = {','.join(PACKAGES)}\n"
            "dynamic_context = test_function\n"
        )
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest",
                   "-m", DEFAULT, "--durations=0", "-vv", "-rfE", *tests]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"The tests could not be run:\n{done.stdout}")
        data = coverage.CoverageData(f"{place}/data")
        data.read()
        lines = {}
        for file in data.measured_files():
            found = data.contexts_by_lineno(file)
            lines[str(Path(file).relative_to(ROOT))] = {
                str(line): sorted(filter(None, contexts)) for line, contexts in found.items()
            }
    seconds = defaultdict[str, float](float)
    failed = set[str]()
    for text in done.stdout.splitlines():
        words = text.split()
        if len(words) == 3 and words[1] in ("call", "setup") and "::" in words[2]:
            seconds[words[2].partition("[")[0]] += float(words[0].removesuffix("s"))
        elif len(words) > 1 and words[0] in ("FAILED", "ERROR") and "::" in words[1]:
            failed.add(words[1].partition("[")[0])
    found = {"lines": lines, "seconds": seconds, "failed": sorted(failed)}
    out.write_text(json.dumps(found))


def read_maps(paths: Sequence[Path]) -> tuple[dict[str, dict[str, list[str]]], dict[str, float]]:
    """Read maps; return the tests of each line of each file, and the seconds of tests that pass."""
    lines = defaultdict[str, dict[str, list[str]]](dict)
    seconds = dict[str, float]()
    for path in paths:
        found = json.loads(path.read_text())
        for file, tests in found["lines"].items():
            for line, names in tests.items():
                lines[file].setdefault(line, []).extend(names)
        seconds |= found["seconds"]
        for test in found["failed"]:
            seconds[test] = math.inf
    return lines, seconds


def list_tests(names: Iterable[str], seconds: Mapping[str, float], limit: float) -> list[str]:
    """List the tests that run a line as pytest takes them, the shortest first.

    Args:
        names: What coverage calls them: "tests.search.test_run.test_name".
        seconds: How long each test takes, with all of its parameters; infinity: it fails.
        limit: Seconds that the listed tests may take together; the first one is always listed.
    """
    files = {
        "." + ".".join(path.relative_to(ROOT).with_suffix("").parts): str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
    }
    found = set[str]()
    for name in names:
        words = name.split(".")
        # a folder without __init__.py is no package: its files are named from it on
        homes = [
            (count, file) for count in range(len(words), 0, -1) for home, file in files.items()
            if home.endswith("." + ".".join(words[:count]))
        ]  # fmt: skip
        if not homes:  # a function of a library whose name begins with "test"
            continue
        count, file = homes[0]
        inside = words[count:]
        if Path(file).name.startswith("test_"):
            found.add("::".join([file, *inside]))
        else:  # of a contract: whoever inherits it
            found |= {
                str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")
                if f"({inside[0]})" in path.read_text("utf-8")
            }  # fmt: skip
    # pytest does not list tests of a few milliseconds; of a whole file nothing is known
    known = {test: seconds.get(test, limit if test.endswith(".py") else 0.0) for test in found}
    listed = sorted((test for test in found if known[test] < math.inf), key=known.__getitem__)
    totals = itertools.accumulate(known[test] for test in listed)
    return [test for test, total in zip(listed, totals, strict=True)
            if total <= limit or test == listed[0]]  # fmt: skip


def is_caught(fault: Fault, tests: list[str], copy: Path) -> bool:
    """Plant a fault in a copy and tell whether one of the tests fails."""
    path = copy / fault.path
    source = path.read_bytes()
    path.write_bytes(source[: fault.start] + fault.after.encode() + source[fault.end :])
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True,
            timeout=LONGEST, check=False,
        )  # fmt: skip
        return done.returncode not in (0, 5)  # 5: no test was collected
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_bytes(source)


def main() -> None:
    """Make a map, or plant faults and print how many are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", type=Path, help="run the default tests and write what covers what")
    parser.add_argument(
        "--tests", nargs="+", default=["tests"], help="what --map runs; default: all"
    )
    parser.add_argument("--use", type=Path, nargs="+", help="the maps of this commit")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of tests a fault, at most")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth fault, from the Ith (from 0)")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("caught.json"))
    given = parser.parse_args()
    if given.map:
        make_map(given.map, given.tests)
        return
    lines, seconds = read_maps(given.use)
    part, parts = map(int, given.part.split("/"))
    faults = random.Random(given.seed).sample(list_faults(), given.count)[part::parts]
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
        for fault in faults[len(rows) :]:
            names = lines.get(fault.path, {}).get(str(fault.line), [])
            tests = list_tests(names, seconds, given.seconds)
            caught = bool(tests) and is_caught(fault, tests, copy)
            rows.append({**vars(fault), "tests": len(tests), "caught": caught})
            given.out.write_text(json.dumps(rows, indent=1))
            verdict = "caught" if caught else "MISSED"
            where = f"{fault.path}:{fault.line}"
            print(f"{verdict} {where} {fault.before!r} -> {fault.after!r}", flush=True)
        shutil.rmtree(copy)
    print(f"{sum(row['caught'] for row in rows)} of {len(rows)} caught")


if __name__ == "__main__":
    main()

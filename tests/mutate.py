"""Plant faults at random places in our sources, one at a time, and count those that tests catch.

    pip install coverage
    python -m tests.mutate --map map.json           # once for a commit: what covers what
    python -m tests.mutate --use map.json --count 100 --seed 0 --out caught.json

A fault is one operator, condition, number or truth value that is another one. The map says which
tests run a line (default tests, in their own process: what a child process runs is not seen).
Of a planted line all tests are run that the map names, the shortest first, until one fails; a
line that no test runs counts as not caught. Work is done in a copy of the committed files.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
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


def make_map(out: Path) -> None:
    """Run the default tests once and write which of them run each line, and how long each takes."""
    import coverage

    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "coveragerc"
        settings.write_text(
            f"[run]\ndata_file = {place}/data\nsource = {','.join(PACKAGES)}\n"
            "dynamic_context = test_function\n"
        )
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest",
                   "-q", "-m", DEFAULT, "--durations=0", "-vv"]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        data = coverage.CoverageData(f"{place}/data")
        data.read()
        lines: dict[str, dict[str, list[str]]] = {}
        for file in data.measured_files():
            found = data.contexts_by_lineno(file)
            lines[str(Path(file).relative_to(ROOT))] = {
                str(line): sorted(filter(None, contexts)) for line, contexts in found.items()
            }
    seconds = defaultdict(float)
    for text in done.stdout.splitlines():
        words = text.split()
        if len(words) == 3 and words[1] in ("call", "setup") and "::" in words[2]:
            seconds[words[2]] += float(words[0].removesuffix("s"))
    out.write_text(json.dumps({"lines": lines, "seconds": seconds}))


def tests_of(fault: Fault, covered: dict[str, dict[str, list[str]]],
             seconds: dict[str, float]) -> list[str]:  # fmt: skip
    """List the test files that run a line, the shortest first.

    A context is the dotted name of a test's function: "tests.search.test_run.test_name".
    """
    names = covered.get(fault.path, {}).get(str(fault.line), [])
    files: dict[str, float] = {}
    for node, took in seconds.items():
        file = node.partition("::")[0]
        function = node.rpartition("::")[2].partition("[")[0]
        dotted = f"{file.removesuffix('.py').replace('/', '.')}.{function}"
        if any(name == dotted or name.endswith(f".{dotted}") for name in names):
            files[node] = took
    return sorted(files, key=files.__getitem__)


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
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_bytes(source)


def main() -> None:
    """Make a map, or plant faults and print how many are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", type=Path, help="run the default tests and write what covers what")
    parser.add_argument("--use", type=Path, help="the map of this commit")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("caught.json"))
    given = parser.parse_args()
    if given.map:
        make_map(given.map)
        return
    known = json.loads(given.use.read_text())
    faults = random.Random(given.seed).sample(list_faults(), given.count)
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
        for fault in faults[len(rows) :]:
            tests = tests_of(fault, known["lines"], known["seconds"])
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

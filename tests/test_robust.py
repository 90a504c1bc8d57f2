"""The tests themselves: none may depend on the machine's speed or on nothing having happened."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.same import same_arrays

TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "time", "sleep"}
MAY = {
    "patience.py": "waits",
    "test_faults.py": "kills at random moments",
}
"""Files that may read a clock or sleep, and why."""


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def test_no_test_reads_a_clock() -> None:
    """What is slow is waited for with `tests.patience.wait_for`."""
    found = {
        f"{path.name}:{node.lineno} time.{node.func.attr}"
        for path, node in calls()
        if isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "time"
        and node.func.attr in CLOCKS
        and path.name not in MAY
    }
    assert found == set()


def test_no_test_gives_up_early() -> None:
    """A time-out is `tests.patience.PATIENCE`: no machine is so busy that it is reached."""
    found = {
        f"{path.name}:{node.lineno} timeout={ast.unparse(keyword.value)}"
        for path, node in calls()
        for keyword in node.keywords
        if keyword.arg == "timeout" and isinstance(keyword.value, ast.Constant)
    }
    assert found == set()


def test_random_examples_have_no_deadline() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None


def test_two_empty_lists_are_not_the_same() -> None:
    with pytest.raises(AssertionError, match="must be arrays"):
        same_arrays([], [])
    with pytest.raises(AssertionError):
        same_arrays([np.ones(2)], [])
    with pytest.raises(AssertionError):
        same_arrays([np.ones(2)], [np.ones(2) + 1e-7])
    same_arrays([np.ones(2)], [np.ones(2) + 1e-7], atol=1e-6)

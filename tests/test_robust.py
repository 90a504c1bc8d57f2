"""The tests themselves: none may depend on the machine's speed or on nothing having happened."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.same import same_arrays

TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "time", "sleep"}
MAY = {
    "patience.py": "waits",
    "test_faults.py": "kills at random moments",
    "fuzz": "tells hangs from slowness, and kills at random moments",
}
"""Files and folders that may read a clock or sleep, and why."""
HANG = 60
"""A sleep of as many seconds is a hang on purpose, of what is killed or never waited for."""
LEAST = 300
"""Seconds that a time-out must have at least."""


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(TESTS.rglob("*.py")):
        text = path.read_text("utf-8")
        # most files name neither clocks nor time-outs, and parsing all of them takes long
        for node in ast.walk(ast.parse(text)) if "time" in text else ():
            if isinstance(node, ast.Call):
                yield path, node


def number(node: ast.expr) -> float:
    """Returns the number that is written there; 0 for anything else."""
    value = node.value if isinstance(node, ast.Constant) else 0
    return value if isinstance(value, int | float) else 0


def test_no_test_reads_a_clock() -> None:
    """What is slow is waited for with `tests.patience.wait_for`."""
    found = {
        f"{path.name}:{node.lineno} time.{node.func.attr}"
        for path, node in calls()
        if isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "time"
        and node.func.attr in CLOCKS
        and not MAY.keys() & {path.name, path.parent.name}
        and not (node.func.attr == "sleep" and number(node.args[0]) >= HANG)
    }
    assert found == set()


def test_no_test_gives_up_early() -> None:
    """A time-out is `tests.patience.PATIENCE`: no machine is so busy that it is reached."""
    found = {
        f"{path.name}:{node.lineno} timeout={ast.unparse(keyword.value)}"
        for path, node in calls()
        for keyword in node.keywords
        if keyword.arg == "timeout"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is not None
        and number(keyword.value) < LEAST
    }
    assert found == set()


def test_random_examples_have_no_deadline() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check


def test_two_empty_lists_are_not_the_same() -> None:
    with pytest.raises(AssertionError, match="must be arrays"):
        same_arrays([], [])
    with pytest.raises(AssertionError):
        same_arrays([np.ones(2)], [])
    with pytest.raises(AssertionError):
        same_arrays([np.ones(2)], [np.ones(2) + 1e-7])
    same_arrays([np.ones(2)], [np.ones(2) + 1e-7], atol=1e-6)

"""The peak memory of a command and of all that it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.memory_budget import DONE, memory_table, pss, watch_command

HOLD = "import signal, sys; signal.alarm(60); held = b'1' * (100 << 20); sys.stdin.read()"
"""Holds 100 MiB and waits for an end of its input that does not come."""
START = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_a_command_is_killed_with_what_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, HOLD]
    waiting, kept = os.pipe()
    try:
        row = watch_command(command, 100, tmp_path / "log", stdin=waiting)
    finally:
        os.close(waiting)
        os.close(kept)
    assert row["ended"] == "killed beyond 100 MiB"
    assert row["peak"] > 100  # the first process alone has a tenth of it
    assert pss(os.getpid()) > 1


def test_how_a_command_ends_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('why'); sys.exit(int(sys.argv[1]))"]
    assert watch_command([*command, "0"], 1000, tmp_path / "log")["ended"] == DONE
    assert watch_command([*command, "3"], 1000, tmp_path / "log")["ended"] == "exit code 3"
    assert (tmp_path / "log").read_text() == "why\n"


def test_what_failed_is_not_within_the_budget() -> None:
    row = {"peak": 100.0, "seconds": 2.0, "ended": DONE}
    rows = {"a shrink": row, "b shrink": row | {"ended": "exit code 1"},
            "c shrink": row | {"peak": 111.0}}  # fmt: skip
    told = memory_table({"budget": 100 * 2**20, "rows": rows})
    assert told is not None
    assert [line.split("|")[-2].strip() for line in told.splitlines()[2:]] == ["yes", "no", "no"]

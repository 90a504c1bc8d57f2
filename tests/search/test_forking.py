"""Forks of a worker: renewed when they ask for it, replaced when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.engines import forking

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from search.engines import forking

log = Path(sys.argv[1])
plan = sys.argv[2].split(",")

def work():
    turn = len(log.read_text().split())
    with log.open("a") as stream:
        stream.write(f"{os.getpid()} ")
    what = plan[turn]
    if what == "renew":
        return forking.RENEW
    if what == "quit":
        return 0
    if what == "kill":
        time.sleep(1.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        time.sleep(60)
    raise ValueError("broken")

print(forking.serve(work, lambda how: print("died:", how, flush=True)))
"""


def run(tmp_path: Path, *plan: str) -> tuple[list[str], str, list[str]]:
    """Returns what was printed, the errors, and the pids of the forks."""
    log = tmp_path / "pids"
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), ",".join(plan)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr, log.read_text().split()


def test_fresh_forks_follow(tmp_path: Path) -> None:
    printed, errors, pids = run(tmp_path, "renew", "kill", "renew", "quit")
    assert printed == ["died: signal SIGKILL", "0"]
    assert len(set(pids)) == 4
    assert errors == ""


def test_forks_that_die_at_once_are_given_up(tmp_path: Path) -> None:
    printed, errors, pids = run(tmp_path, "raise", "raise", "raise", "raise")
    assert printed == ["died: exit code 1", "died: exit code 1", "1"]
    assert len(pids) == forking.MAX_EARLY
    assert errors.count("ValueError: broken") == forking.MAX_EARLY


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_a_fork_dies_with_its_parent(tmp_path: Path) -> None:
    log = tmp_path / "pids"
    log.write_text("")
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(log), "wait"])
    while not log.read_text():
        time.sleep(0.05)
    child = int(log.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while not ended(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(pid: int) -> bool:
    """Tells whether a process is gone; an orphan that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

"""Forks of a worker: renewed when they ask for it, replaced when they die."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.engines import worker
from tests.patience import PATIENCE, wait_for

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from search.engines import worker

log = Path(sys.argv[1])
plan = sys.argv[2].split(",")
# whether a death counts as early must not hang on how busy the machine is
worker.EARLY_SECONDS = float(sys.argv[3])

def work():
    turn = len(log.read_text().split())
    with log.open("a") as stream:
        stream.write(f"{os.getpid()} ")
    what = plan[turn]
    if what == "renew":
        return worker.RENEW_EXIT_CODE
    if what == "quit":
        return 0
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        while True:
            time.sleep(60)
    raise ValueError("broken")

print(worker.run_in_forks(work, lambda how: print("died:", how, flush=True)))
"""


def run(tmp_path: Path, *plan: str, early: float) -> tuple[list[str], str, list[str]]:
    """Returns what was printed, the errors, and the pids of the forks.

    Args:
        tmp_path: For the log.
        plan: What the forks do, one after the other.
        early: Seconds within which a death is early: 0 (none is) or infinity (every one).
    """
    log = tmp_path / "pids"
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), ",".join(plan), str(early)],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr, log.read_text().split()


def test_fresh_forks_follow(tmp_path: Path) -> None:
    printed, errors, pids = run(tmp_path, "renew", "kill", "renew", "quit", early=0)
    assert printed == ["died: signal SIGKILL", "0"]
    assert len(set(pids)) == 4
    assert errors == ""


def test_forks_that_die_at_once_are_given_up(tmp_path: Path) -> None:
    printed, errors, pids = run(tmp_path, *["raise"] * 4, early=math.inf)
    assert printed == ["died: exit code 1", "died: exit code 1", "1"]
    assert len(pids) == worker.MAX_EARLY
    assert errors.count("ValueError: broken") == worker.MAX_EARLY


def test_forks_that_die_late_are_followed_however_many(tmp_path: Path) -> None:
    deaths = ["kill"] * (worker.MAX_EARLY + 1)
    printed, _, pids = run(tmp_path, *deaths, "quit", early=0)
    assert printed == ["died: signal SIGKILL"] * len(deaths) + ["0"]
    assert len(pids) == len(deaths) + 1


def test_the_time_within_which_a_death_is_early() -> None:
    assert 0 < worker.EARLY_SECONDS < math.inf


def test_a_fork_dies_with_its_parent(tmp_path: Path) -> None:
    log = tmp_path / "pids"
    log.write_text("")
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(log), "wait", "0"])
    wait_for(log.read_text)
    child = int(log.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: ended(child), "the fork's end")


def ended(pid: int) -> bool:
    """Tells whether a process is gone; an orphan that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

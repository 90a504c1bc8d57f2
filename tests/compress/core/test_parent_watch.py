"""Processes of ours end with the one that started them, also while they still import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core import parent_watch
from tests.patience import PATIENCE, wait_for

ROOT = Path(__file__).parents[3]

SLOW = """
import pathlib, time
pathlib.Path(r"{mark}").touch()
time.sleep(120)
"""

PARENT = """
import subprocess, sys, threading, time
from compress.core.module_loading import build_module_command, build_module_environment

sys.path.insert(0, sys.argv[1])

def start():
    child = subprocess.Popen(build_module_command("slow"), env=build_module_environment())
    print(child.pid, flush=True)
    time.sleep(120)

if sys.argv[2] == "main":
    start()
else:
    threading.Thread(target=start).start()
"""

POOL = """
import sys
from search.engines.local import LocalPool
from tests.search.engines.orders import order

class Jobs:
    def take_job(self):
        print(1, flush=True)
        return {"kind": "trial"}

sys.path.insert(0, sys.argv[1])  # workers look there first
with LocalPool(order(sys.argv[2])) as pool:
    pool.run(Jobs())
"""


def ended(pid: int) -> bool:
    """Tells whether a process is gone; an orphan that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start(script: str, *words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("thread", ["main", "another"])
def test_a_process_that_still_imports_ends_with_its_parent(tmp_path: Path, thread: str) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "slow.py").write_text(SLOW.format(mark=mark))
    with start(PARENT, tmp_path, thread) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(mark.exists)
        assert not ended(child)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(child))


def test_a_worker_that_still_imports_ends_with_its_run(tmp_path: Path) -> None:
    """NumPy, which everything imports, takes minutes here."""
    mark = tmp_path / "mark"
    (tmp_path / "numpy.py").write_text(SLOW.format(mark=mark))
    with start(POOL, tmp_path, tmp_path) as parent:
        wait_for(mark.exists)
        (worker,) = children(parent.pid)
        assert not ended(worker)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(worker))


@pytest.mark.parametrize("method", [parent_watch.KERNEL, parent_watch.WATCH])
def test_a_parent_that_is_gone_already(tmp_path: Path, method: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mark = tmp_path / "mark"
    (tmp_path / "slow.py").write_text(SLOW.format(mark=mark))
    done = subprocess.run(
        [sys.executable, "-P", parent_watch.__file__, str(gone.pid), method, "slow"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 1
    assert not mark.exists()

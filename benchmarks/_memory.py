"""Memory of processes, and cgroups that limit it (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KEYS = ("RssAnon", "RssShmem", "RssFile")
"""Of a process's status: its own memory, shared memory, and pages of mapped files."""
CGROUPS = Path("/sys/fs/cgroup")
MIB = 2**20


def status(pid: int | str = "self") -> dict[str, float]:
    """Returns what a process holds by kind, MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in KEYS:
            found[key] = int(rest.split()[0]) / 1024
    return found


def pss(pid: int) -> float:
    """Returns a process's proportional set size, MiB: pages that n processes hold count 1/n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


class Peaks:
    """The most that this process holds, by kind and by what it does meanwhile.

    Attributes:
        stage: What it does; to be set.
        found: Stage -> kind -> MiB.
    """

    def __init__(self) -> None:
        self.stage = "start"
        self.found: dict[str, dict[str, float]] = {}
        self._over = threading.Event()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            stage, now = self.stage, status()  # before the look: it may change meanwhile
            now["own"] = now["RssAnon"] + now["RssShmem"]
            kept = self.found.get(stage, {})
            # whole at once: others read it meanwhile
            self.found[stage] = {key: max(kept.get(key, 0.0), now[key]) for key in now}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks every 50 ms while the context lasts."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@contextmanager
def limited(mebibytes: int) -> Iterator[Any]:
    """Makes a memory cgroup; yields a function that puts this process into it.

    The function is for a child, before it starts (`preexec_fn`).

    Yields:
        None where there are no cgroups, or no right to make one.
    """
    name = f"paretune-{os.getpid()}"
    old, new = CGROUPS / "memory", CGROUPS
    group, key = (
        (old / name, "memory.limit_in_bytes") if old.is_dir() else (new / name, "memory.max")
    )
    try:
        group.mkdir()
        (group / key).write_text(str(mebibytes * MIB))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield enter
    finally:
        with suppress(OSError):  # a process may still be on its way out
            group.rmdir()


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, at any depth."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # behind the name in brackets: state and parent, see proc_pid_stat(5)
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found


def family_pss(pid: int) -> float:
    """Return what a process and all that it has started occupy, MiB: shared pages count once."""
    total = 0.0
    for process in family(pid):
        with suppress(OSError, ValueError):  # it has just ended
            total += pss(process)
    return total


def watch_command(command: Sequence[str], limit: float, log: Path, **how: Any) -> dict[str, Any]:
    """Run a command and return the most that its processes occupied together.

    Args:
        command: To be run.
        limit: MiB; where the processes occupy more they are killed.
        log: Takes what they print.
        **how: Of `subprocess.Popen`.

    Returns:
        "peak" in MiB, "seconds", and "ended": "exit code 0", or that it was killed.
    """
    began, peak, ended = time.perf_counter(), 0.0, ""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **how)
        while process.poll() is None:
            peak = max(peak, family_pss(process.pid))
            if peak > limit:
                for one in family(process.pid):
                    with suppress(OSError):
                        os.kill(one, signal.SIGKILL)
                ended = f"killed beyond {limit:,.0f} MiB"
            time.sleep(0.2)
    seconds = time.perf_counter() - began
    return {"peak": peak, "seconds": seconds, "ended": ended or f"exit code {process.returncode}"}

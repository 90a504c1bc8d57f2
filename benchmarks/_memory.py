"""Memory of processes, and cgroups that limit it (Linux)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
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

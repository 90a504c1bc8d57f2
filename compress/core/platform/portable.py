"""Any system's ways, with filelock and psutil. See `Host` for each function."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from compress.core.platform._base import LIBRARIES, Lock
from compress.core.platform.lifeline import ASK

FORKS = False
# that make up all time since boot: "guest" is part of "user", and Windows's others of "system"
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
_IDLE = ("idle", "iowait")
_GONE_SECONDS = 5.0


def lock(path: Path, *, wait: bool) -> Lock | None:
    """See `Host.lock`."""
    from filelock import FileLock, Timeout

    # given back by whichever thread comes to it, as files are closed
    made = FileLock(path, thread_local=False)
    try:
        made.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    return made


def share(path: Path) -> Lock:
    """See `Host.share`: each holder locks the first file of its own that is free.

    The files stay: one that is removed while another process opens it would be two locks.
    """
    for place in count():
        held = lock(_place(path, place), wait=False)
        if held is not None:
            return held
    raise AssertionError


def is_shared(path: Path) -> bool:
    """See `Host.is_shared`."""
    for place in count():
        own = _place(path, place)
        if not own.exists():
            return False
        held = lock(own, wait=False)
        if held is None:
            return True
        held.release()
    raise AssertionError


def _place(path: Path, place: int) -> Path:
    return path.with_name(f"{path.name}.{place}")


def tie() -> str:
    """See `Host.tie`."""
    return ASK


def group_options() -> dict[str, Any]:
    """See `Host.group_options`; each system heeds its own one."""
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return {"creationflags": flags, "start_new_session": True}


def kill_group(process: int) -> None:
    """See `Host.kill_group`: the process first, so that it starts no more."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(process)
        others = first.children(recursive=True)
        for one in (first, *others):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(others, timeout=_GONE_SECONDS)


def read(stream: int, length: int, seconds: float | None) -> bytes:
    """See `Host.read`: not every system can wait for a pipe, but any thread can."""
    if seconds is None:
        return os.read(stream, length)
    came: list[bytes | OSError] = []

    def wait() -> None:
        try:
            came.append(os.read(stream, length))
        except OSError as error:
            came.append(error)

    reader = threading.Thread(target=wait, daemon=True)
    reader.start()
    reader.join(max(0.0, seconds))
    if not came:
        raise TimeoutError
    if isinstance(came[0], OSError):
        raise came[0]
    return came[0]


def no_core_file() -> None:
    """See `Host.no_core_file`; only where there is such a limit."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def flush_c() -> None:
    """See `Host.flush_c`."""
    library = "ucrtbase" if sys.platform == "win32" else None
    ctypes.CDLL(library).fflush(None)


def in_memory(folder: Path) -> bool:
    """See `Host.in_memory`."""
    import psutil

    place, best, kind = folder.resolve(), -1, ""
    for part in psutil.disk_partitions(all=True):
        mount = Path(part.mountpoint)
        if (place == mount or mount in place.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), part.fstype
    return kind in ("tmpfs", "ramfs")


def is_own(path: Path) -> bool:
    """See `Host.is_own`. Windows has no numbers of users, and a temporary folder for each."""
    return sys.platform == "win32" or path.stat().st_uid == os.getuid()


def available_bytes() -> int | None:
    """See `Host.available_bytes`."""
    import psutil

    return int(psutil.virtual_memory().available)


def resident_bytes() -> int:
    """See `Host.resident_bytes`."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def family_bytes() -> int:
    """See `Host.family_bytes`: what processes have for themselves, and their libraries roughly."""
    import psutil

    first = psutil.Process()
    total = 0
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_full_info()
            total += memory.uss + min(max(0, memory.rss - memory.uss), LIBRARIES)
    return total


def trim() -> None:
    """See `Host.trim`."""


def core_seconds() -> tuple[float, float]:
    """See `Host.core_seconds`."""
    import psutil

    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in _BUSY)
    return busy, busy + sum(getattr(times, name, 0.0) for name in _IDLE)


def process_seconds(process: int) -> float:
    """See `Host.process_seconds`."""
    import psutil

    with contextlib.suppress(psutil.Error):
        times = psutil.Process(process).cpu_times()
        return float(times.user + times.system)
    return 0.0


def cores() -> int:
    """See `Host.cores`; the process's affinity is respected where the system has one."""
    import psutil

    with contextlib.suppress(AttributeError):
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def cpu_name() -> str:
    """See `Host.cpu_name`."""
    return platform.processor()


def x86_instructions() -> frozenset[str] | None:
    """See `Host.x86_instructions`."""
    return None


def governor() -> str:
    """See `Host.governor`."""
    return ""


def has_gpu_driver() -> bool | None:
    """See `Host.has_gpu_driver`."""
    return None

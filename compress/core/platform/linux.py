"""Linux's ways: flock, process groups, the kernel's own files. See `Host` for each function."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import threading
from pathlib import Path
from typing import IO, Any

from compress.core.platform._base import LIBRARIES, Lock
from compress.core.platform.lifeline import KERNEL, WATCH

FORKS = True
_PROC = Path("/proc")
# what a container may use, and uses: of version 2 and 1 of Linux's control groups
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "", "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)  # fmt: skip
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Of NVIDIA's driver, of WSL's and of AMD's."""
_IDLE_FIELDS = (3, 4)  # idle, iowait; see proc_stat(5)


class _Flock:
    """A lock that the kernel releases with the last copy of its descriptor."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle

    def release(self) -> None:
        """Closes the file."""
        self._handle.close()


def lock(path: Path, *, wait: bool) -> Lock | None:
    """See `Host.lock`."""
    return _flock(path, fcntl.LOCK_EX, wait)


def share(path: Path) -> Lock:
    """See `Host.share`."""
    held = _flock(path, fcntl.LOCK_SH, wait=True)
    assert held is not None
    return held


def is_shared(path: Path) -> bool:
    """See `Host.is_shared`."""
    held = _flock(path, fcntl.LOCK_EX, wait=False)
    if held is not None:
        held.release()
    return held is None


def _flock(path: Path, kind: int, wait: bool) -> _Flock | None:
    handle = open(path, "w")  # noqa: SIM115 - held until release
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BaseException as error:
        handle.close()
        if wait or not isinstance(error, OSError):
            raise
        return None
    return _Flock(handle)


def tie() -> str:
    """See `Host.tie`.

    To the kernel a thread is the parent: the process would end with it, and only the main
    thread is sure to stay as long as its process.
    """
    at_main = threading.current_thread() is threading.main_thread()
    return KERNEL if at_main else WATCH


def group_options() -> dict[str, Any]:
    """See `Host.group_options`."""
    return {"start_new_session": True}


def kill_group(process: int) -> None:
    """See `Host.kill_group`."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def read(stream: int, length: int, seconds: float | None) -> bytes:
    """See `Host.read`."""
    if seconds is not None and not select.select([stream], [], [], max(0.0, seconds))[0]:
        raise TimeoutError
    return os.read(stream, length)


def no_core_file() -> None:
    """See `Host.no_core_file`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def flush_c() -> None:
    """See `Host.flush_c`."""
    ctypes.CDLL(None).fflush(None)


def in_memory(folder: Path) -> bool:
    """See `Host.in_memory`."""
    place, best, kind = str(folder.resolve()), "", ""
    for line in _lines(_PROC / "mounts"):
        _, mount, found, *_ = line.split(" ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind in ("tmpfs", "ramfs")


def is_own(path: Path) -> bool:
    """See `Host.is_own`."""
    return path.stat().st_uid == os.getuid()


def available_bytes() -> int | None:
    """See `Host.available_bytes`; a container may use less than its machine has."""
    rooms = []
    for line in _lines(_PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    for root, controller, limit, usage, cached in _CGROUPS:
        for group in _groups(root, controller):
            # without a limit there stands "max", or a number beyond all memory
            values = [*_lines(group / limit), *_lines(group / usage)]
            if len(values) == 2 and all(value.isdigit() for value in values):
                # pages of files that nobody has read for a while are given up first
                dropped = [line.split() for line in _lines(group / "memory.stat")]
                spare = sum(int(words[1]) for words in dropped if words[0] == cached)
                rooms.append(max(0, int(values[0]) - int(values[1]) + spare))
    return min(rooms, default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """Returns the control group of this process and those around it, up to the root.

    Each of them may have a limit. In a container the root is often the process's own group, and
    the path that the kernel tells is not there.

    Args:
        root: Where the groups are mounted.
        controller: As `/proc/self/cgroup` names it: "memory"; "": version 2.
    """
    groups = [root]
    for line in _lines(_PROC / "self/cgroup"):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            group = root
            for part in Path(path.lstrip("/")).parts:
                group /= part
                groups.append(group)
    return groups


def resident_bytes() -> int:
    """See `Host.resident_bytes`."""
    return int(_lines(_PROC / "self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


def family_bytes() -> int:
    """See `Host.family_bytes`."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        lines = _lines(folder / "stat")
        if lines:  # behind the name in brackets: state and parent, see proc_pid_stat(5)
            parent = int(lines[-1].rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    family = [os.getpid()]
    for process in family:
        family += children.get(process, [])
    return sum(map(_occupied, family))


def _occupied(process: int) -> int:
    """Returns the bytes that a process occupies; 0 where it has just ended."""
    sizes = {
        words[0]: 1024 * int(words[1])
        for line in _lines(_PROC / str(process) / "smaps_rollup")
        if (words := line.split())[0] in ("Pss:", "Pss_File:")
    }
    if "Pss:" in sizes:  # of what several processes share each counts its part
        files = sizes.get("Pss_File:", 0)
        return sizes["Pss:"] - max(0, files - LIBRARIES)
    status = (line.split() for line in _lines(_PROC / str(process) / "status"))
    return sum(1024 * int(words[1]) for words in status if words[0] in ("RssAnon:", "RssShmem:"))


def trim() -> None:
    """See `Host.trim`."""
    with contextlib.suppress(AttributeError, OSError):  # musl has none
        ctypes.CDLL(None).malloc_trim(0)


def core_seconds() -> tuple[float, float]:
    """See `Host.core_seconds`."""
    lines = _lines(_PROC / "stat")
    if not lines:
        return 0.0, 0.0
    fields = [int(field) for field in lines[0].split()[1:9]]
    total, rate = sum(fields), os.sysconf("SC_CLK_TCK")
    return (total - sum(fields[index] for index in _IDLE_FIELDS)) / rate, total / rate


def process_seconds(process: int) -> float:
    """See `Host.process_seconds`."""
    lines = _lines(_PROC / str(process) / "stat")
    if not lines:
        return 0.0
    # behind the name in brackets: utime and stime are fields 14 and 15 of proc_pid_stat(5)
    fields = lines[-1].rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """See `Host.cores`; the process's affinity is respected."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """See `Host.cpu_name`."""
    fields = _first_processor()
    name = fields.get("model name", "")
    family, model = fields.get("cpu family"), fields.get("model")
    # clouds say "AMD EPYC" of generations that differ twofold: times of one are not another's
    if name and not any(letter.isdigit() for letter in name) and family and model:
        return f"{name} (family {family}, model {model})"
    return name


def x86_instructions() -> frozenset[str] | None:
    """See `Host.x86_instructions`; of other processors Linux calls them "Features"."""
    flags = _first_processor().get("flags")
    return None if flags is None else frozenset(flags.split())


def _first_processor() -> dict[str, str]:
    """Returns what the kernel tells of the first processor, by name."""
    fields: dict[str, str] = {}
    for line in _lines(_PROC / "cpuinfo"):
        name, colon, value = line.partition(":")
        if not colon:
            break  # the next processor begins
        fields[name.strip()] = value.strip()
    return fields


def governor() -> str:
    """See `Host.governor`."""
    return "".join(_lines(_GOVERNOR)).strip()


def has_gpu_driver() -> bool | None:
    """See `Host.has_gpu_driver`: TensorFlow sees no GPU without one of these."""
    return any(Path(node).exists() for node in _GPU_NODES)


def _lines(path: Path) -> list[str]:
    """Returns a file's lines; none where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []

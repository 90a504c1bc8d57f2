"""Functions of Linux: file locks, process groups, and the kernel's figures of memory and load."""

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
from typing import IO

from compress.core.lifeline import KERNEL, WATCH

LIBRARIES = 400 * 2**20
"""Bytes of mapped files that count as memory of a process, at most."""
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


class Lock:
    """A file lock of this process; the kernel releases it with the last copy of its descriptor."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        self._handle.close()


def lock(path: Path, *, wait: bool) -> Lock | None:
    """Lock a file against every other process.

    Args:
        path: Is created if it is missing, and stays.
        wait: Wait while another process holds the lock.

    Returns:
        The lock; None if another process holds it and `wait` is false.
    """
    return _flock(path, fcntl.LOCK_EX, wait)


def share(path: Path) -> Lock:
    """Hold a file together with other processes; `is_shared` sees it."""
    held = _flock(path, fcntl.LOCK_SH, wait=True)
    assert held is not None
    return held


def is_shared(path: Path) -> bool:
    """Tell whether any process holds a file with `share`."""
    held = _flock(path, fcntl.LOCK_EX, wait=False)
    if held is not None:
        held.release()
    return held is None


def _flock(path: Path, kind: int, wait: bool) -> Lock | None:
    handle = open(path, "w")  # noqa: SIM115 - held until release
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BaseException as error:
        handle.close()
        if wait or not isinstance(error, OSError):
            raise
        return None
    return Lock(handle)


def tie() -> str:
    """Return how a process that this thread starts ends with it: a method of `lifeline`.

    To the kernel a thread is the parent: the process would end with it, and only the main
    thread is sure to stay as long as its process.
    """
    at_main = threading.current_thread() is threading.main_thread()
    return KERNEL if at_main else WATCH


def kill_group(process: int) -> None:
    """Kill a process that was started in a session of its own, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def read(stream: int, length: int, seconds: float | None) -> bytes:
    """Read what is available in a pipe.

    Args:
        stream: File descriptor of the pipe.
        length: Maximum number of bytes, at least 1.
        seconds: How long to wait for the first byte; None: no limit.

    Returns:
        At least one byte; none if the other end is closed.

    Raises:
        TimeoutError: Nothing arrived in time.
    """
    if seconds is not None and not select.select([stream], [], [], max(0.0, seconds))[0]:
        raise TimeoutError
    return os.read(stream, length)


def no_core_file() -> None:
    """Let a crash of this process leave no copy of its memory on the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def flush_c() -> None:
    """Flush the output buffers of this process's C libraries."""
    ctypes.CDLL(None).fflush(None)


def in_memory(folder: Path) -> bool:
    """Tell whether a folder's files take memory (tmpfs)."""
    place, best, kind = str(folder.resolve()), "", ""
    for line in _lines(_PROC / "mounts"):
        _, mount, found, *_ = line.split(" ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind in ("tmpfs", "ramfs")


def is_own(path: Path) -> bool:
    """Tell whether this user owns a file or folder."""
    return path.stat().st_uid == os.getuid()


def available_bytes() -> int | None:
    """Return the bytes of memory that a process may still take; None: not known.

    A container may use less than its machine has.
    """
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
    """Return the control group of this process and those around it, up to the root.

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
    """Return the bytes of memory that this process occupies."""
    return int(_lines(_PROC / "self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


def family_bytes() -> int:
    """Return the bytes of memory that this process and those it has started occupy.

    Pages that several processes share count once. Of mapped files only `LIBRARIES` count: the
    system drops the pages of data when others need the memory.
    """
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
    """Return the bytes that a process occupies; 0 where it has just ended."""
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
    """Return memory to the system that was freed and is held for later use."""
    with contextlib.suppress(AttributeError, OSError):  # musl has none
        ctypes.CDLL(None).malloc_trim(0)


def core_seconds() -> tuple[float, float]:
    """Return the seconds since boot that cores were busy, and all of them; summed over cores.

    Zeros if they are not known.
    """
    lines = _lines(_PROC / "stat")
    if not lines:
        return 0.0, 0.0
    fields = [int(field) for field in lines[0].split()[1:9]]
    total, rate = sum(fields), os.sysconf("SC_CLK_TCK")
    return (total - sum(fields[index] for index in _IDLE_FIELDS)) / rate, total / rate


def process_seconds(process: int) -> float:
    """Return the seconds of CPU time that a process has used; 0: not known."""
    lines = _lines(_PROC / str(process) / "stat")
    if not lines:
        return 0.0
    # behind the name in brackets: utime and stime are fields 14 and 15 of proc_pid_stat(5)
    fields = lines[-1].rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """Return the number of cores that this process may use, by its affinity; at least 1."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """Return the processor's name, which tells generations apart; empty: not known."""
    fields = _first_processor()
    name = fields.get("model name", "")
    family, model = fields.get("cpu family"), fields.get("model")
    # clouds say "AMD EPYC" of generations that differ twofold: times of one are not another's
    if name and not any(letter.isdigit() for letter in name) and family and model:
        return f"{name} (family {family}, model {model})"
    return name


def x86_instructions() -> frozenset[str] | None:
    """Return the instruction sets of an x86 processor, as Linux names them ("avx_vnni").

    None: another processor (there Linux calls them "Features"), or they are not known.
    """
    flags = _first_processor().get("flags")
    return None if flags is None else frozenset(flags.split())


def _first_processor() -> dict[str, str]:
    """Return what the kernel tells of the first processor, by name."""
    fields: dict[str, str] = {}
    for line in _lines(_PROC / "cpuinfo"):
        name, colon, value = line.partition(":")
        if not colon:
            break  # the next processor begins
        fields[name.strip()] = value.strip()
    return fields


def governor() -> str:
    """Return the rule by which the CPU's frequency changes; empty: not known."""
    return "".join(_lines(_GOVERNOR)).strip()


def has_gpu_driver() -> bool:
    """Tell whether a driver of GPUs is installed; TensorFlow sees no GPU without one."""
    return any(Path(node).exists() for node in _GPU_NODES)


def _lines(path: Path) -> list[str]:
    """Return a file's lines; none where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []

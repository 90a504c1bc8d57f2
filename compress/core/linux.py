"""Linux functions: file locks, process groups, and the kernel's memory and load figures."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from compress.core.parent_watch import KERNEL, WATCH

MAX_LIBRARY_BYTES = 400 * 2**20
"""Maximum bytes of mapped files that count as memory of a process."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_MMAP_BYTES, _NEVER_TRIM = 2**31 - 1, -1
_USUAL_MMAP_BYTES, _USUAL_TRIM_BYTES = 2**25, 2**26
"""Thresholds of glibc's allocator: the largest ones, and those that it reaches by itself."""
_PROC = Path("/proc")
# memory limit and usage of a container, for versions 2 and 1 of Linux's control groups
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "", "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)  # fmt: skip
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Device files of the drivers of NVIDIA, WSL and AMD."""
_IDLE_FIELDS = (3, 4)  # idle, iowait; see proc_stat(5)


def lock_file(path: Path, *, is_shared: bool = False, wait: bool = True) -> IO[str]:
    """Lock a file against other processes.

    Args:
        path: The file; it is created if missing, and not removed.
        is_shared: Other processes may hold a shared lock at the same time.
        wait: Wait while other processes hold locks that exclude this one.

    Returns:
        The open file. Closing it releases the lock, and so does the end of the process; the kernel
        releases it with the last copy of the descriptor.

    Raises:
        BlockingIOError: `wait` is False and another process holds such a lock.
        OSError: The file cannot be opened, or its file system does not lock files.
    """
    handle = open(path, "w")  # noqa: SIM115 - held until the lock is released
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BaseException:
        handle.close()
        raise
    return handle


def is_locked(path: Path) -> bool:
    """Return whether any process holds a lock of a file."""
    try:
        lock_file(path, wait=False).close()
    except BlockingIOError:
        return True
    return False


def select_watch_method() -> str:
    """Return the method of `parent_watch` for a process that this thread starts.

    The kernel's method ends a process with the thread that started it. Only the main thread is sure
    to live as long as its process.
    """
    return KERNEL if threading.current_thread() is threading.main_thread() else WATCH


def kill_process_group(process: int) -> None:
    """Kill a process that was started in its own session, and all processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def read_pipe(stream: int, length: int, seconds: float | None) -> bytes:
    """Read the available bytes of a pipe.

    Args:
        stream: File descriptor of the pipe.
        length: Maximum number of bytes, at least 1.
        seconds: Time limit for the first byte. None waits without limit.

    Returns:
        At least one byte, or none if the other end is closed.

    Raises:
        TimeoutError: Nothing arrived in time.
    """
    if seconds is not None and not select.select([stream], [], [], max(0.0, seconds))[0]:
        raise TimeoutError
    return os.read(stream, length)


def disable_core_dumps() -> None:
    """Disable core dumps of this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def flush_c_buffers() -> None:
    """Flush the output buffers of this process's C libraries."""
    ctypes.CDLL(None).fflush(None)


def is_in_memory(folder: Path) -> bool:
    """Return whether the files of a folder are kept in memory (tmpfs)."""
    path, best, kind = str(folder.resolve()), "", ""
    for line in _read_lines(_PROC / "mounts"):
        _, mount, file_system, *_ = line.split(" ")
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, file_system
    return kind in ("tmpfs", "ramfs")


def is_owned_by_user(path: Path) -> bool:
    """Return whether this user owns a file or folder."""
    return path.stat().st_uid == os.getuid()


def measure_available_bytes() -> int | None:
    """Return the bytes of memory that a process may still allocate, or None if unknown.

    The limit of a container may be lower than that of its machine.
    """
    limits = [
        int(line.split()[1]) * 1024
        for line in _read_lines(_PROC / "meminfo")
        if line.startswith("MemAvailable:")
    ]
    for root, controller, limit, usage, cached in _CGROUPS:
        for group in _list_control_groups(root, controller):
            # without a limit the file holds "max" or a huge number
            values = [*_read_lines(group / limit), *_read_lines(group / usage)]
            if len(values) == 2 and all(value.isdigit() for value in values):
                # the kernel drops inactive file pages first
                dropped = [line.split() for line in _read_lines(group / "memory.stat")]
                spare = sum(int(words[1]) for words in dropped if words[0] == cached)
                limits.append(max(0, int(values[0]) - int(values[1]) + spare))
    return min(limits, default=None)


def _list_control_groups(root: Path, controller: str) -> list[Path]:
    """Return the control groups from the root down to that of this process.

    Each of them may have a limit. In a container the root is often the process's own group, and the
    path reported by the kernel does not exist.

    Args:
        root: Mount point of the groups.
        controller: Name in `/proc/self/cgroup`: "memory", or "" for version 2.
    """
    groups = [root]
    for line in _read_lines(_PROC / "self/cgroup"):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            group = root
            for part in Path(path.lstrip("/")).parts:
                group /= part
                groups.append(group)
    return groups


def measure_resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return int(_read_lines(_PROC / "self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_tree_bytes() -> int:
    """Return the memory of this process and all processes that it started, in bytes.

    Pages shared by several processes count once. At most `MAX_LIBRARY_BYTES` of mapped files count
    for each process, because the system drops data pages when memory is needed.
    """
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        lines = _read_lines(folder / "stat")
        if lines:  # after the name in brackets: state and parent, see proc_pid_stat(5)
            parent = int(lines[-1].rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    tree = [os.getpid()]
    for process in tree:
        tree += children.get(process, [])
    return sum(map(_measure_process_bytes, tree))


def _measure_process_bytes(process: int) -> int:
    """Return the memory of a process in bytes, or 0 if it has just ended."""
    sizes = {
        words[0]: 1024 * int(words[1])
        for line in _read_lines(_PROC / str(process) / "smaps_rollup")
        if (words := line.split())[0] in ("Pss:", "Pss_File:")
    }
    if "Pss:" in sizes:  # shared pages count proportionally
        files = sizes.get("Pss_File:", 0)
        return sizes["Pss:"] - max(0, files - MAX_LIBRARY_BYTES)
    status = (line.split() for line in _read_lines(_PROC / str(process) / "status"))
    return sum(1024 * int(words[1]) for words in status if words[0] in ("RssAnon:", "RssShmem:"))


def trim_memory() -> None:
    """Return freed memory to the system that the allocator holds for reuse."""
    with contextlib.suppress(AttributeError, OSError):  # musl does not have it
        ctypes.CDLL(None).malloc_trim(0)


_keepers: list[object] = []


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory for reuse within the context, and return it to the system at the end.

    Blocks above 32 MiB come from the system and return to it each time. It fills them with zeros,
    which took 15 of 42 seconds of processor time of a reconstruction at 224 pixels. Another thread
    than the main one still gets such blocks from the system.
    """
    keeper = object()
    _keepers.append(keeper)
    _set_malloc_thresholds(_MOST_MMAP_BYTES, _NEVER_TRIM)
    try:
        yield
    finally:
        _keepers.remove(keeper)
        if not _keepers:
            _set_malloc_thresholds(_USUAL_MMAP_BYTES, _USUAL_TRIM_BYTES)
            trim_memory()


def _set_malloc_thresholds(mmap: int, trim: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # musl does not have it
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, mmap)
        library.mallopt(_M_TRIM_THRESHOLD, trim)


def read_core_seconds() -> tuple[float, float]:
    """Return busy seconds and all seconds of the cores since boot, summed over cores.

    Both are zero if they are unknown.
    """
    lines = _read_lines(_PROC / "stat")
    if not lines:
        return 0.0, 0.0
    fields = [int(field) for field in lines[0].split()[1:9]]
    total, rate = sum(fields), os.sysconf("SC_CLK_TCK")
    return (total - sum(fields[index] for index in _IDLE_FIELDS)) / rate, total / rate


def read_process_seconds(process: int) -> float:
    """Return the CPU time of a process in seconds, or 0 if it is unknown."""
    lines = _read_lines(_PROC / str(process) / "stat")
    if not lines:
        return 0.0
    # after the name in brackets: utime and stime are fields 14 and 15 of proc_pid_stat(5)
    fields = lines[-1].rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_cores() -> int:
    """Return the number of cores in this process's affinity mask; at least 1."""
    return len(os.sched_getaffinity(0))


def read_cpu_name() -> str:
    """Return the processor's name including its generation, or "" if it is unknown."""
    fields = _read_first_processor()
    name = fields.get("model name", "")
    family, model = fields.get("cpu family"), fields.get("model")
    # cloud providers report "AMD EPYC" for generations whose speed differs by a factor of two
    if name and not any(letter.isdigit() for letter in name) and family and model:
        return f"{name} (family {family}, model {model})"
    return name


def read_x86_instructions() -> frozenset[str] | None:
    """Return the instruction sets of an x86 processor, in Linux's names ("avx_vnni").

    Return None for other processors (Linux calls theirs "Features"), or if they are unknown.
    """
    flags = _read_first_processor().get("flags")
    return None if flags is None else frozenset(flags.split())


def _read_first_processor() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo, by name."""
    fields: dict[str, str] = {}
    for line in _read_lines(_PROC / "cpuinfo"):
        name, colon, value = line.partition(":")
        if not colon:
            break  # the next processor begins
        fields[name.strip()] = value.strip()
    return fields


def read_cpu_governor() -> str:
    """Return the frequency governor of the CPU, or "" if it is unknown."""
    return "".join(_read_lines(_GOVERNOR)).strip()


def has_gpu_driver() -> bool:
    """Return whether a GPU driver is installed; TensorFlow finds no GPU without one."""
    return any(Path(node).exists() for node in _GPU_NODES)


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file, or an empty list if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []

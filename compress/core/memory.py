"""How much memory is there, so that what cannot fit is refused before it is asked for."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import InputError

_MEMINFO = Path("/proc/meminfo")
# what a container may use, and uses: of version 2 and 1 of Linux's control groups
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes() -> int | None:
    """Returns the bytes that a process may still take; None where the system does not say."""
    rooms = []
    for line in _lines(_MEMINFO):
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    for limit, usage in _CGROUPS:
        # without a limit there stands "max", or a number beyond all memory
        values = [*_lines(limit), *_lines(usage)]
        if len(values) == 2 and all(value.isdigit() for value in values):
            rooms.append(max(0, int(values[0]) - int(values[1])))
    return min(rooms, default=None)


def require_room(needed: int, what: str) -> None:
    """Refuses what cannot fit into memory, by the size that its header declares.

    Args:
        needed: Bytes.
        what: The thing, as the message begins ("Images of 'photos'").

    Raises:
        InputError: More is needed than there is.
    """
    room = available_bytes()
    if room is not None and needed > room:
        raise InputError(
            f"{what} must fit into memory. Received: {_gib(needed)} where {_gib(room)} are free."
        )


def _gib(size: int) -> str:
    # of sizes that no float holds the order of magnitude is enough
    return f"{size / 2**30:,.1f} GiB" if size < 2**100 else "more than 10^20 GiB"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split("\n")[:-1]
    except OSError:
        return []

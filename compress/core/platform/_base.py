"""What the rest of paretune may ask of a system."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

LIBRARIES = 400 * 2**20
"""Bytes of mapped files that count as memory of a process, at most."""


class Lock(Protocol):
    """A lock that this process holds; it falls with the process, however that ends."""

    def release(self) -> None:
        """Gives it back; nothing happens the second time."""
        ...


class Host(Protocol):
    """The ways of a system; each module beside this one is one.

    Attributes:
        FORKS: Whether `compress.core.platform.forks` works here.
    """

    FORKS: bool

    # locks

    def lock(self, path: Path, *, wait: bool) -> Lock | None:
        """Locks a file against every other process.

        Args:
            path: It is made where it is missing, and stays.
            wait: For as long as another holds it.

        Returns:
            The lock; None where another process holds it and `wait` is false.
        """
        ...

    def share(self, path: Path) -> Lock:
        """Holds a file together with others, for `is_shared` to see."""
        ...

    def is_shared(self, path: Path) -> bool:
        """Tells whether any process holds a file with `share`."""
        ...

    # files

    def in_memory(self, folder: Path) -> bool:
        """Tells whether a folder's files take memory (tmpfs); False where that is not known."""
        ...

    def is_own(self, path: Path) -> bool:
        """Tells whether this user has made a file or folder; True where systems do not say."""
        ...

    # processes

    def tie(self) -> str:
        """Returns how a process that this thread starts ends with it: a way of `lifeline`."""
        ...

    def group_options(self) -> dict[str, Any]:
        """Returns options of `subprocess.Popen` that keep Ctrl-C from a child."""
        ...

    def kill_group(self, process: int) -> None:
        """Kills a process that was started so, and all that it has started."""
        ...

    def read(self, stream: int, length: int, seconds: float | None) -> bytes:
        """Reads from a pipe what has come, at most `length` bytes.

        Args:
            stream: Its descriptor.
            length: Bytes, at least 1.
            seconds: How long to wait for the first; None: for ever.

        Returns:
            At least one byte; none where the other side is gone.

        Raises:
            TimeoutError: Nothing came in time. The pipe may not be read again.
        """
        ...

    def no_core_file(self) -> None:
        """Lets a crash of this process leave no copy of its memory on the disk."""
        ...

    def flush_c(self) -> None:
        """Writes out what C libraries of this process hold back of their output."""
        ...

    # the machine

    def available_bytes(self) -> int | None:
        """Returns the bytes of memory that a process may still take; None: not known."""
        ...

    def resident_bytes(self) -> int:
        """Returns the bytes of memory that this process occupies."""
        ...

    def family_bytes(self) -> int:
        """Returns the bytes of memory that this process and those it has started occupy.

        Pages that several processes share count once. Of mapped files only as much counts as
        libraries take: the system drops the pages of data when others need the memory.
        """
        ...

    def trim(self) -> None:
        """Gives memory back that was freed and is held for later; nothing where none can be."""
        ...

    def core_seconds(self) -> tuple[float, float]:
        """Returns the seconds since boot that cores were busy, and all of them; summed.

        Zeros where they are not known.
        """
        ...

    def process_seconds(self, process: int) -> float:
        """Returns the seconds of CPU time that a process has used; 0: not known."""
        ...

    def cores(self) -> int:
        """Returns the number of cores that this process may use, at least 1."""
        ...

    def cpu_name(self) -> str:
        """Returns the processor's name, which tells generations apart; empty: not known."""
        ...

    def x86_instructions(self) -> frozenset[str] | None:
        """Returns the instruction sets of an x86 processor, as Linux names them ("avx_vnni").

        None: it is another one, or they are not known.
        """
        ...

    def governor(self) -> str:
        """Returns the rule by which the CPU's frequency changes; empty: not known."""
        ...

    def has_gpu_driver(self) -> bool | None:
        """Tells whether a driver of GPUs is there; None: only TensorFlow can tell."""
        ...

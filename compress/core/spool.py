"""Large arrays in files: what would fill memory is mapped, and read where it is used.

Mapped pages are the system's to drop and read again: they are no memory of this process. The files
have no name (where a system lets names go before files do), so that they go when nobody holds the
array, however the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core import linux
from compress.core.errors import InputError
from compress.core.memory_budget import current_budget

LEAST = 256 * 2**20
"""Bytes from which an array is mapped; smaller ones are held, where the memory budget allows."""
HELD = 1 / 16
"""Share of what is free that one array may take."""
CHUNK = 16 * 2**20
"""Bytes that are copied at a time."""
FULL = 0.8
"""Share of what is free on a disk that arrays may take."""
FOLDER = "PARETUNE_SPOOL"
"""Environment variable that names the folder of these files."""


def is_mapped(array: Any) -> bool:
    """Tells whether an array lies in a file."""
    return isinstance(array, np.memmap)


def folder() -> Path:
    """Returns where large arrays go: a folder on a disk, not in memory."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named)
    usual = Path(tempfile.gettempdir())
    return Path.home() / ".cache" / "paretune" if linux.in_memory(usual) else usual


def is_large(size: int) -> bool:
    """Tell whether an array of so many bytes is mapped."""
    return size >= LEAST or not current_budget().holds(size, HELD)


class Growing:
    """An array that grows by batches: in memory while it is small, then in a file.

    Args:
        what: It is part of, for the error.
        least: Bytes from which it goes to a file; default: what the memory budget allows.
    """

    def __init__(self, what: str, least: int | None = None) -> None:
        self._what, self._least = what, least
        self._parts: list[npt.NDArray[Any]] = []
        self._file: Any = None
        self._rows = 0
        self.bytes = 0

    def add(self, batch: npt.NDArray[Any]) -> None:
        """Appends the rows of a batch, of the same shape and type as those before.

        Raises:
            InputError: The disk is full.
        """
        self._rows += len(batch)
        self.bytes += batch.nbytes
        self._parts.append(batch)
        if self._least is None and self.bytes >= min(CHUNK, LEAST):
            # asked once: it takes longer than adding a small batch
            self._least = current_budget().share(HELD, LEAST)
        if self._least is not None and self.bytes >= self._least:
            self._flush()

    def whole(self) -> npt.NDArray[Any]:
        """Returns all rows; nothing can be added then."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._file.flush()
        found = mapped_file(self._file, self._dtype, (self._rows, *self._shape))
        self.close()
        return found

    def _flush(self) -> None:
        if self._file is None:
            self._file = _new_file()
            self._shape, self._dtype = self._parts[0].shape[1:], self._parts[0].dtype
        written = self.bytes - sum(part.nbytes for part in self._parts)
        what = f"{self._what} of {self._rows:,} examples so far"
        require_disk(folder(), self.bytes, what, written=written)
        for part in self._parts:
            np.ascontiguousarray(part, self._dtype).tofile(self._file)
        self._parts.clear()

    def close(self) -> None:
        """Lets the file go; it stays for as long as an array is mapped to it."""
        if self._file is not None:
            self._file.close()


def converted(
    values: npt.NDArray[Any],
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    what: str = "examples",
) -> npt.NDArray[Any]:
    """Returns what a function makes of an array row by row; of a mapped one mapped too.

    Args:
        values: (n, ...).
        function: Of some rows: gives as many, of one shape and type.
        what: They are, for the error.
    """
    if not is_mapped(values) or not len(values):
        return function(values)
    made = Growing(what)
    try:
        for part in chunks(values):
            made.add(function(values[part]))
        return made.whole()
    finally:
        made.close()


def rows_of(values: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the rows at an index; many of a mapped array become a mapped one."""
    size = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    if not is_mapped(values) or not is_large(size * len(index)):
        found: npt.NDArray[Any] = values[index]
        return found
    made = Growing("examples")
    try:
        step = max(1, CHUNK // max(1, size))
        for start in range(0, len(index), step):
            made.add(values[index[start : start + step]])
        return made.whole()
    finally:
        made.close()


def chunks(values: npt.NDArray[Any]) -> list[slice]:
    """Returns slices of rows that take `CHUNK` bytes each."""
    size = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    step = max(1, CHUNK // max(1, size))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def mapped_file(
    file: Any, dtype: Any, shape: tuple[int, ...], *, offset: int = 0, order: Any = "C"
) -> npt.NDArray[Any]:
    """Maps a file that holds an array.

    Args:
        file: Its path, or the open file.
        dtype: Of the array.
        shape: Of the array.
        offset: Bytes before it.
        order: "C" or "F".
    """
    # "c": nothing is written, but TensorFlow takes no array that says it is read-only
    return np.memmap(file, dtype, mode="c", offset=offset, shape=shape, order=order)


def require_disk(place: Path, needed: int, what: str, *, written: int = 0) -> None:
    """Refuses what does not fit onto the disk.

    Args:
        place: Folder of the file.
        needed: Bytes that it will have.
        what: It is, for the error.
        written: Bytes that it has.

    Raises:
        InputError: More is needed than `FULL` of what is free without it.
    """
    free = shutil.disk_usage(place).free + written
    if needed > FULL * free:
        raise InputError(
            f"{what} must fit onto the disk of '{place}'. Received: "
            f"{needed / 2**30:,.1f} GiB where {free / 2**30:,.1f} are free. Give fewer "
            f"(take(n)), or set {FOLDER} to a folder with room."
        )


def _new_file() -> Any:
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    # without a name from the first byte on
    return tempfile.TemporaryFile(prefix="paretune-data-", dir=place)

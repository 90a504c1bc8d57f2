"""Arrays in files: large ones are mapped instead of held, and .npz files are read with care.

Mapped pages are the system's to drop and read again: they are no memory of this process. The files
have no name, so that they go when nobody holds the array, however the process ends.

An .npz file may be damaged, or made to do harm: a member that is no array, is encrypted, says
another size than it has, or unpacks to more than there is memory. All of it is found before memory
is taken, and becomes one line. Nothing is unpickled.

What models are fed is one array, or several by name (`Columns`).
"""

from __future__ import annotations

import io
import lzma
import math
import os
import shutil
import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from compress.core import linux
from compress.core.errors import InputError
from compress.core.memory_budget import current_budget, require_room

Array = npt.NDArray[Any]

_AT_ONCE = 2**20
_NPY = b"\x93NUMPY"
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
# what zipfile, its decompressors and NumPy's parser of headers raise over damaged files;
# encrypted members are a RuntimeError, unknown compressions a NotImplementedError (one too)
_DAMAGED = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError,
    struct.error, KeyError, IndexError, TypeError, SyntaxError, tokenize.TokenError, MemoryError,
    OverflowError,
)  # fmt: skip

ItemT = TypeVar("ItemT")
Columns: TypeAlias = "npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]"
"""An array (n, ...), or arrays (n, ...) of the same n examples by name, in a fixed order."""


@contextmanager
def opened(source: Path | bytes, name: str = "") -> Iterator[Archive]:
    """Open an .npz file.

    Args:
        source: The file, or its content.
        name: What errors call it; default: the path.

    Raises:
        InputError: It is none, or a member read meanwhile is damaged.
    """
    shown = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            content = source if isinstance(source, bytes) else None
            with open(source, "rb") if content is None else io.BytesIO(content) as stream:
                if stream.read(len(_NPY)) == _NPY:
                    raise ValueError("a single array in an .npy file: save it with np.savez")
                with zipfile.ZipFile(stream) as archive:
                    yield Archive(archive, shown, source if isinstance(source, Path) else None)
    except InputError:
        raise
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"'{shown}' must be an .npz file of plain arrays, without pickled objects ({reason})."
        ) from None


class Archive:
    """The arrays of an open .npz file.

    Args:
        archive: The file.
        shown: What errors call it.
        path: Of the file, where it is one.
    """

    def __init__(self, archive: zipfile.ZipFile, shown: str, path: Path | None = None) -> None:
        self._archive, self._shown, self._path = archive, shown, path or Path()
        self._members = {name.removesuffix(".npy"): name for name in archive.namelist()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, arrays or not."""
        return tuple(self._members)

    def read(self, names: Iterable[str]) -> dict[str, Array]:
        """Read those of `names` that are there.

        Raises:
            InputError: One is no plain array, or together they do not fit into memory.
        """
        wanted = [name for name in names if name in self._members]
        held = [self._archive.getinfo(self._members[name]) for name in wanted]
        require_room(
            sum(info.file_size for info in held if not self._mappable(info)),
            f"Arrays of '{self._shown}'",
        )
        return {name: self._read(name) for name in wanted}

    def _mappable(self, info: zipfile.ZipInfo) -> bool:
        """Return whether an array is large, and lies in the file as it is."""
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        return plain and self._path.is_file() and is_large(info.file_size)

    def _read(self, name: str) -> Array:
        info = self._archive.getinfo(self._members[name])
        with self._archive.open(info) as stream:
            shape, fortran, dtype = _header(stream, name)
            header = stream.tell()
            size, there = math.prod(shape) * dtype.itemsize, info.file_size - header
            if size != there:
                raise ValueError(f"'{name}' says that it has {size:,} bytes, and has {there:,}")
            if self._mappable(info):
                while stream.read(_AT_ONCE):  # to the end, at which the checksum is looked at
                    pass
                place = _begin(self._path, info) + header
                return mapped_file(
                    self._path, dtype, shape, offset=place, order="F" if fortran else "C"
                )
            content = _content(stream, size, name)
        if not dtype.itemsize:
            return np.zeros(shape, dtype)
        return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def is_mapped(array: Any) -> bool:
    """Return whether an array lies in a file."""
    return isinstance(array, np.memmap)


def folder() -> Path:
    """Return where large arrays go: a folder on a disk, not in memory."""
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
        """Append the rows of a batch, of the same shape and type as those before.

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
        """Return all rows; nothing can be added then."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._file.flush()
        found = mapped_file(self._file, self._dtype, (self._rows, *self._shape))
        self.close()
        return found

    def _flush(self) -> None:
        if self._file is None:
            place = folder()
            place.mkdir(parents=True, exist_ok=True)
            # without a name from the first byte on
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `close`
                prefix="paretune-data-", dir=place
            )
            self._shape, self._dtype = self._parts[0].shape[1:], self._parts[0].dtype
        written = self.bytes - sum(part.nbytes for part in self._parts)
        what = f"{self._what} of {self._rows:,} examples so far"
        require_disk(folder(), self.bytes, what, written=written)
        for part in self._parts:
            np.ascontiguousarray(part, self._dtype).tofile(self._file)
        self._parts.clear()

    def close(self) -> None:
        """Let the file go; it stays for as long as an array is mapped to it."""
        if self._file is not None:
            self._file.close()


def converted(
    values: npt.NDArray[Any],
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    what: str = "examples",
) -> npt.NDArray[Any]:
    """Return a function's result for an array; mapped arrays are converted in chunks.

    Args:
        values: (n, ...).
        function: Of some rows: gives as many, of one shape and type.
        what: They are, for the error.
    """
    if not is_mapped(values) or not len(values):
        return function(values)
    return _grown((function(values[part]) for part in chunks(values)), what)


def rows_of(values: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the rows at an index; many of a mapped array become a mapped one."""
    size = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    if not is_mapped(values) or not is_large(size * len(index)):
        found: npt.NDArray[Any] = values[index]
        return found
    step = max(1, CHUNK // max(1, size))
    starts = range(0, len(index), step)
    return _grown((values[index[start : start + step]] for start in starts), "examples")


def mapped(function: Callable[[Any], Any], columns: Any) -> Any:
    """Return a function's result for the array, or for each array by its name."""
    if isinstance(columns, Mapping):
        return {name: function(values) for name, values in columns.items()}
    return function(columns)


def taken(columns: Any, index: Any) -> Any:
    """Return the examples at an index or in a slice; mapped arrays stay mapped."""
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu":
        return mapped(lambda values: rows_of(values, index), columns)
    return mapped(lambda values: values[index], columns)


def arrays(columns: Any) -> list[Any]:
    """Return the arrays, in their order."""
    return list(columns.values()) if isinstance(columns, Mapping) else [columns]


def named(columns: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return the arrays with their names; the only one has the name that is given."""
    return list(columns.items()) if isinstance(columns, Mapping) else [(name, columns)]


def unnamed(arrays: Mapping[str, Any]) -> Any:
    """Return arrays by name; the only one, where it has the name "", alone. See `named`."""
    return arrays[""] if list(arrays) == [""] else arrays


def count(columns: Any) -> int:
    """Return the number of examples."""
    return len(arrays(columns)[0])


def joined(parts: Sequence[Any]) -> Any:
    """Return the examples of several parts, one after the other."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def in_batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    yield from iter(lambda: list(islice(iterator, size)), [])


def _grown(batches: Iterable[Array], what: str) -> Array:
    made = Growing(what)
    try:
        for batch in batches:
            made.add(batch)
        return made.whole()
    finally:
        made.close()


def chunks(values: npt.NDArray[Any]) -> list[slice]:
    """Return slices of rows that take `CHUNK` bytes each."""
    size = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    step = max(1, CHUNK // max(1, size))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def mapped_file(
    file: Any, dtype: Any, shape: tuple[int, ...], *, offset: int = 0, order: Any = "C"
) -> npt.NDArray[Any]:
    """Map a file that holds an array.

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
    """Refuse what does not fit onto the disk.

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


def _begin(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where a member's content begins, behind its own header."""
    with open(path, "rb") as stream:
        stream.seek(info.header_offset)
        fixed = struct.unpack("<4s22xHH", stream.read(30))
    return info.header_offset + 30 + int(fixed[1]) + int(fixed[2])


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if stream.read(len(_NPY)) != _NPY:
        raise ValueError(f"'{name}' is no array")
    stream.seek(0)
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"'{name}' is of .npy version {version[0]}, which plain arrays need not")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds pickled objects")
    if any(length < 0 for length in shape):
        raise ValueError(f"'{name}' has shape {shape}")
    return shape, fortran, dtype


def _content(stream: IO[bytes], size: int, name: str) -> npt.NDArray[np.uint8]:
    content = np.empty(size, np.uint8)
    done = 0
    while done < size:
        part = stream.read(min(_AT_ONCE, size - done))
        if not part:
            raise EOFError(f"'{name}' ends after {done:,} of {size:,} bytes")
        content[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    stream.read(1)  # the end, at which the checksum is looked at
    return content

"""Arrays in files: large arrays are memory-mapped, and .npz files are validated.

The system can drop and reload mapped pages, so that they do not count as memory of this process.
The files have no name and are deleted when the array is released, even if the process is killed.

An .npz file may be corrupt or malicious: a member may be no array, be encrypted, declare a wrong
size, or unpack to more data than fits into memory. All of this is detected before memory is
allocated, and reported in one line. Nothing is unpickled.

Model inputs are one array, or several by name (`Columns`).
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
from compress.core.memory_budget import get_current_budget, require_memory

Array = npt.NDArray[Any]

_READ_BYTES = 2**20
_NPY_MAGIC = b"\x93NUMPY"
MIN_MAPPED_BYTES = 256 * 2**20
"""Size in bytes from which an array is mapped; a smaller memory budget lowers it."""
MAX_MEMORY_SHARE = 1 / 16
"""Share of the free memory that one array may take."""
CHUNK_BYTES = 16 * 2**20
"""Size of a chunk of rows in bytes."""
MAX_DISK_SHARE = 0.8
"""Share of the free disk space that arrays may take."""
FOLDER_VARIABLE = "PARETUNE_SPOOL"
"""Environment variable with the folder of the files of mapped arrays."""
# errors of zipfile, its decompressors and NumPy's header parser on corrupt files; encrypted
# members and unknown compressions raise a RuntimeError
_DAMAGED_FILE_ERRORS = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError,
    struct.error, KeyError, IndexError, TypeError, SyntaxError, tokenize.TokenError, MemoryError,
    OverflowError,
)  # fmt: skip

ItemT = TypeVar("ItemT")
Columns: TypeAlias = "npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]"
"""An array (n, ...), or arrays (n, ...) of the same n examples by name, in a fixed order."""


@contextmanager
def open_npz(source: Path | bytes, name: str = "") -> Iterator[NpzArchive]:
    """Open an .npz file.

    Args:
        source: Path of the file, or its content.
        name: Name of the file in errors. Default: the path.

    Yields:
        The open archive.

    Raises:
        InputError: It is not an .npz file, or a member read within the context is corrupt.
    """
    display_name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers written by Python 2
            content = source if isinstance(source, bytes) else None
            with open(source, "rb") if content is None else io.BytesIO(content) as stream:
                if stream.read(len(_NPY_MAGIC)) == _NPY_MAGIC:
                    raise ValueError("a single array in an .npy file: save it with np.savez")
                with zipfile.ZipFile(stream) as archive:
                    yield NpzArchive(
                        archive, display_name, source if isinstance(source, Path) else None
                    )
    except InputError:
        raise
    except _DAMAGED_FILE_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"'{display_name}' must be an .npz file of plain arrays, without pickled objects "
            f"({reason})."
        ) from None


class NpzArchive:
    """Arrays of an open .npz file.

    Args:
        archive: The open zip file.
        display_name: Name of the file in errors.
        path: Path of the file, if it has one.
    """

    def __init__(
        self, archive: zipfile.ZipFile, display_name: str, path: Path | None = None
    ) -> None:
        self._archive, self._display_name, self._path = archive, display_name, path or Path()
        self._members = {name.removesuffix(".npy"): name for name in archive.namelist()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all members, including those that are no arrays."""
        return tuple(self._members)

    def read_arrays(self, names: Iterable[str]) -> dict[str, Array]:
        """Read the given members, skipping missing ones.

        Args:
            names: Names of members.

        Returns:
            The arrays by name.

        Raises:
            InputError: A member is no plain array, or together they do not fit into memory.
        """
        wanted = [name for name in names if name in self._members]
        infos = [self._archive.getinfo(self._members[name]) for name in wanted]
        require_memory(
            sum(info.file_size for info in infos if not self._can_map(info)),
            f"Arrays of '{self._display_name}'",
        )
        return {name: self._read_array(name) for name in wanted}

    def _can_map(self, info: zipfile.ZipInfo) -> bool:
        """Return whether an array is large and stored without compression."""
        is_stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        return is_stored and self._path.is_file() and is_large(info.file_size)

    def _read_array(self, name: str) -> Array:
        """Return an array, memory-mapped if large and uncompressed; raise ValueError if corrupt."""
        info = self._archive.getinfo(self._members[name])
        with self._archive.open(info) as stream:
            shape, is_fortran, dtype = _read_header(stream, name)
            header = stream.tell()
            size, actual_size = math.prod(shape) * dtype.itemsize, info.file_size - header
            if size != actual_size:
                raise ValueError(
                    f"'{name}' says that it has {size:,} bytes, and has {actual_size:,}"
                )
            if self._can_map(info):
                while stream.read(_READ_BYTES):  # read to the end, where the checksum is verified
                    pass
                offset = _find_content_offset(self._path, info) + header
                return map_file(
                    self._path, dtype, shape, offset=offset, order="F" if is_fortran else "C"
                )
            content = _read_content(stream, size, name)
        if not dtype.itemsize:
            return np.zeros(shape, dtype)
        return content.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def is_mapped(array: Any) -> bool:
    """Return whether an array is memory-mapped."""
    return isinstance(array, np.memmap)


def find_spool_folder() -> Path:
    """Return the folder of mapped arrays, which is on a disk and not in memory."""
    if chosen_folder := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen_folder)
    default_folder = Path(tempfile.gettempdir())
    return (
        Path.home() / ".cache" / "paretune"
        if linux.is_in_memory(default_folder)
        else default_folder
    )


def is_large(size: int) -> bool:
    """Return whether an array of a size in bytes is mapped."""
    return size >= MIN_MAPPED_BYTES or not get_current_budget().can_hold(size, MAX_MEMORY_SHARE)


class GrowingArray:
    """Array that grows by batches, first in memory and later in a file.

    Args:
        description: The data that it is part of, for the error.
        min_mapped_bytes: Size in bytes from which it moves to a file. Default: depends on the
            memory budget.
    """

    def __init__(self, description: str, min_mapped_bytes: int | None = None) -> None:
        self._description, self._min_mapped_bytes = description, min_mapped_bytes
        self._parts: list[npt.NDArray[Any]] = []
        self._file: Any = None
        self._rows = 0
        self.bytes = 0

    def add(self, batch: npt.NDArray[Any]) -> None:
        """Append the rows of a batch, of the same shape and type as those before.

        Args:
            batch: (rows, ...).

        Raises:
            InputError: The disk is full.
        """
        self._rows += len(batch)
        self.bytes += batch.nbytes
        self._parts.append(batch)
        if self._min_mapped_bytes is None and self.bytes >= min(CHUNK_BYTES, MIN_MAPPED_BYTES):
            # measured once, because it takes longer than adding a small batch
            self._min_mapped_bytes = get_current_budget().compute_share(
                MAX_MEMORY_SHARE, MIN_MAPPED_BYTES
            )
        if self._min_mapped_bytes is not None and self.bytes >= self._min_mapped_bytes:
            self._write_parts()

    def to_array(self) -> npt.NDArray[Any]:
        """Return all rows; no more rows can be added afterwards."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._file.flush()
        array = map_file(self._file, self._dtype, (self._rows, *self._shape))
        self.close()
        return array

    def _write_parts(self) -> None:
        """Append pending batches to an unnamed file on disk; raise InputError if it is full."""
        written = self.bytes - sum(part.nbytes for part in self._parts)
        description = f"{self._description} of {self._rows:,} examples so far"
        spool_folder = require_spool_space(self.bytes, description, written=written)
        if self._file is None:
            # a file without a name is deleted even if the process is killed
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `close`
                prefix="paretune-data-", dir=spool_folder
            )
            self._shape, self._dtype = self._parts[0].shape[1:], self._parts[0].dtype
        for part in self._parts:
            np.ascontiguousarray(part, self._dtype).tofile(self._file)
        self._parts.clear()

    def close(self) -> None:
        """Close the file; it remains as long as an array is mapped to it."""
        if self._file is not None:
            self._file.close()


def convert_rows(
    values: npt.NDArray[Any],
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    description: str = "examples",
) -> npt.NDArray[Any]:
    """Return the result of a function of an array; mapped arrays are converted in chunks.

    Args:
        values: (n, ...).
        function: Function from some rows to as many rows of a fixed shape and type.
        description: The data, for the error.
    """
    if not is_mapped(values) or not len(values):
        return function(values)
    return _collect_batches((function(values[part]) for part in slice_chunks(values)), description)


def take_rows(values: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the rows at an index; a large result of a mapped array is mapped too.

    Args:
        values: (n, ...).
        index: Indices of rows, (m,).
    """
    row_bytes = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    if not is_mapped(values) or not is_large(row_bytes * len(index)):
        rows: npt.NDArray[Any] = values[index]
        return rows
    parts = slice_chunks(values, len(index))
    return _collect_batches((values[index[part]] for part in parts), "examples")


def map_columns(function: Callable[[Any], Any], columns: Any) -> Any:
    """Return the result of a function of the array, or of each named array by name.

    Args:
        function: Function of one array.
        columns: An array or named arrays.
    """
    if isinstance(columns, Mapping):
        return {name: function(values) for name, values in columns.items()}
    return function(columns)


def take_examples(columns: Any, index: Any) -> Any:
    """Return the examples at an index or in a slice; large results of mapped arrays are mapped.

    Args:
        columns: An array or named arrays.
        index: Indices of examples, (m,), a mask, or a slice.
    """
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu":
        return map_columns(lambda values: take_rows(values, index), columns)
    return map_columns(lambda values: values[index], columns)


def list_arrays(columns: Any) -> list[Any]:
    """Return the arrays in their order."""
    return list(columns.values()) if isinstance(columns, Mapping) else [columns]


def list_named_arrays(columns: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return pairs of name and array.

    Args:
        columns: An array or named arrays.
        name: The name of a single array.
    """
    return list(columns.items()) if isinstance(columns, Mapping) else [(name, columns)]


def unwrap_columns(named_arrays: Mapping[str, Any]) -> Any:
    """Return the named arrays, or the only array if its name is "". See `list_named_arrays`."""
    return named_arrays[""] if list(named_arrays) == [""] else named_arrays


def count_examples(columns: Any) -> int:
    """Return the number of examples."""
    return len(list_arrays(columns)[0])


def concat_examples(parts: Sequence[Any]) -> Any:
    """Return the concatenated examples of several parts."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def iterate_batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    yield from iter(lambda: list(islice(iterator, size)), [])


def _collect_batches(batches: Iterable[Array], description: str) -> Array:
    growing = GrowingArray(description)
    try:
        for batch in batches:
            growing.add(batch)
        return growing.to_array()
    finally:
        growing.close()


def slice_chunks(values: npt.NDArray[Any], count: int | None = None) -> list[slice]:
    """Return slices of all rows, or of a number of them, with about `CHUNK_BYTES` bytes each."""
    row_bytes = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    rows = len(values) if count is None else count
    return [slice(start, start + step) for start in range(0, rows, step)]


def map_file(
    file: Any, dtype: Any, shape: tuple[int, ...], *, offset: int = 0, order: Any = "C"
) -> npt.NDArray[Any]:
    """Return the memory-mapped array of a file.

    Args:
        file: Path of the file, or the open file.
        dtype: Type of the array.
        shape: Shape of the array.
        offset: Bytes before the array in the file.
        order: "C" or "F".
    """
    # copy-on-write: TensorFlow does not accept read-only arrays
    return np.memmap(file, dtype, mode="c", offset=offset, shape=shape, order=order)


def require_spool_space(needed: int, description: str, *, written: int = 0) -> Path:
    """Return the folder of mapped arrays, which is created, if an array fits onto its disk.

    Args:
        needed: Final size of the file in bytes.
        description: The data, for the error.
        written: Current size of the file in bytes.

    Raises:
        InputError: The file needs more than `MAX_DISK_SHARE` of the disk space that is free without
            it.
    """
    spool_folder = find_spool_folder()
    spool_folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(spool_folder).free + written
    if needed > MAX_DISK_SHARE * free:
        raise InputError(
            f"{description} must fit onto the disk of '{spool_folder}'. Received: "
            f"{needed / 2**30:,.1f} GiB where {free / 2**30:,.1f} are free. Give fewer "
            f"(take(n)), or set {FOLDER_VARIABLE} to a folder with room."
        )
    return spool_folder


def _find_content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of a member's content, after its local header."""
    with open(path, "rb") as stream:
        stream.seek(info.header_offset)
        header_fields = struct.unpack("<4s22xHH", stream.read(30))
    return info.header_offset + 30 + int(header_fields[1]) + int(header_fields[2])


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, is in Fortran order, dtype) of a .npy member; raise ValueError for objects."""
    if stream.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
        raise ValueError(f"'{name}' is no array")
    stream.seek(0)
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"'{name}' is of .npy version {version[0]}, which plain arrays need not")
    shape, is_fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds pickled objects")
    if any(length < 0 for length in shape):
        raise ValueError(f"'{name}' has shape {shape}")
    return shape, is_fortran, dtype


def _read_content(stream: IO[bytes], size: int, name: str) -> npt.NDArray[np.uint8]:
    """Return `size` bytes as uint8 (size,), with the checksum verified; raise EOFError if short."""
    content = np.empty(size, np.uint8)
    done = 0
    while done < size:
        part = stream.read(min(_READ_BYTES, size - done))
        if not part:
            raise EOFError(f"'{name}' ends after {done:,} of {size:,} bytes")
        content[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    stream.read(1)  # the end, where the checksum is verified
    return content

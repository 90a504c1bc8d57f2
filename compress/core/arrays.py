"""Arrays of an .npz file, read by what their headers declare.

A file may be damaged, or made to do harm: a member that is no array, is encrypted, says another
size than it has, or unpacks to more than there is memory. All of it is found before memory is
taken, and becomes one line. Nothing is unpickled.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.memory_budget import require_room
from compress.core.spool import is_large, mapped_file

Array = npt.NDArray[Any]

_CHUNK = 2**20
_NPY = b"\x93NUMPY"
# what zipfile, its decompressors and NumPy's parser of headers raise over damaged files;
# encrypted members are a RuntimeError, unknown compressions a NotImplementedError (one too)
_DAMAGED = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError,
    struct.error, KeyError, IndexError, TypeError, SyntaxError, tokenize.TokenError, MemoryError,
    OverflowError,
)  # fmt: skip


@contextmanager
def opened(source: Path | bytes, name: str = "") -> Iterator[Archive]:
    """Opens an .npz file.

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
        """Reads those of `names` that are there.

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
        """Tells whether an array is large, and lies in the file as it is."""
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
                while stream.read(_CHUNK):  # to the end, at which the checksum is looked at
                    pass
                place = _begin(self._path, info) + header
                return mapped_file(
                    self._path, dtype, shape, offset=place, order="F" if fortran else "C"
                )
            content = _content(stream, size, name)
        if not dtype.itemsize:
            return np.zeros(shape, dtype)
        return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def _begin(path: Path, info: zipfile.ZipInfo) -> int:
    """Returns where a member's content begins, behind its own header."""
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
        part = stream.read(min(_CHUNK, size - done))
        if not part:
            raise EOFError(f"'{name}' ends after {done:,} of {size:,} bytes")
        content[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    stream.read(1)  # the end, at which the checksum is looked at
    return content

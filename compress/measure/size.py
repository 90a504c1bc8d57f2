"""Bytes of a file, as it lies on disk and as a download or an update would compress it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

ZSTD_LEVEL = 19


@dataclass(frozen=True)
class FileSizes:
    """Bytes of a file: on disk, after gzip -9, after zstd -19."""

    size: int
    gzip: int
    zstd: int


def file_sizes(path: Path) -> FileSizes:
    """Compresses a file in memory and returns its sizes."""
    import zstandard

    content = path.read_bytes()
    return FileSizes(
        len(content),
        len(gzip.compress(content, compresslevel=9, mtime=0)),
        len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)),
    )

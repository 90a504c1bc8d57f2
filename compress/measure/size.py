"""Bytes of a file, as it lies on disk and as a download would compress it."""

from __future__ import annotations

import gzip
from pathlib import Path


def file_sizes(path: Path) -> tuple[int, int]:
    """Returns a file's size and its size after gzip -9, in bytes."""
    content = path.read_bytes()
    return len(content), len(gzip.compress(content, compresslevel=9, mtime=0))

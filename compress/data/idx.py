"""IDX files, plain or gzipped: the format of MNIST, Fashion-MNIST and KMNIST."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np

from compress.data._base import Array, RawData, Split, as_examples, as_labels
from compress.errors import InputError

# IDX type codes, http://yann.lecun.com/exdb/mnist (big endian)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PARTS = {
    ("train", "x"): r"train.*images",
    ("train", "y"): r"train.*labels",
    ("test", "x"): r"(t10k|test).*images",
    ("test", "y"): r"(t10k|test).*labels",
}


def holds_idx(folder: Path) -> bool:
    """Tells whether a folder has IDX files (by name; the content is not read)."""
    return any(_is_idx(path) for path in folder.iterdir())


def _is_idx(path: Path) -> bool:
    return re.search(r"idx\d(-ubyte)?(\.gz)?$", path.name) is not None


def load(source: str) -> RawData:
    """Reads a folder of IDX files: training images and labels, a test pair if there is one.

    Raises:
        InputError: A file is missing, ambiguous, truncated or not IDX.
    """
    folder = Path(source)
    train = _pair(folder, "train")
    if train is None:
        raise InputError(
            f"Data folder '{folder}' must hold train-images and train-labels IDX files. "
            f"Received: {', '.join(sorted(p.name for p in folder.iterdir())[:6])}."
        )
    full = 255.0 if train.x.dtype == np.uint8 else 1.0
    return RawData(train, test=_pair(folder, "test"), max_value=full)


def _pair(folder: Path, part: str) -> Split | None:
    images, labels = (_find(folder, part, role) for role in ("x", "y"))
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise InputError(
            f"Data folder '{folder}' must hold both images and labels of the {part} part. "
            f"Received: only '{(images or labels or folder).name}'."
        )
    x, y = as_examples(read_idx(images), images.name), as_labels(read_idx(labels), labels.name)
    if len(x) != len(y):
        raise InputError(
            f"'{images.name}' and '{labels.name}' must hold equally many examples. "
            f"Received: {len(x)} and {len(y)}."
        )
    return Split(x, y)


def _find(folder: Path, part: str, role: str) -> Path | None:
    pattern = re.compile(_PARTS[part, role], re.IGNORECASE)
    found = sorted(p for p in folder.iterdir() if _is_idx(p) and pattern.search(p.name))
    plain = {p.name.removesuffix(".gz") for p in found}
    if len(plain) > 1:
        raise InputError(
            f"Data folder '{folder}' must hold one file of {part} "
            f"{'images' if role == 'x' else 'labels'}. Received: "
            f"{', '.join(p.name for p in found)}. Put the others elsewhere."
        )
    return found[0] if found else None


def read_idx(path: Path) -> Array:
    """Reads one IDX file.

    Args:
        path: The file, gzipped where its name ends in .gz.

    Returns:
        The array, native byte order.

    Raises:
        InputError: The file cannot be read, is not IDX, or has too few or too many bytes.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as stream:
            content = stream.read()
    except (OSError, EOFError) as error:
        raise InputError(
            f"IDX file '{path}' must be complete and readable ({error}). Fetch it again."
        ) from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise InputError(
            f"IDX file '{path}' must begin with an IDX header. Received: {content[:4]!r}."
        )
    dtype, rank = np.dtype(_TYPES[content[2]]), content[3]
    header = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:header]) if len(content) >= header else ()
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(shape) != rank or len(content) != expected:
        raise InputError(
            f"IDX file '{path}' must have the {expected} bytes that its header says. "
            f"Received: {len(content)} (truncated or damaged). Fetch it again."
        )
    values = np.frombuffer(content, dtype, offset=header).reshape(shape)
    return values.astype(dtype.newbyteorder("="))

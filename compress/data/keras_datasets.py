"""Image sets of `keras.datasets`, scikit-learn's digits, and IDX files (the format of MNIST)."""

from __future__ import annotations

import gzip
import importlib
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from compress.core.errors import InputError, extract_reason
from compress.core.memory_budget import require_memory
from compress.data.kinds import Kind
from compress.data.parts import Array, RawData, Split, as_examples
from compress.data.tasks import MultiClass

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_CLASS_NAMES = {
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
}
# IDX type codes, http://yann.lecun.com/exdb/mnist (big endian)
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_RANK = 8
_PARTS = {
    ("train", "x"): r"train.*images",
    ("train", "y"): r"train.*labels",
    ("test", "x"): r"(t10k|test).*images",
    ("test", "y"): r"(t10k|test).*labels",
}


def load_keras_dataset(source: str) -> RawData:
    """Return a data set of `keras.datasets` with its own test part.

    `fashion_mnist` is read from the files of Debian's package dataset-fashion-mnist if they are
    installed, which needs no network.

    Args:
        source: Name of the data set in `keras.datasets`.

    Raises:
        InputError: The data set is not cached and cannot be downloaded.
    """
    names = tuple(_CLASS_NAMES[source].split(",")) if source in _CLASS_NAMES else None
    if source == "fashion_mnist" and DEBIAN_FASHION_MNIST.is_dir():
        raw = load_idx(str(DEBIAN_FASHION_MNIST))
        return RawData(raw.train, test=raw.test, class_names=names, max_value=255.0)
    module = importlib.import_module(f"keras.datasets.{source}")
    try:
        train, test = (
            Split(as_examples(x, f"{source} x"), MultiClass.read(y, f"{source} y"))
            for x, y in module.load_data()
        )
    except Exception as error:  # keras wraps every network failure in a bare Exception
        raise InputError(
            f"Data set '{source}' must be in Keras's cache or downloadable "
            f"({extract_reason(error)}). Give a folder or an .npz file with --data instead."
        ) from None
    return RawData(train, test=test, class_names=names, max_value=255.0)


def read_digits(_source: str) -> RawData:
    """Return scikit-learn's digits as one part, with pixel values 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]  # (1797, 8, 8, 1)
    return RawData(Split(images, bunch.target.astype(np.int64)), max_value=16.0)


def _is_idx(path: Path) -> bool:
    return re.search(r"idx\d(-ubyte)?(\.gz)?$", path.name) is not None


def load_idx(source: str) -> RawData:
    """Read a folder of IDX files: training images and labels, and a test pair if there is one.

    Args:
        source: The folder.

    Raises:
        InputError: A file is missing, ambiguous, truncated or not IDX.
    """
    folder = Path(source)
    train = _read_pair(folder, "train")
    if train is None:
        raise InputError(
            f"Data folder '{folder}' must hold train-images and train-labels IDX files. "
            f"Received: {', '.join(sorted(p.name for p in folder.iterdir())[:6])}."
        )
    full = 255.0 if train.x.dtype == np.uint8 else 1.0
    return RawData(train, test=_read_pair(folder, "test"), max_value=full)


def _read_pair(folder: Path, part: str) -> Split | None:
    """Return images and labels of a part, None without both files; raise if only one is there."""
    images, labels = (_find_idx_file(folder, part, role) for role in ("x", "y"))
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise InputError(
            f"Data folder '{folder}' must hold both images and labels of the {part} part. "
            f"Received: only '{(images or labels or folder).name}'."
        )
    return Split(
        as_examples(read_idx(images), images.name), MultiClass.read(read_idx(labels), labels.name)
    )


def _find_idx_file(folder: Path, part: str, role: str) -> Path | None:
    """Return the IDX file of a part and role, None without one; raise if several names match."""
    pattern = re.compile(_PARTS[part, role], re.IGNORECASE)
    matches = sorted(p for p in folder.iterdir() if _is_idx(p) and pattern.search(p.name))
    stems = {p.name.removesuffix(".gz") for p in matches}
    if len(stems) > 1:
        raise InputError(
            f"Data folder '{folder}' must hold one file of {part} "
            f"{'images' if role == 'x' else 'labels'}. Received: "
            f"{', '.join(p.name for p in matches)}. Put the others elsewhere."
        )
    return matches[0] if matches else None


def read_idx(path: Path) -> Array:
    """Read one IDX file.

    Args:
        path: The file, gzipped if its name ends in .gz.

    Returns:
        The array, in native byte order.

    Raises:
        InputError: The file cannot be read, is not IDX, or has too few or too many bytes.
    """
    if not path.is_file():
        raise InputError(f"IDX file '{path}' must be a file. Received: a folder or a pipe.")
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as stream:
            return _read_array(stream, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"IDX file '{path}' must be complete and readable ({error}). Fetch it again."
        ) from None


def _read_array(stream: IO[bytes] | gzip.GzipFile, path: Path) -> Array:
    """Read the number of bytes given in the header, if they fit into memory."""
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES:
        raise InputError(f"IDX file '{path}' must begin with an IDX header. Received: {start!r}.")
    dtype, rank = np.dtype(_DTYPES[start[2]]), start[3]
    if not 1 <= rank <= _MAX_RANK:
        raise InputError(
            f"IDX file '{path}' must have 1 to {_MAX_RANK} axes. Received: {rank} (corrupt). "
            "Fetch it again."
        )
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise EOFError("its header is cut off")
    shape = struct.unpack(f">{rank}I", sizes)
    # Python integers: a product of the sizes may exceed 64 bits
    expected = math.prod(shape) * dtype.itemsize
    require_memory(expected, f"IDX file '{path}'")
    content = stream.read(expected + 1)
    if len(content) != expected:
        more = "more" if len(content) > expected else f"{len(content):,}"
        raise InputError(
            f"IDX file '{path}' must have the {expected:,} bytes that its header says. "
            f"Received: {more} (truncated or corrupt). Fetch it again."
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


KIND = Kind(
    lambda source, _: load_idx(source),
    of_classes=True,
    holds=lambda folder: any(map(_is_idx, folder.iterdir())),
)

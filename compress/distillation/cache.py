"""The teacher's outputs for all training examples, computed once; on disk where they are large.

A cache is known by a hash of the teachers, of what is taken from them and of the examples, so
a stale one is not used. On disk it grows batch by batch and goes on after an interruption.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arguments import conform
from compress.core.arrays import arrays as arrays_of
from compress.core.arrays import named, taken
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data import Dataset
from compress.distillation.teachers import Teachers
from compress.model.activations import examples_at_once

BATCH = 256
"""Examples at a time, where the memory budget allows."""
META = "cache.json"
MIB = 1 << 20
NOTE_EVERY = 64
"""Batches between two notes on disk of how far a cache is."""

Arrays = dict[str, npt.NDArray[Any]]
OnProgress = Callable[[float], None]


@dataclass(frozen=True)
class Cached:
    """The teachers' outputs.

    Attributes:
        arrays: By name, one row a training example; on disk they are memory-mapped.
        where: "memory" or the folder.
        size_bytes: Of all arrays.
        computed: Rows that were computed now; the others were there already.
        seconds: Wall time of that.
    """

    arrays: Arrays
    where: str
    size_bytes: int
    computed: int
    seconds: float


def cache_key(teachers: Teachers, data: Dataset) -> str:
    """Returns what a cache is known by: teachers, what is taken of them, and examples."""
    digest = hashlib.sha256(teachers.fingerprint().encode())
    digest.update(data.preprocess.identity.encode())
    for name, values in named(data.train.x):
        digest.update(f"{name}{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:32]


def row_shapes(teachers: Teachers, data: Dataset) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Returns shape (without the examples) and type of what is cached, by name."""
    with teachers.running():
        found = teachers.outputs(data.preprocess(taken(data.train.x, slice(0, 1))))
    return {
        name: (tuple(value.shape[1:]), value.dtype.as_numpy_dtype) for name, value in found.items()
    }


def bytes_needed(shapes: dict[str, tuple[tuple[int, ...], Any]], examples: int) -> int:
    """Returns the size of a cache."""
    return sum(
        examples * int(np.prod(shape)) * np.dtype(dtype).itemsize
        for shape, dtype in shapes.values()
    )


@contextlib.contextmanager
def teacher_cache(
    teachers: Teachers,
    data: Dataset,
    *,
    where: str = "auto",
    limit: int = 1024,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[Cached]:
    """Gives the teachers' outputs for the training examples as they are, not augmented.

    Args:
        teachers: In inference mode.
        data: Its training part.
        where: "memory", "disk", or "auto": memory up to `limit`, disk above.
        limit: MiB.
        folder: Of caches on disk, one sub-folder a key, which stay there; default: a
            temporary one that is removed on leaving.
        on_progress: Called with the share that is done.

    Yields:
        The cache.

    Raises:
        InputError: A cache in the folder is not what its name says, or the disk is too small.
    """
    shapes = row_shapes(teachers, data)
    size = bytes_needed(shapes, len(data.train))
    if where == "auto":
        where = "memory" if size <= limit * MIB else "disk"
    began = time.perf_counter()
    if where == "memory":
        arrays: Arrays = {
            name: np.empty((len(data.train), *shape), dtype)
            for name, (shape, dtype) in shapes.items()
        }
        _fill(teachers, data, arrays, 0, on_progress, None)
        seconds = time.perf_counter() - began
        yield Cached(arrays, "memory", size, len(data.train), seconds)
        return
    key = cache_key(teachers, data)
    with contextlib.ExitStack() as stack:
        if folder is None:
            temporary = tempfile.mkdtemp(prefix="paretune-teacher-")
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            folder = Path(temporary)
        home = folder / key
        arrays, there = _open(home, key, shapes, len(data.train))
        _fill(teachers, data, arrays, there, on_progress, home)
        seconds = time.perf_counter() - began
        yield Cached(arrays, str(home), size, len(data.train) - there, seconds)


def _fill(
    teachers: Teachers,
    data: Dataset,
    arrays: Arrays,
    start: int,
    on_progress: OnProgress | None,
    home: Path | None,
) -> None:
    """Computes the rows from `start` on."""
    import tensorflow as tf

    total = len(data.train)
    sizes = [values.shape[1:] for values in arrays_of(data.train.x)]
    size = min(examples_at_once(teachers.models, BATCH, sizes=sizes), total)
    scaled = data.preprocess.in_graph()
    with teachers.running():
        outputs = tf.function(lambda x: teachers.outputs(scaled(x)), autograph=False)
        for count, first in enumerate(range(start, total, size), start=1):
            # the last batch overlaps: another size would trace the teachers again
            low = min(first, total - size)
            for name, value in outputs(taken(data.train.x, slice(low, low + size))).items():
                arrays[name][low : low + size] = value.numpy()
            if count % NOTE_EVERY == 0 or low + size == total:
                if home is not None:
                    _note(home, arrays, low + size)
                if on_progress is not None:
                    on_progress((low + size) / total)


def _open(
    home: Path, key: str, shapes: dict[str, tuple[tuple[int, ...], Any]], examples: int
) -> tuple[Arrays, int]:
    """Opens or creates the files of a cache; returns them and how many rows are there."""
    record = {
        "key": key,
        "examples": examples,
        "arrays": {
            name: [list(shape), np.dtype(dtype).str] for name, (shape, dtype) in shapes.items()
        },
    }
    done = 0
    if (home / META).exists():
        found = read_json(home / META)
        done = conform(found.pop("done", 0), int, f"'{home / META}': done")
        if found != record:
            raise InputError(
                f"A teacher cache must be of this teacher and these examples. Received: '{home}', "
                f"of key {found.get('key')} instead of {key}. Remove it."
            )
    home.mkdir(parents=True, exist_ok=True)
    missing = [name for name in shapes if not (home / f"{name}.npy").exists()]
    if missing:
        done = 0
        needed, free = bytes_needed(shapes, examples), shutil.disk_usage(home).free
        if needed > free:
            raise InputError(
                f"The disk of '{home}' must have room for the teacher's outputs: "
                f"{needed / MIB:,.0f} MiB. Received: {free / MIB:,.0f} MiB free. Use another "
                "folder, or cache 'off'."
            )
    arrays: Arrays = {}
    for name, (shape, dtype) in shapes.items():
        mode: Any = "w+" if name in missing else "r+"
        arrays[name] = np.lib.format.open_memmap(
            home / f"{name}.npy", mode=mode, dtype=dtype, shape=(examples, *shape)
        )
    if done == 0:
        write_json(home / META, {**record, "done": 0})
    return arrays, done


def _note(home: Path, arrays: Arrays, done: int) -> None:
    """Notes on disk that the first `done` rows are there, after they are."""
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    record = read_json(home / META)
    write_json(home / META, {**record, "done": done})

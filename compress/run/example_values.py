"""The main metric of exported files by example, kept to compare files on the same examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.core.arrays import opened
from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from compress.core.statistics import Floats
from compress.run.directory import RunFolder

PARTS = ("val", "test")


def write_example_values(folder: RunFolder, file: str, part: str, values: Floats) -> None:
    """Keep the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file: "0005.int8".
        part: "val" or "test".
        values: See `compress.data.tasks.Task.example_values`, (n,).
    """
    with replacing(_path(folder, file, part)) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, values=values)


def read_example_values(folder: RunFolder, file: str, part: str) -> Floats | None:
    """Return the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file.
        part: "val" or "test".

    Returns:
        (n,); None where none were kept, as in folders of older versions.

    Raises:
        InputError: What was kept is damaged.
    """
    path = _path(folder, file, part)
    if not path.is_file():
        return None
    with opened(path) as archive:
        values = archive.read(("values",)).get("values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise InputError(
            f"'{path}' must hold a number for each example. Received: something else. Remove it to "
            "go on without intervals of differences."
        )
    return values


def _path(folder: RunFolder, file: str, part: str) -> Path:
    return folder.exports / "examples" / f"{file}.{part}.npz"

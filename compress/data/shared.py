"""Large data sets once in memory for all processes of a run: mapped from files.

Each worker would load the source for itself, and hold it. Instead the run's process writes
the parts as they are after splitting, and every process maps these files: the system holds
their pages once. Small data sets are not worth it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays, named
from compress.core.atomic_files import read_json, write_json
from compress.data._base import Dataset
from compress.data.parts import SPLITS, Output, Split
from compress.data.preprocessing import Preprocessing

LEAST_BYTES = 32 * 2**20
"""Examples that take less are loaded by each process for itself."""
_ABOUT = "about.json"


@contextmanager
def shared(
    data: Dataset, place: Path, *, least_bytes: int | None = None
) -> Iterator[tuple[Dataset, str]]:
    """Shares a large data set with other processes while the context lasts.

    Args:
        data: A data set; a subclass's stays as it is.
        place: A folder to make; one that a killed run has left is removed first.
        least_bytes: Examples that take less are not shared; default: `LEAST_BYTES`.

    Yields:
        The data set, mapped from files where it is shared, and why it is not, where the files
        could not be written.
    """
    shutil.rmtree(place, ignore_errors=True)
    size = sum(values.nbytes for part in SPLITS for values in arrays(data.split(part).x))
    if type(data) is not Dataset or size < (LEAST_BYTES if least_bytes is None else least_bytes):
        yield data, ""
        return
    try:
        try:
            _write(data, place)
            given, problem = open_shared(place) or data, ""
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            given, problem = data, str(error)
        del data
        yield given, problem
    finally:
        shutil.rmtree(place, ignore_errors=True)


def open_shared(place: Path, fingerprint: str = "") -> Dataset | None:
    """Opens a data set that another process shares.

    Args:
        place: Its folder.
        fingerprint: Of the data set that is wanted; "": of any.

    Returns:
        The data set; its examples are read from files when they are used. None where there is
        none, or another.
    """
    if not (place / _ABOUT).is_file():
        return None
    about = read_json(place / _ABOUT)
    if fingerprint not in ("", about.pop("fingerprint")):
        return None
    about["preprocess"] = Preprocessing.from_json(about["preprocess"])
    outputs = tuple(Output(name, kind, tuple(names)) for name, kind, names in about.pop("outputs"))
    columns = about.pop("columns")
    parts: dict[str, Any] = {part: _read(place, part, columns) for part in SPLITS}
    others: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about.items()
    }
    return Dataset(**parts, **others, outputs=outputs)


def files_of(place: Path) -> list[Path]:
    """Returns the files of a shared data set, none where there is none.

    The last one says that all are there: whoever copies them copies it last.
    """
    if not (place / _ABOUT).is_file():
        return []
    return [*sorted(place.glob("*.npy")), place / _ABOUT]


def _write(data: Dataset, place: Path) -> None:
    place.mkdir(parents=True)
    for part in SPLITS:
        split = data.split(part)
        for name in ("x", "y", "weight"):
            held = getattr(split, name)
            for number, (_, array) in enumerate(named(held) if held is not None else ()):
                np.save(_file(place, part, name, number), np.ascontiguousarray(array))
    others = {
        field.name: getattr(data, field.name)
        for field in fields(Dataset)
        if field.name not in (*SPLITS, "compiled")
    }
    outputs = [(item.name, item.kind, item.class_names) for item in data.outputs]
    columns = {name: [key for key, _ in named(getattr(data.train, name))] for name in ("x", "y")}
    about = {
        **others,
        "preprocess": data.preprocess.to_json(),
        "outputs": outputs,
        "columns": columns,
        "fingerprint": data.fingerprint(),
    }
    # last: without it there is nothing to open
    write_json(place / _ABOUT, about)


def _read(place: Path, part: str, columns: dict[str, list[str]]) -> Split:
    weight = _small(_file(place, part, "weight", 0))
    y = [_small(_file(place, part, "y", number)) for number in range(len(columns["y"]))]
    # "c": nothing is written, but TensorFlow takes no array that says it is read-only
    x = [
        np.load(_file(place, part, "x", number), mmap_mode="c")
        for number in range(len(columns["x"]))
    ]
    return Split(_named(columns["x"], x), _named(columns["y"], y), weight)


def _named(names: list[str], arrays: list[Any]) -> Any:
    """Returns the only array, or arrays by name."""
    return arrays[0] if names == [""] else dict(zip(names, arrays, strict=True))


def _small(path: Path) -> npt.NDArray[Any] | None:
    return np.load(path) if path.exists() else None


def _file(place: Path, part: str, name: str, number: int) -> Path:
    return place / f"{part}-{name}{number or ''}.npy"

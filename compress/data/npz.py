"""Files of NumPy arrays (.npz): x_train and y_train; optional parts, weights and class_names.

Of models with several inputs or outputs an array each, behind a slash: x_train/image, y_train/box.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.core.arrays import opened
from compress.core.errors import InputError
from compress.data.kinds import Asked, Kind, raw_data
from compress.data.meaning import texts
from compress.data.parts import SPLITS, Array, RawData, Split

_WANTED = (
    *(f"{role}_{part}" for part in SPLITS for role in ("x", "y", "weight")),
    "class_names",
)


def load(source: str, asked: Asked) -> RawData:
    """Read the arrays of known names without unpickling anything.

    Args:
        source: The file.
        asked: What its labels mean, and the model's head; see `compress.data.meaning`.

    Raises:
        InputError: Not an .npz file, pickled objects inside, a part is half there, lengths
            disagree, or the arrays do not fit into memory.
    """
    columns = {"group": asked.options.group_column, "time": asked.options.time_column}
    columns = {option: column for option, column in columns.items() if column}
    marks = {name for column in columns.values() for name in _marks_of(column)}
    with opened(Path(source)) as archive:
        names = archive.names
        arrays = archive.read(
            name for name in names if name.partition("/")[0] in _WANTED or name in marks
        )
    for option, column in columns.items():
        if not arrays.keys() & set(_marks_of(column)):
            raise InputError(
                f"{option}_column must name an array of '{source}': {column}_train (and "
                f"{column}_val, {column}_test where these parts are there). Received: "
                f"'{column}', where there are {', '.join(names)}."
            )
    wanted = ("x_train",) if asked.bare else ("x_train", "y_train")
    if not {name.partition("/")[0] for name in names}.intersection(wanted):
        raise InputError(
            f"'{source}' must hold {' and '.join(wanted)}. Received: "
            f"{', '.join(names) or 'nothing'}."
        )
    given = {part: _part(arrays, part, source, columns, asked.bare) for part in SPLITS}
    if given["train"] is None:
        raise InputError(f"'{source}' must hold x_train. Received: {', '.join(names)}.")
    return raw_data(given, source, asked, _class_names(arrays, source))


def _marks_of(column: str) -> list[str]:
    return [column, *(f"{column}_{part}" for part in SPLITS)]


def _mark(arrays: dict[str, Array], column: str, part: str) -> Array | None:
    """Return the groups or times of a part; the name alone is that of the training part."""
    found = arrays.get(f"{column}_{part}")
    return arrays.get(column) if found is None and part == "train" else found


def _class_names(arrays: dict[str, Array], source: str) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise InputError(
            f"class_names of '{source}' must be a vector of names. Received: shape {names.shape}, "
            f"type {names.dtype}."
        )
    return tuple(texts(names))


def _part(
    arrays: dict[str, Array], part: str, source: str, columns: dict[str, str], bare: bool
) -> Split | None:
    x, y = (_columns(arrays, f"{role}_{part}") for role in ("x", "y"))
    if x is None and y is None:
        return None
    if x is None or (y is None and not bare):
        there = f"y_{part}" if x is None else f"x_{part}"
        remedy = "" if x is None else (
            " For examples without labels give --task unlabelled, or reconstruction for an "
            "autoencoder."
        )  # fmt: skip
        raise InputError(
            f"'{source}' must hold both x_{part} and y_{part}. Received: {there}.{remedy}"
        )
    marks = {f"{option}s": _mark(arrays, column, part) for option, column in columns.items()}
    return Split(x, None, **marks) if bare else Split(x, y, arrays.get(f"weight_{part}"), **marks)


def _columns(arrays: dict[str, Array], name: str) -> Any:
    """Return an array, or arrays by what stands behind the slash; None: there are none."""
    if name in arrays:
        return arrays[name]
    found = {key.partition("/")[2]: value for key, value in arrays.items()
             if key.startswith(f"{name}/")}  # fmt: skip
    return found or None


KIND = Kind(load, ("group_column", "time_column"))

"""Files of NumPy arrays (.npz): x_train and y_train; optional parts, weights and class_names.

Models with several inputs or outputs have one array for each, named after a slash: x_train/image,
y_train/box.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.core.arrays import open_npz
from compress.core.errors import InputError
from compress.data.kinds import Kind, ReadRequest, build_raw_data
from compress.data.label_inference import decode_names
from compress.data.parts import SPLITS, Array, RawData, Split

_ARRAY_NAMES = (
    *(f"{role}_{part}" for part in SPLITS for role in ("x", "y", "weight")),
    "class_names",
)


def load_npz(source: str, request: ReadRequest) -> RawData:
    """Read the arrays with known names, without unpickling.

    Args:
        source: The file.
        request: Request with the kind of task and the model's head; see
            `compress.data.label_inference`.

    Raises:
        InputError: The file is not an .npz file, contains pickled objects, or lacks the x or y of a
            part; lengths disagree; or the arrays do not fit into memory.
    """
    columns = {"group": request.options.group_column, "time": request.options.time_column}
    columns = {option: column for option, column in columns.items() if column}
    column_names = {name for column in columns.values() for name in _list_column_names(column)}
    with open_npz(Path(source)) as archive:
        names = archive.names
        arrays = archive.read_arrays(
            name for name in names if name.partition("/")[0] in _ARRAY_NAMES or name in column_names
        )
    for option, column in columns.items():
        if not arrays.keys() & set(_list_column_names(column)):
            raise InputError(
                f"{option}_column must name an array of '{source}': {column}_train (and "
                f"{column}_val, {column}_test where these parts are there). Received: "
                f"'{column}', where there are {', '.join(names)}."
            )
    required = ("x_train",) if request.ignores_labels else ("x_train", "y_train")
    if not {name.partition("/")[0] for name in names}.intersection(required):
        raise InputError(
            f"'{source}' must hold {' and '.join(required)}. Received: "
            f"{', '.join(names) or 'nothing'}."
        )
    splits = {
        part: _build_split(arrays, part, source, columns, request.ignores_labels) for part in SPLITS
    }
    if splits["train"] is None:
        raise InputError(f"'{source}' must hold x_train. Received: {', '.join(names)}.")
    return build_raw_data(splits, source, request, _read_class_names(arrays, source))


def _list_column_names(column: str) -> list[str]:
    return [column, *(f"{column}_{part}" for part in SPLITS)]


def _select_column(arrays: dict[str, Array], column: str, part: str) -> Array | None:
    """Return the groups or times of a part; a name without a suffix is the training part."""
    values = arrays.get(f"{column}_{part}")
    return arrays.get(column) if values is None and part == "train" else values


def _read_class_names(arrays: dict[str, Array], source: str) -> tuple[str, ...] | None:
    """Return the vector `class_names` as texts, or None if the file has none."""
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise InputError(
            f"class_names of '{source}' must be a vector of names. Received: shape {names.shape}, "
            f"type {names.dtype}."
        )
    return tuple(decode_names(names))


def _build_split(
    arrays: dict[str, Array], part: str, source: str, columns: dict[str, str], ignore_labels: bool
) -> Split | None:
    """Return a part of the file, None if it has neither x nor y; raise if only one is missing."""
    x, y = (_select_arrays(arrays, f"{role}_{part}") for role in ("x", "y"))
    if x is None and y is None:
        return None
    if x is None or (y is None and not ignore_labels):
        present = f"y_{part}" if x is None else f"x_{part}"
        remedy = "" if x is None else (
            " For examples without labels give --task unlabelled, or reconstruction for an "
            "autoencoder."
        )  # fmt: skip
        raise InputError(
            f"'{source}' must hold both x_{part} and y_{part}. Received: {present}.{remedy}"
        )
    groups_and_times = {
        f"{option}s": _select_column(arrays, column, part) for option, column in columns.items()
    }
    return (
        Split(x, None, **groups_and_times)
        if ignore_labels
        else Split(x, y, arrays.get(f"weight_{part}"), **groups_and_times)
    )


def _select_arrays(arrays: dict[str, Array], name: str) -> Any:
    """Return an array, or arrays by the names after the slash; None if there are none."""
    if name in arrays:
        return arrays[name]
    named_arrays = {key.partition("/")[2]: value for key, value in arrays.items()
             if key.startswith(f"{name}/")}  # fmt: skip
    return named_arrays or None


KIND = Kind(load_npz, ("group_column", "time_column"))

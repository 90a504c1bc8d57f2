"""An .npz file: x_train, y_train; x, y of val and test, weight_train, class_names if wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.core.arrays import opened
from compress.core.errors import InputError
from compress.data._base import RawData, Split
from compress.data.examples import Array, as_examples, as_labels
from compress.task import UNLABELLED

_PARTS = ("train", "val", "test")
_WANTED = (
    *(f"{role}_{part}" for part in _PARTS for role in ("x", "y", "weight")),
    "class_names",
)


def load(source: str, kind: str = "multiclass") -> RawData:
    """Reads the arrays without unpickling anything; members of other names are not looked at.

    Args:
        source: The file.
        kind: Of the task.

    Raises:
        InputError: Not an .npz file, pickled objects inside, a part is half there, lengths
            disagree, or the arrays do not fit into memory.
    """
    with opened(Path(source)) as archive:
        arrays, names = archive.read(_WANTED), archive.names
    train = _part(arrays, "train", source, kind)
    if train is None:
        wanted = "x_train" if kind == UNLABELLED else "x_train and y_train"
        raise InputError(
            f"'{source}' must hold {wanted}. Received: {', '.join(names) or 'nothing'}."
        )
    full = 255.0 if train.x.dtype == np.uint8 else 1.0
    val, test = (_part(arrays, part, source, kind) for part in ("val", "test"))
    return RawData(train, val, test, _class_names(arrays, source), full)


def _class_names(arrays: dict[str, Array], source: str) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise InputError(
            f"class_names of '{source}' must be a vector of names. Received: shape {names.shape}, "
            f"type {names.dtype}."
        )
    if names.dtype.kind == "S":
        return tuple(name.decode("utf-8", "backslashreplace") for name in names.tolist())
    return tuple(str(name) for name in names.tolist())


def _part(arrays: dict[str, Array], part: str, source: str, kind: str) -> Split | None:
    names = (f"x_{part}", f"y_{part}")
    there = tuple(name for name in names if name in arrays)
    if not there:
        return None
    if kind == UNLABELLED and names[0] in arrays:
        return Split.unlabelled(as_examples(arrays[names[0]], names[0]))
    if len(there) == 1:
        remedy = (
            " For examples without labels give --task unlabelled." if there == names[:1] else ""
        )
        raise InputError(
            f"'{source}' must hold both {' and '.join(names)}. Received: {there[0]}.{remedy}"
        )
    x, y = as_examples(arrays[names[0]], names[0]), as_labels(arrays[names[1]], names[1], kind)
    if len(x) != len(y):
        raise InputError(
            f"{' and '.join(names)} of '{source}' must have equal lengths. "
            f"Received: {len(x)} and {len(y)}."
        )
    weight = arrays.get(f"weight_{part}")
    if weight is not None and weight.dtype.kind not in "fiub":
        raise InputError(
            f"weight_{part} of '{source}' must be numbers. Received: type {weight.dtype}."
        )
    return Split(x, y, None if weight is None else weight.astype(np.float32))

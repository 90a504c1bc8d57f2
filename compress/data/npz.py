"""An .npz file: x_train, y_train; x, y of val and test, weight_train, class_names if wanted."""

from __future__ import annotations

import zipfile

import numpy as np

from compress.data._base import Array, RawData, Split, as_examples, as_labels
from compress.errors import InputError


def load(source: str, kind: str = "multiclass") -> RawData:
    """Reads the arrays without unpickling anything.

    Args:
        source: The file.
        kind: Of the task.

    Raises:
        InputError: Not an .npz file, pickled objects inside, a part is half there, or
            lengths disagree.
    """
    try:
        with np.load(source, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{source}' must be an .npz file of plain arrays, without pickled objects "
            f"({str(error).splitlines()[0]})."
        ) from None
    train = _part(arrays, "train", source, kind)
    if train is None:
        raise InputError(
            f"'{source}' must hold x_train and y_train. Received: {', '.join(arrays) or 'nothing'}."
        )
    names = tuple(str(name) for name in arrays["class_names"]) if "class_names" in arrays else None
    full = 255.0 if train.x.dtype == np.uint8 else 1.0
    val, test = (_part(arrays, part, source, kind) for part in ("val", "test"))
    return RawData(train, val, test, names, full)


def _part(arrays: dict[str, Array], part: str, source: str, kind: str) -> Split | None:
    names = (f"x_{part}", f"y_{part}")
    there = [name for name in names if name in arrays]
    if not there:
        return None
    if len(there) == 1:
        raise InputError(f"'{source}' must hold both {' and '.join(names)}. Received: {there[0]}.")
    x, y = as_examples(arrays[names[0]], names[0]), as_labels(arrays[names[1]], names[1], kind)
    if len(x) != len(y):
        raise InputError(
            f"{' and '.join(names)} of '{source}' must have equal lengths. "
            f"Received: {len(x)} and {len(y)}."
        )
    weight = arrays.get(f"weight_{part}")
    return Split(x, y, None if weight is None else weight.astype(np.float32))

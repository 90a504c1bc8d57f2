"""Hugging Face data sets, read batch by batch without scaling.

The package is not imported here: whoever has such a data set has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compress.core.errors import InputError, one_line
from compress.data.kinds import (
    ARRAY,
    DATES,
    IMAGE,
    LABEL_KINDS,
    LABELS,
    NAMES,
    NUMBER,
    OTHER,
    Field,
    Layout,
    Roles,
    roles_of,
)
from compress.data.meaning import Head, Heads, several
from compress.data.parts import Array
from compress.data.rows import Batch, parts_of_rows

NAME = "huggingface"
"""What records and folders call such data."""
AT_A_TIME = 256
"""Rows that are read at a time."""
_DROP = "drop the column (remove_columns)"
_ONE_SIZE = "Make them so with map()."
_STREAMED = ("IterableDataset", "IterableDatasetDict")
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")
"""What the modes of images begin with whose values no byte holds."""
_LISTS = ("List", "LargeList", "Sequence")
_DATES = ("timestamp", "date", "time", "duration")


def is_hugging_face(data: Any) -> bool:
    """Return whether data are a `datasets.Dataset` or `DatasetDict`, streamed or not."""
    return isinstance(data, _classes("Dataset", "DatasetDict", *_STREAMED))


def _classes(*names: str) -> tuple[type[Any], ...]:
    module = sys.modules.get("datasets")  # there may be one of the user's own of this name
    found = (getattr(module, name, None) for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def parts_of(data: Any, val: Any, test: Any) -> tuple[Any, Any, Any]:
    """Return the training, validation and test part; a `DatasetDict` has its own.

    Raises:
        InputError: It has no training part, or a part is given beside it.
    """
    if not isinstance(data, _classes("DatasetDict", "IterableDatasetDict")):
        return data, val, test
    if "train" not in data:
        raise InputError(
            f"A Hugging Face DatasetDict must have a part called train. Received: "
            f"{', '.join(map(str, data)) or 'none'}."
        )
    found = [data["train"]]
    for name, own, beside in (("val", "validation", val), ("test", "test", test)):
        if own in data and beside is not None:
            raise InputError(
                f"{name} goes with data without such a part. Received: {name} beside a "
                f"DatasetDict that has '{own}'. Give data['train']."
            )
        found.append(data.get(own, beside))
    return found[0], found[1], found[2]


def read(
    data: Any, label: Sequence[str], head: Head | Heads | None, *, needed: bool
) -> tuple[Any, ...]:
    """Read a data set to its end; what is large goes to files.

    Args:
        data: A `datasets.Dataset`.
        label: Columns of labels; (): the one that has names of classes, else the one called
            label, labels, y or target.
        head: Of the model that is fed, where there is one.
        needed: Whether there must be labels.

    Returns:
        (x, y), arrays or arrays by the names of the model's inputs and outputs; (x,) where there
        are no labels.

    Raises:
        InputError: It is streamed or has a transform, there is no label, or columns are nothing
            to feed.
    """
    layout = _layout(data)
    roles = _roles(layout, label, head, needed=needed)
    pictures = any(layout.fields[name].kind == IMAGE for name in roles.read)
    chosen = data.select_columns(list(roles.read))
    # arrays as they lie in the data set; images as Pillow has them: their modes tell the colours
    chosen = chosen.with_format(None) if pictures else chosen.with_format("numpy", dtype=None)
    held = parts_of_rows(_batches(chosen, layout), layout, roles, head, remedy=_ONE_SIZE)
    x, y = held["train"].x, held["train"].y
    return (x,) if y is None else (x, y)


def about(
    data: Any, label: Sequence[str], head: Head | Heads | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names and notes of a data set with labels.

    Args:
        data: Anything: of what is no Hugging Face data set nothing is told.
        label, head: See `read`.

    Returns:
        The names of the one label's classes, where it has some; and what a report must say.
    """
    if not is_hugging_face(data):
        return (), ()
    layout = _layout(data)
    roles = _roles(layout, label, head, needed=True)
    names = [name for group in roles.labels.values() for name in group]
    return layout.fields[names[0]].classes if len(names) == 1 else (), roles.notes


def _roles(
    layout: Layout, label: Sequence[str], head: Head | Heads | None, *, needed: bool
) -> Roles:
    readable = [name for name, held in layout.fields.items() if held.kind in LABEL_KINDS]
    outputs = several(head, "outputs")
    if outputs:
        known = set(label or outputs) <= set(readable)
    else:
        known = any(name in readable for name in label or layout.defaults)
    return roles_of(layout, label, head, bare=not (needed or known))


def _layout(data: Any) -> Layout:
    if isinstance(data, _classes(*_STREAMED)):
        raise InputError(
            f"A Hugging Face data set must be at hand. Received: {type(data).__name__}, which is "
            "streamed. Load it without streaming, or give a generator of (x, y)."
        )
    if isinstance(data, _classes("DatasetDict")):
        raise InputError(
            f"val and test must be a part each. Received: a Hugging Face DatasetDict of "
            f"{', '.join(map(str, data))}. Give one of them."
        )
    if data.format["type"] == "custom":
        raise InputError(
            "A Hugging Face data set must hold what a model is fed. Received: one with a "
            "transform. Apply it with map(), or give a generator of (x, y)."
        )
    fields = {str(name): _field(feature) for name, feature in data.features.items()}
    told = [name for name, held in fields.items() if held.classes]
    defaults = (*(told if len(told) == 1 else ()), LABELS[0], "labels", *LABELS[1:])
    return Layout(
        "the Hugging Face data set", fields, "column", _DROP, tuple(dict.fromkeys(defaults))
    )


def _field(feature: Any) -> Field:
    kind = type(feature).__name__
    if kind == "ClassLabel":
        return Field(NUMBER, classes=tuple(map(str, feature.names or ())))
    if kind == "Image":
        return Field(IMAGE)
    if kind in ("Array2D", "Array3D", "Array4D", "Array5D"):
        return Field(ARRAY)
    if kind in _LISTS or isinstance(feature, list):
        inner = feature[0] if isinstance(feature, list) else feature.feature
        held = OTHER if isinstance(inner, Mapping) else _field(inner).kind
        return Field(ARRAY) if held in (NUMBER, ARRAY) else Field(OTHER, f"lists of {held}")
    if kind != "Value":
        return Field(OTHER, kind if not isinstance(feature, Mapping) else "records")
    name = str(feature.dtype)
    if name.startswith(("int", "uint", "float", "double", "half", "bool", "decimal")):
        return Field(NUMBER)
    if name in ("string", "large_string"):
        return Field(NAMES)
    return Field(DATES if name.startswith(_DATES) else OTHER, name)


def _batches(data: Any, layout: Layout) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    done = 0
    for batch in data.iter(batch_size=AT_A_TIME):
        count = len(next(iter(batch.values())))
        rows = [f"row {done + place:,}" for place in range(1, count + 1)]
        held = {name: _values(values, name, layout, rows) for name, values in batch.items()}
        yield "train", held, rows
        done += count


def _values(values: Any, name: str, layout: Layout, rows: Sequence[str]) -> Any:
    """Return a column as an array; where a value is missing it is NaN or None."""
    kind = layout.fields[name].kind
    if kind == IMAGE:
        return [
            None if image is None else _pixels(image, name, row)
            for image, row in zip(values, rows, strict=True)
        ]
    if kind == NAMES:
        return np.array(list(values), object)
    if isinstance(values, list) and None in values and kind == NUMBER:
        values = [np.nan if value is None else value for value in values]
    try:
        held = np.asarray(values)
    except ValueError:  # lists of several lengths
        held = np.empty(len(rows), object)
    if held.dtype.kind not in "fiub":
        raise InputError(
            f"Column '{name}' of {layout.where} must hold {kind} of one length, none missing. "
            f"Received: others in {rows[0]} to {rows[-1].removeprefix('row ')}. Pad or cut them "
            "with map()."
        )
    return held


def _pixels(image: Any, name: str, row: str) -> Array:
    mode = image.mode
    if mode.startswith(_DEEP):
        raise InputError(
            f"Images of column '{name}' must have 8 bits a channel. Received: mode "
            f"{one_line(mode)} in {row}. {_ONE_SIZE}"
        )
    values = np.asarray(image.convert("L" if mode in _GREY else "RGB"))
    return values[..., np.newaxis] if values.ndim == 2 else values

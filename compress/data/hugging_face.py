"""Hugging Face data sets, read batch by batch without scaling.

The `datasets` package is not imported here: a caller with such a data set has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compress.core.errors import InputError, to_one_line
from compress.data.kinds import (
    ARRAY,
    DATES,
    IMAGE,
    LABEL_KINDS,
    LABEL_NAMES,
    NAMES,
    NUMBER,
    OTHER,
    Field,
    Layout,
    Roles,
    assign_roles,
)
from compress.data.label_inference import Head, Heads, list_port_names
from compress.data.parts import Array
from compress.data.rows import Batch, collect_parts

SOURCE_NAME = "huggingface"
"""Name of such data in records and folders."""
BATCH_SIZE = 256
"""Number of rows read at a time."""
_DROP_REMEDY = "drop the column (remove_columns)"
_SIZE_REMEDY = "Make them so with map()."
_STREAMED_CLASSES = ("IterableDataset", "IterableDatasetDict")
_GREY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F")
"""First letters of Pillow modes with more than 8 bits per channel."""
_LIST_FEATURES = ("List", "LargeList", "Sequence")
_DATE_TYPES = ("timestamp", "date", "time", "duration")


def is_hugging_face(data: Any) -> bool:
    """Return whether data are a `datasets.Dataset` or `DatasetDict`, streamed or not."""
    return isinstance(data, _find_classes("Dataset", "DatasetDict", *_STREAMED_CLASSES))


def _find_classes(*names: str) -> tuple[type[Any], ...]:
    module = sys.modules.get("datasets")  # could be a module of the user's with this name
    members = (getattr(module, name, None) for name in names)
    return tuple(kind for kind in members if isinstance(kind, type))


def select_parts(data: Any, val: Any, test: Any) -> tuple[Any, Any, Any]:
    """Return the training, validation and test parts, from a `DatasetDict` if there is one.

    Args:
        data: A `DatasetDict` with parts, or a training part.
        val: Validation part of data without one; None: none.
        test: Test part of data without one; None: none.

    Raises:
        InputError: The `DatasetDict` has no training part, or a part is passed in addition to its
            own.
    """
    if not isinstance(data, _find_classes("DatasetDict", "IterableDatasetDict")):
        return data, val, test
    if "train" not in data:
        raise InputError(
            f"A Hugging Face DatasetDict must have a part called train. Received: "
            f"{', '.join(map(str, data)) or 'none'}."
        )
    parts = [data["train"]]
    for name, part_key, part_data in (("val", "validation", val), ("test", "test", test)):
        if part_key in data and part_data is not None:
            raise InputError(
                f"{name}= must be left out of a DatasetDict with such a part. Received: {name}= "
                f"beside its '{part_key}'. Leave {name}= out, or give data['train'] with it."
            )
        parts.append(data.get(part_key, part_data))
    return parts[0], parts[1], parts[2]


def read_hugging_face(
    data: Any, label: Sequence[str], head: Head | Heads | None, *, require_labels: bool
) -> tuple[Any, ...]:
    """Read a whole data set; large arrays are stored in files.

    Args:
        data: A `datasets.Dataset`.
        label: Label columns; (): the only column with class names, else the first of label, labels,
            y and target that exists.
        head: Head of the model that is fed, if there is one.
        require_labels: Whether there must be labels.

    Returns:
        (x, y), arrays or arrays by the names of the model's inputs and outputs; (x,) if there are
        no labels.

    Raises:
        InputError: The data set is streamed or has a transform, there is no label, or columns have
            types that cannot be model inputs.
    """
    layout = _read_layout(data)
    roles = _assign_roles(layout, label, head, require_labels=require_labels)
    has_images = any(layout.fields[name].kind == IMAGE for name in roles.used_fields)
    selected = data.select_columns(list(roles.used_fields))
    # images stay Pillow images: their modes give the number of channels
    selected = (
        selected.with_format(None) if has_images else selected.with_format("numpy", dtype=None)
    )
    splits = collect_parts(
        _iter_batches(selected, layout), layout, roles, head, remedy=_SIZE_REMEDY
    )
    x, y = splits["train"].x, splits["train"].y
    return (x,) if y is None else (x, y)


def describe_labels(
    data: Any, label: Sequence[str], head: Head | Heads | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names and notes of a data set with labels.

    Args:
        data: Any data; the result is empty if they are not a Hugging Face data set.
        label: Label columns; see `read_hugging_face`.
        head: Head of the model that is fed; see `read_hugging_face`.

    Returns:
        The class names if there is one label column with class names, else (); and notes for
        reports.
    """
    if not is_hugging_face(data):
        return (), ()
    layout = _read_layout(data)
    roles = _assign_roles(layout, label, head, require_labels=True)
    names = [name for group in roles.labels.values() for name in group]
    return layout.fields[names[0]].classes if len(names) == 1 else (), roles.notes


def _assign_roles(
    layout: Layout, label: Sequence[str], head: Head | Heads | None, *, require_labels: bool
) -> Roles:
    """Return the columns' roles; optional labels are ignored unless readable columns hold them."""
    readable = [name for name, field in layout.fields.items() if field.kind in LABEL_KINDS]
    outputs = list_port_names(head, "outputs")
    if outputs:
        has_labels = set(label or outputs) <= set(readable)
    else:
        has_labels = any(name in readable for name in label or layout.defaults)
    return assign_roles(layout, label, head, ignore_labels=not (require_labels or has_labels))


def _read_layout(data: Any) -> Layout:
    """Return the columns and default label names; refuse streams, DatasetDicts and transforms."""
    if isinstance(data, _find_classes(*_STREAMED_CLASSES)):
        raise InputError(
            f"A Hugging Face data set must be at hand. Received: {type(data).__name__}, which is "
            "streamed. Load it without streaming, or give a generator of (x, y)."
        )
    if isinstance(data, _find_classes("DatasetDict")):
        raise InputError(
            f"val and test must be a part each. Received: a Hugging Face DatasetDict of "
            f"{', '.join(map(str, data))}. Give one of them."
        )
    if data.format["type"] == "custom":
        raise InputError(
            "A Hugging Face data set must hold what a model is fed. Received: one with a "
            "transform. Apply it with map(), or give a generator of (x, y)."
        )
    fields = {str(name): _infer_field(feature) for name, feature in data.features.items()}
    class_fields = [name for name, field in fields.items() if field.classes]
    defaults = (
        *(class_fields if len(class_fields) == 1 else ()),
        LABEL_NAMES[0],
        "labels",
        *LABEL_NAMES[1:],
    )
    return Layout(
        "the Hugging Face data set", fields, "column", _DROP_REMEDY, tuple(dict.fromkeys(defaults))
    )


def _infer_field(feature: Any) -> Field:
    """Return the kind of content of a feature; `OTHER` if it is not supported."""
    kind = type(feature).__name__
    if kind == "ClassLabel":
        return Field(NUMBER, classes=tuple(map(str, feature.names or ())))
    if kind == "Image":
        return Field(IMAGE)
    if kind in ("Array2D", "Array3D", "Array4D", "Array5D"):
        return Field(ARRAY)
    if kind in _LIST_FEATURES or isinstance(feature, list):
        inner = feature[0] if isinstance(feature, list) else feature.feature
        inner_kind = OTHER if isinstance(inner, Mapping) else _infer_field(inner).kind
        return (
            Field(ARRAY)
            if inner_kind in (NUMBER, ARRAY)
            else Field(OTHER, f"lists of {inner_kind}")
        )
    if kind != "Value":
        return Field(OTHER, kind if not isinstance(feature, Mapping) else "records")
    name = str(feature.dtype)
    if name.startswith(("int", "uint", "float", "double", "half", "bool", "decimal")):
        return Field(NUMBER)
    if name in ("string", "large_string"):
        return Field(NAMES)
    return Field(DATES if name.startswith(_DATE_TYPES) else OTHER, name)


def _iter_batches(data: Any, layout: Layout) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yield ("train", columns as arrays, row names for errors) for each batch of rows."""
    rows_read = 0
    for batch in data.iter(batch_size=BATCH_SIZE):
        count = len(next(iter(batch.values())))
        rows = [f"row {rows_read + number:,}" for number in range(1, count + 1)]
        columns = {
            name: _convert_column(values, name, layout, rows) for name, values in batch.items()
        }
        yield "train", columns, rows
        rows_read += count


def _convert_column(values: Any, name: str, layout: Layout, rows: Sequence[str]) -> Any:
    """Return a column as an array; missing values are NaN or None."""
    kind = layout.fields[name].kind
    if kind == IMAGE:
        return [
            None if image is None else _read_pixels(image, name, row)
            for image, row in zip(values, rows, strict=True)
        ]
    if kind == NAMES:
        return np.array(list(values), object)
    if isinstance(values, list) and None in values and kind == NUMBER:
        values = [np.nan if value is None else value for value in values]
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(len(rows), object)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"Column '{name}' of {layout.where} must hold {kind} of one length, none missing. "
            f"Received: others in {rows[0]} to {rows[-1].removeprefix('row ')}. Pad or cut them "
            "with map()."
        )
    return array


def _read_pixels(image: Any, name: str, row: str) -> Array:
    mode = image.mode
    if mode.startswith(_DEEP_MODES):
        raise InputError(
            f"Images of column '{name}' must have 8 bits a channel. Received: mode "
            f"{to_one_line(mode)} in {row}. {_SIZE_REMEDY}"
        )
    values = np.asarray(image.convert("L" if mode in _GREY_MODES else "RGB"))
    return values[..., np.newaxis] if values.ndim == 2 else values

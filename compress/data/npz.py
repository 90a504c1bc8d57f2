"""An .npz file: x_train, y_train; x, y of val and test, weight_train, class_names if wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.core.arrays import opened
from compress.core.errors import InputError
from compress.data._base import RawData, Split
from compress.data.examples import Array, as_examples
from compress.data.meaning import Head, Meaning, meaning_of
from compress.plan.data import AUTO
from compress.task import needs_labels

_PARTS = ("train", "val", "test")
_WANTED = (
    *(f"{role}_{part}" for part in _PARTS for role in ("x", "y", "weight")),
    "class_names",
)


def load(source: str, task: str = AUTO, head: Head | None = None) -> RawData:
    """Reads the arrays without unpickling anything; members of other names are not looked at.

    Args:
        source: The file.
        task: What labels mean; AUTO: labels and head tell.
        head: Of the model that is fed and whose answers are judged, where there is one.

    Raises:
        InputError: Not an .npz file, pickled objects inside, a part is half there, lengths
            disagree, or the arrays do not fit into memory.
    """
    with opened(Path(source)) as archive:
        arrays, names = archive.read(_WANTED), archive.names
    bare = task != AUTO and not needs_labels(task)
    wanted = ("x_train",) if bare else ("x_train", "y_train")
    if not set(names).intersection(wanted):
        raise InputError(
            f"'{source}' must hold {' and '.join(wanted)}. Received: "
            f"{', '.join(names) or 'nothing'}."
        )
    rank = None if head is None else len(head.input_shape)
    given = {part: _part(arrays, part, source, bare) for part in _PARTS}
    meaning = Meaning(task)
    if not bare:
        labels = arrays["y_train"]
        _numbers_or_names(labels, "y_train")
        meaning = meaning_of(labels, head, None if task == AUTO else task)
    splits = {
        part: None if found is None else _split(found, part, meaning, rank, source)
        for part, found in given.items()
    }
    train = splits["train"]
    assert train is not None, "it was looked for"
    full = 255.0 if train.x.dtype == np.uint8 else 1.0
    classes = meaning.classes or _class_names(arrays, source)
    notes = meaning.notes if task == AUTO or meaning.classes or meaning.one_hot else ()
    return RawData(train, splits["val"], splits["test"], classes, full, notes, meaning.kind)


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


def _part(
    arrays: dict[str, Array], part: str, source: str, bare: bool
) -> tuple[Array, Array | None, Array | None] | None:
    """Returns examples, labels and weights of a part as they lie in the file."""
    names = (f"x_{part}", f"y_{part}")
    there = tuple(name for name in names if name in arrays)
    if not there:
        return None
    if bare and names[0] in arrays:
        return arrays[names[0]], None, None
    if len(there) == 1:
        remedy = (
            " For examples without labels give --task unlabelled, or reconstruction for an "
            "autoencoder." if there == names[:1] else ""
        )  # fmt: skip
        raise InputError(
            f"'{source}' must hold both {' and '.join(names)}. Received: {there[0]}.{remedy}"
        )
    return arrays[names[0]], arrays[names[1]], arrays.get(f"weight_{part}")


def _split(
    found: tuple[Array, Array | None, Array | None],
    part: str,
    meaning: Meaning,
    rank: int | None,
    source: str,
) -> Split:
    """Makes a part of what lies in the file."""
    x = as_examples(found[0], f"x_{part}", rank)
    if found[1] is None:
        return Split.unlabelled(x)
    _numbers_or_names(found[1], f"y_{part}")
    y, weight = meaning.read(found[1], f"y_{part}"), found[2]
    if len(x) != len(y):
        raise InputError(
            f"x_{part} and y_{part} of '{source}' must have equal lengths. "
            f"Received: {len(x)} and {len(y)}."
        )
    if weight is not None and weight.dtype.kind not in "fiub":
        raise InputError(
            f"weight_{part} of '{source}' must be numbers. Received: type {weight.dtype}."
        )
    return Split(x, y, None if weight is None else weight.astype(np.float32))


def _numbers_or_names(labels: Array, name: str) -> None:
    if labels.dtype.kind not in "fiubUS" or not labels.ndim:
        raise InputError(
            f"{name} must be numbers or names. Received: shape {labels.shape}, type {labels.dtype}."
        )

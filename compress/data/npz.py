"""An .npz file: x_train, y_train; x, y of val and test, weight_train, class_names if wanted.

Of models with several inputs or outputs an array each, behind a slash: x_train/image, y_train/box.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arrays import opened
from compress.core.columns import count
from compress.core.errors import InputError
from compress.data.examples import Array, as_examples
from compress.data.meaning import Head, Heads, Meaning, meaning_of
from compress.data.parts import RawData, Split
from compress.data.several import (
    Output,
    by_name,
    meanings_of,
    notes_of,
    outputs_of,
    read_with,
)
from compress.plan.data import AUTO
from compress.task import needs_labels

_PARTS = ("train", "val", "test")
_WANTED = (
    *(f"{role}_{part}" for part in _PARTS for role in ("x", "y", "weight")),
    "class_names",
)


def load(source: str, task: str = AUTO, head: Head | Heads | None = None) -> RawData:
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
        names = archive.names
        arrays = archive.read(name for name in names if name.partition("/")[0] in _WANTED)
    bare = not (task == AUTO or "=" in task or needs_labels(task))
    wanted = ("x_train",) if bare else ("x_train", "y_train")
    if not {name.partition("/")[0] for name in names}.intersection(wanted):
        raise InputError(
            f"'{source}' must hold {' and '.join(wanted)}. Received: "
            f"{', '.join(names) or 'nothing'}."
        )
    given = {part: _part(arrays, part, source, bare) for part in _PARTS}
    found = given["train"]
    if found is None:
        raise InputError(f"'{source}' must hold x_train. Received: {', '.join(names)}.")
    meaning, several = _meaning(found[1], task, head)

    def labels(y: Any, name: str) -> Any:
        if several is not None:
            return read_with(several, by_name(y, list(several), name, _numbers_or_names))
        return meaning.read(_numbers_or_names(y, name), name)

    splits = {
        part: None if item is None else _split(item, part, labels, _ranks(head), source)
        for part, item in given.items()
    }
    train = splits["train"]
    assert train is not None, "it was looked for"
    outputs: tuple[Output, ...] = ()
    if several is not None:
        outputs = outputs_of(several, lambda name: int(train.y[name].max()) + 1)
    plain = not isinstance(train.x, dict) and train.x.dtype == np.uint8
    classes = tuple(item.name for item in outputs) or meaning.classes
    told = task == AUTO or meaning.classes or meaning.one_hot or outputs
    return RawData(
        train,
        splits["val"],
        splits["test"],
        classes or _class_names(arrays, source),
        255.0 if plain else 1.0,
        meaning.notes if told else (),
        meaning.kind,
        outputs,
    )


def _meaning(
    y: Any, task: str, head: Head | Heads | None
) -> tuple[Meaning, dict[str, Meaning] | None]:
    """Tells what labels mean, and of several outputs those of each."""
    if y is None:
        return Meaning(task), None
    if not isinstance(y, dict):
        one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
        if isinstance(head, Heads) and len(head.outputs) > 1:
            names = ", ".join(f"y_train/{name}" for name in head.outputs)
            raise InputError(f"y_train must be an array an output: {names}. Received: one array.")
        said = None if task == AUTO else task
        return meaning_of(_numbers_or_names(y, "y_train"), one, said), None
    heads: dict[str, Head | None] = dict.fromkeys(y)
    if isinstance(head, Heads):
        y, heads = by_name(y, list(head.outputs), "y_train", _numbers_or_names), head.outputs
    found = meanings_of(y, heads, task)
    return Meaning("several", notes=notes_of(found)), found


def _ranks(head: Head | Heads | None) -> dict[str, int]:
    """Returns how many axes an example of each input has; of the only one under ""."""
    if head is None:
        return {}
    if isinstance(head, Heads):
        ranks = {name: len(shape) for name, shape in head.inputs.items()}
        return {"": next(iter(ranks.values())), **ranks}
    return {"": len(head.input_shape)}


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


Held = tuple[Any, Any, Array | None]
"""Examples, labels and weights of a part as they lie in the file."""


def _part(arrays: dict[str, Array], part: str, source: str, bare: bool) -> Held | None:
    """Returns a part as it lies in the file; None: it is not there."""
    x, y = (_columns(arrays, f"{role}_{part}") for role in ("x", "y"))
    if x is None and y is None:
        return None
    if bare and x is not None:
        return x, None, None
    if x is None or y is None:
        there = f"y_{part}" if x is None else f"x_{part}"
        remedy = "" if x is None else (
            " For examples without labels give --task unlabelled, or reconstruction for an "
            "autoencoder."
        )  # fmt: skip
        raise InputError(
            f"'{source}' must hold both x_{part} and y_{part}. Received: {there}.{remedy}"
        )
    return x, y, arrays.get(f"weight_{part}")


def _columns(arrays: dict[str, Array], name: str) -> Any:
    """Returns an array, or arrays by what stands behind the slash; None: there are none."""
    if name in arrays:
        return arrays[name]
    found = {key.partition("/")[2]: value for key, value in arrays.items()
             if key.startswith(f"{name}/")}  # fmt: skip
    return found or None


def _split(
    found: Held, part: str, labels: Callable[[Any, str], Any], ranks: dict[str, int], source: str
) -> Split:
    """Makes a part of what lies in the file."""
    given, y, weight = found
    if isinstance(given, dict):
        x: Any = {
            name: as_examples(values, f"x_{part}/{name}", ranks.get(name))
            for name, values in given.items()
        }
    else:
        x = as_examples(given, f"x_{part}", ranks.get(""))
    if y is None:
        return Split.unlabelled(x)
    read = labels(y, f"y_{part}")
    if count(x) != count(read):
        raise InputError(
            f"x_{part} and y_{part} of '{source}' must have equal lengths. "
            f"Received: {count(x)} and {count(read)}."
        )
    if weight is not None and weight.dtype.kind not in "fiub":
        raise InputError(
            f"weight_{part} of '{source}' must be numbers. Received: type {weight.dtype}."
        )
    return Split(x, read, None if weight is None else weight.astype(np.float32))


def _numbers_or_names(labels: Any, name: str) -> Array:
    if isinstance(labels, dict) or labels.dtype.kind not in "fiubUS" or not labels.ndim:
        received = (
            f"arrays {', '.join(labels)}" if isinstance(labels, dict)
            else f"shape {labels.shape}, type {labels.dtype}"
        )  # fmt: skip
        raise InputError(f"{name} must be numbers or names. Received: {received}.")
    array: Array = labels
    return array

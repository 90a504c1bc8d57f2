"""What reads sources: kinds of readers, and the arrays that they hold as data with labels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.columns import count
from compress.core.errors import InputError
from compress.data.meaning import (
    Head,
    Heads,
    Meaning,
    by_name,
    class_names_of,
    first_shape,
    meaning_of,
    several,
)
from compress.data.parts import Array, Output, RawData, Split, as_examples, put_marks
from compress.data.tasks import needs_labels
from compress.plan import DataOptions
from compress.plan.data import AUTO


@dataclass(frozen=True)
class Asked:
    """What a source is read for.

    Attributes:
        options: Name the source, and say what its labels mean.
        head: Of the model that is fed and whose answers are judged, where there is one.
    """

    options: DataOptions
    head: Head | Heads | None = None

    @property
    def bare(self) -> bool:
        """Whether labels are not looked at."""
        return not self.options.told and not needs_labels(self.options.task)


@dataclass(frozen=True)
class Kind:
    """One kind of source: a line in a table of `compress.plugins` names it.

    Attributes:
        load: (source, what it is read for) -> what it holds.
        takes: Options of the plan that go with it and not with every source: "label", "resize",
            "group_column", "time_column".
        of_classes: Its labels are classes, whatever is asked for.
        holds: Of folders: tells whether one is of this kind.
    """

    load: Callable[[str, Asked], RawData]
    takes: tuple[str, ...] = ()
    of_classes: bool = False
    holds: Callable[[Path], bool] = lambda _: False


def ending(name: str) -> str:
    """Returns how a file's name ends, as tables of kinds have it.

    Example:
        >>> ending("a.CSV"), ending("b.tfrecord.gz"), ending("c-train.tfrecord-00000-of-00002")
        ('csv', 'tfrecord', 'tfrecord')
    """
    _, dot, last = name.lower().removesuffix(".gz").rpartition(".")
    return last.partition("-")[0] if dot else ""


def raw_data(
    given: Mapping[str, Split | tuple[Any, Any, Array | None] | None],
    source: str,
    asked: Asked,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Makes a source's data of arrays.

    Args:
        given: Parts by name: "train", and where they are there "val" and "test"; labels as the
            source has them, None where they are not looked at. Tuples are taken as the fields of
            `Split`.
        source: For errors.
        asked: What they are read for.
        class_names: One name a class, where the file tells them.
        notes: What was left out or changed on the way.

    Raises:
        InputError: Lengths disagree, arrays are of another kind or shape, or do not fit the head.
    """
    held = {part: Split(*item) if isinstance(item, tuple) else item for part, item in given.items()}
    train, task, head = held["train"], asked.options.task, asked.head
    assert train is not None, "whoever reads a source looks for it"
    if train.y is None:
        meaning = Meaning(task)
    else:
        outputs = several(head, "outputs")
        if outputs and not isinstance(train.y, dict):
            names = ", ".join(f"y_train/{name}" for name in outputs)
            raise InputError(f"y_train must be an array an output: {names}. Received: one array.")
        if isinstance(train.y, dict):
            outputs = [*head.outputs] if isinstance(head, Heads) else [*train.y]
        y = _check_labels(train.y, outputs, "y_train")
        meaning = meaning_of(y, head, None if task == AUTO else task)
    shapes = {"": first_shape(head), **({} if head is None else head.inputs)}

    def examples(x: Any, part: str) -> Any:
        if not isinstance(x, dict):
            return as_examples(x, f"x_{part}", shapes[""])
        return {
            name: as_examples(values, f"x_{part}/{name}", shapes.get(name))
            for name, values in x.items()
        }

    return read_parts(held, meaning, source, examples, class_names, notes)


def read_parts(
    held: Mapping[str, Split | None],
    meaning: Meaning,
    source: str,
    examples: Callable[[Any, str], Any],
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Makes data of arrays by what their labels mean.

    Args:
        held: Parts by name, "train" among them.
        meaning: Of the labels; those of several outputs are arrays by their names.
        source, class_names, notes: See `raw_data`.
        examples: (x, name of the part) -> the examples as a data set holds them.
    """
    splits = {
        part: None if item is None else _read_part(item, part, meaning, source, examples)
        for part, item in held.items()
    }
    train = splits["train"]
    assert train is not None, "it was looked for"
    outputs = tuple(
        Output(name, own.kind, class_names_of(own, train.y[name]))
        for name, own in meaning.each.items()
    )
    of_bytes = not isinstance(train.x, dict) and train.x.dtype == np.uint8
    return RawData(
        train,
        splits.get("val"),
        splits.get("test"),
        tuple(item.name for item in outputs) or meaning.classes or class_names,
        255.0 if of_bytes else 1.0,
        (*notes, *meaning.notes),
        meaning.kind,
        outputs,
    )


def _read_part(
    held: Split, part: str, meaning: Meaning, source: str, examples: Callable[[Any, str], Any]
) -> Split:
    x = examples(held.x, part)
    if held.y is None:
        split = Split.unlabelled(x)
    else:
        y = meaning.read(_check_labels(held.y, [*meaning.each], f"y_{part}"), f"y_{part}")
        if count(x) != count(y):
            raise InputError(
                f"x_{part} and y_{part} of '{source}' must have equal lengths. "
                f"Received: {count(x)} and {count(y)}."
            )
        weight = held.weight
        if weight is not None and weight.dtype.kind not in "fiub":
            raise InputError(
                f"weight_{part} of '{source}' must be numbers. Received: type {weight.dtype}."
            )
        split = Split(x, y, None if weight is None else weight.astype(np.float32))
    return put_marks(split, held.groups, held.times, part, source)


def _check_labels(labels: Any, outputs: list[str], name: str) -> Any:
    """Check that labels are numbers or names; return those of several outputs in their order."""
    if outputs:
        return by_name(labels, outputs, name, _numbers_or_names)
    return _numbers_or_names(labels, name)


def _numbers_or_names(labels: Any, name: str) -> Array:
    if isinstance(labels, dict) or labels.dtype.kind not in "fiubUS" or not labels.ndim:
        received = (
            f"arrays {', '.join(labels)}" if isinstance(labels, dict)
            else f"shape {labels.shape}, type {labels.dtype}"
        )  # fmt: skip
        raise InputError(f"{name} must be numbers or names. Received: {received}.")
    array: Array = labels
    return array

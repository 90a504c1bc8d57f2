"""What reads sources: kinds of readers, and the arrays that they hold as data with labels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arrays import count
from compress.core.errors import InputError
from compress.data.meaning import (
    Head,
    Heads,
    Meaning,
    by_name,
    meaning_of,
    meanings_of,
    notes_of,
    only_head,
    outputs_of,
    read_with,
)
from compress.data.parts import Array, Marks, Output, RawData, Split, as_examples
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


@dataclass(frozen=True)
class Held:
    """What a file holds of a part.

    Attributes:
        x: Examples.
        y: Labels; None: they are not looked at.
        weight: One number an example; None: they count alike.
        groups: What is kept in one part, (n,); None: nothing is.
        times: What parts are split by, (n,): numbers, dates or texts of dates; None: nothing.
    """

    x: Any
    y: Any
    weight: Array | None = None
    groups: Array | None = None
    times: Array | None = None


def raw_data(
    given: Mapping[str, Held | tuple[Any, Any, Array | None] | None],
    source: str,
    asked: Asked,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Makes a source's data of arrays.

    Args:
        given: Parts by name: "train", and where they are there "val" and "test"; tuples are taken
            as the first fields of `Held`.
        source: For errors.
        asked: What they are read for.
        class_names: One name a class, where the file tells them.
        notes: What was left out or changed on the way.

    Raises:
        InputError: Lengths disagree, arrays are of another kind or shape, or do not fit the head.
    """
    held = {part: Held(*item) if isinstance(item, tuple) else item for part, item in given.items()}
    found = held["train"]
    assert found is not None, "whoever reads a source looks for it"
    task, head = asked.options.task, asked.head
    meaning, several = _meaning(found.y, task, head)

    def labels(y: Any, name: str) -> Any:
        if several is not None:
            return read_with(several, by_name(y, list(several), name, _numbers_or_names))
        return meaning.read(_numbers_or_names(y, name), name)

    splits = {
        part: None if item is None else _split(item, part, labels, _ranks(head), source)
        for part, item in held.items()
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
        splits.get("val"),
        splits.get("test"),
        classes or class_names,
        255.0 if plain else 1.0,
        (*notes, *(meaning.notes if told else ())),
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
        if isinstance(head, Heads) and len(head.outputs) > 1:
            names = ", ".join(f"y_train/{name}" for name in head.outputs)
            raise InputError(f"y_train must be an array an output: {names}. Received: one array.")
        said = None if task == AUTO else task
        return meaning_of(_numbers_or_names(y, "y_train"), only_head(head), said), None
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


def _split(
    found: Held, part: str, labels: Callable[[Any, str], Any], ranks: dict[str, int], source: str
) -> Split:
    """Makes a part of what lies in the file."""
    given, y, weight = found.x, found.y, found.weight
    marks = Marks(found.groups, found.times)
    if isinstance(given, dict):
        x: Any = {
            name: as_examples(values, f"x_{part}/{name}", ranks.get(name))
            for name, values in given.items()
        }
    else:
        x = as_examples(given, f"x_{part}", ranks.get(""))
    if y is None:
        return marks.put_on(Split.unlabelled(x), part, source)
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
    weights = None if weight is None else weight.astype(np.float32)
    return marks.put_on(Split(x, read, weights), part, source)


def _numbers_or_names(labels: Any, name: str) -> Array:
    if isinstance(labels, dict) or labels.dtype.kind not in "fiubUS" or not labels.ndim:
        received = (
            f"arrays {', '.join(labels)}" if isinstance(labels, dict)
            else f"shape {labels.shape}, type {labels.dtype}"
        )  # fmt: skip
        raise InputError(f"{name} must be numbers or names. Received: {received}.")
    array: Array = labels
    return array

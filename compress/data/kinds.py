"""Kinds of sources, the roles of their columns and features, and arrays as data.

Columns of tables and features of records are inputs, labels, weights or parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    class_names_of,
    first_shape,
    meaning_of,
    several,
)
from compress.data.parts import Array, Output, RawData, Split, as_examples, put_marks
from compress.data.tasks import needs_labels
from compress.plan import DataOptions
from compress.plan.data import AUTO

LABELS = ("label", "y", "target")
"""Names of the label where none is said, the first that there is."""
NUMBER = "numbers"
ARRAY = "lists of numbers"
IMAGE = "images"
NAMES = "names"
DATES = "dates"
OTHER = "other things"
LABEL_KINDS = (NUMBER, ARRAY, NAMES)
"""What labels may be."""
_FED = (NUMBER, ARRAY, IMAGE)
_REMEDIES = {
    NAMES: "Encode them as numbers, or ",
    DATES: "Make numbers of them (days since a day, the month), or ",
    OTHER: "Make numbers or lists of numbers of them, or ",
}
_LISTED = 12
"""Names that an error lists."""


@dataclass(frozen=True)
class Asked:
    """A request to read a source: options of the plan, and the model's head.

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
    """Return the ending of a file's name, as tables of kinds have it.

    Example:
        >>> ending("a.CSV"), ending("b.tfrecord.gz"), ending("c-train.tfrecord-00000-of-00002")
        ('csv', 'tfrecord', 'tfrecord')
    """
    _, dot, last = name.lower().removesuffix(".gz").rpartition(".")
    return last.partition("-")[0] if dot else ""


@dataclass(frozen=True)
class Field:
    """The content of one column or feature.

    Attributes:
        kind: One of the kinds above.
        shown: What errors show of it: a value, or its type.
        classes: Names of the classes that its numbers are indices of.
    """

    kind: str
    shown: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The columns or features of a source.

    Attributes:
        where: As errors call the source.
        fields: By name, in the source's order.
        noun: What one is called: "column" or "feature".
        remedy: How one is left out.
        defaults: Names of the label where none is said.
        weight: Name of the examples' weights; "": there are none.
        split: Name of what says which part a row belongs to; "": nothing does.
    """

    where: str
    fields: Mapping[str, Field]
    noun: str = "column"
    remedy: str = "drop the column"
    defaults: tuple[str, ...] = LABELS
    weight: str = ""
    split: str = ""

    @property
    def begins(self) -> str:
        """The source's name at the beginning of a sentence."""
        return self.where[:1].upper() + self.where[1:]


@dataclass(frozen=True)
class Roles:
    """The roles of fields: inputs, labels, weights, groups, times and parts.

    Attributes:
        inputs: Fields by the model's input ("": the only one); several are columns of a matrix.
        labels: Fields by the model's output ("": the only one); several are columns; {}: labels
            are not looked at.
        others: Fields of what else examples have, by its name in `Split`: "weight", "groups",
            "times".
        split: Field of the parts; "": none.
        notes: What a report must say.
    """

    inputs: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    others: Mapping[str, str]
    split: str = ""
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """Every field that is read, once."""
        groups = (*self.inputs.values(), *self.labels.values(), (*self.others.values(), self.split))
        return tuple(dict.fromkeys(name for group in groups for name in group if name))


def roles_of(
    layout: Layout,
    label: Iterable[str],
    head: Head | Heads | None,
    *,
    bare: bool,
    group: str = "",
    time: str = "",
) -> Roles:
    """Return the roles of a source's fields.

    Labels are those that are named, else those by the names of a model's outputs, else the first
    of `layout.defaults`. Inputs are those by the names of a model's inputs where it has several,
    else the only image, else all others.

    Args:
        layout: What there is.
        label: Names that the user gives.
        head: Of the model that is fed, where there is one.
        bare: Whether labels are not looked at: what would be one is left out.
        group, time: Names of what is kept in one part, and of what parts are split by; "": none.

    Raises:
        InputError: There is no label, a name is not there, or an input is nothing to feed.
    """
    wanted, answers = several(head, "inputs"), several(head, "outputs")
    labels = _label_fields(layout, tuple(dict.fromkeys(label)), answers, bare)
    weight, split = (
        name if name in layout.fields and name not in (*labels, *wanted) else ""
        for name in (layout.weight, layout.split)
    )
    for option, name in (("group_column", group), ("time_column", time)):
        if name and (name not in layout.fields or name in labels):
            raise InputError(
                f"{option} must name a {layout.noun} of {layout.where} that is no label: "
                f"{_listed(layout.fields)}. Received: '{name}'."
            )
    used = (*labels, weight, split, group, time)
    others = [name for name in layout.fields if name not in used]
    inputs = _input_fields(layout, others, wanted) if wanted else {"": _together(layout, others)}
    fed = {name for columns in inputs.values() for name in columns}
    left = [name for name in others if name not in fed]
    facts = {
        f"left out of {layout.where}: {_listed(left)}": left,
        f"{layout.noun} '{weight}' of {layout.where} says how much examples count": (
            weight and not bare
        ),
        f"{layout.noun} '{split}' of {layout.where} says which part is which": split,
        f"no {layout.noun} '{group}' of one value is in two parts": group,
        f"parts are split by {layout.noun} '{time}': the latest are the test part": time,
    }
    notes = tuple(note for note, holds in facts.items() if holds)
    if bare:
        told: dict[str, tuple[str, ...]] = {}
    else:
        told = {name: (name,) for name in labels} if answers else {"": labels}
    beside = {"weight": "" if bare else weight, "groups": group, "times": time}
    return Roles(inputs, told, {what: name for what, name in beside.items() if name}, split, notes)


def raw_data(
    given: Mapping[str, Split | tuple[Any, Any, Array | None] | None],
    source: str,
    asked: Asked,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Return the data of a source from its arrays, checked and with labels read.

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
    """Return data of arrays whose labels are read as `meaning` says.

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


def _label_fields(
    layout: Layout, label: tuple[str, ...], answers: Sequence[str], bare: bool
) -> tuple[str, ...]:
    """Return the fields that are labels, in the order of a model's outputs."""
    fields, noun = layout.fields, layout.noun
    for name in label:
        if name not in fields:
            raise InputError(
                f"label must name a {noun} of {layout.where}: {_listed(fields)}. "
                f"Received: '{name}'."
            )
    if answers:
        found = label or (tuple(answers) if set(answers) <= set(fields) else ())
        if set(found) == set(answers):
            return tuple(answers)
        if not bare:
            raise InputError(
                f"label must name a {noun} of {layout.where} for each output of the model: "
                f"{', '.join(answers)}. Received: {_listed(found or fields)}."
            )
    found = label or next(((name,) for name in layout.defaults if name in fields), ())
    if not found and not bare:
        *others, last = dict.fromkeys((*LABELS, *layout.defaults))
        raise InputError(
            f"{layout.begins} must have a {noun} that is the label: {', '.join(others)} or {last}, "
            f"or the one that is named. Received: {_listed(fields)}. Give --label NAME (label=); "
            "where there is none, --task unlabelled."
        )
    for name in () if bare else found:
        kind = fields[name].kind
        if kind not in LABEL_KINDS or (len(found) > 1 and kind != NUMBER):
            rule = " where there are several" if len(found) > 1 else ", lists of them or names"
            raise InputError(
                f"Labels of {layout.where} must be numbers{rule}. Received: {_told(name, layout)}."
            )
    return found


def _input_fields(
    layout: Layout, others: Sequence[str], wanted: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    for name in wanted:
        if name not in others:
            raise InputError(
                f"{layout.begins} must have a {layout.noun} for each input of the model: "
                f"{', '.join(wanted)}. Received: {_listed(others)}."
            )
        _require_fed(layout, name)
    return {name: (name,) for name in wanted}


def _together(layout: Layout, others: Sequence[str]) -> tuple[str, ...]:
    images = [name for name in others if layout.fields[name].kind == IMAGE]
    if len(images) == 1:
        return (images[0],)
    for name in others:
        _require_fed(layout, name)
    single = [name for name in others if layout.fields[name].kind != NUMBER]
    if not others or (single and len(others) > 1):
        received = _listed(f"{name} ({layout.fields[name].kind})" for name in others)
        raise InputError(
            f"{layout.begins} must hold numbers, or one {layout.noun} of lists or images, beside "
            f"the label, for a model of one input. Received: {received or 'nothing'}. To leave "
            f"one out {layout.remedy}."
        )
    return tuple(others)


def _require_fed(layout: Layout, name: str) -> None:
    kind = layout.fields[name].kind
    if kind not in _FED:
        raise InputError(
            f"Inputs from {layout.where} must be numbers. Received: {_told(name, layout)}. "
            f"{_REMEDIES[kind]}{layout.remedy}."
        )


def _told(name: str, layout: Layout) -> str:
    held = layout.fields[name]
    return f"{layout.noun} '{name}' of {held.kind}" + (f" ({held.shown})" if held.shown else "")


def _listed(names: Iterable[str]) -> str:
    """Return names with commas; of very many the first."""
    given = list(names)
    more = f", ... ({len(given):,} in all)" if len(given) > _LISTED else ""
    return ", ".join(given[:_LISTED]) + more


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


def _numbers_or_names(labels: Any, name: str) -> Any:
    if isinstance(labels, dict) or labels.dtype.kind not in "fiubUS" or not labels.ndim:
        received = (
            f"arrays {', '.join(labels)}" if isinstance(labels, dict)
            else f"shape {labels.shape}, type {labels.dtype}"
        )  # fmt: skip
        raise InputError(f"{name} must be numbers or names. Received: {received}.")
    return labels

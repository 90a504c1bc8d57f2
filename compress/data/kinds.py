"""Kinds of sources, the roles of their columns and features, and conversion of arrays to data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arrays import count_examples
from compress.core.errors import InputError
from compress.core.summary import OnProgress, ignore_progress
from compress.data.label_inference import (
    Head,
    Heads,
    LabelFormat,
    build_class_names,
    check_labels,
    find_input_shape,
    infer_label_format,
    list_port_names,
)
from compress.data.parts import Array, Output, RawData, Split, add_groups_and_times, as_examples
from compress.data.tasks import needs_labels
from compress.plan import DataOptions
from compress.plan.data import AUTO

LABEL_NAMES = ("label", "y", "target")
"""Default names of the label, in order of preference."""
NUMBER = "numbers"
ARRAY = "lists of numbers"
IMAGE = "images"
NAMES = "names"
DATES = "dates"
OTHER = "other things"
LABEL_KINDS = (NUMBER, ARRAY, NAMES)
"""Kinds of fields that can be labels."""
_INPUT_KINDS = (NUMBER, ARRAY, IMAGE)
_REMEDIES = {
    NAMES: "Encode them as numbers, or ",
    DATES: "Make numbers of them (days since a day, the month), or ",
    OTHER: "Make numbers or lists of numbers of them, or ",
}
_MAX_LISTED = 12
"""Largest number of names that an error lists."""


@dataclass(frozen=True)
class ReadRequest:
    """A request to read a source: data options of the plan, and the model's head.

    Attributes:
        options: Data options, with the name of the source and the kind of task.
        head: Head of the model that is fed and evaluated, if there is one.
        on_progress: Called with (text, completed share) by kinds whose reading takes long.
    """

    options: DataOptions
    head: Head | Heads | None = None
    on_progress: OnProgress = ignore_progress

    @property
    def ignores_labels(self) -> bool:
        """Whether labels are ignored."""
        return not self.options.is_task_inferred and not needs_labels(self.options.task)


@dataclass(frozen=True)
class Kind:
    """One kind of source, registered in a table of `compress.plugins`.

    Attributes:
        load: Function (source, request) -> the content of the source.
        takes: Options of the plan that this kind supports and others may not: "label", "resize",
            "group_column", "time_column".
        of_classes: Whether its labels are always classes.
        holds: For folders: function that returns whether a folder is of this kind.
    """

    load: Callable[[str, ReadRequest], RawData]
    takes: tuple[str, ...] = ()
    of_classes: bool = False
    holds: Callable[[Path], bool] = lambda _: False


def parse_extension(name: str) -> str:
    """Return the extension of a file name, as used in the tables of kinds.

    Example:
        >>> names = ["a.CSV", "b.tfrecord.gz", "c-train.tfrecord-00000-of-00002"]
        >>> [parse_extension(name) for name in names]
        ['csv', 'tfrecord', 'tfrecord']
    """
    _, dot, last = name.lower().removesuffix(".gz").rpartition(".")
    return last.partition("-")[0] if dot else ""


@dataclass(frozen=True)
class Field:
    """The content of one column or feature.

    Attributes:
        kind: One of `NUMBER`, `ARRAY`, `IMAGE`, `NAMES`, `DATES` and `OTHER`.
        shown: Value or type that errors show.
        classes: Class names, where the numbers are class indices.
    """

    kind: str
    shown: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The columns or features of a source.

    Attributes:
        where: Name of the source in errors.
        fields: Fields by name, in the order of the source.
        noun: Word for a field in messages: "column" or "feature".
        remedy: Advice in errors for dropping a field.
        defaults: Default names of the label.
        weight: Name of the field with example weights; "": none.
        split: Name of the field with the part of each row; "": none.
    """

    where: str
    fields: Mapping[str, Field]
    noun: str = "column"
    remedy: str = "drop the column"
    defaults: tuple[str, ...] = LABEL_NAMES
    weight: str = ""
    split: str = ""

    @property
    def sentence_start(self) -> str:
        """The source's name, capitalized for the start of a sentence."""
        return self.where[:1].upper() + self.where[1:]


@dataclass(frozen=True)
class Roles:
    """The roles of fields: inputs, labels, weights, groups, times and parts.

    Attributes:
        inputs: Fields by the model's input ("": the only one); several fields become the columns of
            a matrix.
        labels: Fields by the model's output ("": the only one); several fields become columns; {}:
            labels are ignored.
        others: Fields of other properties of examples, by their name in `Split`: "weight",
            "groups", "times".
        split: Field with the part of each row; "": none.
        notes: Notes for reports.
    """

    inputs: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]
    others: Mapping[str, str]
    split: str = ""
    notes: tuple[str, ...] = ()

    @property
    def used_fields(self) -> tuple[str, ...]:
        """Names of all fields that are read, without duplicates."""
        groups = (*self.inputs.values(), *self.labels.values(), (*self.others.values(), self.split))
        return tuple(dict.fromkeys(name for group in groups for name in group if name))


def assign_roles(
    layout: Layout,
    label: Iterable[str],
    head: Head | Heads | None,
    *,
    ignore_labels: bool,
    group: str = "",
    time: str = "",
) -> Roles:
    """Return the roles of a source's fields.

    Labels are the fields named by the user, else those named after the model's outputs, else the
    first of `layout.defaults`. Inputs are the fields named after the model's inputs if it has
    several, else the only image, else all other fields.

    Args:
        layout: Fields of the source.
        label: Label fields named by the user.
        head: Head of the model that is fed, if there is one.
        ignore_labels: Whether labels are ignored; fields that would be labels are left out.
        group: Field whose equal values are kept in one part; "": none.
        time: Field with the times that parts are split by; "": none.

    Raises:
        InputError: There is no label, a name does not exist, or a field cannot be a model input.
    """
    input_names, output_names = list_port_names(head, "inputs"), list_port_names(head, "outputs")
    labels = _select_label_fields(layout, tuple(dict.fromkeys(label)), output_names, ignore_labels)
    weight, split = (
        name if name in layout.fields and name not in (*labels, *input_names) else ""
        for name in (layout.weight, layout.split)
    )
    for option, name in (("group_column", group), ("time_column", time)):
        if name and (name not in layout.fields or name in labels):
            raise InputError(
                f"{option} must name a {layout.noun} of {layout.where} that is no label: "
                f"{_format_names(layout.fields)}. Received: '{name}'."
            )
    non_inputs = (*labels, weight, split, group, time)
    others = [name for name in layout.fields if name not in non_inputs]
    inputs = (
        _select_input_fields(layout, others, input_names)
        if input_names
        else {"": _select_single_input(layout, others)}
    )
    input_fields = {name for columns in inputs.values() for name in columns}
    unused = [name for name in others if name not in input_fields]
    conditions = {
        f"left out of {layout.where}: {_format_names(unused)}": unused,
        f"{layout.noun} '{weight}' of {layout.where} says how much examples count": (
            weight and not ignore_labels
        ),
        f"{layout.noun} '{split}' of {layout.where} says which part is which": split,
        f"no {layout.noun} '{group}' of one value is in two parts": group,
        f"parts are split by {layout.noun} '{time}': the latest are the test part": time,
    }
    notes = tuple(note for note, holds in conditions.items() if holds)
    label_fields: dict[str, tuple[str, ...]] = {}
    if not ignore_labels:
        label_fields = {name: (name,) for name in labels} if output_names else {"": labels}
    other_fields = {"weight": "" if ignore_labels else weight, "groups": group, "times": time}
    used_others = {role: name for role, name in other_fields.items() if name}
    return Roles(inputs, label_fields, used_others, split, notes)


def build_raw_data(
    parts: Mapping[str, Split | tuple[Any, Any, Array | None] | None],
    source: str,
    request: ReadRequest,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Return checked data from the arrays of a source, with labels converted for the task.

    Args:
        parts: Parts by name: "train", and optionally "val" and "test". Labels are in the form of
            the source, or None if they are ignored. Tuples are the fields of `Split`.
        source: Name of the source, for errors.
        request: Request that the source was read for.
        class_names: One name per class, if the file has them.
        notes: Content that was dropped or changed during reading.

    Raises:
        InputError: Lengths disagree, arrays have other types or shapes, or do not fit the head.
    """
    splits = {
        part: Split(*item) if isinstance(item, tuple) else item for part, item in parts.items()
    }
    train, task, head = splits["train"], request.options.task, request.head
    assert train is not None, "whoever reads a source looks for it"
    if train.y is None:
        label_format = LabelFormat(task)
    else:
        outputs = list_port_names(head, "outputs")
        if outputs and not isinstance(train.y, dict):
            names = ", ".join(f"y_train/{name}" for name in outputs)
            raise InputError(f"y_train must be an array an output: {names}. Received: one array.")
        if isinstance(train.y, dict):
            outputs = [*head.outputs] if isinstance(head, Heads) else [*train.y]
        y = check_labels(train.y, outputs, "y_train")
        label_format = infer_label_format(y, head, None if task == AUTO else task)
    shapes = {"": find_input_shape(head), **({} if head is None else head.inputs)}

    def convert_examples(x: Any, part: str) -> Any:
        if not isinstance(x, dict):
            return as_examples(x, f"x_{part}", shapes[""])
        return {
            name: as_examples(values, f"x_{part}/{name}", shapes.get(name))
            for name, values in x.items()
        }

    return read_parts(splits, label_format, source, convert_examples, class_names, notes)


def read_parts(
    parts: Mapping[str, Split | None],
    label_format: LabelFormat,
    source: str,
    convert_examples: Callable[[Any, str], Any],
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Return data from arrays whose labels have the given format.

    Args:
        parts: Parts by name, including "train".
        label_format: Format of the labels; labels of several outputs are arrays by name.
        source: Name of the source, for errors.
        convert_examples: Function (x, name of the part) -> examples in the form of a data set.
        class_names: One name per class, if the file has them.
        notes: Content that was dropped or changed during reading.

    Raises:
        InputError: Labels have another format, or lengths disagree.
    """
    splits = {
        part: None
        if item is None
        else _read_part(item, part, label_format, source, convert_examples)
        for part, item in parts.items()
    }
    train = splits["train"]
    assert train is not None, "it was looked for"
    outputs = tuple(
        Output(name, output_format.kind, build_class_names(output_format, train.y[name]))
        for name, output_format in label_format.output_formats.items()
    )
    is_bytes = not isinstance(train.x, dict) and train.x.dtype == np.uint8
    return RawData(
        train,
        splits.get("val"),
        splits.get("test"),
        tuple(item.name for item in outputs) or label_format.class_names or class_names,
        255.0 if is_bytes else 1.0,
        (*notes, *label_format.notes),
        label_format.kind,
        outputs,
    )


def _select_label_fields(
    layout: Layout, label: tuple[str, ...], output_names: Sequence[str], ignore_labels: bool
) -> tuple[str, ...]:
    """Return the label fields, in the order of the model's outputs."""
    fields, noun = layout.fields, layout.noun
    for name in label:
        if name not in fields:
            raise InputError(
                f"label must name a {noun} of {layout.where}: {_format_names(fields)}. "
                f"Received: '{name}'."
            )
    if output_names:
        selected = label or (tuple(output_names) if set(output_names) <= set(fields) else ())
        if set(selected) == set(output_names):
            return tuple(output_names)
        if not ignore_labels:
            raise InputError(
                f"label must name a {noun} of {layout.where} for each output of the model: "
                f"{', '.join(output_names)}. Received: {_format_names(selected or fields)}."
            )
    selected = label or next(((name,) for name in layout.defaults if name in fields), ())
    if not selected and not ignore_labels:
        *others, last = dict.fromkeys((*LABEL_NAMES, *layout.defaults))
        raise InputError(
            f"{layout.sentence_start} must have a {noun} that is the label: {', '.join(others)} or "
            f"{last}, or the one that is named. Received: {_format_names(fields)}. Give --label "
            "NAME (label=); where there is none, --task unlabelled."
        )
    for name in () if ignore_labels else selected:
        kind = fields[name].kind
        if kind not in LABEL_KINDS or (len(selected) > 1 and kind != NUMBER):
            rule = " where there are several" if len(selected) > 1 else ", lists of them or names"
            raise InputError(
                f"Labels of {layout.where} must be numbers{rule}. Received: "
                f"{_describe_field(name, layout)}."
            )
    return selected


def _select_input_fields(
    layout: Layout, others: Sequence[str], input_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return each model input's field, which has its name; raise if it is missing or unusable."""
    for name in input_names:
        if name not in others:
            raise InputError(
                f"{layout.sentence_start} must have a {layout.noun} for each input of the model: "
                f"{', '.join(input_names)}. Received: {_format_names(others)}."
            )
        _require_input_kind(layout, name)
    return {name: (name,) for name in input_names}


def _select_single_input(layout: Layout, others: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a model's only input: the only image, one list, or all number fields."""
    images = [name for name in others if layout.fields[name].kind == IMAGE]
    if len(images) == 1:
        return (images[0],)
    for name in others:
        _require_input_kind(layout, name)
    single = [name for name in others if layout.fields[name].kind != NUMBER]
    if not others or (single and len(others) > 1):
        received = _format_names(f"{name} ({layout.fields[name].kind})" for name in others)
        raise InputError(
            f"{layout.sentence_start} must hold numbers, or one {layout.noun} of lists or images, "
            f"beside the label, for a model of one input. Received: {received or 'nothing'}. To "
            f"leave one out {layout.remedy}."
        )
    return tuple(others)


def _require_input_kind(layout: Layout, name: str) -> None:
    kind = layout.fields[name].kind
    if kind not in _INPUT_KINDS:
        raise InputError(
            f"Inputs from {layout.where} must be numbers. Received: "
            f"{_describe_field(name, layout)}. {_REMEDIES[kind]}{layout.remedy}."
        )


def _describe_field(name: str, layout: Layout) -> str:
    field = layout.fields[name]
    return f"{layout.noun} '{name}' of {field.kind}" + (f" ({field.shown})" if field.shown else "")


def _format_names(names: Iterable[str]) -> str:
    """Return names separated by commas; long lists are truncated."""
    listed = list(names)
    more = f", ... ({len(listed):,} in all)" if len(listed) > _MAX_LISTED else ""
    return ", ".join(listed[:_MAX_LISTED]) + more


def _read_part(
    arrays: Split,
    part: str,
    label_format: LabelFormat,
    source: str,
    convert_examples: Callable[[Any, str], Any],
) -> Split:
    """Return a part with checked labels, float32 weights, groups and times; y may be missing."""
    x = convert_examples(arrays.x, part)
    if arrays.y is None:
        split = Split.unlabelled(x)
    else:
        y = label_format.read(
            check_labels(arrays.y, [*label_format.output_formats], f"y_{part}"), f"y_{part}"
        )
        if count_examples(x) != count_examples(y):
            raise InputError(
                f"x_{part} and y_{part} of '{source}' must have equal lengths. "
                f"Received: {count_examples(x)} and {count_examples(y)}."
            )
        weight = arrays.weight
        if weight is not None and weight.dtype.kind not in "fiub":
            raise InputError(
                f"weight_{part} of '{source}' must be numbers. Received: type {weight.dtype}."
            )
        split = Split(x, y, None if weight is None else weight.astype(np.float32))
    return add_groups_and_times(split, arrays.groups, arrays.times, part, source)

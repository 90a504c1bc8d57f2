"""Arrays, tensors and streams as data: fed as they are, labels read as the model's head says.

Nothing here is scaled: what somebody hands over in Python is what their model is fed. Scaling is
found for data that are read by name or path alone (`compress.data.load_data`).
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, one_line
from compress.data._base import Dataset
from compress.data.answers import Answering, answered
from compress.data.handed_over import arrays_of, name_of, pass_notes
from compress.data.hugging_face import about, is_hugging_face, parts_of
from compress.data.leaks import check_parts
from compress.data.marks import Marks, marks_by_part
from compress.data.meaning import Head, Heads, Meaning, meaning_of
from compress.data.parts import Split
from compress.data.preprocessing import Preprocessing
from compress.data.several import (
    Output,
    answers_of,
    meanings_of,
    notes_of,
    outputs_of,
    read_with,
)
from compress.data.splitting import note_copies, split_off
from compress.data.tasks import TASKS, UNLABELLED, has_classes
from compress.data.unlabelled import Unlabelled
from compress.plan import DataOptions
from compress.plan.data import AUTO


def labelled(
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    label: Sequence[str] = (),
    head: Head | Heads | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
    groups: Any = None,
    time: Any = None,
) -> Dataset:
    """Makes a data set of arrays, a stream or a Hugging Face data set.

    Args:
        data: What `arrays_of` takes, with labels.
        val: The validation part, likewise; None: split off from `data`.
        test: The test part; None: see `test_fraction`.
        task: What labels mean; None: told from labels and head, and said in a note.
        label: Columns of a Hugging Face data set that are labels; (): see
            `compress.data.hugging_face`.
        head: Of the model that will learn or be judged. One of several outputs: labels are by
            their names, and `task` may say "name=kind,name=kind".
        seed: Of the splits.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything that is split off for the test; None: no test part.
        groups: What is kept in one part, (n,), or such arrays by part; see `Marks`.
        time: What parts are split by, likewise.

    Returns:
        The data set. Models are fed with the numbers as they are.

    Raises:
        InputError: There are no labels, they do not fit the head or the task, or see `Dataset`.
    """
    DataOptions(
        task=task if task is not None and "=" not in task else AUTO,
        val_fraction=val_fraction,
        test_fraction=test_fraction or DataOptions.test_fraction,
    )
    data, val, test = parts_of(data, val, test)
    marks = marks_by_part(groups, time)
    if task is not None and "=" not in task and TASKS[task].of_inputs:
        return _given_back(
            data, val, test, task, label, head, seed, val_fraction, test_fraction, marks
        )
    x, y, weight, name = arrays_of(data, head, label=label, needed=True)
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs; to shrink a model without labels give task='unlabelled' "
            "(or 'reconstruction', of an autoencoder)."
        )
    if isinstance(y, dict):
        return _of_outputs(
            (x, y, weight), name, (val, test), task, label, head, seed, val_fraction, test_fraction,
            pass_notes(data, x, head), marks,
        )  # fmt: skip
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    meaning = meaning_of(y, one, task)
    meaning = replace(meaning, notes=(*meaning.notes, *pass_notes(data, x, head)))

    def read(labels: Any) -> Any:
        return meaning.read(labels, "y")

    train = Split(x, read(y), weight)
    held, tested = (_part(part, read, label, head) for part in (val, test))
    known, notes = about(data, label, head)
    classes = meaning.classes or (known if has_classes(meaning.kind) else ())
    names = meaning.names or len(classes) or _count(train.y)
    told = replace(
        meaning,
        classes=classes if len(classes) == names else (),
        notes=(*notes, *meaning.notes),
    )
    return _divided(
        (train, held, tested), name, told, names, seed, val_fraction, test_fraction, marks
    )


def _of_outputs(
    given: tuple[Any, Any, Any],
    name: str,
    others: tuple[Any, Any],
    task: str | None,
    label: Sequence[str],
    head: Head | Heads | None,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
    notes: tuple[str, ...],
    marks: Mapping[str, Marks],
) -> Dataset:
    """Makes a data set of labels for several outputs."""
    x, y, weight = given
    if not isinstance(head, Heads):
        raise InputError(
            "y may have names where a model has outputs of these names. Received: "
            f"{', '.join(y)}, and {'no model' if head is None else 'a model of one output'}."
        )
    meanings = meanings_of(y, head.outputs, task or AUTO)

    def read(labels: Any) -> Any:
        return read_with(meanings, labels)

    train = Split(x, read(y), weight)
    outputs = outputs_of(meanings, lambda output: _count(train.y[output]))
    held, tested = (_part(part, read, label, head) for part in others)
    meaning = Meaning("several", notes=(*notes_of(meanings), *notes))
    return _divided(
        (train, held, tested), name, meaning, 0, seed, val_fraction, test_fraction, marks, outputs
    )


def _given_back(
    data: Any,
    val: Any,
    test: Any,
    task: str,
    label: Sequence[str],
    head: Head | Heads | None,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
    marks: Mapping[str, Marks],
) -> Dataset:
    """Makes a data set of examples that are their own labels; others are not looked at."""

    def part(given: Any) -> Split | None:
        return None if given is None else Split.unlabelled(arrays_of(given, head, label=label)[0])

    train = part(data)
    if train is None:
        raise InputError("data must hold examples. Received: None.")
    if isinstance(train.x, dict):
        raise InputError(f"A {task} task must be of one input. Received: {', '.join(train.x)}.")
    return _divided(
        (train, part(val), part(test)), name_of(data), Meaning(task), train.x.shape[-1],
        seed, val_fraction, test_fraction, marks,
    )  # fmt: skip


def answered_by(
    answers: Answering,
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    label: Sequence[str] = (),
    head: Head | Heads | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
    groups: Any = None,
    time: Any = None,
) -> Dataset:
    """Makes a data set of examples whose labels are what a model answers.

    Args:
        answers: Of the model.
        data, val, test: What `arrays_of` takes; labels that there are are not looked at.
        head: Of the model.
        label, seed, val_fraction, test_fraction, groups, time: See `labelled`.
    """
    data, val, test = parts_of(data, val, test)

    def part(given: Any) -> Split | None:
        if given is None:
            return None
        x = arrays_of(given, head, label=label)[0]
        return answered(Split.unlabelled(x), Preprocessing(), answers)

    train = part(data)
    if train is None:
        raise InputError("data must hold examples. Received: None.")
    outputs = answers_of(train.y) if isinstance(train.y, dict) else ()
    return _divided(
        (train, part(val), part(test)), name_of(data),
        Meaning("several" if outputs else UNLABELLED), 0 if outputs else train.y.shape[-1],
        seed, val_fraction, test_fraction, marks_by_part(groups, time), outputs,
    )  # fmt: skip


def _divided(
    parts: tuple[Split, Split | None, Split | None],
    name: str,
    meaning: Meaning,
    names: int,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
    marks: Mapping[str, Marks],
    outputs: tuple[Output, ...] = (),
) -> Dataset:
    """Splits off the parts that are not there."""
    train, held, tested = (
        None if split is None else marks[part].put_on(split, part, name)
        for part, split in zip(("train", "val", "test"), parts, strict=True)
    )
    assert train is not None, "it is where the others are split off"
    handed_over = [part for part, held in (("val", held), ("test", tested)) if held is not None]
    kind, notes = meaning.kind, meaning.notes
    if held is None or (tested is None and test_fraction is not None):
        notes = (*notes, *note_copies(train))
    if tested is None and test_fraction is not None:
        train, tested = split_off(
            train, test_fraction, seed, part="test", name=name, kind=kind, outputs=outputs
        )
    if held is None:
        train, held = split_off(
            train, val_fraction, seed, part="validation", name=name, kind=kind, outputs=outputs
        )
    data = Dataset(
        name,
        train,
        held,
        tested if tested is not None else held.take(np.arange(0)),
        tuple(item.name for item in outputs) or meaning.classes or tuple(map(str, range(names))),
        Preprocessing(),
        notes,
        kind,
        outputs=outputs,
    )
    return check_parts(data, handed_over)


def unlabelled(data: Any, *, head: Head | Heads | None = None) -> Unlabelled:
    """Makes examples without labels of arrays or a stream; labels that there are tell the task."""
    x, y, _, name = arrays_of(parts_of(data, None, None)[0], head)
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    kind = "" if y is None or isinstance(y, dict) else meaning_of(y, one, None).kind
    return Unlabelled.of(name, x, kind=kind)


def _part(
    data: Any, read: Callable[[Any], Any], label: Sequence[str], head: Head | Heads | None
) -> Split | None:
    """Returns a part that was handed over beside the training part."""
    if data is None:
        return None
    # parts beside a data set with columns may be arrays
    own = label if is_hugging_face(data) else ()
    if isinstance(data, numbers.Number):
        raise InputError(
            f"val and test must be (x, y), a stream or a Dataset. Received: {one_line(data)}. "
            "A share to hold out is val_fraction= or test_fraction=."
        )
    x, y, weight, _ = arrays_of(data, head, label=own, needed=True)
    if y is None:
        raise InputError("val and test must hold labels. Received: examples alone. Give (x, y).")
    return Split(x, read(y), weight)


def _count(labels: npt.NDArray[Any]) -> int:
    """Returns the number of classes that indices tell of."""
    count = int(labels.max()) + 1
    if count < 2:
        raise InputError("y must be of at least two classes. Received: one.")
    return count

"""Arrays, tensors, streams and what functions return, as data: fed as they are.

Labels are read as the model's head says. Nothing here is scaled: what somebody hands over in Python
is what their model is fed. Scaling is found for data that are read by name or path alone
(`compress.data.load_data`).
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, ParetuneError, one_line
from compress.core.interpreter import resolve, told
from compress.data._base import Answering, Dataset, Unlabelled, answered
from compress.data.handed_over import arrays_of, name_of, pass_notes
from compress.data.hugging_face import about, is_hugging_face, parts_of
from compress.data.kinds import Asked
from compress.data.leaks import check_parts
from compress.data.meaning import (
    Head,
    Heads,
    Meaning,
    answers_of,
    meaning_of,
    meanings_of,
    notes_of,
    only_head,
    outputs_of,
    read_with,
)
from compress.data.parts import Marks, Output, Split, marks_by_part
from compress.data.preprocessing import Preprocessing
from compress.data.splitting import split_rest
from compress.data.tasks import TASKS, UNLABELLED, has_classes
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
    divided = partial(
        _divided, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction, marks=marks
    )
    if task is not None and "=" not in task and TASKS[task].of_inputs:
        parts = _examples((data, val, test), label, head)
        if isinstance(parts[0].x, dict):
            raise InputError(
                f"A {task} task must be of one input. Received: {', '.join(parts[0].x)}."
            )
        return divided(parts, name_of(data), Meaning(task), parts[0].x.shape[-1])
    x, y, weight, name = arrays_of(data, head, label=label, needed=True)
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs; to shrink a model without labels give task='unlabelled' "
            "(or 'reconstruction', of an autoencoder)."
        )
    if isinstance(y, dict):
        if not isinstance(head, Heads):
            raise InputError(
                "y may have names where a model has outputs of these names. Received: "
                f"{', '.join(y)}, and {'no model' if head is None else 'a model of one output'}."
            )
        meanings = meanings_of(y, head.outputs, task or AUTO)
        read_all = partial(read_with, meanings)
        train = Split(x, read_all(y), weight)
        outputs = outputs_of(meanings, lambda output: _count(train.y[output]))
        meaning = Meaning("several", notes=(*notes_of(meanings), *pass_notes(data, x, head)))
        held, tested = (_part(part, read_all, label, head) for part in (val, test))
        return divided((train, held, tested), name, meaning, 0, outputs=outputs)
    meaning = meaning_of(y, only_head(head), task)
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
    return divided((train, held, tested), name, told, names)


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
    train, held, tested = (
        None if part is None else answered(part, Preprocessing(), answers)
        for part in _examples((data, val, test), label, head)
    )
    assert train is not None, "it was looked for"
    outputs = answers_of(train.y) if isinstance(train.y, dict) else ()
    return _divided(
        (train, held, tested), name_of(data), Meaning("several" if outputs else UNLABELLED),
        0 if outputs else train.y.shape[-1], seed=seed, val_fraction=val_fraction,
        test_fraction=test_fraction, marks=marks_by_part(groups, time), outputs=outputs,
    )  # fmt: skip


def load_function(asked: Asked, seed: int, answers: Answering | None) -> Dataset:
    """Makes a data set of what the user's function returns; arrays and streams are fed as is.

    Args:
        asked: Names the function, and says what labels mean.
        seed: Of the splits.
        answers: Of data without labels: what a model answers.

    Raises:
        InputError: See `call`; or the function returns something else.
    """
    options = asked.options
    for name in ("group_column", "time_column"):
        if getattr(options, name):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {getattr(options, name)} for "
                f"'{options.source}'. Return a compress.data.Dataset of parts that are split so."
            )
    result = _call(options.source)
    if isinstance(result, Dataset):
        return check_parts(result, ("val", "test"))
    if options.normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with files and names: what a function returns is fed as it is. "
            f"Received: {options.normalize}. Scale it there."
        )
    how: dict[str, Any] = {
        "head": asked.head,
        "seed": seed,
        "label": options.label,
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
    }
    try:
        if options.task == UNLABELLED and answers is not None:
            found = answered_by(answers, result, **how)
        else:
            task = None if options.task == AUTO else options.task
            found = labelled(result, task=task, **how)
    except InputError as error:
        raise InputError(
            f"'{options.source}' must return a compress.data.Dataset, (x, y), a stream of such "
            f"pairs or a Hugging Face data set. Received: a {type(result).__name__}. {error}"
        ) from None
    return replace(found, name=options.source)


def _divided(
    parts: tuple[Split, Split | None, Split | None],
    name: str,
    meaning: Meaning,
    names: int,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
    marks: Mapping[str, Marks],
    outputs: tuple[Output, ...] = (),
) -> Dataset:
    """Makes a data set of parts; those that are not there are split off."""
    train, held, tested = (
        None if split is None else marks[part].put_on(split, part, name)
        for part, split in zip(("train", "val", "test"), parts, strict=True)
    )
    assert train is not None, "it is where the others are split off"
    handed_over = [part for part, held in (("val", held), ("test", tested)) if held is not None]
    train, held, tested, notes = split_rest(
        train, held, tested, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed,
        name=name, kind=meaning.kind, outputs=outputs,
    )  # fmt: skip
    data = Dataset(
        name,
        train,
        held,
        tested if tested is not None else held.take(np.arange(0)),
        tuple(item.name for item in outputs) or meaning.classes or tuple(map(str, range(names))),
        Preprocessing(),
        (*meaning.notes, *notes),
        meaning.kind,
        outputs=outputs,
    )
    return check_parts(data, handed_over)


def unlabelled(data: Any, *, head: Head | Heads | None = None) -> Unlabelled:
    """Makes examples without labels of arrays or a stream; labels that there are tell the task."""
    x, y, _, name = arrays_of(parts_of(data, None, None)[0], head)
    kind = "" if y is None or isinstance(y, dict) else meaning_of(y, only_head(head), None).kind
    return Unlabelled.of(name, x, kind=kind)


def _examples(
    parts: tuple[Any, Any, Any], label: Sequence[str], head: Head | Heads | None
) -> tuple[Split, Split | None, Split | None]:
    """Returns the examples of parts; labels that there are are not looked at."""
    train, val, test = (
        None if part is None else Split.unlabelled(arrays_of(part, head, label=label)[0])
        for part in parts
    )
    if train is None:
        raise InputError("data must hold examples. Received: None.")
    return train, val, test


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


def _call(target: str) -> Any:
    """Calls the user's function.

    Raises:
        InputError: There is none, it wants arguments, or it raises an error.
    """
    function = resolve(target)
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise InputError(
            f"'{target}' must take no arguments. Received: a function of "
            f"{inspect.signature(function)}."
        ) from None
    except ValueError:
        pass  # some callables have no signature to look at; the call will tell
    try:
        return function()
    except ParetuneError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"'{target}' must return its result. It raised {told(error)}.") from error

"""Data sets from arrays, tensors, streams and Hugging Face data sets, fed unscaled.

Labels are read as the model's head says. Nothing here is scaled: what somebody hands over in Python
is what their model is fed. Scaling is found for data that are read by name or path alone
(`compress.data.load_data`).
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.arrays import count, is_mapped, named
from compress.core.errors import InputError, one_line
from compress.data.dataset import Answering, Dataset, Unlabelled
from compress.data.hugging_face import NAME, about, is_hugging_face, parts_of, read
from compress.data.kinds import read_parts
from compress.data.leaks import check_parts
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
from compress.data.parts import (
    SPLITS,
    Array,
    Output,
    RawData,
    Split,
    as_float32,
    marks_by_part,
)
from compress.data.preprocessing import Preprocessing
from compress.data.splitting import split_rest
from compress.data.streams import gathered, is_stream, repeats, stream_name
from compress.data.tasks import TASKS, UNLABELLED, has_classes
from compress.plan import DataOptions
from compress.plan.data import AUTO

LARGEST_WHOLE = 2**24
"""float32, in which models compute, holds all whole numbers up to this one."""
ARRAYS = "arrays"
"""The name of data that have none."""


def labelled(
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    label: Sequence[str] = (),
    head: Head | Heads | None = None,
    answers: Answering | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
    groups: Any = None,
    time: Any = None,
) -> Dataset:
    """Return a data set of arrays, a stream or a Hugging Face data set.

    Args:
        data: What `arrays_of` takes, with labels.
        val: The validation part, likewise; None: split off from `data`.
        test: The test part; None: see `test_fraction`.
        task: What labels mean; None: told from labels and head, and said in a note.
        label: Columns of a Hugging Face data set that are labels; (): see
            `compress.data.hugging_face`.
        head: Of the model that will learn or be judged. One of several outputs: labels are by
            their names, and `task` may say "name=kind,name=kind".
        answers: What a model answers, which stands for labels; those that there are are not
            looked at then.
        seed: Of the splits.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything that is split off for the test; None: no test part.
        groups: What is kept in one part, (n,), or such arrays by part; see `put_marks`.
        time: What parts are split by, likewise.

    Returns:
        The data set. Models are fed with the numbers as they are.

    Raises:
        InputError: There are no labels, they do not fit the head or the task, or see `Dataset`.
    """
    kind = AUTO if task is None or "=" in task else task
    DataOptions(
        task=kind,
        val_fraction=val_fraction,
        test_fraction=test_fraction or DataOptions.test_fraction,
    )
    data, val, test = parts_of(data, val, test)
    bare = answers is not None or (kind != AUTO and TASKS[kind].of_inputs)
    marks = marks_by_part(groups, time)
    held = {"train": _held("train", data, marks["train"], label, head, bare)}
    for part, given in (("val", val), ("test", test)):
        if isinstance(given, numbers.Number):
            raise InputError(
                f"val and test must be (x, y), a stream or a Dataset. Received: {one_line(given)}. "
                "A share to hold out is val_fraction= or test_fraction=."
            )
        if given is not None:
            # parts beside a data set with columns may be arrays
            own = label if is_hugging_face(given) else ()
            held[part] = _held(part, given, marks[part], own, head, bare)
    train, name = held["train"], name_of(data)
    if bare:
        raw = read_parts(held, Meaning(task or UNLABELLED), name, lambda x, _: x)
    else:
        if isinstance(train.y, dict) and not isinstance(head, Heads):
            raise InputError(
                "y may have names where a model has outputs of these names. Received: "
                f"{', '.join(train.y)}, and "
                f"{'no model' if head is None else 'a model of one output'}."
            )
        meaning = meaning_of(train.y, head, task)
        classes, notes = about(data, label, head)
        raw = read_parts(held, meaning, name, lambda x, _: x, notes=notes)
        notes = (*raw.notes, *pass_notes(data, train.x, head))
        raw = replace(raw, notes=notes, class_names=_names(raw, meaning, classes))
    if answers is not None:
        raw = answer_parts(raw, Preprocessing(), answers)
    elif bare:
        if isinstance(train.x, dict):
            raise InputError(f"A {kind} task must be of one input. Received: {', '.join(train.x)}.")
        raw = replace(raw, class_names=_indices(train.x.shape[-1]))
    parts = split_rest(raw, name, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    return make_dataset(replace(parts, max_value=None), name, Preprocessing(), raw)


def answer_parts(raw: RawData, preprocess: Preprocessing, answers: Answering) -> RawData:
    """Return data with a model's outputs as labels.

    Args:
        raw: Their labels are not looked at.
        preprocess: Raw examples -> model inputs.
        answers: Of the model.
    """
    made: dict[str, Any] = {
        part: replace(split, y=answers(split.x, preprocess))
        for part in SPLITS
        if (split := getattr(raw, part)) is not None
    }
    y = made["train"].y
    if not isinstance(y, dict):
        return replace(raw, **made, kind=UNLABELLED, class_names=_indices(y.shape[-1]))
    outputs = tuple(
        Output(name, UNLABELLED, _indices(values.shape[-1])) for name, values in y.items()
    )
    return replace(raw, **made, kind="several", class_names=tuple(y), outputs=outputs)


def make_dataset(raw: RawData, name: str, preprocess: Preprocessing, given: RawData) -> Dataset:
    """Return a data set of three parts, checked for data leakage.

    Args:
        raw: The parts; no test part where nothing is tested.
        name: Of the data.
        preprocess: Raw examples -> model inputs.
        given: The parts that were handed over.
    """
    assert raw.val is not None, "it was split off"
    assert raw.class_names is not None, "whoever reads labels names them"
    test = raw.test if raw.test is not None else raw.val.take(np.arange(0))
    data = Dataset(
        name, raw.train, raw.val, test, raw.class_names, preprocess, raw.notes, raw.kind,
        raw.max_value, raw.outputs,
    )  # fmt: skip
    return check_parts(data, [part for part in ("val", "test") if getattr(given, part) is not None])


def unlabelled(data: Any, *, head: Head | Heads | None = None) -> Unlabelled:
    """Return examples of arrays or a stream without labels, which only tell the task."""
    x, y, _, name = arrays_of(parts_of(data, None, None)[0], head)
    kind = "" if y is None or isinstance(y, dict) else meaning_of(y, head, None).kind
    return Unlabelled.of(name, x, kind=kind)


def arrays_of(
    data: Any,
    head: Head | Heads | None = None,
    *,
    label: Sequence[str] = (),
    needed: bool = False,
) -> tuple[Any, Any, Any, str]:
    """Return examples, labels and weights as arrays, and the data's name.

    Args:
        data: `x`; `(x, y)`; `(x, y, weights)`; a `tf.data.Dataset` or a `keras.utils.PyDataset`
            of such; a `datasets.Dataset`. Arrays, tensors of any framework, frames, lists of
            numbers; of models with several inputs or outputs dictionaries by their names, or lists
            in their order.
        head: Of the model that is fed; its input shape tells batches from examples.
        label: Columns that are labels, of a `datasets.Dataset`.
        needed: Whether a `datasets.Dataset` must have labels.

    Returns:
        x (n, ...), y (n, ...) or None, weights (n,) or None, and a name for messages; x and y are
        dictionaries by name where there are several.

    Raises:
        InputError: Other names, no numbers, a stream without end, or more than memory holds.
    """
    name = name_of(data)
    if is_hugging_face(data):
        data = read(data, label, head, needed=needed)
    elif label:
        raise InputError(
            "label goes with tables, records and Hugging Face data sets. Received: "
            f"{', '.join(label)}, for {name}."
        )
    elif is_stream(data):
        data = gathered(data, first_shape(head))
        if isinstance(head, Heads):  # the model says what those of a list are called
            data = tuple(_in_order(part) for part in data)
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise InputError(
            f"data must be x, (x, y) or (x, y, weights). Received: a tuple of {len(parts)}."
        )
    x, y, weight = (*parts, None, None)[:3]
    answers, inputs = _names_in(y, head, "outputs"), _names_in(x, head, "inputs")
    labels: Any = None
    if y is not None:
        labels = by_name(y, answers, "y", _labels) if answers else _labels(y)
    if inputs:
        examples: Any = by_name(x, inputs, "x", _checked)
    else:
        one = None if isinstance(head, Heads) else head
        examples = _examples(x, None if labels is None else count(labels), one)
    weights = None if weight is None else as_array(weight, "weights")
    others = [] if labels is None else named(labels, "y")
    others += [] if weights is None else [("weights", weights)]
    for what, other in (*named(examples, "x"), *others):
        if len(other) != count(examples):
            raise InputError(
                f"x and {what} must have equal lengths. Received: {count(examples)} and "
                f"{len(other)}."
            )
    return examples, labels, weights, name


def _names_in(values: Any, head: Head | Heads | None, side: str) -> list[str]:
    """Return the names of several inputs or outputs, the model's where it has some."""
    if isinstance(head, Heads):
        return several(head, side)
    return [str(name) for name in values] if isinstance(values, Mapping) else []


def _in_order(part: Any) -> Any:
    """Return a list where a stream holds lists; arrays by name stay as they are."""
    places = isinstance(part, dict) and list(part) == [str(place) for place in range(len(part))]
    return list(part.values()) if places else part


def pass_notes(data: Any, x: Any, head: Head | Heads | None) -> tuple[str, ...]:
    """Return a note for reports where a stream differs from pass to pass.

    Args:
        data: What was handed over.
        x: The examples that were read of it.
        head: See `arrays_of`.
    """
    if not is_stream(data) or repeats(data, first_shape(head), x):
        return ()
    return (
        f"a second pass over the {stream_name(data)} stream gives other numbers (it is shuffled, "
        "or changed at random): what the first pass gave is learnt and judged, as it was; augment= "
        "changes images anew each time",
    )


def is_bare(data: Any) -> bool:
    """Return whether data are examples without labels; of streams this is not known."""
    return not (isinstance(data, (tuple, Dataset)) or is_hugging_face(data) or is_stream(data))


def name_of(data: Any) -> str:
    """Return the name of data in messages and records."""
    if isinstance(data, Dataset):
        return data.name
    return NAME if is_hugging_face(data) else stream_name(data) or ARRAYS


def as_array(value: Any, name: str) -> Array:
    """Return numbers as a NumPy array with an axis of examples.

    Raises:
        InputError: They are none: names, objects, rows of unequal lengths.
    """
    try:
        # what is mapped stays what it is
        array = value if is_mapped(value) else np.asarray(value)
        if array.dtype == object and hasattr(value, "to_numpy"):
            # a frame, or a column of one: of numbers of several types, or of its own types
            array = np.asarray(array.tolist())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers ({error}).") from None
    if array.dtype.name == "bfloat16":  # no type of NumPy's own
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub" or not array.ndim:
        kind = type(value).__name__ if array.dtype == object else f"type {array.dtype}"
        raise InputError(
            f"{name} must be numbers with an axis of examples. Received: {kind}, shape "
            f"{array.shape}."
        )
    return array


def _held(
    part: str, data: Any, marks: dict[str, Any], label: Sequence[str],
    head: Head | Heads | None, bare: bool,
) -> Split:  # fmt: skip
    """Return the arrays of one part; its examples alone where labels are not needed."""
    x, y, weight, _ = arrays_of(data, head, label=label, needed=not bare)
    if bare:
        return Split(x, None, **marks)
    if y is None and part != "train":
        raise InputError(
            f"{part} must hold labels, as the training part does. Received: examples alone. Give "
            f"{part}=(x, y)."
        )
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs; to shrink a model without labels give task='unlabelled' "
            "(or 'reconstruction', of an autoencoder)."
        )
    return Split(x, y, weight, **marks)


def _names(raw: RawData, meaning: Meaning, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names, those that the data set knows where they fit."""
    if raw.outputs:
        return tuple(item.name for item in raw.outputs)
    fits = has_classes(meaning.kind) and meaning.names in (0, len(known))
    if known and fits and not meaning.classes:
        return known
    return class_names_of(meaning, raw.train.y)


def _indices(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _labels(y: Any, name: str = "y") -> Array:
    """Return labels as an array: numbers, or names of classes."""
    if not isinstance(y, dict):
        with suppress(TypeError, ValueError):
            array = y if is_mapped(y) else np.asarray(y)
            if array.dtype == object and all(isinstance(item, str) for item in array.flat):
                array = array.astype(str)
            if array.dtype.kind in "US" and array.ndim:
                return array
    return as_array(y, name)


def _examples(x: Any, count: int | None, head: Head | None) -> Array:
    """Return the examples of one input; refuse a list of arrays for several inputs."""
    if isinstance(x, (list, tuple)) and x and all(hasattr(part, "shape") for part in x):
        own = tuple(x[0].shape)
        one_each = len(own) > 1 and (
            len(x) != count if count is not None else head is not None and len(own) > len(
                head.input_shape
            )
        )  # fmt: skip
        if one_each:
            raise InputError(
                "x must be one array for a model of one input; without a model several need names: "
                f"give a dictionary. Received: a list of {len(x)} arrays."
            )
    return _checked(x, "x")


def _checked(x: Any, name: str) -> Array:
    array = as_array(x, name)
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"{name} must have shape (n, ...), with one number an example at least. Received: "
            f"{array.shape}. Of one number an example give x[:, None]."
        )
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2 and array.size:
        extreme = max(abs(int(array.min())), abs(int(array.max())))
        if extreme > LARGEST_WHOLE:
            raise InputError(
                f"Whole numbers of {name} must be within {LARGEST_WHOLE:,}: models are fed "
                f"float32. Received: {extreme:,}."
            )
    if array.dtype.kind == "f" and array.dtype != np.float32:
        return as_float32(array)
    return array

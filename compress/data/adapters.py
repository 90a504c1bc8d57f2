"""Arrays, tensors and streams as data: fed as they are, labels read as the model's head says.

Nothing here is scaled: what somebody hands over in Python is what their model is fed. Scaling is
found for data that are read by name or path alone (`compress.data.load_data`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.columns import count, named
from compress.core.errors import InputError
from compress.core.spool import is_mapped
from compress.data._base import Dataset, Split, Unlabelled
from compress.data.answers import Answering, answered
from compress.data.examples import Array, as_float32
from compress.data.meaning import Head, Heads, Meaning, meaning_of
from compress.data.preprocessing import Preprocessing
from compress.data.several import (
    Output,
    answers_of,
    by_name,
    meanings_of,
    names_in,
    notes_of,
    outputs_of,
    read_with,
)
from compress.data.splitting import split_off
from compress.data.streams import gathered, is_stream, several_inputs, stream_name
from compress.plan import DataOptions
from compress.plan.data import AUTO
from compress.task import TASKS, UNLABELLED

LARGEST_WHOLE = 2**24
"""float32, in which models compute, holds all whole numbers up to this one."""
ARRAYS = "arrays"
"""The name of data that have none."""


def arrays_of(data: Any, head: Head | Heads | None = None) -> tuple[Any, Any, Any, str]:
    """Returns what was handed over as arrays: examples, labels, weights, and what they are called.

    Args:
        data: `x`; `(x, y)`; `(x, y, weights)`; a `tf.data.Dataset` or a `keras.utils.PyDataset`
            of such. Arrays, tensors of any framework, lists of numbers; of models with several
            inputs or outputs dictionaries by their names, or lists in their order.
        head: Of the model that is fed; its input shape tells batches from examples.

    Returns:
        x (n, ...), y (n, ...) or None, weights (n,) or None, and a name for messages; x and y are
        dictionaries by name where there are several.

    Raises:
        InputError: Other names, no numbers, a stream without end, or more than memory holds.
    """
    name = name_of(data)
    heads = head if isinstance(head, Heads) else None
    one = None if isinstance(head, Heads) else head
    if is_stream(data):
        data = gathered(data, _first_shape(head))
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise InputError(
            f"data must be x, (x, y) or (x, y, weights). Received: a tuple of {len(parts)}."
        )
    x, y, weight = (*parts, None, None)[:3]
    answers = [] if y is None else names_in(y, heads, "outputs")
    labels = by_name(y, answers, "y", _labels) if answers else None if y is None else _labels(y)
    inputs = names_in(x, heads, "inputs")
    if inputs:
        examples: Any = by_name(x, inputs, "x", _checked)
    else:
        examples = _examples(x, None if labels is None else count(labels), one)
    weights = None if weight is None else as_array(weight, "weights").astype(np.float32)
    others = [] if labels is None else named(labels, "y")
    others += [] if weights is None else [("weights", weights)]
    for what, other in (*named(examples, "x"), *others):
        if len(other) != count(examples):
            raise InputError(
                f"x and {what} must have equal lengths. Received: {count(examples)} and "
                f"{len(other)}."
            )
    return examples, labels, weights, name


def _first_shape(head: Head | Heads | None) -> tuple[int | None, ...] | None:
    """Returns the shape of one example of the first input, where it is known."""
    if isinstance(head, Heads):
        return next(iter(head.inputs.values()))
    return None if head is None else head.input_shape


def is_bare(data: Any) -> bool:
    """Tells whether what was handed over are examples alone; of streams that is not known."""
    return not isinstance(data, (tuple, Dataset)) and not is_stream(data)


def name_of(data: Any) -> str:
    """Returns what data are called that were handed over."""
    return data.name if isinstance(data, Dataset) else stream_name(data) or ARRAYS


def as_array(value: Any, name: str) -> Array:
    """Returns numbers as a NumPy array with an axis of examples.

    Raises:
        InputError: They are none: names, objects, rows of unequal lengths.
    """
    try:
        # what is mapped stays what it is
        array = value if is_mapped(value) else np.asarray(value)
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


def _labels(y: Any, name: str = "y") -> Array:
    """Returns labels as an array: numbers, or names of classes."""
    if not isinstance(y, dict):
        with suppress(TypeError, ValueError):
            array = y if is_mapped(y) else np.asarray(y)
            if array.dtype == object and all(isinstance(item, str) for item in array.flat):
                array = array.astype(str)
            if array.dtype.kind in "US" and array.ndim:
                return array
    return as_array(y, name)


def _examples(x: Any, count: int | None, head: Head | None) -> Array:
    """Returns the examples; what several inputs look like is refused as such."""
    if isinstance(x, (list, tuple)) and x and all(hasattr(part, "shape") for part in x):
        own = tuple(x[0].shape)
        one_each = len(own) > 1 and (
            len(x) != count if count is not None else head is not None and len(own) > len(
                head.input_shape
            )
        )  # fmt: skip
        if one_each:
            raise several_inputs(f"a list of {len(x)} arrays")
    return _checked(x, "x")


def _checked(x: Any, name: str) -> Array:
    """Returns the examples of one input as an array."""
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


def labelled(
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    task: str | None = None,
    head: Head | Heads | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
) -> Dataset:
    """Makes a data set of arrays or a stream.

    Args:
        data: What `arrays_of` takes, with labels.
        val: The validation part, likewise; None: split off from `data`.
        test: The test part; None: see `test_fraction`.
        task: What labels mean; None: told from labels and head, and said in a note.
        head: Of the model that will learn or be judged. One of several outputs: labels are by
            their names, and `task` may say "name=kind,name=kind".
        seed: Of the splits.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything that is split off for the test; None: no test part.

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
    if task is not None and "=" not in task and TASKS[task].of_inputs:
        return _given_back(data, val, test, task, head, seed, val_fraction, test_fraction)
    x, y, weight, name = arrays_of(data, head)
    if y is None:
        raise InputError(
            "data must hold labels here. Received: examples alone. Give (x, y), or a stream of "
            "such pairs; to shrink a model without labels give task='unlabelled' "
            "(or 'reconstruction', of an autoencoder)."
        )
    if isinstance(y, dict):
        return _of_outputs(
            (x, y, weight), name, (val, test), task, head, seed, val_fraction, test_fraction
        )
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    meaning = meaning_of(y, one, task)

    def read(labels: Any) -> Any:
        return meaning.read(labels, "y")

    train = Split(x, read(y), weight)
    held, tested = (_part(part, read, head) for part in (val, test))
    names = meaning.names or _count(train.y)
    return _divided((train, held, tested), name, meaning, names, seed, val_fraction, test_fraction)


def _of_outputs(
    given: tuple[Any, Any, Any],
    name: str,
    others: tuple[Any, Any],
    task: str | None,
    head: Head | Heads | None,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
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
    held, tested = (_part(part, read, head) for part in others)
    meaning = Meaning("several", notes=notes_of(meanings))
    return _divided(
        (train, held, tested), name, meaning, 0, seed, val_fraction, test_fraction, outputs
    )


def _given_back(
    data: Any,
    val: Any,
    test: Any,
    task: str,
    head: Head | Heads | None,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
) -> Dataset:
    """Makes a data set of examples that are their own labels; others are not looked at."""

    def part(given: Any) -> Split | None:
        return None if given is None else Split.unlabelled(arrays_of(given, head)[0])

    train = part(data)
    if train is None:
        raise InputError("data must hold examples. Received: None.")
    if isinstance(train.x, dict):
        raise InputError(f"A {task} task must be of one input. Received: {', '.join(train.x)}.")
    return _divided(
        (train, part(val), part(test)), name_of(data), Meaning(task), train.x.shape[-1],
        seed, val_fraction, test_fraction,
    )  # fmt: skip


def answered_by(
    answers: Answering,
    data: Any,
    *,
    val: Any = None,
    test: Any = None,
    head: Head | Heads | None = None,
    seed: int = 0,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float | None = None,
) -> Dataset:
    """Makes a data set of examples whose labels are what a model answers.

    Args:
        answers: Of the model.
        data, val, test: What `arrays_of` takes; labels that there are are not looked at.
        head: Of the model.
        seed, val_fraction, test_fraction: See `labelled`.
    """

    def part(given: Any) -> Split | None:
        if given is None:
            return None
        return answered(Split.unlabelled(arrays_of(given, head)[0]), Preprocessing(), answers)

    train = part(data)
    if train is None:
        raise InputError("data must hold examples. Received: None.")
    outputs = answers_of(train.y) if isinstance(train.y, dict) else ()
    return _divided(
        (train, part(val), part(test)), name_of(data),
        Meaning("several" if outputs else UNLABELLED), 0 if outputs else train.y.shape[-1],
        seed, val_fraction, test_fraction, outputs,
    )  # fmt: skip


def _divided(
    parts: tuple[Split, Split | None, Split | None],
    name: str,
    meaning: Meaning,
    names: int,
    seed: int,
    val_fraction: float,
    test_fraction: float | None,
    outputs: tuple[Output, ...] = (),
) -> Dataset:
    """Splits off the parts that are not there."""
    train, held, tested = parts
    kind = meaning.kind
    if tested is None and test_fraction is not None:
        train, tested = split_off(train, test_fraction, seed, part="test", name=name, kind=kind)
    if held is None:
        train, held = split_off(train, val_fraction, seed, part="validation", name=name, kind=kind)
    return Dataset(
        name,
        train,
        held,
        tested if tested is not None else held.take(np.arange(0)),
        tuple(item.name for item in outputs) or meaning.classes or tuple(map(str, range(names))),
        Preprocessing(),
        meaning.notes,
        kind,
        outputs=outputs,
    )


def unlabelled(data: Any, *, head: Head | Heads | None = None) -> Unlabelled:
    """Makes examples without labels of arrays or a stream; labels that there are tell the task."""
    x, y, _, name = arrays_of(data, head)
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    kind = "" if y is None or isinstance(y, dict) else meaning_of(y, one, None).kind
    return Unlabelled.of(name, x, kind=kind)


def _part(data: Any, read: Callable[[Any], Any], head: Head | Heads | None) -> Split | None:
    """Returns a part that was handed over beside the training part."""
    if data is None:
        return None
    x, y, weight, _ = arrays_of(data, head)
    if y is None:
        raise InputError("val and test must hold labels. Received: examples alone. Give (x, y).")
    return Split(x, read(y), weight)


def _count(labels: npt.NDArray[Any]) -> int:
    """Returns the number of classes that indices tell of."""
    count = int(labels.max()) + 1
    if count < 2:
        raise InputError("y must be of at least two classes. Received: one.")
    return count

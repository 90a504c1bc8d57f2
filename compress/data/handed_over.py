"""Arrays, tensors and streams as they are handed over: examples, labels and weights, checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from compress.core.arrays import count, is_mapped, named
from compress.core.errors import InputError
from compress.data._base import Dataset
from compress.data.hugging_face import NAME, is_hugging_face, read
from compress.data.meaning import Head, Heads, by_name, names_in
from compress.data.parts import Array, as_float32
from compress.data.streams import (
    gathered,
    is_stream,
    repeats,
    stream_name,
)

LARGEST_WHOLE = 2**24
"""float32, in which models compute, holds all whole numbers up to this one."""
ARRAYS = "arrays"
"""The name of data that have none."""


def arrays_of(
    data: Any,
    head: Head | Heads | None = None,
    *,
    label: Sequence[str] = (),
    needed: bool = False,
) -> tuple[Any, Any, Any, str]:
    """Returns what was handed over as arrays: examples, labels, weights, and what they are called.

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
    heads = head if isinstance(head, Heads) else None
    one = None if isinstance(head, Heads) else head
    if is_hugging_face(data):
        data = read(data, label, head, needed=needed)
    elif label:
        raise InputError(
            "label goes with tables, records and Hugging Face data sets. Received: "
            f"{', '.join(label)}, for {name}."
        )
    elif is_stream(data):
        data = gathered(data, _first_shape(head))
        if heads is not None:  # the model says what those of a list are called
            data = tuple(_in_order(part) for part in data)
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


def _in_order(part: Any) -> Any:
    """Returns a list of what a stream gave in a list; what has names stays by them."""
    places = isinstance(part, dict) and list(part) == [str(place) for place in range(len(part))]
    return list(part.values()) if places else part


def _first_shape(head: Head | Heads | None) -> tuple[int | None, ...] | None:
    """Returns the shape of one example of the first input, where it is known."""
    if isinstance(head, Heads):
        return next(iter(head.inputs.values()))
    return None if head is None else head.input_shape


def pass_notes(data: Any, x: Any, head: Head | Heads | None) -> tuple[str, ...]:
    """Returns what a report must say of a stream that does not give the same each time.

    Args:
        data: What was handed over.
        x: The examples that were read of it.
        head: See `arrays_of`.
    """
    if not is_stream(data) or repeats(data, _first_shape(head), x):
        return ()
    return (
        f"a second pass over the {stream_name(data)} stream gives other numbers (it is shuffled, "
        "or changed at random): what the first pass gave is learnt and judged, as it was; augment= "
        "changes images anew each time",
    )


def is_bare(data: Any) -> bool:
    """Tells whether what was handed over are examples alone; of streams that is not known."""
    holds_labels = isinstance(data, (tuple, Dataset)) or is_hugging_face(data)
    return not holds_labels and not is_stream(data)


def name_of(data: Any) -> str:
    """Returns what data are called that were handed over."""
    if isinstance(data, Dataset):
        return data.name
    return NAME if is_hugging_face(data) else stream_name(data) or ARRAYS


def as_array(value: Any, name: str) -> Array:
    """Returns numbers as a NumPy array with an axis of examples.

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
            raise InputError(
                "x must be one array for a model of one input; without a model several need names: "
                f"give a dictionary. Received: a list of {len(x)} arrays."
            )
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

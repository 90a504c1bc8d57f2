"""Streams of batches (`tf.data.Dataset`, `keras.utils.PyDataset`, generators), read once.

What is large goes to files as it comes, and is mapped: memory does not grow with the stream.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from compress.core.arrays import Growing, arrays, in_batches, joined, mapped, named, unnamed
from compress.core.errors import InputError
from compress.core.interpreter import told

AT_A_TIME = 256
"""Examples that make a batch where a stream gives them one by one."""


def is_stream(data: Any) -> bool:
    """Return whether data come batch by batch, without importing their library."""
    return bool(stream_name(data))


def stream_name(data: Any) -> str:
    """Return the name of a stream in messages; empty: it is none."""
    if _is_tf_data(data):
        return "tf.data"
    if _is_py_dataset(data):
        return "PyDataset"
    # a generator function, or an iterator that one has made
    made = inspect.isgeneratorfunction(data) or isinstance(data, Iterator)
    return "generator" if made else ""


def gathered(data: Any, input_shape: tuple[int | None, ...] | None) -> tuple[Any, ...]:
    """Read a stream to its end and return its arrays.

    Args:
        data: A stream of x, (x, y) or (x, y, weights): batched, as `fit` takes it, or example by
            example, which shows by labels without an axis or by the rank of x.
        input_shape: Of one example of the model that is fed, where it is known.

    Returns:
        A tuple of arrays, or of arrays by name where a stream holds dictionaries.

    Raises:
        InputError: It has no end or no batch, batches differ in what they hold, or the disk is
            full.
    """
    name = stream_name(data)
    first: list[Any] = []
    growing: list[dict[str, Growing]] = []
    try:
        for batch in _complete(_batches(data, input_shape), name):
            item = tuple(_arrays(part) for part in batch)
            if not first:
                if any(part.ndim == 0 for part in _leaves(item)):
                    raise InputError(
                        f"A {name} stream must come in batches, as fit takes it. Received: single "
                        "numbers. Give data.batch(n)."
                    )
                first = _shapes(item)
                growing = [
                    {key: Growing(f"A {name} stream") for key, _ in named(part)} for part in item
                ]
            elif _shapes(item) != first:
                raise InputError(
                    f"Every batch of a {name} stream must hold the same. Received: shapes "
                    f"{[f'{part.shape} {part.dtype}' for part in _leaves(item)]} after "
                    f"{[f'{(None, *shape)} {kind}' for part in first for _, shape, kind in part]}."
                )
            for part, columns in zip(item, growing, strict=True):
                for key, values in named(part):
                    columns[key].add(values)
        if not first:
            raise InputError(f"A {name} stream must hold at least one batch. Received: none.")
        return tuple(
            unnamed({key: column.whole() for key, column in columns.items()}) for columns in growing
        )
    finally:
        for columns in growing:
            for column in columns.values():
                column.close()


def repeats(data: Any, input_shape: tuple[int | None, ...] | None, x: Any) -> bool:
    """Return whether a stream begins as it did when it was read: in one order, without chance.

    An iterator that a generator has made cannot be asked again; it is taken at its word.

    Args:
        data: A stream that was read.
        input_shape: See `gathered`.
        x: What was read of its first part.
    """
    if isinstance(data, Iterator):
        return True
    batch = next(iter(_complete(_batches(data, input_shape), stream_name(data))), None)
    if batch is None:
        return False
    now, before = dict(named(_arrays(batch[0]))), dict(named(x))
    if set(now) != set(before):  # those of a list are called by the model's names meanwhile
        now = dict(zip(before, now.values(), strict=False))
    return all(
        np.array_equal(values.astype(before[name].dtype), before[name][: len(values)])
        for name, values in now.items()
    )


def _batches(data: Any, input_shape: tuple[int | None, ...] | None) -> Iterator[tuple[Any, ...]]:
    if _is_tf_data(data):
        return _of_tf_data(data, input_shape)
    if _is_py_dataset(data):
        return _of_py_dataset(data)
    return _of_generator(data, input_shape)


def _is_tf_data(data: Any) -> bool:
    tf = sys.modules.get("tensorflow")  # whoever has such a stream has imported it
    return tf is not None and isinstance(data, tf.data.Dataset)


def _is_py_dataset(data: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(data, keras.utils.PyDataset)


def _of_generator(
    data: Any, input_shape: tuple[int | None, ...] | None
) -> Iterator[tuple[Any, ...]]:
    """Yield batches; single examples, recognized as those of `tf.data` are, are joined."""
    items = map(_parts, data() if callable(data) else data)
    first = next(items, None)
    if first is None:
        return
    labels = _leaves((_arrays(first[1]),)) if len(first) > 1 else []
    is_one = bool(labels) and labels[0].ndim == 0
    if input_shape is not None:
        is_one = arrays(_arrays(first[0]))[0].ndim == len(input_shape)
    whole = chain([first], items)
    yield from map(_stacked, in_batches(whole, AT_A_TIME)) if is_one else whole


def _stacked(items: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(
        joined([mapped(lambda values: values[np.newaxis], _arrays(part)) for part in column])
        for column in zip(*items, strict=True)
    )


def _of_tf_data(data: Any, input_shape: tuple[int | None, ...] | None) -> Iterator[tuple[Any, ...]]:
    import tensorflow as tf

    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InputError(
            "A tf.data.Dataset must end. Received: one without an end (repeat). Give "
            "data.take(n), of as many batches as are wanted."
        )
    spec = data.element_spec
    specs = spec if isinstance(spec, tuple) else (spec,)
    other = [
        type(item).__name__
        for item in tf.nest.flatten(specs)
        if not isinstance(item, tf.TensorSpec)
    ]
    if other:
        raise InputError(f"A tf.data stream must hold plain tensors. Received: {other[0]}.")
    rank = _rank(specs[0])
    is_one = len(specs) > 1 and _rank(specs[1]) == 0
    if input_shape is not None and rank is not None:
        is_one = rank == len(input_shape)
    if is_one:
        # read in batches all the same: one call of TensorFlow an example is slow
        data = data.batch(AT_A_TIME)
    yield from map(_parts, data.as_numpy_iterator())


def _rank(spec: Any) -> Any:
    import tensorflow as tf

    first = tf.nest.flatten(spec)[0]
    return getattr(getattr(first, "shape", None), "rank", None)


def _of_py_dataset(data: Any) -> Iterator[tuple[Any, ...]]:
    try:
        count = data.num_batches
    except NotImplementedError:  # it has no length either
        count = None
    if count is None:
        raise InputError(
            "A keras.utils.PyDataset must end. Received: one without a length. Give it "
            "__len__, or num_batches."
        )
    for place in range(count):
        yield _parts(data[place])


def _parts(element: Any) -> tuple[Any, ...]:
    return element if isinstance(element, tuple) else (element,)


def _complete(batches: Iterator[tuple[Any, ...]], name: str) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a stream; its own errors become one line."""
    count = 0
    try:
        for batch in batches:
            yield batch
            count += 1
    except (InputError, GeneratorExit):
        raise
    except Exception as error:  # the user's own code, or TensorFlow's
        raise InputError(
            f"A {name} stream must come to its end. It raised {told(error)} after {count} batches."
        ) from error


def _arrays(part: Any) -> Any:
    """Return an array, or arrays by name; those of a list are called by their places."""
    if isinstance(part, Mapping):
        return {str(name): np.asarray(values) for name, values in part.items()}
    if isinstance(part, (list, tuple)):
        return {str(place): np.asarray(values) for place, values in enumerate(part)}
    return np.asarray(part)


def _leaves(item: tuple[Any, ...]) -> list[Any]:
    return [values for part in item for values in arrays(part)]


def _shapes(item: tuple[Any, ...]) -> list[Any]:
    return [
        [(name, values.shape[1:], values.dtype) for name, values in named(part)] for part in item
    ]

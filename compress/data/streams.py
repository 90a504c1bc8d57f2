"""Streams of batches (`tf.data.Dataset`, `keras.utils.PyDataset`, generators), read once.

Large arrays are written to files as they grow and are then mapped, so memory use does not grow with
the stream.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from compress.core.arrays import (
    GrowingArray,
    concat_examples,
    iterate_batches,
    list_arrays,
    list_named_arrays,
    map_columns,
    unwrap_columns,
)
from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.core.module_loading import describe_error

InputShapes = Mapping[str, tuple[int | None, ...]]
BATCH_SIZE = 256
"""Batch size for streams that yield single examples."""


def is_stream(data: Any) -> bool:
    """Return whether data are a stream of batches, without importing its library."""
    return bool(detect_stream_type(data))


def detect_stream_type(data: Any) -> str:
    """Return the name of a stream type for messages; "" if data are not a stream."""
    if _is_tf_data(data):
        return "tf.data"
    if _is_py_dataset(data):
        return "PyDataset"
    # a generator function, or the iterator it returns
    is_generator = inspect.isgeneratorfunction(data) or isinstance(data, Iterator)
    return "generator" if is_generator else ""


def read_stream(data: Any, inputs: InputShapes | None) -> tuple[Any, ...]:
    """Read a whole stream and return its arrays.

    Args:
        data: A stream of x, (x, y) or (x, y, weights): batches, as for `fit`, or single examples,
            which are detected by labels without an axis or by the rank of x.
        inputs: Shapes of one example by the name of the model's input, in the model's order, if
            the model is known; the name of a single input does not matter.

    Returns:
        A tuple of arrays, or of arrays by name if the stream yields dictionaries.

    Raises:
        InputError: The stream does not end or has no batch, its batches have different structures,
            or the disk is full.
    """
    name = detect_stream_type(data)
    first_shapes: list[Any] = []
    growing: list[dict[str, GrowingArray]] = []
    try:
        for batch in _wrap_errors(_iter_batches(data, inputs), name):
            item = tuple(_to_arrays(part) for part in batch)
            if not first_shapes:
                if any(part.ndim == 0 for part in _flatten_arrays(item)):
                    raise InputError(
                        f"A {name} stream must come in batches, as fit takes it. Received: single "
                        "numbers. Give data.batch(n)."
                    )
                first_shapes = _list_shapes(item)
                growing = [
                    {key: GrowingArray(f"A {name} stream") for key, _ in list_named_arrays(part)}
                    for part in item
                ]
            elif _list_shapes(item) != first_shapes:
                first = [
                    f"{(None, *shape)} {kind}" for part in first_shapes for _, shape, kind in part
                ]
                raise InputError(
                    f"Every batch of a {name} stream must hold the same. Received: shapes "
                    f"{[f'{part.shape} {part.dtype}' for part in _flatten_arrays(item)]} after "
                    f"{first}."
                )
            for part, columns in zip(item, growing, strict=True):
                for key, values in list_named_arrays(part):
                    columns[key].add(values)
        if not first_shapes:
            raise InputError(f"A {name} stream must hold at least one batch. Received: none.")
        return tuple(
            unwrap_columns({key: column.to_array() for key, column in columns.items()})
            for columns in growing
        )
    finally:
        for columns in growing:
            for column in columns.values():
                column.close()


def is_repeatable(data: Any, inputs: InputShapes | None, x: Any) -> bool:
    """Return whether a second pass over a stream yields the same first batch.

    An iterator made by a generator cannot be read again and is assumed to be repeatable.

    Args:
        data: A stream that was read.
        inputs: See `read_stream`.
        x: Examples read in the first pass.
    """
    if isinstance(data, Iterator):
        return True
    batch = next(iter(_wrap_errors(_iter_batches(data, inputs), detect_stream_type(data))), None)
    if batch is None:
        return False
    current, previous = dict(list_named_arrays(_to_arrays(batch[0]))), dict(list_named_arrays(x))
    if set(current) != set(previous):  # a list: `x` has the model's names by now
        current = dict(zip(previous, current.values(), strict=False))
    return all(
        np.array_equal(values.astype(previous[name].dtype), previous[name][: len(values)])
        for name, values in current.items()
    )


def _iter_batches(data: Any, inputs: InputShapes | None) -> Iterator[tuple[Any, ...]]:
    if _is_tf_data(data):
        return _iter_tf_data(data, inputs)
    return _iter_py_dataset(data) if _is_py_dataset(data) else _iter_generator(data, inputs)


def _is_tf_data(data: Any) -> bool:
    tf = sys.modules.get("tensorflow")  # such a stream implies that it is imported
    return tf is not None and isinstance(data, tf.data.Dataset)


def _is_py_dataset(data: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(data, keras.utils.PyDataset)


def _select_input(x: Any, inputs: InputShapes) -> tuple[Any, tuple[int | None, ...]]:
    """Return one array (or specification) of examples, and the shape that the model has for it.

    Args:
        x: Examples as a stream yields them: one array, a list in the model's order, or arrays by
            name, in any order.
        inputs: See `read_stream`.
    """
    first = next(iter(inputs))
    if isinstance(x, Mapping):
        name = first if first in x else next(iter(x))
        return x[name], inputs.get(name, inputs[first])
    return x[0] if isinstance(x, (list, tuple)) else x, inputs[first]


def _iter_generator(data: Any, inputs: InputShapes | None) -> Iterator[tuple[Any, ...]]:
    """Yield batches of a generator; single examples are joined into batches."""
    items = map(_to_tuple, data() if callable(data) else data)
    first = next(items, None)
    if first is None:
        return
    labels = _flatten_arrays((_to_arrays(first[1]),)) if len(first) > 1 else []
    is_unbatched = bool(labels) and labels[0].ndim == 0
    if inputs is not None:
        values, shape = _select_input(first[0], inputs)
        is_unbatched = np.ndim(values) == len(shape)
    all_items = chain([first], items)
    yield from (
        map(_stack_examples, iterate_batches(all_items, BATCH_SIZE)) if is_unbatched else all_items
    )


def _stack_examples(items: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(
        concat_examples(
            [map_columns(lambda values: values[np.newaxis], _to_arrays(part)) for part in column]
        )
        for column in zip(*items, strict=True)
    )


def _iter_tf_data(data: Any, inputs: InputShapes | None) -> Iterator[tuple[Any, ...]]:
    """Yield a finite `tf.data.Dataset` as tuples of array batches; single examples are batched."""
    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InputError(
            "A tf.data.Dataset must end. Received: one without an end (repeat). Give "
            "data.take(n), of as many batches as are wanted."
        )
    spec = data.element_spec
    specs = spec if isinstance(spec, tuple) else (spec,)
    unsupported = [
        type(item).__name__
        for item in tf.nest.flatten(specs)
        if not isinstance(item, tf.TensorSpec)
    ]
    if unsupported:
        raise InputError(f"A tf.data stream must hold plain tensors. Received: {unsupported[0]}.")
    is_unbatched = len(specs) > 1 and tf.nest.flatten(specs[1])[0].shape.rank == 0
    if inputs is not None:
        tensor, shape = _select_input(specs[0], inputs)
        if tensor.shape.rank is not None:
            is_unbatched = tensor.shape.rank == len(shape)
    if is_unbatched:
        # batch anyway: one TensorFlow call per example is slow
        data = data.batch(BATCH_SIZE)
    yield from map(_to_tuple, data.as_numpy_iterator())


def _iter_py_dataset(data: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a PyDataset as tuples; raise InputError if it has no length."""
    try:
        count = data.num_batches
    except NotImplementedError:  # it has no length either
        count = None
    if count is None:
        raise InputError(
            "A keras.utils.PyDataset must end. Received: one without a length. Give it "
            "__len__, or num_batches."
        )
    for index in range(count):
        yield _to_tuple(data[index])


def _to_tuple(element: Any) -> tuple[Any, ...]:
    return element if isinstance(element, tuple) else (element,)


def _wrap_errors(batches: Iterator[tuple[Any, ...]], name: str) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a stream; its errors are raised as a one-line `InputError`."""
    count = 0
    try:
        for batch in batches:
            yield batch
            count += 1
    except (InputError, GeneratorExit):
        raise
    except Exception as error:  # the user's own code, or TensorFlow's
        raise InputError(
            f"A {name} stream must come to its end. It raised {describe_error(error)} after "
            f"{count} batches."
        ) from error


def _to_arrays(part: Any) -> Any:
    """Return an array, or arrays by name; the names of a list are its indices."""
    if isinstance(part, Mapping):
        return {str(name): np.asarray(values) for name, values in part.items()}
    if isinstance(part, (list, tuple)):
        return {str(index): np.asarray(values) for index, values in enumerate(part)}
    return np.asarray(part)


def _flatten_arrays(item: tuple[Any, ...]) -> list[Any]:
    return [values for part in item for values in list_arrays(part)]


def _list_shapes(item: tuple[Any, ...]) -> list[Any]:
    return [
        [(name, values.shape[1:], values.dtype) for name, values in list_named_arrays(part)]
        for part in item
    ]

"""`tfds:NAME`: a data set of TensorFlow Datasets, as pairs of an example and its label."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from compress.core.errors import InputError, one_line
from compress.data.fields import ARRAY, IMAGE, NAMES, NUMBER, OTHER, Field, Layout, Roles, roles_of
from compress.data.kinds import Asked, Kind, raw_data
from compress.data.parts import RawData
from compress.data.pieces import Batch
from compress.data.rows import parts_of_rows
from compress.data.tasks import has_classes
from compress.plan.data import AUTO

AT_A_TIME = 256
"""Pairs that are read at a time."""
_PARTS = {"train": "train", "validation": "val", "test": "test"}
"""Parts by what TensorFlow Datasets calls them."""
_X, _Y = "example", "label"
_VERSION = re.compile(r"/(?=\d+\.\d+\.\d+$)")
"""What some write before a version, where TensorFlow Datasets takes a colon."""


def load(source: str, asked: Asked) -> RawData:
    """Reads a data set that is prepared on this machine, else prepares it.

    Args:
        source: "tfds:mnist", "tfds:cifar10:3.0.2" (or "/3.0.2"), "tfds:ucf101/ucf101_1", ...
        asked: What labels mean, the model's head, and the size that images become of.

    Raises:
        InputError: It is unknown, cannot be prepared, or does not come in pairs of plain arrays.
    """
    builder = _prepared(source)
    splits = {name: part for name, part in _PARTS.items() if name in builder.info.splits}
    if "train" not in splits:
        raise InputError(
            f"'{source}' must have a part called train. Received: "
            f"{', '.join(builder.info.splits) or 'none'}."
        )
    # files in their own order: equal data each time
    streams = {
        part: builder.as_dataset(split=name, as_supervised=True, shuffle_files=False)
        for name, part in splits.items()
    }
    spec = _spec(streams["train"], source)
    fields = dict(zip((_X, _Y), map(_field, spec), strict=True))
    layout = Layout(f"'{source}'", fields, "feature", "give module:function, which makes pairs")
    roles = roles_of(layout, (_Y,), asked.head, bare=asked.bare)
    held = parts_of_rows(
        _batches(streams, layout, roles), layout, roles, asked.head, asked.options.resize
    )
    label = builder.info.features[builder.info.supervised_keys[1]]
    of_classes = asked.options.task == AUTO or has_classes(asked.options.task)
    classes = tuple(getattr(label, "names", None) or ()) if of_classes else ()
    left = [name for name in builder.info.splits if name not in splits]
    notes = (f"parts of '{source}' that are not used: {', '.join(left)}",) if left else ()
    return raw_data(held, source, asked, classes or None, (*notes, *roles.notes))


def _prepared(source: str) -> Any:
    """Returns what reads the data set, which lies on this machine then."""
    import tensorflow_datasets

    name = _VERSION.sub(":", source.partition(":")[2])
    try:
        # what it says while it prepares is no result of ours
        with redirect_stdout(sys.stderr):
            builder = tensorflow_datasets.builder(name)
            builder.download_and_prepare()
    except Exception as error:  # its own classes, those of networks, archives and servers
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". :")
        raise InputError(
            f"'{source}' must be a data set that TensorFlow Datasets knows, prepared on this "
            f"machine or downloadable. Received: {one_line(reason)}. Without network prepare it "
            "elsewhere (tfds build) and set TFDS_DATA_DIR, or give a file with --data."
        ) from None
    if builder.info.supervised_keys is None or len(builder.info.supervised_keys) != 2:
        raise InputError(
            f"'{source}' must come as pairs of example and label (as_supervised). Received: "
            f"features {', '.join(builder.info.features)}. Give module:function, which makes "
            "pairs of them."
        )
    return builder


def _spec(stream: Any, source: str) -> tuple[Any, Any]:
    """Returns the shapes and types of a pair."""
    import tensorflow as tf

    for part in stream.element_spec:
        if not isinstance(part, tf.TensorSpec):
            raise InputError(
                f"'{source}' must hold plain arrays. Received: a {type(part).__name__}. Give "
                "module:function, which makes arrays of them."
            )
    x, y = stream.element_spec
    return x, y


def _field(spec: Any) -> Field:
    """Returns what one half of the pairs holds."""
    shape, kind = spec.shape, spec.dtype
    if kind.name == "string":
        return Field(NAMES if shape.rank == 0 else OTHER, "texts")
    if not (kind.is_integer or kind.is_floating or kind.is_bool):
        return Field(OTHER, kind.name)
    if shape.rank == 3 and kind.name == "uint8" and shape[-1] in (1, 3, None):
        return Field(IMAGE)
    return Field(NUMBER if shape.rank == 0 else ARRAY)


def _batches(
    streams: Mapping[str, Any], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yields pairs with their part and what errors call each pair."""
    for part, stream in streams.items():
        waiting: list[tuple[Any, Any]] = []
        done = 0
        # one by one: images may be of several sizes
        for pair in stream.as_numpy_iterator():
            waiting.append(pair)
            if len(waiting) == AT_A_TIME:
                yield part, *_batch(waiting, layout, roles, done)
                done += len(waiting)
                waiting = []
        if waiting:
            yield part, *_batch(waiting, layout, roles, done)


def _batch(
    pairs: Sequence[tuple[Any, Any]], layout: Layout, roles: Roles, done: int
) -> tuple[Batch, Sequence[str]]:
    rows = [f"example {done + place:,}" for place in range(1, len(pairs) + 1)]
    held = dict(zip((_X, _Y), zip(*pairs, strict=True), strict=True))
    return {name: _values(held[name], name, layout) for name in roles.read}, rows


def _values(values: Sequence[Any], name: str, layout: Layout) -> Any:
    kind = layout.fields[name].kind
    if kind == IMAGE:
        return list(values)
    if kind == NAMES:
        return np.array([text.decode("utf-8", "backslashreplace") for text in values], object)
    shapes = list(dict.fromkeys(np.shape(value) for value in values))
    if len(shapes) > 1:
        raise InputError(
            f"Every {name} of {layout.where} must have one shape. Received: {shapes[0]} and "
            f"{shapes[1]}. Give module:function, which pads or cuts them."
        )
    return np.stack(values)


KIND = Kind(load, ("resize",))
"""What reads `tfds:NAME`."""

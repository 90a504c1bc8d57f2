"""Conversion of rows of tables and records, batch by batch, to arrays.

Large arrays are written to files as they grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.arrays import GrowingArray, convert_rows, slice_chunks, unwrap_columns
from compress.core.errors import InputError
from compress.data.kinds import IMAGE, NAMES, NUMBER, Layout, Roles
from compress.data.label_inference import Head, Heads, find_input_shape
from compress.data.parts import SPLITS, Array, Split

Batch = Mapping[str, Any]
"""Values by field: numbers (n,), lists (n, ...), names (n,) of texts, or a list of n images."""
RESIZE_REMEDY = "Resize them: --resize HEIGHT,WIDTH."


def collect_parts(
    batches: Iterator[tuple[str, Batch, Sequence[str]]],
    layout: Layout,
    roles: Roles,
    head: Head | Heads | None,
    resize: tuple[int, int] | None = None,
    remedy: str = RESIZE_REMEDY,
) -> dict[str, Split]:
    """Read all batches and return the arrays of each part.

    Args:
        batches: Tuples of part ("train", "val" or "test"), values by field, and a name of each row
            for errors; missing numbers and lists are NaN, missing names and images None.
        layout: Fields of the source.
        roles: Roles of the fields.
        head: Head of the model that is fed, if there is one; examples are reshaped to its input
            shape if the sizes match.
        resize: Height and width that images are resized to; None: unchanged.
        remedy: Advice in the error if images have different sizes.

    Returns:
        Parts by name, without empty parts.

    Raises:
        InputError: Values are missing, lists or images have different sizes, there is no training
            example, or the disk is full.
    """
    parts = {part: _PartBuilder(layout, roles, resize, remedy) for part in SPLITS}
    missing: Counter[str] = Counter()
    try:
        for part, batch, rows in batches:
            for name, values in batch.items():
                missing[name] += _count_missing(values)
            # once a value is missing, only count missing values for the error
            if not missing.total():
                parts[part].add(batch, rows)
        _require_values(missing, layout)
        filled = {part: builder for part, builder in parts.items() if builder.count}
        if "train" not in filled:
            raise InputError(
                f"{layout.sentence_start} must hold examples of the training part. Received: "
                f"{', '.join(filled) or 'none'}."
            )
        _match_colours(list(filled.values()))
        return {part: _reshape_examples(builder.build(), head) for part, builder in filled.items()}
    finally:
        for builder in parts.values():
            builder.close()


class _PartBuilder:
    def __init__(
        self, layout: Layout, roles: Roles, resize: tuple[int, int] | None, remedy: str
    ) -> None:
        self._roles = roles
        self.inputs = {
            name: _create_builder(layout, columns, name, resize, remedy)
            for name, columns in roles.inputs.items()
        }
        self._labels: dict[str, list[Array]] = {name: [] for name in roles.labels}
        self._names = {column for column, field in layout.fields.items() if field.kind == NAMES}
        self._others: dict[str, list[Array]] = {role: [] for role in roles.others}
        self.count = 0

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the rows of a batch."""
        if not len(rows):
            return
        self.count += len(rows)
        for builder in self.inputs.values():
            builder.add(batch, rows)
        for name, columns in self._roles.labels.items():
            label_columns = [np.asarray(batch[column]) for column in columns]
            if columns[0] in self._names:
                label_columns = [label_columns[0].astype(str)]
            self._labels[name].append(
                label_columns[0] if len(label_columns) == 1 else np.stack(label_columns, axis=1)
            )
        for role, column in self._roles.others.items():
            self._others[role].append(np.asarray(batch[column]))

    def build(self) -> Split:
        """Return the part with all rows."""
        x = {name: builder.build() for name, builder in self.inputs.items()}
        y = {name: np.concatenate(parts) for name, parts in self._labels.items()}
        others = {role: np.concatenate(values) for role, values in self._others.items()}
        return Split(unwrap_columns(x), unwrap_columns(y) if y else None, **others)

    def close(self) -> None:
        """Close the files; their content exists as long as arrays are mapped to them."""
        for builder in self.inputs.values():
            builder.close()


class _InputBuilder:
    """Builder of the array of one input; this class stacks columns of numbers, as float32.

    Args:
        columns: Fields of the input.
        where: Name of the source in errors.
    """

    def __init__(self, columns: Sequence[str], where: str) -> None:
        self._columns, self._where = columns, where
        self._array = GrowingArray(where)

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the rows of a batch; `rows` are their names in errors."""
        with np.errstate(over="ignore"):  # infinity is rejected later, with a clear message
            values = [np.asarray(batch[name]).astype(np.float32) for name in self._columns]
        self._array.add(np.stack(values, axis=1))

    def build(self) -> Array:
        """Return the input of all rows."""
        return self._array.to_array()

    def close(self) -> None:
        """Close the file; its content exists as long as an array is mapped to it."""
        self._array.close()


class _ColumnBuilder(_InputBuilder):
    """Builder of one column of numbers, (n, 1), which stays integer if all values are."""

    _has_integers = True

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the rows of a batch."""
        values = np.asarray(batch[self._columns[0]])
        self._has_integers &= values.dtype.kind in "iub"
        # float64 keeps integers up to 2^53 exact if fractions follow
        self._array.add(values.astype(np.float64)[:, None])

    def build(self) -> Array:
        """Return the column of all rows."""
        kind = np.int64 if self._has_integers else np.float32
        with np.errstate(over="ignore"):
            return convert_rows(super().build(), lambda part: part.astype(kind))


class _ListBuilder(_InputBuilder):
    """Builder of lists of one length, (n, ...); floating point becomes float32."""

    _first: tuple[tuple[int, ...], Any] | None = None

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the rows of a batch."""
        values = np.asarray(batch[self._columns[0]])
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        shape = values.shape[1:]
        self._first = self._first or (shape, values.dtype)
        if (shape, values.dtype) != self._first:
            raise InputError(
                f"Every '{self._columns[0]}' of {self._where} must have one shape and type. "
                f"Received: {shape} {values.dtype} ({rows[0]}) after {self._first[0]} "
                f"{self._first[1]}."
            )
        self._array.add(values)


class _ImageBuilder(_InputBuilder):
    """Builder of images, (n, H, W, 1 or 3); transparency is removed.

    The images of a batch are arrays of bytes (H, W, C), with C from 1 to 4.

    Args:
        columns: Fields of the input.
        where: Name of the source in errors.
        resize: Height and width that all images are resized to; None: they must have one size.
        remedy: Advice in the error if the sizes differ.
    """

    _first: tuple[tuple[int, ...], str] | None = None
    is_grey = True

    def __init__(
        self, columns: Sequence[str], where: str, resize: tuple[int, int] | None, remedy: str
    ) -> None:
        super().__init__(columns, where)
        self._resize, self._remedy = resize, remedy

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the images of a batch."""
        images = [
            self._prepare_image(image, row)
            for image, row in zip(batch[self._columns[0]], rows, strict=True)
        ]
        if any(image.shape[-1] != 1 for image in images):
            self.convert_to_colour()
        channels = 1 if self.is_grey else 3
        self._array.add(np.stack([_expand_channels(image, channels) for image in images]))

    def convert_to_colour(self) -> None:
        """Convert the grey images added so far, and all later ones, to colour."""
        if not self.is_grey:
            return
        self.is_grey = False
        if self._array.bytes:
            grey_images, self._array = self._array.to_array(), GrowingArray(self._where)
            for part in slice_chunks(grey_images):
                self._array.add(_expand_channels(grey_images[part], 3))

    def _prepare_image(self, image: Array, row: str) -> Array:
        """Return an image without alpha, resized if asked; raise if sizes differ otherwise."""
        if image.shape[-1] in (2, 4):
            image = image[..., :-1]
        if self._resize is not None:
            return _resize_image(image, self._resize)
        self._first = self._first or (image.shape[:2], row)
        size, first = self._first
        if image.shape[:2] != size:
            raise InputError(
                f"Images must have one size. Received: {size[1]}x{size[0]} ({first}) and "
                f"{image.shape[1]}x{image.shape[0]} ({row}). {self._remedy}"
            )
        return image


def _create_builder(
    layout: Layout, columns: tuple[str, ...], name: str, resize: tuple[int, int] | None, remedy: str
) -> _InputBuilder:
    """Return the array builder of one input; the only input has the name ""."""
    kind = layout.fields[columns[0]].kind
    if kind == IMAGE:
        return _ImageBuilder(columns, layout.where, resize, remedy)
    if kind != NUMBER:
        return _ListBuilder(columns, layout.where)
    return _ColumnBuilder(columns, layout.where) if name else _InputBuilder(columns, layout.where)


def _resize_image(image: Array, size: tuple[int, int]) -> Array:
    """Return an image of bytes at another height and width, as in `compress.data.images`."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized.reshape(*size, image.shape[-1])


def _expand_channels(image: Array, channels: int) -> Array:
    return image if image.shape[-1] == channels else np.repeat(image, channels, axis=-1)


def _count_missing(values: Any) -> int:
    """Return the number of rows with a missing value."""
    if isinstance(values, list):
        return sum(item is None for item in values)
    if values.dtype == object:
        return int((values == np.array(None)).sum())
    if values.dtype.kind != "f":
        return 0
    return int(np.isnan(values).any(axis=tuple(range(1, values.ndim))).sum())


def _require_values(missing: Counter[str], layout: Layout) -> None:
    shown = [f"{count:,} in {layout.noun} '{name}'" for name, count in missing.items() if count]
    if shown:
        raise InputError(
            f"{layout.sentence_start} must have a value in every row. Received: missing "
            f"{', '.join(shown)} (empty, NaN, NA, null or None). Fill them in, or leave these "
            "rows out."
        )


def _match_colours(parts: Sequence[_PartBuilder]) -> None:
    """Convert the images of all parts to colour if any part has colour images."""
    for name in parts[0].inputs:
        builders = [part.inputs[name] for part in parts]
        images = [builder for builder in builders if isinstance(builder, _ImageBuilder)]
        if not all(builder.is_grey for builder in images):
            for builder in images:
                builder.convert_to_colour()


def _reshape_examples(split: Split, head: Head | Heads | None) -> Split:
    """Return examples in the shape of the model's input if the sizes match."""
    if head is None:
        return split
    if not isinstance(split.x, dict):
        return replace(split, x=_reshape_array(split.x, find_input_shape(head) or ()))
    return replace(
        split,
        x={name: _reshape_array(values, head.inputs[name]) for name, values in split.x.items()},
    )


def _reshape_array(values: Array, shape: tuple[int | None, ...]) -> Array:
    sizes = [size for size in shape if size is not None]
    fits = len(sizes) == len(shape) > 0 and np.prod(sizes) == np.prod(values.shape[1:])
    return values.reshape(len(values), *sizes) if fits else values

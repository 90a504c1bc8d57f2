"""Conversion of rows of tables and records, batch by batch, to arrays.

What is large goes to files as it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.arrays import Growing, chunks, converted, unnamed
from compress.core.errors import InputError
from compress.data.kinds import IMAGE, NAMES, NUMBER, Layout, Roles
from compress.data.meaning import Head, Heads, first_shape
from compress.data.parts import SPLITS, Array, Split

Batch = Mapping[str, Any]
"""Values by field: numbers (n,), lists (n, ...), names (n,) of texts, or a list of n images."""
RESIZE = "Resize them: --resize HEIGHT,WIDTH."


def parts_of_rows(
    batches: Iterator[tuple[str, Batch, Sequence[str]]],
    layout: Layout,
    roles: Roles,
    head: Head | Heads | None,
    resize: tuple[int, int] | None = None,
    remedy: str = RESIZE,
) -> dict[str, Split]:
    """Read batches to their end and return the arrays of each part.

    Args:
        batches: Part ("train", "val" or "test"), values by field and what errors call each row;
            numbers and lists are NaN where a value is missing, names and images None.
        layout: What the source holds.
        roles: What becomes of it.
        head: Of the model that is fed, where there is one: examples take its input's shape where
            they have as many numbers.
        resize: Height and width that images become of.
        remedy: What helps where images have several sizes.

    Returns:
        What each part holds, those without examples left out.

    Raises:
        InputError: Values are missing, lists or images have several sizes, there is no training
            example, or the disk is full.
    """
    parts = {part: _Examples(layout, roles, resize, remedy) for part in SPLITS}
    missing: Counter[str] = Counter()
    try:
        for part, batch, rows in batches:
            for name, values in batch.items():
                missing[name] += _missing(values)
            # what is missing is counted to the end; rows are of no use then
            if not missing.total():
                parts[part].add(batch, rows)
        _require_all(missing, layout)
        filled = {part: held for part, held in parts.items() if held.count}
        if "train" not in filled:
            raise InputError(
                f"{layout.begins} must hold examples of the training part. Received: "
                f"{', '.join(filled) or 'none'}."
            )
        _in_one_form(list(filled.values()))
        return {part: _shaped(held.whole(), head) for part, held in filled.items()}
    finally:
        for held in parts.values():
            held.close()


class _Examples:
    def __init__(
        self, layout: Layout, roles: Roles, resize: tuple[int, int] | None, remedy: str
    ) -> None:
        self._roles = roles
        self.inputs = {
            name: _piece(layout, columns, name, resize, remedy)
            for name, columns in roles.inputs.items()
        }
        self._labels: dict[str, list[Array]] = {name: [] for name in roles.labels}
        self._names = {column for column, held in layout.fields.items() if held.kind == NAMES}
        self._others: dict[str, list[Array]] = {what: [] for what in roles.others}
        self.count = 0

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        if not len(rows):
            return
        self.count += len(rows)
        for piece in self.inputs.values():
            piece.add(batch, rows)
        for name, columns in self._roles.labels.items():
            held = [np.asarray(batch[column]) for column in columns]
            if columns[0] in self._names:
                held = [held[0].astype(str)]
            self._labels[name].append(held[0] if len(held) == 1 else np.stack(held, axis=1))
        for what, column in self._roles.others.items():
            self._others[what].append(np.asarray(batch[column]))

    def whole(self) -> Split:
        x = {name: piece.whole() for name, piece in self.inputs.items()}
        y = {name: np.concatenate(parts) for name, parts in self._labels.items()}
        others = {what: np.concatenate(values) for what, values in self._others.items()}
        return Split(unnamed(x), unnamed(y) if y else None, **others)

    def close(self) -> None:
        for piece in self.inputs.values():
            piece.close()


class _Piece:
    """The array of one input, as it grows; here numbers side by side, float32.

    Args:
        columns: The fields that it is made of.
        where: As errors call what they are part of.
    """

    def __init__(self, columns: Sequence[str], where: str) -> None:
        self._columns, self._where = columns, where
        self._grown = Growing(where)

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Append the rows of a batch; `rows` are their names in errors."""
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            values = [np.asarray(batch[name]).astype(np.float32) for name in self._columns]
        self._grown.add(np.stack(values, axis=1))

    def whole(self) -> Array:
        return self._grown.whole()

    def close(self) -> None:
        """Let its file go; it stays for as long as an array is mapped to it."""
        self._grown.close()


class _Column(_Piece):
    """One column of numbers, (n, 1): whole numbers (indices, say) where all of them are."""

    _are_whole = True

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        values = np.asarray(batch[self._columns[0]])
        self._are_whole &= values.dtype.kind in "iub"
        # whole numbers up to 2^53 stay exact, whatever comes later
        self._grown.add(values.astype(np.float64)[:, None])

    def whole(self) -> Array:
        kind = np.int64 if self._are_whole else np.float32
        with np.errstate(over="ignore"):
            return converted(super().whole(), lambda part: part.astype(kind))


class _Lists(_Piece):
    """Lists of one length, (n, ...); floating point becomes float32."""

    _first: tuple[tuple[int, ...], Any] | None = None

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
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
        self._grown.add(values)


class _Images(_Piece):
    """Images, (H, W, C) of bytes each, C 1 to 4: (n, H, W, 1 or 3), transparency is left out.

    Args:
        columns, where: See `_Piece`.
        resize: Height and width that all become of; None: they must have one size.
        remedy: What helps where they have not.
    """

    _first: tuple[tuple[int, ...], str] | None = None
    grey = True

    def __init__(
        self, columns: Sequence[str], where: str, resize: tuple[int, int] | None, remedy: str
    ) -> None:
        super().__init__(columns, where)
        self._resize, self._remedy = resize, remedy

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        plain = [
            self._plain(image, row)
            for image, row in zip(batch[self._columns[0]], rows, strict=True)
        ]
        if any(image.shape[-1] != 1 for image in plain):
            self.colour()
        channels = 1 if self.grey else 3
        self._grown.add(np.stack([_deep(image, channels) for image in plain]))

    def colour(self) -> None:
        """Make colour images of the grey ones so far; those to come are in colour too."""
        if not self.grey:
            return
        self.grey = False
        if self._grown.bytes:
            held, self._grown = self._grown.whole(), Growing(self._where)
            for part in chunks(held):
                self._grown.add(_deep(held[part], 3))

    def _plain(self, image: Array, row: str) -> Array:
        if image.shape[-1] in (2, 4):
            image = image[..., :-1]
        if self._resize is not None:
            return _sized(image, self._resize)
        self._first = self._first or (image.shape[:2], row)
        size, first = self._first
        if image.shape[:2] != size:
            raise InputError(
                f"Images must have one size. Received: {size[1]}x{size[0]} ({first}) and "
                f"{image.shape[1]}x{image.shape[0]} ({row}). {self._remedy}"
            )
        return image


def _piece(
    layout: Layout, columns: tuple[str, ...], name: str, resize: tuple[int, int] | None, remedy: str
) -> _Piece:
    """Return the array to grow for one input; the only input has the name ""."""
    kind = layout.fields[columns[0]].kind
    if kind == IMAGE:
        return _Images(columns, layout.where, resize, remedy)
    if kind != NUMBER:
        return _Lists(columns, layout.where)
    return _Column(columns, layout.where) if name else _Piece(columns, layout.where)


def _sized(image: Array, size: tuple[int, int]) -> Array:
    """Return an image of bytes at another height and width, as those of folders are resized."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    held = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    made = np.asarray(held.resize(size[::-1], Image.Resampling.BILINEAR))
    return made.reshape(*size, image.shape[-1])


def _deep(image: Array, channels: int) -> Array:
    return image if image.shape[-1] == channels else np.repeat(image, channels, axis=-1)


def _missing(values: Any) -> int:
    """Return in how many rows a value is missing."""
    if isinstance(values, list):
        return sum(item is None for item in values)
    if values.dtype == object:
        return int((values == np.array(None)).sum())
    if values.dtype.kind != "f":
        return 0
    return int(np.isnan(values).any(axis=tuple(range(1, values.ndim))).sum())


def _require_all(missing: Counter[str], layout: Layout) -> None:
    found = [f"{count:,} in {layout.noun} '{name}'" for name, count in missing.items() if count]
    if found:
        raise InputError(
            f"{layout.begins} must have a value in every row. Received: missing "
            f"{', '.join(found)} (empty, NaN, NA, null or None). Fill them in, or leave these "
            "rows out."
        )


def _in_one_form(parts: Sequence[_Examples]) -> None:
    """Make images of all parts colour images where those of one are."""
    for name in parts[0].inputs:
        images = [piece for part in parts if isinstance(piece := part.inputs[name], _Images)]
        if not all(piece.grey for piece in images):
            for piece in images:
                piece.colour()


def _shaped(held: Split, head: Head | Heads | None) -> Split:
    """Return examples in the shape of the model's input, where they have as many numbers."""
    if head is None:
        return held
    if not isinstance(held.x, dict):
        return replace(held, x=_as(held.x, first_shape(head) or ()))
    return replace(
        held, x={name: _as(values, head.inputs[name]) for name, values in held.x.items()}
    )


def _as(values: Array, shape: tuple[int | None, ...]) -> Array:
    sizes = [size for size in shape if size is not None]
    fits = len(sizes) == len(shape) > 0 and np.prod(sizes) == np.prod(values.shape[1:])
    return values.reshape(len(values), *sizes) if fits else values

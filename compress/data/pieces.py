"""Arrays of one input each, as they grow batch by batch; what is large goes to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Growing, chunks, converted
from compress.core.errors import InputError
from compress.data.fields import IMAGE, NUMBER, Layout

Array = npt.NDArray[Any]
Batch = Mapping[str, Any]
"""Values by field: numbers (n,), lists (n, ...), names (n,) of texts, or a list of n images."""
RESIZE = "Resize them: --resize HEIGHT,WIDTH."


def piece_for(
    layout: Layout,
    columns: tuple[str, ...],
    name: str,
    resize: tuple[int, int] | None,
    remedy: str,
) -> Piece:
    """Returns what the fields of one input become.

    Args:
        layout: What the source holds.
        columns: Fields; several are side by side.
        name: Of the input; "": it is the only one.
        resize: Height and width that images become of.
        remedy: What helps where images have several sizes.
    """
    kind, what = layout.fields[columns[0]].kind, layout.where
    if kind == IMAGE:
        return Images(columns[0], Pictures(what, resize, remedy))
    if kind != NUMBER:
        return _Lists(columns[0], Growing(what), what)
    return _Column(columns[0], Growing(what)) if name else _Matrix(columns, Growing(what))


class Piece:
    """The array of one input.

    Args:
        grown: What holds it while it grows.
    """

    def __init__(self, grown: Growing | Pictures) -> None:
        self._grown = grown

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Appends what a batch holds of it; `rows` is what errors call each row."""
        raise NotImplementedError

    def whole(self) -> Array:
        """Returns all of it; nothing can be added then."""
        return self._grown.whole()

    def close(self) -> None:
        """Lets its file go; it stays for as long as an array is mapped to it."""
        self._grown.close()


class _Matrix(Piece):
    """Columns of numbers side by side, float32."""

    def __init__(self, columns: Sequence[str], grown: Growing) -> None:
        super().__init__(grown)
        self._columns, self._rows = columns, grown

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        with np.errstate(over="ignore"):  # infinity is refused later, and in words
            values = [np.asarray(batch[name]).astype(np.float32) for name in self._columns]
        self._rows.add(np.stack(values, axis=1))


class _Column(Piece):
    """One column of numbers, (n, 1): whole numbers (indices, say) where all of them are."""

    def __init__(self, column: str, grown: Growing) -> None:
        super().__init__(grown)
        self._column, self._rows, self._are_whole = column, grown, True

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        values = np.asarray(batch[self._column])
        self._are_whole &= values.dtype.kind in "iub"
        # whole numbers up to 2^53 stay exact, whatever comes later
        self._rows.add(values.astype(np.float64)[:, None])

    def whole(self) -> Array:
        kind = np.int64 if self._are_whole else np.float32
        with np.errstate(over="ignore"):
            return converted(super().whole(), lambda part: part.astype(kind))


class _Lists(Piece):
    """Lists of one length, (n, ...); floating point becomes float32."""

    def __init__(self, column: str, grown: Growing, what: str) -> None:
        super().__init__(grown)
        self._column, self._rows, self._what = column, grown, what
        self._first: tuple[tuple[int, ...], Any] | None = None

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        values = np.asarray(batch[self._column])
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        shape = values.shape[1:]
        self._first = self._first or (shape, values.dtype)
        if (shape, values.dtype) != self._first:
            raise InputError(
                f"Every '{self._column}' of {self._what} must have one shape and type. Received: "
                f"{shape} {values.dtype} ({rows[0]}) after {self._first[0]} {self._first[1]}."
            )
        self._rows.add(values)


class Images(Piece):
    """Images of one field."""

    def __init__(self, column: str, pictures: Pictures) -> None:
        super().__init__(pictures)
        self._column, self.pictures = column, pictures

    def add(self, batch: Batch, rows: Sequence[str]) -> None:
        """Appends a batch's images."""
        self.pictures.add(batch[self._column], rows)


class Pictures:
    """Images that come batch by batch; what is large goes to a file.

    Args:
        what: They are part of, for errors.
        resize: Height and width that all become of; None: they must have one size.
        remedy: What helps where they have not.
    """

    def __init__(
        self, what: str, resize: tuple[int, int] | None = None, remedy: str = RESIZE
    ) -> None:
        self._what, self._resize, self._remedy = what, resize, remedy
        self._grown = Growing(what)
        self._first: tuple[tuple[int, ...], str] | None = None
        self.grey = True

    def add(self, images: Sequence[Array], names: Sequence[str]) -> None:
        """Appends images.

        Args:
            images: (H, W, C) of bytes each, C 1 to 4; transparency is left out.
            names: What errors call each.

        Raises:
            InputError: One has another size than the first, or the disk is full.
        """
        plain = [self._plain(image, name) for image, name in zip(images, names, strict=True)]
        grey = all(image.shape[-1] == 1 for image in plain)
        if self.grey and not grey:
            self.colour()
        channels = 1 if self.grey else 3
        self._grown.add(np.stack([_deep(image, channels) for image in plain]))

    def colour(self) -> None:
        """Makes colour images of the grey ones so far; those to come are in colour too."""
        if not self.grey:
            return
        self.grey = False
        if not self._grown.bytes:
            return
        held, grown = self._grown.whole(), Growing(self._what)
        for part in chunks(held):
            grown.add(_deep(held[part], 3))
        self._grown = grown

    def whole(self) -> Array:
        """Returns all images, (n, H, W, 1 or 3); nothing can be added then."""
        return self._grown.whole()

    def close(self) -> None:
        """Lets the file go."""
        self._grown.close()

    def _plain(self, image: Array, name: str) -> Array:
        if image.shape[-1] in (2, 4):
            image = image[..., :-1]
        if self._resize is not None:
            return sized(image, self._resize)
        if self._first is None:
            self._first = image.shape[:2], name
        size, first = self._first
        if image.shape[:2] != size:
            raise InputError(
                f"Images must have one size. Received: {size[1]}x{size[0]} ({first}) and "
                f"{image.shape[1]}x{image.shape[0]} ({name}). {self._remedy}"
            )
        return image


def sized(image: Array, size: tuple[int, int]) -> Array:
    """Returns an image of bytes at another height and width, as those of folders are resized."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    held = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    made = np.asarray(held.resize(size[::-1], Image.Resampling.BILINEAR))
    return made.reshape(*size, image.shape[-1])


def _deep(image: Array, channels: int) -> Array:
    """Returns an image, or several, with as many channels."""
    return image if image.shape[-1] == channels else np.repeat(image, channels, axis=-1)

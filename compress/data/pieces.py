"""Arrays of one input each, as they grow batch by batch; what is large goes to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.spool import Growing, converted
from compress.data.fields import IMAGE, NUMBER, Layout
from compress.data.pictures import Pictures

Array = npt.NDArray[Any]
Batch = Mapping[str, Any]
"""Values by field: numbers (n,), lists (n, ...), names (n,) of texts, or a list of n images."""


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

"""A .csv file: the first line names the columns, each other line is an example."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np

from compress.core import arrays
from compress.core.errors import InputError, one_line
from compress.data.fields import DATES, NAMES, NUMBER, Field, Layout
from compress.data.kinds import Asked, Kind
from compress.data.parts import Array, RawData
from compress.data.rows import MOST_ROWS, SPLIT, WEIGHT, read

_DAMAGED = (OSError, EOFError, ValueError, zlib.error)
"""What pandas raises over files that are none: its own errors are ValueErrors."""
_UNNAMED = re.compile(r"Unnamed: \d+")
"""What pandas calls a column without a name."""
_SEPARATORS = ",;\t"


class _Text(Exception):
    """A column that began with numbers holds texts too."""

    def __init__(self, column: str, shown: str) -> None:
        super().__init__(column)
        self.column, self.shown = column, shown


def load(source: str, asked: Asked) -> RawData:
    """Reads the file some lines at a time.

    Args:
        source: The file, gzipped where its name ends in .gz; columns are separated by commas, or
            by semicolons or tabs where its first line has no comma.
        asked: Which columns are labels, what they mean, and the model's head.

    Raises:
        InputError: It is no CSV file, or see `compress.data.rows.read`.
    """
    texts: dict[str, str] = {}
    while True:
        try:
            return read(_Csv(source, texts), source, asked)
        except _Text as found:
            # from the first line on: 01 and 1 are one number, and two names
            texts[found.column] = found.shown


class _Csv:
    """A table in a .csv file.

    Args:
        path: Of the file.
        texts: Columns that are known to hold texts, with one of them.
    """

    def __init__(self, path: str, texts: Mapping[str, str]) -> None:
        self._path = path
        with _explained(path):
            self._separator = _separator(path)
            header = self._read(nrows=0)
            names = [str(name) for name in header.columns]
            unnamed = [place for place, name in enumerate(names) if _UNNAMED.fullmatch(name)]
            if unnamed:
                raise InputError(
                    f"The first line of '{path}' must name every column. Received: none for "
                    f"column {unnamed[0] + 1} of {len(names)}. Give it a name; a frame's own "
                    "numbers are left out by to_csv(index=False)."
                )
            # numbers take 8 bytes each, texts more
            self._rows = max(1, min(MOST_ROWS, arrays.CHUNK // (16 * len(names))))
            self._texts = set(texts)
            first = self._read(nrows=self._rows, dtype=dict.fromkeys(texts, str))
        fields = {}
        for name in names:
            shown = texts.get(name) or _text_in(first[name], 1)
            day = shown is not None and _is_date(shown)
            kind = NUMBER if shown is None else DATES if day else NAMES
            fields[name] = Field(kind, shown or "")
            if shown is not None:
                self._texts.add(name)
        self.layout = Layout(f"'{path}'", fields, weight=WEIGHT, split=SPLIT)

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Yields some lines at a time."""
        done = 0
        types = {name: str for name in columns if name in self._texts}
        with _explained(self._path):
            chunks = self._read(usecols=list(columns), dtype=types, chunksize=self._rows)
        with chunks:
            while True:
                with _explained(self._path):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield {name: self._values(chunk[name], done + 1) for name in columns}
                done += len(chunk)

    def _values(self, column: Any, row: int) -> Array:
        """Returns a column as an array; `row` is the number of its first."""
        name = str(column.name)
        if name in self._texts:
            held = np.array(column.to_numpy(object))
            held[column.isna().to_numpy()] = None
            return held
        shown = _text_in(column, row)
        if shown is not None:
            raise _Text(name, shown)
        values: Array = column.to_numpy()
        # true and false with some missing are objects
        return values.astype(np.float64) if values.dtype == object else values

    def _read(self, **how: Any) -> Any:
        import pandas as pd

        return pd.read_csv(
            self._path, sep=self._separator, index_col=False, skipinitialspace=True,
            low_memory=False, **how,
        )  # fmt: skip


def _separator(path: str) -> str:
    """Returns what separates columns: a comma, or what else the first line has."""
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        line = stream.readline()
    return next((sign for sign in _SEPARATORS if sign in line), ",")


def _text_in(column: Any, row: int) -> str | None:
    """Returns the first text in a column and its row; None: it holds numbers, true and false."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    texts = (numbers.isna() & column.notna()).to_numpy()
    if not texts.any():
        return None
    place = int(texts.argmax())
    return f"'{one_line(column.iloc[place])}' in row {row + place:,}"


def _is_date(shown: str) -> bool:
    try:
        datetime.fromisoformat(shown[1:].partition("'")[0])
    except ValueError:
        return False
    return True


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Makes one line of whatever is wrong with the file."""
    try:
        with warnings.catch_warnings():
            # of lines that are longer than the first
            warnings.filterwarnings("error", message="Length of header")
            yield
    except InputError:
        raise
    except Warning:
        raise InputError(
            f"'{path}' must have a name in its first line for every column. Received: fewer than "
            "other lines have fields."
        ) from None
    except _DAMAGED as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise InputError(
            f"'{path}' must be a CSV file whose first line names the columns, in UTF-8. Received: "
            f"{one_line(reason)}."
        ) from None


KIND = Kind(load, ("label", "group_column", "time_column"))
"""What reads files that end in .csv."""

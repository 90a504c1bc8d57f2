"""Tables in files: .csv (the first line names the columns) and .parquet, one row an example."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from compress.core import arrays
from compress.core.errors import InputError, one_line
from compress.data.kinds import (
    ARRAY,
    DATES,
    NAMES,
    NUMBER,
    OTHER,
    Asked,
    Field,
    Kind,
    Layout,
    Roles,
    raw_data,
    roles_of,
)
from compress.data.parts import Array, RawData
from compress.data.rows import Batch, parts_of_rows

WEIGHT = "weight"
SPLIT = "split"
"""Columns that are no inputs, where they are there."""
MOST_ROWS = 65_536
"""Rows that are read at a time, however short they are."""
_PARTS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Parts by what the column of parts calls them."""
_UNNAMED = re.compile(r"Unnamed: \d+")
"""What pandas calls a column without a name."""
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a frame's own row numbers or names: they are no column."""
_SEPARATORS = ",;\t"
_DAMAGED = (OSError, EOFError, ValueError, zlib.error)
"""What readers raise over files that are none: pandas' own errors are ValueErrors."""


class _Text(Exception):
    """A column that began with numbers holds texts too: its name, and one of them."""


def load_csv(source: str, asked: Asked) -> RawData:
    """Read a .csv file some lines at a time.

    Args:
        source: The file, gzipped where its name ends in .gz; columns are separated by commas, or
            by semicolons or tabs where its first line has no comma.
        asked: Which columns are labels, what they mean, and the model's head.

    Raises:
        InputError: It is no CSV file, or see `read`.
    """
    texts: dict[str, str] = {}
    while True:
        try:
            return read(_Csv(source, texts), source, asked)
        except _Text as found:
            # from the first line on: 01 and 1 are one number, and two names
            name, shown = found.args
            texts[name] = shown


def load_parquet(source: str, asked: Asked) -> RawData:
    """Read a .parquet file some rows at a time, and of its columns those that are used.

    Raises:
        InputError: It is no Parquet file, lists have several lengths, or see
            `read`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    explained = partial(
        _explained, source, "a complete Parquet file", (*_DAMAGED, pa.ArrowException)
    )
    with explained():
        # read ahead, all that is read would be held to the end
        file = pq.ParquetFile(source, pre_buffer=False)
    with file:
        return read(_Parquet(source, explained, file), source, asked)


def read(table: _Table, source: str, asked: Asked) -> RawData:
    """Read a table; large arrays grow in files.

    Args:
        table: The table.
        source: As the user named it.
        asked: Which columns are labels, what they mean, and the model's head.

    Raises:
        InputError: There is no label, inputs are no numbers, values are missing, or a part is of
            another name.
    """
    layout = table.layout
    options = asked.options
    roles = roles_of(
        layout, options.label, asked.head, bare=asked.bare, group=options.group_column,
        time=options.time_column,
    )  # fmt: skip
    _check_special(layout, roles)
    held = parts_of_rows(_by_part(table, roles), layout, roles, asked.head)
    return raw_data(held, source, asked, notes=roles.notes)


class _Table:
    """A table in a file.

    Args:
        path: Of the file.
        explained: Makes one line of whatever is wrong with the file.
    """

    layout: Layout
    _rows: int

    def __init__(self, path: str, explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._path, self._explained = path, explained

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Yield some rows of these columns at a time.

        Numbers are (n,), lists (n, ...), NaN where a value is missing; names are (n,) objects,
        texts or None.
        """
        row = 1
        with self._explained():
            chunks = self._chunks(list(columns))
        with closing(chunks):
            while True:
                with self._explained():
                    chunk = next(chunks, None)
                    if chunk is None:
                        return
                    values = {name: self._values(chunk[name], name, row) for name in columns}
                yield values
                row += len(chunk)

    def _chunks(self, columns: list[str]) -> Any:
        raise NotImplementedError

    def _values(self, column: Any, name: str, row: int) -> Array:
        raise NotImplementedError

    def _set_layout(self, fields: Mapping[str, Field]) -> None:
        self.layout = Layout(f"'{self._path}'", fields, weight=WEIGHT, split=SPLIT)

    def _set_rows(self, size: int) -> None:
        """Read as many rows of so many bytes at a time as make a chunk."""
        self._rows = max(1, min(MOST_ROWS, arrays.CHUNK // size))


class _Csv(_Table):
    """A table in a .csv file.

    Args:
        path: Of the file.
        texts: Columns that are known to hold texts, with one of them.
    """

    def __init__(self, path: str, texts: Mapping[str, str]) -> None:
        rule = "a CSV file whose first line names the columns, in UTF-8"
        super().__init__(path, partial(_explained, path, rule, _DAMAGED))
        with self._explained():
            self._separator = _separator(path)
            names = [str(name) for name in self._read(nrows=0).columns]
            unnamed = [place for place, name in enumerate(names) if _UNNAMED.fullmatch(name)]
            if unnamed:
                raise InputError(
                    f"The first line of '{path}' must name every column. Received: none for "
                    f"column {unnamed[0] + 1} of {len(names)}. Give it a name; a frame's own "
                    "numbers are left out by to_csv(index=False)."
                )
            self._set_rows(16 * len(names))  # numbers take 8 bytes each, texts more
            first = self._read(nrows=self._rows, dtype=dict.fromkeys(texts, str))
        shown = {name: texts.get(name) or _text_in(first[name], 1) for name in names}
        self._texts = {name: text for name, text in shown.items() if text is not None}
        self._set_layout({
            name: Field(DATES if _is_date(text) else NAMES, text) if text else Field(NUMBER)
            for name, text in shown.items()
        })  # fmt: skip

    def _chunks(self, columns: list[str]) -> Any:
        types = {name: str for name in columns if name in self._texts}
        return self._read(usecols=columns, dtype=types, chunksize=self._rows)

    def _values(self, column: Any, name: str, row: int) -> Array:
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


class _Parquet(_Table):
    def __init__(
        self, path: str, explained: Callable[[], AbstractContextManager[None]], file: Any
    ) -> None:
        super().__init__(path, explained)
        self._file = file
        schema = file.schema_arrow
        names = [name for name in schema.names if not _INDEX.fullmatch(name)]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(
                f"Columns of '{path}' must have names of their own. Received: '{twice[0]}' twice."
            )
        self._set_layout({name: _field(schema.field(name).type) for name in names})
        # lengths of lists, as the first of each column has them
        self._lengths: dict[tuple[str, int], int] = {}
        about = file.metadata
        size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        self._set_rows(max(1, size // max(1, about.num_rows), 16 * len(names)))

    def _chunks(self, columns: list[str]) -> Any:
        return self._file.iter_batches(batch_size=self._rows, columns=columns)

    def _values(self, column: Any, name: str, row: int) -> Array:
        kind = self.layout.fields[name].kind
        if kind == NAMES:
            return np.asarray(column.cast("string").to_numpy(zero_copy_only=False), object)
        if kind == DATES:
            return _times(column)
        if hasattr(column, "dictionary_decode"):
            column = column.dictionary_decode()
        return _numbers(column) if kind == NUMBER else self._lists(column, name, row, 0)

    def _lists(self, column: Any, name: str, row: int, depth: int) -> Array:
        """Return lists of one length as an array; a missing one is a row of NaN."""
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        sizes = lengths.drop_null().to_numpy(zero_copy_only=False)
        if len(sizes):
            wanted = self._lengths.setdefault((name, depth), int(sizes[0]))
            other = sizes != wanted
            if other.any() or not wanted:
                place = int(np.flatnonzero(there)[other.argmax()])
                # of lists in lists a row has several
                rows = np.prod([self._lengths[name, above] for above in range(depth)] or [1])
                raise InputError(
                    f"Lists in column '{name}' of '{self._path}' must have one length, at least 1. "
                    f"Received: {sizes[other.argmax()]} after {wanted} (row "
                    f"{row + place // int(rows):,}). Pad or cut them."
                )
        inner = column.flatten()
        is_list = _is_list(inner.type)
        held = self._lists(inner, name, row, depth + 1) if is_list else _numbers(inner)
        size = self._lengths.get((name, depth), 1)
        rows_there = held.reshape(int(there.sum()), size, *held.shape[1:])
        if there.all():
            return rows_there
        found = np.full((len(column), *rows_there.shape[1:]), np.nan, np.float32)
        found[there] = rows_there
        return found


def _check_special(layout: Layout, roles: Roles) -> None:
    for name, kind in ((roles.others.get("weight", ""), NUMBER), (roles.split, NAMES)):
        held = layout.fields.get(name)
        if held is not None and held.kind != kind:
            rule = (
                "holds the weights of examples and must be numbers" if kind == NUMBER
                else "says which part a row belongs to and must hold train, val or test"
            )  # fmt: skip
            raise InputError(
                f"Column '{name}' of {layout.where} {rule}. Received: {held.kind}. Rename the "
                "column where it is an input."
            )


def _by_part(table: _Table, roles: Roles) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    for batch in table.batches(roles.read):
        count = len(next(iter(batch.values())))
        # rows that lack their part are refused with all that is missing
        if not roles.split or None in batch[roles.split]:
            yield "train", batch, [""] * count
            continue
        names, places = np.unique(batch[roles.split].astype(str), return_inverse=True)
        found = [_part(name, table.layout) for name in names.tolist()]
        for part in dict.fromkeys(found):
            rows = np.isin(places, [place for place, own in enumerate(found) if own == part])
            chosen = {column: values[rows] for column, values in batch.items()}
            yield part, chosen, [""] * int(rows.sum())


def _part(name: str, layout: Layout) -> str:
    part = _PARTS.get(name.strip().lower())
    if part is None:
        raise InputError(
            f"Column '{layout.split}' of {layout.where} must hold train, val or test. Received: "
            f"'{one_line(name)}'. Give it another name where it is an input."
        )
    return part


def _separator(path: str) -> str:
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        line = stream.readline()
    return next((sign for sign in _SEPARATORS if sign in line), ",")


def _text_in(column: Any, row: int) -> str | None:
    """Return the first text in a column and its row; None: it holds numbers, true and false."""
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


def _numbers(column: Any) -> Array:
    """Return numbers as an array; where one is missing it is NaN."""
    kind = str(column.type)
    if column.null_count or kind.startswith(("decimal", "null")):
        column = (column.cast("uint8") if kind == "bool" else column).cast("float64")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _times(column: Any) -> Array:
    """Return dates and times as (n,) objects: texts in ISO 8601, or None."""
    if str(column.type).startswith(("timestamp", "date")):
        moments = column.cast("timestamp[us]").to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(moments.astype("datetime64[us]")).astype(object)
    else:  # a time of the day, or a duration
        numbers = column.cast("int64" if column.type.bit_width == 64 else "int32")
        texts = numbers.to_numpy(zero_copy_only=False).astype(object)
    texts[~column.is_valid().to_numpy(zero_copy_only=False)] = None
    return np.asarray(texts)


def _field(kind: Any) -> Field:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _field(kind.value_type)
    if _is_number(kind):
        return Field(NUMBER)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Field(NAMES)
    if types.is_temporal(kind):
        return Field(DATES, str(kind))
    inner = kind
    while _is_list(inner):
        inner = inner.value_type
    if inner is not kind and _is_number(inner):
        return Field(ARRAY)
    return Field(OTHER, one_line(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
        or types.is_decimal(kind) or types.is_null(kind)
    )  # fmt: skip


@contextmanager
def _explained(path: str, rule: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
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
    except errors as error:
        reason = one_line(str(error).strip().rstrip(".") or type(error).__name__)
        raise InputError(f"'{path}' must be {rule}. Received: {reason}.") from None


CSV = Kind(load_csv, ("label", "group_column", "time_column"))
PARQUET = Kind(load_parquet, CSV.takes)

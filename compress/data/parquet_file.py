"""A .parquet file: one row an example; columns hold numbers, names or lists of one length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from compress.core import arrays
from compress.core.errors import InputError, one_line
from compress.data.fields import ARRAY, DATES, NAMES, NUMBER, OTHER, Field, Layout
from compress.data.kinds import Asked, Kind
from compress.data.parts import Array, RawData
from compress.data.rows import MOST_ROWS, SPLIT, WEIGHT, read

_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a frame's own row numbers or names: they are no column."""


def load(source: str, asked: Asked) -> RawData:
    """Reads the file some rows at a time, and of its columns those that are used.

    Raises:
        InputError: It is no Parquet file, lists have several lengths, or see
            `compress.data.rows.read`.
    """
    with _explained(source):
        import pyarrow.parquet as pq

        # read ahead, all that is read would be held to the end
        file = pq.ParquetFile(source, pre_buffer=False)
    with file:
        return read(_Parquet(file, source), source, asked)


class _Parquet:
    """A table in a .parquet file.

    Args:
        file: The open file.
        path: Of the file, for errors.
    """

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path
        schema = file.schema_arrow
        names = [name for name in schema.names if not _INDEX.fullmatch(name)]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(
                f"Columns of '{path}' must have names of their own. Received: '{twice[0]}' twice."
            )
        fields = {name: _field(schema.field(name).type) for name in names}
        self.layout = Layout(f"'{path}'", fields, weight=WEIGHT, split=SPLIT)
        # lengths of lists, as the first of each column has them
        self._lengths: dict[tuple[str, int], int] = {}
        about = file.metadata
        size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        row = max(1, size // max(1, about.num_rows), 16 * len(names))
        self._rows = max(1, min(MOST_ROWS, arrays.CHUNK // row))

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Yields some rows at a time."""
        done = 0
        chunks = self._file.iter_batches(batch_size=self._rows, columns=list(columns))
        while True:
            with _explained(self._path):
                chunk = next(chunks, None)
                if chunk is None:
                    return
                found = {name: self._values(chunk.column(name), name, done + 1) for name in columns}
            yield found
            done += chunk.num_rows

    def _values(self, column: Any, name: str, row: int) -> Array:
        """Returns a column as an array; `row` is the number of its first."""
        import pyarrow as pa

        kind = self.layout.fields[name].kind
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if kind == NUMBER:
            return _numbers(column)
        if kind == NAMES:
            names: Array = column.cast(pa.string()).to_numpy(zero_copy_only=False)
            return names.astype(object)
        if kind == DATES:
            return _times(column)
        return self._lists(column, name, row, 0)

    def _lists(self, column: Any, name: str, row: int, depth: int) -> Array:
        """Returns lists of one length as an array; a missing one is a row of NaN."""
        import pyarrow as pa
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
        nested = _is_list(pa.types, inner.type)
        held = self._lists(inner, name, row, depth + 1) if nested else _numbers(inner)
        size = self._lengths.get((name, depth), 1)
        rows_there = held.reshape(int(there.sum()), size, *held.shape[1:])
        if there.all():
            return rows_there
        found = np.full((len(column), *rows_there.shape[1:]), np.nan, np.float32)
        found[there] = rows_there
        return found


def _numbers(column: Any) -> Array:
    """Returns numbers as an array; where one is missing it is NaN."""
    import pyarrow as pa

    kind = column.type
    if column.null_count or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = (column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column).cast(
            pa.float64()
        )
    values: Array = column.to_numpy(zero_copy_only=False)
    return values


def _times(column: Any) -> Array:
    """Return dates and times as (n,) objects: texts in ISO 8601, or None."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        moments = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(moments.astype("datetime64[us]")).astype(object)
    else:  # a time of the day, or a duration
        numbers = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
        texts = numbers.to_numpy(zero_copy_only=False).astype(object)
    texts[~column.is_valid().to_numpy(zero_copy_only=False)] = None
    return np.asarray(texts)


def _field(kind: Any) -> Field:
    """Returns what a column of an Arrow type holds."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _field(kind.value_type)
    if _is_number(types, kind):
        return Field(NUMBER)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Field(NAMES)
    if types.is_temporal(kind):
        return Field(DATES, str(kind))
    inner = kind
    while _is_list(types, inner):
        inner = inner.value_type
    if inner is not kind and _is_number(types, inner):
        return Field(ARRAY)
    return Field(OTHER, one_line(kind))


def _is_list(types: Any, kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(types: Any, kind: Any) -> bool:
    return bool(
        types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
        or types.is_decimal(kind) or types.is_null(kind)
    )  # fmt: skip


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Makes one line of whatever is wrong with the file."""
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        reason = one_line(str(error).strip().rstrip("."))
        raise InputError(f"'{path}' must be a complete Parquet file. Received: {reason}.") from None


KIND = Kind(load, ("label", "group_column", "time_column"))
"""What reads files that end in .parquet."""

"""Tables in .csv files, whose first line names the columns, and in .parquet files."""

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
from compress.core.errors import InputError, to_one_line
from compress.data.kinds import (
    ARRAY,
    DATES,
    NAMES,
    NUMBER,
    OTHER,
    Field,
    Kind,
    Layout,
    ReadRequest,
    Roles,
    assign_roles,
    build_raw_data,
)
from compress.data.parts import PART_NAMES, Array, RawData
from compress.data.rows import Batch, collect_parts

WEIGHT_COLUMN = "weight"
SPLIT_COLUMN = "split"
"""Names of the columns with weights and parts, which are not inputs."""
MAX_ROWS = 65_536
"""Largest number of rows read at a time."""
_UNNAMED_COLUMN = re.compile(r"Unnamed: \d+")
"""Name that pandas gives to a column without a name."""
_INDEX_COLUMN = re.compile(r"__index_level_\d+__")
"""Name that pandas gives to the stored index of a data frame, which is not a column."""
_SEPARATORS = ",;\t"
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
"""Errors that readers raise for invalid files; pandas' own errors are ValueErrors."""


class _TextInNumbersError(Exception):
    """Error for a text in a column that began with numbers: the column's name and the text."""


def load_csv(source: str, request: ReadRequest) -> RawData:
    """Read a .csv file in chunks of lines.

    Args:
        source: The file, gzipped if its name ends in .gz; columns are separated by commas, or by
            semicolons or tabs if the first line has no comma.
        request: Request with the label columns, the kind of task and the model's head.

    Raises:
        InputError: The file is not a CSV file, or see `read_table`.
    """
    texts: dict[str, str] = {}
    while True:
        try:
            return read_table(_Csv(source, texts), source, request)
        except _TextInNumbersError as error:
            # start again: 01 and 1 are the same number, but different names
            name, shown = error.args
            texts[name] = shown


def load_parquet(source: str, request: ReadRequest) -> RawData:
    """Read the used columns of a .parquet file in chunks of rows.

    Args:
        source: The file.
        request: Request with the label columns, the kind of task and the model's head.

    Raises:
        InputError: The file is not a Parquet file, lists have different lengths, or see
            `read_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    error_context = partial(
        _wrap_errors, source, "a complete Parquet file", (*_READ_ERRORS, pa.ArrowException)
    )
    with error_context():
        # pre-buffering would keep all data in memory until the end
        file = pq.ParquetFile(source, pre_buffer=False)
    with file:
        return read_table(_Parquet(source, error_context, file), source, request)


def read_table(table: _Table, source: str, request: ReadRequest) -> RawData:
    """Read a table; large arrays are written to files as they grow.

    Args:
        table: The table.
        source: Name of the source, as the user gave it.
        request: Request with the label columns, the kind of task and the model's head.

    Raises:
        InputError: There is no label, inputs are not numbers, values are missing, or a part has an
            unknown name.
    """
    layout = table.layout
    options = request.options
    roles = assign_roles(
        layout,
        options.label,
        request.head,
        ignore_labels=request.ignores_labels,
        group=options.group_column,
        time=options.time_column,
    )
    _check_special_columns(layout, roles)
    splits = collect_parts(_split_batches(table, roles), layout, roles, request.head)
    return build_raw_data(splits, source, request, notes=roles.notes)


class _Table:
    """A table in a file.

    Args:
        path: Path of the file.
        error_context: Context manager that converts read errors to a one-line `InputError`.
    """

    layout: Layout
    _chunk_rows: int

    def __init__(
        self, path: str, error_context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._path, self._error_context = path, error_context

    def iter_batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Yield chunks of rows of the given columns.

        Numbers are (n,) and lists (n, ...), NaN if a value is missing; names are (n,) objects,
        texts or None.
        """
        row = 1
        with self._error_context():
            chunks = self._iter_chunks(list(columns))
        with closing(chunks):
            while True:
                with self._error_context():
                    chunk = next(chunks, None)
                    if chunk is None:
                        return
                    values = {
                        name: self._convert_column(chunk[name], name, row) for name in columns
                    }
                yield values
                row += len(chunk)

    def _iter_chunks(self, columns: list[str]) -> Any:
        raise NotImplementedError

    def _convert_column(self, column: Any, name: str, row: int) -> Array:
        raise NotImplementedError

    def _set_layout(self, fields: Mapping[str, Field]) -> None:
        self.layout = Layout(f"'{self._path}'", fields, weight=WEIGHT_COLUMN, split=SPLIT_COLUMN)

    def _set_rows(self, size: int) -> None:
        """Set the number of rows per chunk from the size of a row, in bytes."""
        self._chunk_rows = max(1, min(MAX_ROWS, arrays.CHUNK_BYTES // size))


class _Csv(_Table):
    """A table in a .csv file.

    Args:
        path: Path of the file.
        texts: Columns known to contain texts, each with an example of a text.
    """

    def __init__(self, path: str, texts: Mapping[str, str]) -> None:
        rule = "a CSV file whose first line names the columns, in UTF-8"
        super().__init__(path, partial(_wrap_errors, path, rule, _READ_ERRORS))
        with self._error_context():
            self._separator = _detect_separator(path)
            names = [str(name) for name in self._read_csv(nrows=0).columns]
            unnamed = [index for index, name in enumerate(names) if _UNNAMED_COLUMN.fullmatch(name)]
            if unnamed:
                raise InputError(
                    f"The first line of '{path}' must name every column. Received: none for "
                    f"column {unnamed[0] + 1} of {len(names)}. Give it a name; a frame's own "
                    "numbers are left out by to_csv(index=False)."
                )
            self._set_rows(16 * len(names))  # numbers take 8 bytes each, texts more
            first = self._read_csv(nrows=self._chunk_rows, dtype=dict.fromkeys(texts, str))
        shown = {name: texts.get(name) or _find_text(first[name], 1) for name in names}
        self._texts = {name: text for name, text in shown.items() if text is not None}
        self._set_layout({
            name: Field(DATES if _is_date(text) else NAMES, text) if text else Field(NUMBER)
            for name, text in shown.items()
        })  # fmt: skip

    def _iter_chunks(self, columns: list[str]) -> Any:
        types = {name: str for name in columns if name in self._texts}
        return self._read_csv(usecols=columns, dtype=types, chunksize=self._chunk_rows)

    def _convert_column(self, column: Any, name: str, row: int) -> Array:
        """Return texts (None: missing) or numbers (NaN), (n,); raise at a text among numbers."""
        if name in self._texts:
            texts = np.array(column.to_numpy(object))
            texts[column.isna().to_numpy()] = None
            return texts
        shown = _find_text(column, row)
        if shown is not None:
            raise _TextInNumbersError(name, shown)
        values: Array = column.to_numpy()
        # booleans with missing values are objects
        return values.astype(np.float64) if values.dtype == object else values

    def _read_csv(self, **options: Any) -> Any:
        import pandas as pd

        return pd.read_csv(
            self._path, sep=self._separator, index_col=False, skipinitialspace=True,
            low_memory=False, **options,
        )  # fmt: skip


class _Parquet(_Table):
    def __init__(
        self, path: str, error_context: Callable[[], AbstractContextManager[None]], file: Any
    ) -> None:
        super().__init__(path, error_context)
        self._file = file
        schema = file.schema_arrow
        names = [name for name in schema.names if not _INDEX_COLUMN.fullmatch(name)]
        duplicates = [name for name, count in Counter(names).items() if count > 1]
        if duplicates:
            raise InputError(
                f"Columns of '{path}' must have names of their own. Received: '{duplicates[0]}' "
                "twice."
            )
        self._set_layout({name: _infer_field(schema.field(name).type) for name in names})
        # expected list lengths, from the first list of each column
        self._lengths: dict[tuple[str, int], int] = {}
        about = file.metadata
        size = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
        self._set_rows(max(1, size // max(1, about.num_rows), 16 * len(names)))

    def _iter_chunks(self, columns: list[str]) -> Any:
        return self._file.iter_batches(batch_size=self._chunk_rows, columns=columns)

    def _convert_column(self, column: Any, name: str, row: int) -> Array:
        """Return a column chunk: names and dates (n,) as objects, numbers (n,), lists (n, ...)."""
        kind = self.layout.fields[name].kind
        if kind == NAMES:
            return np.asarray(column.cast("string").to_numpy(zero_copy_only=False), object)
        if kind == DATES:
            return _format_times(column)
        if hasattr(column, "dictionary_decode"):
            column = column.dictionary_decode()
        return (
            _convert_numbers(column)
            if kind == NUMBER
            else self._convert_lists(column, name, row, 0)
        )

    def _convert_lists(self, column: Any, name: str, row: int, depth: int) -> Array:
        """Return lists of one length as an array; a missing list is a row of NaN."""
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column)
        is_present = column.is_valid().to_numpy(zero_copy_only=False)
        sizes = lengths.drop_null().to_numpy(zero_copy_only=False)
        if len(sizes):
            expected = self._lengths.setdefault((name, depth), int(sizes[0]))
            differs = sizes != expected
            if differs.any() or not expected:
                index = int(np.flatnonzero(is_present)[differs.argmax()])
                # a row has several inner lists
                rows = np.prod([self._lengths[name, above] for above in range(depth)] or [1])
                raise InputError(
                    f"Lists in column '{name}' of '{self._path}' must have one length, at least 1. "
                    f"Received: {sizes[differs.argmax()]} after {expected} (row "
                    f"{row + index // int(rows):,}). Pad or cut them."
                )
        inner = column.flatten()
        is_list = _is_list(inner.type)
        inner_values = (
            self._convert_lists(inner, name, row, depth + 1) if is_list else _convert_numbers(inner)
        )
        size = self._lengths.get((name, depth), 1)
        present_rows = inner_values.reshape(int(is_present.sum()), size, *inner_values.shape[1:])
        if is_present.all():
            return present_rows
        filled = np.full((len(column), *present_rows.shape[1:]), np.nan, np.float32)
        filled[is_present] = present_rows
        return filled


def _check_special_columns(layout: Layout, roles: Roles) -> None:
    """Raise InputError if the weight column holds no numbers, or the part column no names."""
    for name, kind in ((roles.others.get("weight", ""), NUMBER), (roles.split, NAMES)):
        field = layout.fields.get(name)
        if field is not None and field.kind != kind:
            rule = (
                "holds the weights of examples and must be numbers" if kind == NUMBER
                else "says which part a row belongs to and must hold train, val or test"
            )  # fmt: skip
            raise InputError(
                f"Column '{name}' of {layout.where} {rule}. Received: {field.kind}. Rename the "
                "column where it is an input."
            )


def _split_batches(table: _Table, roles: Roles) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yield each batch by part; all is "train" without a part column or with a part missing."""
    for batch in table.iter_batches(roles.used_fields):
        count = len(next(iter(batch.values())))
        # rows without a part are reported with the other missing values
        if not roles.split or None in batch[roles.split]:
            yield "train", batch, [""] * count
            continue
        names, name_index = np.unique(batch[roles.split].astype(str), return_inverse=True)
        row_parts = [_parse_part(name, table.layout) for name in names.tolist()]
        for part in dict.fromkeys(row_parts):
            rows = np.isin(
                name_index,
                [index for index, name_part in enumerate(row_parts) if name_part == part],
            )
            selected = {column: values[rows] for column, values in batch.items()}
            yield part, selected, [""] * int(rows.sum())


def _parse_part(name: str, layout: Layout) -> str:
    part = PART_NAMES.get(name.strip().lower())
    if part is None:
        raise InputError(
            f"Column '{layout.split}' of {layout.where} must hold train, val or test. Received: "
            f"'{to_one_line(name)}'. Give it another name where it is an input."
        )
    return part


def _detect_separator(path: str) -> str:
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        line = stream.readline()
    return next((sign for sign in _SEPARATORS if sign in line), ",")


def _find_text(column: Any, row: int) -> str | None:
    """Return the first text in a column and its row; None for numbers and booleans."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    texts = (numbers.isna() & column.notna()).to_numpy()
    if not texts.any():
        return None
    index = int(texts.argmax())
    return f"'{to_one_line(column.iloc[index])}' in row {row + index:,}"


def _is_date(shown: str) -> bool:
    try:
        datetime.fromisoformat(shown[1:].partition("'")[0])
    except ValueError:
        return False
    return True


def _convert_numbers(column: Any) -> Array:
    """Return numbers as an array; missing values are NaN."""
    kind = str(column.type)
    if column.null_count or kind.startswith(("decimal", "null")):
        column = (column.cast("uint8") if kind == "bool" else column).cast("float64")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _format_times(column: Any) -> Array:
    """Return dates as texts in ISO 8601, times of day and durations as integers, (n,) objects.

    Missing values are None.
    """
    if str(column.type).startswith(("timestamp", "date")):
        moments = column.cast("timestamp[us]").to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(moments.astype("datetime64[us]")).astype(object)
    else:  # time of day, or duration
        numbers = column.cast("int64" if column.type.bit_width == 64 else "int32")
        texts = numbers.to_numpy(zero_copy_only=False).astype(object)
    texts[~column.is_valid().to_numpy(zero_copy_only=False)] = None
    return np.asarray(texts)


def _infer_field(kind: Any) -> Field:
    """Return the kind of content of a column type; `OTHER` if it is not supported."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _infer_field(kind.value_type)
    inner = kind
    while _is_list(inner):
        inner = inner.value_type
    if (
        types.is_boolean(inner) or types.is_integer(inner) or types.is_floating(inner)
        or types.is_decimal(inner) or types.is_null(inner)
    ):  # fmt: skip
        return Field(NUMBER if inner is kind else ARRAY)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Field(NAMES)
    if types.is_temporal(kind):
        return Field(DATES, str(kind))
    return Field(OTHER, to_one_line(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


@contextmanager
def _wrap_errors(path: str, rule: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Convert `errors` while reading a table to a one-line InputError that states `rule`."""
    try:
        with warnings.catch_warnings():
            # warnings for lines longer than the first
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
        reason = to_one_line(str(error).strip().rstrip(".") or type(error).__name__)
        raise InputError(f"'{path}' must be {rule}. Received: {reason}.") from None


CSV = Kind(load_csv, ("label", "group_column", "time_column"))
PARQUET = Kind(load_parquet, CSV.takes)

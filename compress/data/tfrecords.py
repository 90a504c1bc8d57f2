"""TFRecord files of `tf.train.Example`, and data sets of TensorFlow Datasets (`tfds:NAME`).

The first record determines the features: numbers, lists of numbers, names and images. Data sets of
TensorFlow Datasets are read as pairs of example and label.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arrays import iterate_batches
from compress.core.errors import InputError, to_one_line
from compress.core.lazy_modules import tf
from compress.data.kinds import (
    ARRAY,
    IMAGE,
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
    parse_extension,
)
from compress.data.parts import PART_NAMES, SPLITS, Array, RawData
from compress.data.rows import Batch, collect_parts
from compress.data.tasks import has_classes
from compress.plan.data import AUTO

BATCH_SIZE = 256
"""Number of records or pairs read at a time."""
_SUFFIXES = ("tfrecord", "tfrecords")
_IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
_PART_PATTERN = re.compile(r"train|val|test")
_PART_WORD_PATTERN = re.compile(r"(?<![a-z])(train|val|test)")
"""Names of parts at the start of a word: in "contest-train" only train."""
_OPERATION_PATTERN = re.compile(r"^\{\{.*?\}\}|\[Op:.*", re.DOTALL)
"""Parts of TensorFlow's error messages other than the reason."""
_DTYPES = {"bytes_list": "string", "float_list": "float32", "int64_list": "int64"}
"""Types of tensors by the kinds of lists in records."""
_PAIR_FIELDS = ("example", "label")
_VERSION_PATTERN = re.compile(r"/(?=\d+\.\d+\.\d+$)")
"""Slash before a version, where TensorFlow Datasets requires a colon."""


def load_records(source: str, request: ReadRequest) -> RawData:
    """Read TFRecord files in batches of records.

    Args:
        source: A file, or a folder of files whose names contain train, val or test for the parts.
            Files are gzipped if their names end in .gz.
        request: Request with the label features, the kind of task, the model's head, and the size
            that images are resized to.

    Raises:
        InputError: A record is corrupt, is not a `tf.train.Example`, or has other features than the
            first; there is no label; or the parts are not clear from the files' names.
    """
    files = _group_files(Path(source))
    first = next(path for paths in files.values() for path in paths)
    records = next(_iter_records(first), [])
    if not records:
        raise InputError(f"TFRecord file '{first}' must hold records. Received: none.")
    features = _parse_features(records[0], f"record 1 of '{first.name}'")
    fields = {name: _infer_field(feature) for name, feature in sorted(features.items())}
    layout = Layout(f"'{source}'", fields, "feature", "write the records without it")
    roles = assign_roles(
        layout, request.options.label, request.head, ignore_labels=request.ignores_labels
    )
    splits_by_part = collect_parts(
        _iter_batches(files, layout, roles), layout, roles, request.head, request.options.resize
    )
    return build_raw_data(splits_by_part, source, request, notes=roles.notes)


def load_tfds(source: str, request: ReadRequest) -> RawData:
    """Read a data set of TensorFlow Datasets; download and prepare it if it is missing.

    Args:
        source: "tfds:mnist", "tfds:cifar10:3.0.2" (or "/3.0.2"), "tfds:ucf101/ucf101_1", ...
        request: Request with the kind of task, the model's head, and the size that images are
            resized to.

    Raises:
        InputError: The data set is unknown, cannot be prepared, or does not yield pairs of plain
            arrays.
    """
    builder = _prepare_builder(source)
    splits = {name: part for name, part in PART_NAMES.items() if name in builder.info.splits}
    if "train" not in splits:
        raise InputError(
            f"'{source}' must have a part called train. Received: "
            f"{', '.join(builder.info.splits) or 'none'}."
        )
    # unshuffled, for reproducible data
    streams = {
        part: builder.as_dataset(split=name, as_supervised=True, shuffle_files=False)
        for name, part in splits.items()
    }
    fields = dict(
        zip(_PAIR_FIELDS, map(_infer_spec_field, _read_spec(streams["train"], source)), strict=True)
    )
    layout = Layout(f"'{source}'", fields, "feature", "give module:function, which makes pairs")
    roles = assign_roles(
        layout, _PAIR_FIELDS[1:], request.head, ignore_labels=request.ignores_labels
    )
    splits_by_part = collect_parts(
        _iter_pairs(streams, layout, roles), layout, roles, request.head, request.options.resize
    )
    label = builder.info.features[builder.info.supervised_keys[1]]
    is_class_task = request.options.task == AUTO or has_classes(request.options.task)
    classes = tuple(getattr(label, "names", None) or ()) if is_class_task else ()
    unused_splits = [name for name in builder.info.splits if name not in splits]
    notes = (
        (f"parts of '{source}' that are not used: {', '.join(unused_splits)}",)
        if unused_splits
        else ()
    )
    return build_raw_data(splits_by_part, source, request, classes or None, (*notes, *roles.notes))


def _list_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if parse_extension(path.name) in _SUFFIXES and path.is_file()
    )


def _group_files(source: Path) -> dict[str, list[Path]]:
    """Return the files of each part; all are training files if no name contains a part."""
    if not source.is_dir():
        return {"train": [source]}
    files: dict[str, list[Path]] = {}
    for path in _list_files(source):
        name = path.name.lower()
        part_words = set(_PART_PATTERN.findall(name))
        if len(part_words) > 1:
            part_words = set(_PART_WORD_PATTERN.findall(name)) or part_words
        if len(part_words) > 1:
            raise InputError(
                f"Files of '{source}' must be of one part each. Received: '{path.name}', whose "
                f"name has {' and '.join(sorted(part_words))}. Rename it."
            )
        files.setdefault("".join(part_words), []).append(path)
    others = files.pop("", [])
    if not files:
        return {"train": others}
    if others or "train" not in files:
        received = f"'{others[0].name}'" if others else f"only {' and '.join(files)}"
        raise InputError(
            f"Files of '{source}' must have train, val or test in their names, all or none of "
            f"them, and train in some. Received: {received}. Rename them."
        )
    return {part: files[part] for part in SPLITS if part in files}


def _iter_records(path: Path) -> Iterator[list[bytes]]:
    """Yield the serialized records of a file in batches.

    Raises:
        InputError: A record is corrupt.
    """
    compression = "GZIP" if path.suffix.lower() == ".gz" else ""
    records = tf.data.TFRecordDataset([str(path)], compression_type=compression).batch(BATCH_SIZE)
    batches, count = records.as_numpy_iterator(), 0
    while True:
        try:
            batch = next(batches, None)
        except tf.errors.OpError as error:
            raise InputError(
                f"TFRecord file '{path}' must be complete and readable. Received: "
                f"{_format_reason(error)}, behind record {count:,}. Fetch it again."
            ) from None
        if batch is None:
            if compression:
                _check_complete(path, count)
            return
        yield batch.tolist()
        count += len(batch)


def _check_complete(path: Path, count: int) -> None:
    """Check that a gzipped file is complete; TensorFlow does not detect truncated files.

    Args:
        path: The file.
        count: Number of records that were read.

    Raises:
        InputError: The file is truncated.
    """
    try:
        with gzip.open(path) as content:
            while content.read(2**22):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"TFRecord file '{path}' must be complete and readable. Received: "
            f"{to_one_line(error)}, behind record {count:,}. Fetch it again."
        ) from None


def _parse_features(record: bytes, record_name: str) -> Any:
    """Return the features of a serialized `tf.train.Example`; raise InputError if it has none."""
    example = tf.train.Example()
    try:
        example.ParseFromString(record)
    except Exception:  # protobuf's error class depends on its build
        example.Clear()
    if not example.features.feature:
        raise InputError(
            "Records must be of the type tf.train.Example, with features. Received: "
            f"{record_name}, which is not ({len(record):,} bytes)."
        )
    return example.features.feature


def _infer_field(feature: Any) -> Field:
    """Return the kind of content of a feature of the first record; `OTHER` if not supported."""
    values = _read_values(feature)
    if not len(values):
        return Field(OTHER, "empty in the first record")
    if not isinstance(values[0], bytes):
        return Field(NUMBER if len(values) == 1 else ARRAY)
    if len(values) > 1:
        return Field(OTHER, f"{len(values)} texts")
    if values[0].startswith(_IMAGE_SIGNATURES):
        return Field(IMAGE)
    try:
        return Field(NAMES, f"'{to_one_line(values[0].decode())}' in record 1")
    except UnicodeDecodeError:
        return Field(OTHER, f"{len(values[0]):,} bytes that are no JPEG or PNG")


def _read_values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _iter_batches(
    files: Mapping[str, Sequence[Path]], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yield the part and features of batches of records, and the records' names for errors."""
    formats: dict[str, tuple[int, str]] = {}
    for part, path in ((part, path) for part, paths in files.items() for path in paths):
        records_read = 0
        for records in _iter_records(path):
            numbers = range(records_read + 1, records_read + len(records) + 1)
            rows = [f"record {number:,} of '{path.name}'" for number in numbers]
            if not formats:
                first = _parse_features(records[0], rows[0])
                formats = {name: _infer_format(first[name]) for name in roles.used_fields}
            try:
                parsed = tf.io.parse_example(records, {
                    name: tf.io.FixedLenFeature([count] if count > 1 else [], _DTYPES[kind])
                    for name, (count, kind) in formats.items()
                })  # fmt: skip
            except tf.errors.InvalidArgumentError as error:
                raise _describe_bad_record(records, rows, formats, error) from None
            columns = {
                name: _convert_column(parsed[name].numpy(), layout.fields[name].kind, name, rows)
                for name in formats
            }
            yield part, columns, rows
            records_read += len(records)


def _infer_format(feature: Any) -> tuple[int, str]:
    """Return the number and kind of a feature's values, which must be equal in every record."""
    return len(_read_values(feature)), feature.WhichOneof("kind")


def _describe_bad_record(
    records: Sequence[bytes], rows: Sequence[str], formats: Mapping[str, tuple[int, str]],
    error: Exception,
) -> InputError:  # fmt: skip
    """Return the error for the first record whose format differs from the first record."""
    for record, row in zip(records, rows, strict=True):
        features = _parse_features(record, row)
        for name, (count, kind) in formats.items():
            received = (
                "{} ({})".format(*_infer_format(features[name])) if name in features else "none"
            )
            if received != f"{count} ({kind})":
                return InputError(
                    f"Feature '{name}' must have {count} ({kind}) values in every record, as the "
                    f"first has. Received: {received} in {row}. Pad or cut it, or leave the record "
                    "out."
                )
    return InputError(f"Records must have the features of the first ({_format_reason(error)}).")


def _convert_column(values: Array, kind: str, name: str, rows: Sequence[str]) -> Any:
    if kind == IMAGE:
        return [
            _decode_image(content, name, row) for content, row in zip(values, rows, strict=True)
        ]
    return _decode_names(values) if kind == NAMES else values


def _decode_image(content: bytes, name: str, row: str) -> Array:
    """Return an encoded image as bytes (H, W, C), the first frame of several; raise if corrupt."""
    try:
        # only the first frame of animations
        image: Array = tf.io.decode_image(content, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise InputError(
            f"Feature '{name}' must be an image that is complete, JPEG or PNG. Received: {row}, "
            f"which is not ({_format_reason(error)})."
        ) from None
    return image


def _format_reason(error: Exception) -> str:
    """Return TensorFlow's message without names of operations and devices."""
    text = _OPERATION_PATTERN.sub("", str(getattr(error, "message", None) or error)).strip()
    return to_one_line(text.splitlines()[0] if text else type(error).__name__)


def _prepare_builder(source: str) -> Any:
    """Return the TFDS builder of (example, label) pairs, downloading and preparing missing data."""
    import tensorflow_datasets

    name = _VERSION_PATTERN.sub(":", source.partition(":")[2])
    try:
        # progress messages must not go to stdout
        with redirect_stdout(sys.stderr):
            builder = tensorflow_datasets.builder(name)
            builder.download_and_prepare()
    except Exception as error:  # errors of the library, the network, archives and servers
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". :")
        raise InputError(
            f"'{source}' must be a data set that TensorFlow Datasets knows, prepared on this "
            f"machine or downloadable. Received: {to_one_line(reason)}. Without network prepare it "
            "elsewhere (tfds build) and set TFDS_DATA_DIR, or give a file with --data."
        ) from None
    if builder.info.supervised_keys is None or len(builder.info.supervised_keys) != 2:
        raise InputError(
            f"'{source}' must come as pairs of example and label (as_supervised). Received: "
            f"features {', '.join(builder.info.features)}. Give module:function, which makes "
            "pairs of them."
        )
    return builder


def _read_spec(stream: Any, source: str) -> tuple[Any, Any]:
    """Return the `tf.TensorSpec` of x and of y; raise InputError if one is no plain tensor."""
    for part in stream.element_spec:
        if not isinstance(part, tf.TensorSpec):
            raise InputError(
                f"'{source}' must hold plain arrays. Received: a {type(part).__name__}. Give "
                "module:function, which makes arrays of them."
            )
    x, y = stream.element_spec
    return x, y


def _infer_spec_field(spec: Any) -> Field:
    shape, kind = spec.shape, spec.dtype
    if kind.name == "string":
        return Field(NAMES if shape.rank == 0 else OTHER, "texts")
    if not (kind.is_integer or kind.is_floating or kind.is_bool):
        return Field(OTHER, kind.name)
    if shape.rank == 3 and kind.name == "uint8" and shape[-1] in (1, 3, None):
        return Field(IMAGE)
    return Field(NUMBER if shape.rank == 0 else ARRAY)


def _iter_pairs(
    streams: Mapping[str, Any], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yield (part, columns, example names) in batches, with images as lists of arrays."""
    for part, stream in streams.items():
        examples_read = 0
        # unbatched: images may have different sizes
        for pairs in iterate_batches(stream.as_numpy_iterator(), BATCH_SIZE):
            rows = [f"example {examples_read + number:,}" for number in range(1, len(pairs) + 1)]
            pair_columns = dict(zip(_PAIR_FIELDS, zip(*pairs, strict=True), strict=True))
            yield (
                part,
                {
                    name: _stack_values(pair_columns[name], name, layout)
                    for name in roles.used_fields
                },
                rows,
            )
            examples_read += len(pairs)


def _stack_values(values: Sequence[Any], name: str, layout: Layout) -> Any:
    """Return values as one array, images as a list; raise InputError if array shapes differ."""
    kind = layout.fields[name].kind
    if kind == IMAGE:
        return list(values)
    if kind == NAMES:
        return _decode_names(values)
    shapes = list(dict.fromkeys(np.shape(value) for value in values))
    if len(shapes) > 1:
        raise InputError(
            f"Every {name} of {layout.where} must have one shape. Received: {shapes[0]} and "
            f"{shapes[1]}. Give module:function, which pads or cuts them."
        )
    return np.stack(values)


def _decode_names(names: Iterable[bytes]) -> Array:
    return np.array([name.decode("utf-8", "backslashreplace") for name in names], object)


RECORDS = Kind(load_records, ("label", "resize"), holds=lambda folder: bool(_list_files(folder)))
TFDS = Kind(load_tfds, ("resize",))

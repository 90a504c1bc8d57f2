"""TFRecord files of `tf.train.Example`, and data sets of TensorFlow Datasets (`tfds:NAME`).

What features there are the first record tells; lists of numbers, names and images. Data sets of
TensorFlow Datasets come as pairs of an example and its label.
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

from compress.core.arrays import in_batches
from compress.core.errors import InputError, one_line
from compress.data.kinds import (
    ARRAY,
    IMAGE,
    NAMES,
    NUMBER,
    OTHER,
    Asked,
    Field,
    Kind,
    Layout,
    Roles,
    ending,
    raw_data,
    roles_of,
)
from compress.data.parts import SPLITS, Array, RawData
from compress.data.rows import Batch, parts_of_rows
from compress.data.tasks import has_classes
from compress.plan.data import AUTO

AT_A_TIME = 256
"""Records or pairs that are read at a time."""
_SUFFIXES = ("tfrecord", "tfrecords")
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
_PART = re.compile(r"train|val|test")
_WORD = re.compile(r"(?<![a-z])(train|val|test)")
"""The same where a word begins: of "contest-train" it is train."""
_OPERATION = re.compile(r"^\{\{.*?\}\}|\[Op:.*", re.DOTALL)
"""What TensorFlow's errors hold beside the reason."""
_TYPES = {"bytes_list": "string", "float_list": "float32", "int64_list": "int64"}
"""Types of tensors by the kinds of lists that records hold."""
_TFDS_PARTS = {"train": "train", "validation": "val", "test": "test"}
"""Parts by what TensorFlow Datasets calls them."""
_PAIR = ("example", "label")
_VERSION = re.compile(r"/(?=\d+\.\d+\.\d+$)")
"""What some write before a version, where TensorFlow Datasets takes a colon."""


def holds_records(folder: Path) -> bool:
    """Return whether a folder has TFRecord files (by name; the content is not read)."""
    return bool(_files(folder))


def load_records(source: str, asked: Asked) -> RawData:
    """Read TFRecord files some records at a time.

    Args:
        source: A file, or a folder of files: those with train, val or test in their names are
            these parts. Gzipped where a name ends in .gz.
        asked: Which features are labels, what they mean, the model's head, and the size that
            images become of.

    Raises:
        InputError: A record is damaged, is no `tf.train.Example`, or has other features than the
            first; there is no label; or the files' names do not tell the parts.
    """
    files = _parts(Path(source))
    first = next(path for paths in files.values() for path in paths)
    records = next(_raw(first), [])
    if not records:
        raise InputError(f"TFRecord file '{first}' must hold records. Received: none.")
    features = _features(records[0], f"record 1 of '{first.name}'")
    fields = {name: _field(feature) for name, feature in sorted(features.items())}
    layout = Layout(f"'{source}'", fields, "feature", "write the records without it")
    roles = roles_of(layout, asked.options.label, asked.head, bare=asked.bare)
    held = parts_of_rows(
        _batches(files, layout, roles), layout, roles, asked.head, asked.options.resize
    )
    return raw_data(held, source, asked, notes=roles.notes)


def load_tfds(source: str, asked: Asked) -> RawData:
    """Read a data set of TensorFlow Datasets; prepare it first where it is missing.

    Args:
        source: "tfds:mnist", "tfds:cifar10:3.0.2" (or "/3.0.2"), "tfds:ucf101/ucf101_1", ...
        asked: What labels mean, the model's head, and the size that images become of.

    Raises:
        InputError: It is unknown, cannot be prepared, or does not come in pairs of plain arrays.
    """
    builder = _prepared(source)
    splits = {name: part for name, part in _TFDS_PARTS.items() if name in builder.info.splits}
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
    fields = dict(zip(_PAIR, map(_field_of_spec, _spec(streams["train"], source)), strict=True))
    layout = Layout(f"'{source}'", fields, "feature", "give module:function, which makes pairs")
    roles = roles_of(layout, _PAIR[1:], asked.head, bare=asked.bare)
    held = parts_of_rows(
        _pairs(streams, layout, roles), layout, roles, asked.head, asked.options.resize
    )
    label = builder.info.features[builder.info.supervised_keys[1]]
    of_classes = asked.options.task == AUTO or has_classes(asked.options.task)
    classes = tuple(getattr(label, "names", None) or ()) if of_classes else ()
    left = [name for name in builder.info.splits if name not in splits]
    notes = (f"parts of '{source}' that are not used: {', '.join(left)}",) if left else ()
    return raw_data(held, source, asked, classes or None, (*notes, *roles.notes))


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if ending(path.name) in _SUFFIXES and path.is_file()
    )


def _parts(source: Path) -> dict[str, list[Path]]:
    """Return the files of each part; of names that tell none all are of one."""
    if not source.is_dir():
        return {"train": [source]}
    found: dict[str, list[Path]] = {}
    for path in _files(source):
        name = path.name.lower()
        said = set(_PART.findall(name))
        if len(said) > 1:
            said = set(_WORD.findall(name)) or said
        if len(said) > 1:
            raise InputError(
                f"Files of '{source}' must be of one part each. Received: '{path.name}', whose "
                f"name has {' and '.join(sorted(said))}. Rename it."
            )
        found.setdefault("".join(said), []).append(path)
    others = found.pop("", [])
    if not found:
        return {"train": others}
    if others or "train" not in found:
        received = f"'{others[0].name}'" if others else f"only {' and '.join(found)}"
        raise InputError(
            f"Files of '{source}' must have train, val or test in their names, all or none of "
            f"them, and train in some. Received: {received}. Rename them."
        )
    return {part: found[part] for part in SPLITS if part in found}


def _raw(path: Path) -> Iterator[list[bytes]]:
    """Yield a file's records as they are, some at a time.

    Raises:
        InputError: A record is damaged.
    """
    import tensorflow as tf

    packed = "GZIP" if path.suffix.lower() == ".gz" else ""
    records = tf.data.TFRecordDataset([str(path)], compression_type=packed).batch(AT_A_TIME)
    batches, count = records.as_numpy_iterator(), 0
    while True:
        try:
            batch = next(batches, None)
        except tf.errors.OpError as error:
            raise InputError(
                f"TFRecord file '{path}' must be complete and readable. Received: "
                f"{_reason(error)}, behind record {count:,}. Fetch it again."
            ) from None
        if batch is None:
            if packed:
                _check_whole(path, count)
            return
        yield batch.tolist()
        count += len(batch)


def _check_whole(path: Path, count: int) -> None:
    """Check a gzipped file that was read: where it is cut off, TensorFlow takes that for its end.

    Raises:
        InputError: It is cut off.
    """
    try:
        with gzip.open(path) as content:
            while content.read(2**22):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"TFRecord file '{path}' must be complete and readable. Received: {one_line(error)}, "
            f"behind record {count:,}. Fetch it again."
        ) from None


def _features(record: bytes, what: str) -> Any:
    import tensorflow as tf

    example = tf.train.Example()
    try:
        example.ParseFromString(record)
    except Exception:  # of protobuf's: which class depends on how it was built
        example.Clear()
    if not example.features.feature:
        raise InputError(
            f"Records must be of the type tf.train.Example, with features. Received: {what}, "
            f"which is not ({len(record):,} bytes)."
        )
    return example.features.feature


def _field(feature: Any) -> Field:
    values = _values(feature)
    if not len(values):
        return Field(OTHER, "empty in the first record")
    if not isinstance(values[0], bytes):
        return Field(NUMBER if len(values) == 1 else ARRAY)
    if len(values) > 1:
        return Field(OTHER, f"{len(values)} texts")
    if values[0].startswith(_IMAGES):
        return Field(IMAGE)
    try:
        return Field(NAMES, f"'{one_line(values[0].decode())}' in record 1")
    except UnicodeDecodeError:
        return Field(OTHER, f"{len(values[0]):,} bytes that are no JPEG or PNG")


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _batches(
    files: Mapping[str, Sequence[Path]], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yield the records' features with their part and the records' names in errors."""
    import tensorflow as tf

    forms: dict[str, tuple[int, str]] = {}
    for part, path in ((part, path) for part, paths in files.items() for path in paths):
        done = 0
        for records in _raw(path):
            numbers = range(done + 1, done + len(records) + 1)
            rows = [f"record {number:,} of '{path.name}'" for number in numbers]
            if not forms:
                first = _features(records[0], rows[0])
                forms = {name: _form(first[name]) for name in roles.read}
            try:
                parsed = tf.io.parse_example(records, {
                    name: tf.io.FixedLenFeature([count] if count > 1 else [], _TYPES[kind])
                    for name, (count, kind) in forms.items()
                })  # fmt: skip
            except tf.errors.InvalidArgumentError as error:
                raise _culprit(records, rows, forms, error) from None
            held = {
                name: _held(parsed[name].numpy(), layout.fields[name].kind, name, rows)
                for name in forms
            }
            yield part, held, rows
            done += len(records)


def _form(feature: Any) -> tuple[int, str]:
    """Return the number and kind of a feature's values, equal in every record."""
    return len(_values(feature)), feature.WhichOneof("kind")


def _culprit(
    records: Sequence[bytes], rows: Sequence[str], forms: Mapping[str, tuple[int, str]],
    error: Exception,
) -> InputError:  # fmt: skip
    """Return the error of the first record that is not as the first of all."""
    for record, row in zip(records, rows, strict=True):
        features = _features(record, row)
        for name, (count, kind) in forms.items():
            found = "none"
            if name in features:
                found = "{} ({})".format(*_form(features[name]))
            if found != f"{count} ({kind})":
                return InputError(
                    f"Feature '{name}' must have {count} ({kind}) values in every record, as the "
                    f"first has. Received: {found} in {row}. Pad or cut it, or leave the record "
                    "out."
                )
    return InputError(f"Records must have the features of the first ({_reason(error)}).")


def _held(values: Array, kind: str, name: str, rows: Sequence[str]) -> Any:
    if kind == IMAGE:
        return [_image(content, name, row) for content, row in zip(values, rows, strict=True)]
    if kind == NAMES:
        return _decode(values)
    return values


def _image(content: bytes, name: str, row: str) -> Array:
    import tensorflow as tf

    try:
        # of animations the first frame
        image: Array = tf.io.decode_image(content, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise InputError(
            f"Feature '{name}' must be an image that is complete, JPEG or PNG. Received: {row}, "
            f"which is not ({_reason(error)})."
        ) from None
    return image


def _reason(error: Exception) -> str:
    """Return TensorFlow's message without names of operations and devices."""
    text = _OPERATION.sub("", str(getattr(error, "message", None) or error)).strip()
    return one_line(text.splitlines()[0] if text else type(error).__name__)


def _prepared(source: str) -> Any:
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
    import tensorflow as tf

    for part in stream.element_spec:
        if not isinstance(part, tf.TensorSpec):
            raise InputError(
                f"'{source}' must hold plain arrays. Received: a {type(part).__name__}. Give "
                "module:function, which makes arrays of them."
            )
    x, y = stream.element_spec
    return x, y


def _field_of_spec(spec: Any) -> Field:
    shape, kind = spec.shape, spec.dtype
    if kind.name == "string":
        return Field(NAMES if shape.rank == 0 else OTHER, "texts")
    if not (kind.is_integer or kind.is_floating or kind.is_bool):
        return Field(OTHER, kind.name)
    if shape.rank == 3 and kind.name == "uint8" and shape[-1] in (1, 3, None):
        return Field(IMAGE)
    return Field(NUMBER if shape.rank == 0 else ARRAY)


def _pairs(
    streams: Mapping[str, Any], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    for part, stream in streams.items():
        done = 0
        # one by one: images may be of several sizes
        for pairs in in_batches(stream.as_numpy_iterator(), AT_A_TIME):
            rows = [f"example {done + place:,}" for place in range(1, len(pairs) + 1)]
            halves = dict(zip(_PAIR, zip(*pairs, strict=True), strict=True))
            yield part, {name: _half(halves[name], name, layout) for name in roles.read}, rows
            done += len(pairs)


def _half(values: Sequence[Any], name: str, layout: Layout) -> Any:
    kind = layout.fields[name].kind
    if kind == IMAGE:
        return list(values)
    if kind == NAMES:
        return _decode(values)
    shapes = list(dict.fromkeys(np.shape(value) for value in values))
    if len(shapes) > 1:
        raise InputError(
            f"Every {name} of {layout.where} must have one shape. Received: {shapes[0]} and "
            f"{shapes[1]}. Give module:function, which pads or cuts them."
        )
    return np.stack(values)


def _decode(names: Iterable[bytes]) -> Array:
    return np.array([name.decode("utf-8", "backslashreplace") for name in names], object)


RECORDS = Kind(load_records, ("label", "resize"), holds=holds_records)
TFDS = Kind(load_tfds, ("resize",))

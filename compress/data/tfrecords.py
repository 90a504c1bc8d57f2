"""TFRecord files of `tf.train.Example`, one or a folder of them: lists of numbers, and images.

What features there are the first record tells.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.errors import InputError, one_line
from compress.data.fields import ARRAY, IMAGE, NAMES, NUMBER, OTHER, Field, Layout, Roles, roles_of
from compress.data.kinds import Asked, Kind, ending, raw_data
from compress.data.parts import Array, RawData
from compress.data.pieces import Batch
from compress.data.rows import parts_of_rows

AT_A_TIME = 256
"""Records that are read at a time."""
_SUFFIXES = ("tfrecord", "tfrecords")
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
_PART = re.compile(r"train|val|test")
_WORD = re.compile(r"(?<![a-z])(train|val|test)")
"""The same where a word begins: of "contest-train" it is train."""
_OPERATION = re.compile(r"^\{\{.*?\}\}|\[Op:.*", re.DOTALL)
"""What TensorFlow's errors hold beside the reason."""


def holds_records(folder: Path) -> bool:
    """Tells whether a folder has TFRecord files (by name; the content is not read)."""
    return bool(_files(folder))


def load(source: str, asked: Asked) -> RawData:
    """Reads the records some at a time.

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
    layout = _layout(source, next(_raw(first), []), first)
    roles = roles_of(layout, asked.options.label, asked.head, bare=asked.bare)
    held = parts_of_rows(
        _batches(files, layout, roles), layout, roles, asked.head, asked.options.resize
    )
    return raw_data(held, source, asked, notes=roles.notes)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if ending(path.name) in _SUFFIXES and path.is_file()
    )


def _parts(source: Path) -> dict[str, list[Path]]:
    """Returns the files of each part; of names that tell none all are of one."""
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
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _raw(path: Path) -> Iterator[list[bytes]]:
    """Yields a file's records as they are, some at a time.

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
    """Checks a gzipped file that was read: where it is cut off, TensorFlow takes that for its end.

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


def _layout(source: str, records: Sequence[bytes], path: Path) -> Layout:
    """Returns the features of the first record."""
    if not records:
        raise InputError(f"TFRecord file '{path}' must hold records. Received: none.")
    features = _features(records[0], f"record 1 of '{path.name}'")
    fields = {name: _field(feature) for name, feature in sorted(features.items())}
    return Layout(f"'{source}'", fields, "feature", "write the records without it")


def _features(record: bytes, what: str) -> Mapping[str, Any]:
    """Returns the features of one record."""
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
    found: Mapping[str, Any] = example.features.feature
    return found


def _field(feature: Any) -> Field:
    """Returns what a feature holds, as its first record shows it."""
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


def _values(feature: Any) -> Sequence[Any]:
    kind = feature.WhichOneof("kind")
    values: Sequence[Any] = getattr(feature, kind).value if kind else ()
    return values


def _batches(
    files: Mapping[str, Sequence[Path]], layout: Layout, roles: Roles
) -> Iterator[tuple[str, Batch, Sequence[str]]]:
    """Yields the records' features with their part and what errors call each record."""
    import tensorflow as tf

    wanted: dict[str, Any] | None = None
    for part, paths in files.items():
        for path in paths:
            done = 0
            for records in _raw(path):
                rows = [
                    f"record {done + place:,} of '{path.name}'"
                    for place in range(1, len(records) + 1)
                ]
                if wanted is None:
                    first = _features(records[0], rows[0])
                    wanted = {name: _form(first[name]) for name in roles.read}
                try:
                    parsed = tf.io.parse_example(records, wanted)
                except tf.errors.InvalidArgumentError as error:
                    raise _culprit(records, rows, wanted, error) from None
                yield (
                    part,
                    {
                        name: _held(parsed[name].numpy(), layout.fields[name].kind, name, rows)
                        for name in wanted
                    },
                    rows,
                )
                done += len(records)


def _form(feature: Any) -> Any:
    """Returns what every record must have of a feature: as many values as the first."""
    import tensorflow as tf

    kinds = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
    count = len(_values(feature))
    shape = [count] if count > 1 else []
    return tf.io.FixedLenFeature(shape, kinds[feature.WhichOneof("kind")])


def _culprit(
    records: Sequence[bytes], rows: Sequence[str], wanted: Mapping[str, Any], error: Exception
) -> InputError:
    """Returns the error of the first record that is not as the first of all."""
    kinds = {"string": "bytes_list", "float32": "float_list", "int64": "int64_list"}
    for record, row in zip(records, rows, strict=True):
        features = _features(record, row)
        for name, form in wanted.items():
            count = int(np.prod(form.shape or [1]))
            kind = kinds[form.dtype.name]
            held = features.get(name)
            found = "none" if held is None else f"{len(_values(held))} ({held.WhichOneof('kind')})"
            if found != f"{count} ({kind})":
                return InputError(
                    f"Feature '{name}' must have {count} ({kind}) values in every record, as the "
                    f"first has. Received: {found} in {row}. Pad or cut it, or leave the record "
                    "out."
                )
    return InputError(f"Records must have the features of the first ({_reason(error)}).")


def _held(values: Array, kind: str, name: str, rows: Sequence[str]) -> Any:
    """Returns the values of a feature as arrays, texts or images."""
    if kind == IMAGE:
        return [_image(content, name, row) for content, row in zip(values, rows, strict=True)]
    if kind == NAMES:
        return np.array([text.decode("utf-8", "backslashreplace") for text in values], object)
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
    """Returns what TensorFlow says, without its names of operations and devices."""
    text = _OPERATION.sub("", str(getattr(error, "message", None) or error)).strip()
    return one_line(text.splitlines()[0] if text else type(error).__name__)


KIND = Kind(load, ("label", "resize"), holds=holds_records)
"""What reads TFRecord files, and folders of them."""

"""TFRecord files against records written here, and their refusals."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.core import arrays
from compress.core.errors import InputError
from compress.data import DataOptions, load_data
from compress.data.label_inference import Head, Heads
from tests.same import same_arrays

tf = pytest.importorskip("tensorflow")

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
X[:, 0] = np.arange(ROWS)
Y = np.arange(ROWS) % 3


def feature(value: Any) -> Any:
    if isinstance(value, (bytes, str)):
        given = [value.encode() if isinstance(value, str) else value]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=given))
    values = np.atleast_1d(value)
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def record(features: Mapping[str, Any]) -> bytes:
    made = tf.train.Features(feature={name: feature(value) for name, value in features.items()})
    content: bytes = tf.train.Example(features=made).SerializeToString()
    return content


def write(path: Path, records: Iterable[Mapping[str, Any] | bytes]) -> str:
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for item in records:
            writer.write(item if isinstance(item, bytes) else record(item))
    return str(path)


def rows(count: int = ROWS, **others: Any) -> list[dict[str, Any]]:
    """Records of a list and a label; `others` are made of a row's number."""
    return [
        {"x": X[row % ROWS], "label": Y[row % ROWS],
         **{name: make(row) for name, make in others.items()}}
        for row in range(count)
    ]  # fmt: skip


def pixels(row: int, channels: int = 1, height: int = 6) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (height, 4, channels)).astype(np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, kind, **how)
    return stream.getvalue()


def pictures(count: int = ROWS, first: int = 0, **how: Any) -> list[dict[str, Any]]:
    return [
        {"image": encoded(pixels(row, **how)), "label": row % 2}
        for row in range(first, first + count)
    ]


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecords.gz", "a.tfrecord-00000-of-00001"])
def test_lists_and_labels(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, rows())
    data = load_data(path, normalize="none")
    assert (data.kind, data.input_shape, data.train.x.dtype) == ("multiclass", (5,), np.float32)
    for part in ("train", "val", "test"):
        split = data.split(part)
        index = split.x[:, 0].astype(int)
        np.testing.assert_array_equal(split.x, X[index])
        np.testing.assert_array_equal(split.y, Y[index])


def test_more_records_than_are_read_at_a_time(tmp_path: Path) -> None:
    data = load_data(write(tmp_path / "a.tfrecord", rows(600)), normalize="none")
    assert sum(len(data.split(part)) for part in ("train", "val", "test")) == 600


def test_numbers_side_by_side_and_labels_by_name(tmp_path: Path) -> None:
    columns = [
        {"b": float(row), "a": row * 2, "sort": ["cat", "dog"][row % 2]} for row in range(ROWS)
    ]
    path = write(tmp_path / "a.tfrecord", columns)
    data = load_data(path, label="sort", normalize="none")
    assert (data.class_names, data.train.x.dtype) == (("cat", "dog"), np.float32)
    index = data.train.x[:, 1]  # features are in alphabetical order
    np.testing.assert_array_equal(data.train.x[:, 0], 2 * index)
    np.testing.assert_array_equal(data.train.y, index % 2)
    heads = Heads({"b": (1,), "a": (1,)}, {"out": Head("softmax", (2,), (1,))})
    data = load_data(path, label="sort", head=heads, normalize="none")
    assert [(name, x.dtype) for name, x in data.train.x.items()] == [
        ("b", np.float32), ("a", np.int64),
    ]  # fmt: skip


def test_lists_take_the_shape_of_the_models_input(tmp_path: Path) -> None:
    grids = [{"x": np.arange(12) + row, "y": row % 2} for row in range(ROWS)]
    path = write(tmp_path / "a.tfrecord", grids)
    data = load_data(path, head=Head("softmax", (2,), (3, 4, 1)), normalize="none")
    assert (data.input_shape, data.train.x.dtype) == ((3, 4, 1), np.int64)
    np.testing.assert_array_equal(data.train.x[0].ravel(), np.arange(12) + data.train.x[0, 0, 0, 0])


def test_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", pictures())
    data = load_data(path, normalize="unit")
    assert (data.input_shape, data.train.x.dtype, data.max_value) == ((6, 4, 1), np.uint8, 255.0)
    held = {pixels(row).tobytes(): row % 2 for row in range(ROWS)}
    for image, label in zip(data.train.x, data.train.y, strict=True):
        assert held[image.tobytes()] == label
    np.testing.assert_allclose(data.inputs("val"), data.val.x / 255.0, rtol=1e-6)


def test_images_are_in_colour_where_one_is(tmp_path: Path) -> None:
    """In whatever part; transparency is left out; what describes an image is no input."""
    firsts = {"train": 0, "validation": 20, "test": 40}
    records = {part: pictures(20, first) for part, first in firsts.items()}
    records["test"][7]["image"] = encoded(pixels(47, channels=4))
    records["train"][9]["image"] = encoded(pixels(9, channels=3), "JPEG", quality=95)
    for part, listed in records.items():
        described = [{**item, "image/format": "PNG", "image/height": 6} for item in listed]
        write(tmp_path / f"set-{part}.tfrecord", described)
    data = load_data(str(tmp_path), normalize="none")
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [20, 20, 20]
    assert data.input_shape == (6, 4, 3)
    np.testing.assert_array_equal(data.train.x[3], np.repeat(pixels(3), 3, axis=-1))
    np.testing.assert_array_equal(data.val.x[7], np.repeat(pixels(27), 3, axis=-1))
    np.testing.assert_array_equal(data.test.x[7], pixels(47, channels=4)[..., :3])
    jpeg = tf.io.decode_jpeg(records["train"][9]["image"]).numpy()
    np.testing.assert_array_equal(data.train.x[9], jpeg)
    assert data.notes[0] == f"left out of '{tmp_path}': image/format, image/height"


def test_images_are_resized_where_it_is_asked(tmp_path: Path) -> None:
    records = pictures()
    records[5]["image"] = encoded(pixels(5, height=9))
    path = write(tmp_path / "a.tfrecord", records)
    with pytest.raises(
        InputError, match=r"4x6 .record 1 of 'a.tfrecord'. and 4x9 .record 6 .*--re"
    ):
        load_data(path)
    data = load_data(DataOptions(path, resize=(8, 8), normalize="none"))
    assert data.input_shape == (8, 8, 1)
    wanted = {
        np.asarray(Image.fromarray(pixels(row, height=9 if row == 5 else 6)[..., 0]).resize(
            (8, 8), Image.Resampling.BILINEAR)).tobytes()
        for row in range(ROWS)
    }  # fmt: skip
    held = np.concatenate([data.split(part).x for part in ("train", "val", "test")])
    assert {image.tobytes() for image in held} == wanted


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("b-0", "b-1"), None),
        (("train-0", "test-0", "train-1"), {"train": 2, "test": 1}),
        (("MyTrain", "my_val", "eval-2"), {"train": 1, "val": 2}),
        (("contest-train", "contest-test", "latest_validation"), {"train": 1, "test": 1, "val": 1}),
    ],
)
def test_parts_are_told_by_the_files_names(
    names: tuple[str, ...], parts: dict[str, int] | None, tmp_path: Path
) -> None:
    for number, name in enumerate(names):
        records = [
            {**row, "x": np.random.default_rng([number, place]).normal(size=5).astype(np.float32)}
            for place, row in enumerate(rows())
        ]
        write(tmp_path / f"{name}.tfrecord", records)
    (tmp_path / "README.md").write_text("no record")
    data = load_data(str(tmp_path))
    counts = {part: len(data.split(part)) for part in ("train", "val", "test")}
    assert sum(counts.values()) == len(names) * ROWS
    for part in ("val", "test"):
        own = (parts or {}).get(part)
        # what is not there is split off
        assert (counts[part] == own * ROWS) if own else (counts[part] % ROWS > 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("test-0", "val-0"), "train in some. Received: only test and val. Rename them"),
        (
            ("train-0", "other"),
            "all or none of them, and train in some. Received: 'other.tfrecord'",
        ),
        (("train-test", "train"), "one part each. Received: 'train-test.tfrecord', whose name has"),
    ],
)
def test_names_that_do_not_tell_the_parts(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for name in names:
        write(tmp_path / f"{name}.tfrecord", rows(3))
    with pytest.raises(InputError, match=message):
        load_data(str(tmp_path))


def changed(row: int, **features: Any) -> list[dict[str, Any]]:
    """Records of which one (from 1) has other features; None: it lacks them."""
    made = rows(300)
    own = {**made[row - 1], **features}
    made[row - 1] = {name: value for name, value in own.items() if value is not None}
    return made


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "'.*a.tfrecord' must hold records. Received: none"),
        ([b"no example"], r"tf.train.Example.*Received: record 1 of 'a.tfrecord'.*\(10 bytes\)"),
        ([b""], r"tf.train.Example.*\(0 bytes\)"),
        ([*rows(9), b"no example"], "Received: record 10 of 'a.tfrecord'"),
        (changed(270, x=X[0, :4]), "'x' must have 5 .float_list.*Received: 4 .*record 270 of"),
        (changed(4, x=np.arange(5)), r"Received: 5 \(int64_list\) in record 4"),
        (changed(259, label=None), "'label' must have 1 .int64.*Received: none in record 259"),
        (changed(9, x=np.where(X[0] == 0, np.nan, X[0])), "missing 1 in feature 'x'"),
        (changed(1, x=np.zeros(0, np.float32)), r"'x' of other things \(empty in the first record"),
        (rows(name=lambda row: "a"), r"feature 'name' of names \('a' in record 1\).*write the"),
        (rows(raw=lambda row: b"\xff\x00"), r"'raw' of other things \(2 bytes that are no JPEG or"),
        (rows(other=float), r"one feature of lists or images, .*other \(numbers\), x \(lists of"),
        ([{"x": X[row]} for row in range(9)], "a feature that is the label.*Received: x. Give"),
        (
            [*pictures(6), {"image": encoded(pixels(1))[:-20], "label": 1}, *pictures(1)],
            "'image' must be an image that is complete.*record 7 of 'a.tfrecord'.*PNG",
        ),
        (
            [{**item, "other": item["image"]} for item in pictures(2)],
            r"Received: image \(images\), other \(images\)",
        ),
    ],
)  # fmt: skip
def test_refusals(records: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write(tmp_path / "a.tfrecord", records))


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_damage(name: str, tmp_path: Path) -> None:
    path = Path(write(tmp_path / name, rows()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"must be complete and readable. Received: \w.*Fetch it"):
        load_data(str(path))
    path.write_bytes(content[: len(content) // 3 - 7])
    with pytest.raises(InputError, match="must be complete and readable") as caught:
        load_data(str(path))
    assert "{{" not in str(caught.value)
    assert "[Op:" not in str(caught.value)


def test_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [{"x": X[row]} for row in range(ROWS)])
    data = load_data(path, task="reconstruction", normalize="none")
    assert data.input_shape == (5,)
    write(tmp_path / "a.tfrecord", rows())
    assert load_data(path, task="reconstruction").input_shape == (5,)


@pytest.mark.parametrize("kind", ["lists", "images"])
def test_memory_does_not_grow_with_the_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = rows() if kind == "lists" else pictures()
    if kind == "images":
        records[40]["image"] = encoded(pixels(40, channels=3))
    path = write(tmp_path / "a.tfrecord", records)
    held = load_data(path)
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 256)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 128)
    monkeypatch.setattr("compress.data.tfrecords.BATCH_SIZE", 7)
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(tmp_path / "spool"))
    data = load_data(path)
    assert arrays.is_mapped(data.train.x)
    assert not list((tmp_path / "spool").iterdir())
    same_arrays([data.train.x, data.test.y], [held.train.x, held.test.y])

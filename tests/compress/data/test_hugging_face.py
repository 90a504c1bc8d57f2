"""Hugging Face data sets by what `datasets` promises: a stand-in with its names and forms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from compress.core import arrays
from compress.core.errors import InputError
from compress.data import load_data
from compress.data.adapters import (
    build_labelled_dataset,
    build_unlabelled_dataset,
    is_unlabelled,
    read_arrays,
)
from compress.data.label_inference import Head, Heads
from compress.train.dataset_loading import as_dataset

ROWS = 60
Y = np.arange(ROWS) % 2
NAMES = ["ant", "bee"]


class Value:
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class ClassLabel:
    def __init__(self, names: list[str] | None = None) -> None:
        self.names = names


class Image:
    pass


class Audio:
    pass


class List:
    def __init__(self, feature: Any) -> None:
        self.feature = feature


class Array3D:
    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype


class Dataset:
    """Columns with features; batches come as lists, or as arrays where that is asked for."""

    def __init__(self, columns: dict[str, Any], features: dict[str, Any], kind: Any = None) -> None:
        self._columns, self.features = columns, features
        self.format: dict[str, Any] = {"type": kind}
        self._how: dict[str, Any] = {}

    def select_columns(self, names: list[str]) -> Dataset:
        chosen = {name: self._columns[name] for name in names}
        features = {name: self.features[name] for name in names}
        return Dataset(chosen, features, self.format["type"])

    def with_format(self, kind: str | None, **how: Any) -> Dataset:
        made = Dataset(self._columns, self.features, kind)
        made._how = how
        return made

    def iter(self, batch_size: int) -> Iterator[dict[str, Any]]:
        count = len(next(iter(self._columns.values())))
        for at in range(0, count, batch_size):
            batch = {name: list(held[at : at + batch_size]) for name, held in self._columns.items()}
            yield {name: self._as(values) for name, values in batch.items()}

    def _as(self, values: list[Any]) -> Any:
        if self.format["type"] is None:
            return values
        # else integers of any width become int64, all others float32
        assert self._how == {"dtype": None}
        if all(isinstance(value, (int, float, type(None))) for value in values):
            return np.array([np.nan if value is None else value for value in values])
        try:
            return np.asarray(values)
        except ValueError:
            held = np.empty(len(values), object)
            held[:] = [np.asarray(value) for value in values]
            return held


class DatasetDict(dict[str, Dataset]):
    pass


class IterableDataset:
    pass


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("datasets")
    module.Dataset, module.DatasetDict = Dataset, DatasetDict
    module.IterableDataset = IterableDataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def picture(row: int, mode: str = "L", height: int = 6) -> Any:
    shape = (height, 5) if mode == "L" else (height, 5, len(mode))
    values = np.random.default_rng(row).integers(0, 256, shape).astype(np.uint8)
    return Pillow.fromarray(values)


def pictures(count: int = ROWS, first: int = 0, **features: Any) -> Dataset:
    columns = {
        "image": [picture(row) for row in range(first, first + count)],
        "path": [f"{row}.png" for row in range(count)],
        "kind": (np.arange(count) % 2).tolist(),
    }
    held = {"image": Image(), "path": Value("string"), "kind": ClassLabel(NAMES), **features}
    return Dataset(columns, held)


def numbers(**columns: Any) -> Dataset:
    """Columns whose features are told by their first value."""

    def feature(value: Any) -> Any:
        if isinstance(value, list):
            return List(feature(value[0]))
        kinds = {str: "string", int: "int64", float: "float64"}
        return Value(kinds[type(value)])

    return Dataset(columns, {name: feature(values[0]) for name, values in columns.items()})


COUNT = list(range(ROWS))
REAL = [row / 4 for row in COUNT]


def test_images_and_names_of_classes() -> None:
    data = build_labelled_dataset(pictures())
    assert (data.name, data.kind, data.class_names) == ("huggingface", "multiclass", ("ant", "bee"))
    # fed as they are: nothing is scaled
    assert (data.train.x.dtype, data.input_shape, data.max_value) == (np.uint8, (6, 5, 1), None)
    held = {np.asarray(picture(row)).tobytes(): row % 2 for row in COUNT}
    for fed, label in zip(data.inputs("train"), data.train.y, strict=True):
        assert held[fed.astype(np.uint8).tobytes()] == label
    assert data.notes[0] == "left out of the Hugging Face data set: path"
    flat = build_labelled_dataset(pictures(), head=Head("softmax", (2,), (6, 5)))
    assert flat.input_shape == (6, 5)
    assert not is_unlabelled(pictures())


def test_images_are_in_colour_where_one_is() -> None:
    given = pictures()
    given._columns["image"][9] = picture(9, "RGB")
    given._columns["image"][20] = picture(20, "RGBA")
    given._columns["image"][21] = picture(21).convert("P")
    x = read_arrays(given)[0]
    np.testing.assert_array_equal(x[0], np.asarray(picture(0).convert("RGB")))
    np.testing.assert_array_equal(x[9], np.asarray(picture(9, "RGB")))
    np.testing.assert_array_equal(x[20], np.asarray(picture(20, "RGBA"))[..., :3])
    np.testing.assert_array_equal(x[21], np.asarray(picture(21).convert("RGB")))


def test_parts_of_a_dictionary() -> None:
    parts = DatasetDict(
        train=pictures(), validation=pictures(10, 60), test=pictures(6, 70), other=3
    )
    data = build_labelled_dataset(parts)
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [60, 10, 6]
    np.testing.assert_array_equal(data.test.y, [0, 1, 0, 1, 0, 1])
    assert data.class_names == ("ant", "bee")
    pairs = np.zeros((8, 6, 5, 1)), np.arange(8) % 2
    data = build_labelled_dataset(DatasetDict(train=pictures()), val=pairs, label=("kind",))
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [60, 8, 0]
    given = as_dataset(
        DatasetDict(train=pictures(), test=pictures(6, 70)), testing=True, label="kind"
    )
    assert [len(given.split(part)) for part in ("train", "val", "test")] == [51, 9, 6]
    assert len(build_unlabelled_dataset(parts).train) == 60


@pytest.mark.parametrize(
    ("names", "label", "expected"),
    [
        (("labels", "y"), (), "labels"),
        (("label", "labels"), (), "label"),
        (("target", "y"), (), "y"),
        (("label", "other"), ("other",), "other"),
    ],
)
def test_which_column_is_the_label(
    names: tuple[str, ...], label: tuple[str, ...], expected: str
) -> None:
    columns = {name: [(row + place) % (place + 2) for row in COUNT]
               for place, name in enumerate(names)}  # fmt: skip
    given = numbers(a=REAL, b=COUNT, **columns)
    data = build_labelled_dataset(given, label=label)
    assert data.num_classes == names.index(expected) + 2
    # the one with names of classes goes before them
    given.features["b"] = ClassLabel([str(row) for row in COUNT])
    x, y, _, _ = read_arrays(given)
    np.testing.assert_array_equal(y, COUNT)
    assert x.shape == (ROWS, 3)


def test_numbers_lists_and_arrays() -> None:
    x, y, _, _ = read_arrays(numbers(a=REAL, b=COUNT, y=REAL))
    np.testing.assert_array_equal(x, np.stack([REAL, COUNT], axis=1).astype(np.float32))
    np.testing.assert_array_equal(y, REAL)
    assert build_labelled_dataset(numbers(a=REAL, b=COUNT, y=REAL)).kind == "regression"
    lists = [[row / 2, 1.0, 2.0] for row in COUNT]
    x, y, _, _ = read_arrays(numbers(emb=lists, label=["ab"[row % 2] for row in COUNT]))
    np.testing.assert_array_equal(x, np.asarray(lists, np.float32))
    assert set(y) == {"a", "b"}
    pixels = np.arange(ROWS * 12).reshape(ROWS, 2, 2, 3).astype(np.uint8)
    given = Dataset(
        {"p": list(pixels), "y": Y.tolist()},
        {"p": Array3D((2, 2, 3), "uint8"), "y": Value("bool")},
    )
    x, y, _, _ = read_arrays(given)
    np.testing.assert_array_equal(x, pixels)
    assert x.dtype == np.uint8


def test_inputs_and_outputs_by_name() -> None:
    heads = Heads(
        {"image": (6, 5, 1), "size": (1,)},
        {"kind": Head("softmax", (2,), (6, 5, 1)), "worth": Head("linear", (1,), (6, 5, 1))},
    )
    given = pictures(size=Value("int32"), worth=Value("float32"))
    given._columns.update(size=COUNT, worth=REAL)
    data = build_labelled_dataset(given, head=heads)
    assert data.input_shapes == {"image": (6, 5, 1), "size": (1,)}
    np.testing.assert_allclose(data.train.y["worth"], data.train.x["size"] / 4)
    np.testing.assert_array_equal(data.train.y["kind"], data.train.x["size"][:, 0] % 2)


def test_without_labels() -> None:
    assert build_unlabelled_dataset(numbers(a=REAL, b=COUNT)).train.x.shape == (ROWS, 2)
    found = build_unlabelled_dataset(pictures())
    assert (found.train.x.shape, found.kind) == ((ROWS, 6, 5, 1), "multiclass")
    data = build_labelled_dataset(numbers(a=REAL, b=COUNT), task="reconstruction")
    assert data.train.y.shape == (51, 0)


def changed(column: str, row: int, value: Any) -> Dataset:
    given = pictures(worth=Value("float32"), emb=List(Value("float32")))
    given._columns.update(worth=list(REAL), emb=[[1.0, 2.0]] * ROWS)
    given._columns[column][row] = value
    keep = {"image", "kind"} if column in ("image", "kind") else {column, "kind"}
    return given.select_columns([name for name in given.features if name in keep])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DatasetDict(test=pictures(3)), "must have a part called train. Received: test"),
        (IterableDataset(), "must be at hand. Received: IterableDataset, which is streamed"),
        (numbers(a=REAL, b=COUNT), "label, y, target or labels, .*Received: a, b. Give --label"),
        (numbers(a=["x"] * ROWS, y=COUNT), "'a' of names. Encode them as numbers, or drop the col"),
        (numbers(a=[["x"]] * ROWS, y=COUNT), r"'a' of other things \(lists of names\)"),
        (numbers(a=[[1.0]] * ROWS, b=COUNT, y=COUNT), r"Received: a \(lists of numbers\), b"),
        (numbers(a=[*REAL[:58], None, None], y=COUNT), "missing 2 in column 'a'"),
        (changed("image", 3, None), "missing 1 in column 'image'"),
        (changed("image", 3, picture(3, height=7)), r"5x6 \(row 1\) and 5x7 \(row 4\). Make them"),
        (changed("image", 3, Pillow.new("I;16", (5, 6))), "8 bits a channel.*mode I;16 in row 4"),
        (changed("kind", 3, None), "missing 1 in column 'kind'"),
        (changed("emb", 3, [1.0]), "'emb' of .* must hold lists of numbers of one length, none"),
        (Dataset({"a": REAL, "y": COUNT}, {"a": Audio(), "y": Value("int64")}), "things .Audio"),
        (
            Dataset({"a": REAL, "y": COUNT}, {"a": Value("timestamp[s]"), "y": Value("int64")}),
            r"column 'a' of dates \(timestamp\[s\]\)",
        ),
        (
            Dataset({"a": REAL, "y": COUNT}, {"a": {"b": Value("int8")}, "y": Value("int64")}),
            r"column 'a' of other things \(records\)",
        ),
        (
            Dataset({"a": REAL}, {"a": Value("float64")}, "custom"),
            r"must hold what a model is fed. Received: one with a transform. Apply it with map\(\)",
        ),
    ],
)  # fmt: skip
def test_refusals(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_labelled_dataset(data)


def test_a_part_twice_and_a_label_that_is_not_there() -> None:
    parts = DatasetDict(train=pictures(), validation=pictures(9))
    with pytest.raises(InputError, match="val= must be left out of a DatasetDict with such a part"):
        build_labelled_dataset(parts, val=pictures(9))
    with pytest.raises(InputError, match="val and test must be a part each"):
        build_labelled_dataset(pictures(), val=parts)
    with pytest.raises(InputError, match="label must name a column of the Hugging Face data set"):
        as_dataset(pictures(), label="sort")


def test_a_module_of_the_users_own_of_this_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", ModuleType("datasets"))
    assert build_labelled_dataset((np.zeros((ROWS, 2)), Y)).num_classes == 2
    monkeypatch.delitem(sys.modules, "datasets")
    assert build_labelled_dataset((np.zeros((ROWS, 2)), Y)).num_classes == 2


def test_what_a_function_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("made_here")
    module.make = lambda: DatasetDict(train=pictures(), test=pictures(6, 70))
    module.two = lambda: numbers(a=REAL, b=COUNT, c=COUNT)
    monkeypatch.setitem(sys.modules, "made_here", module)
    data = load_data("made_here:make")
    assert (data.name, len(data.test), data.max_value) == ("made_here:make", 6, None)
    assert load_data("made_here:two", label="a").kind == "regression"
    with pytest.raises(
        InputError, match="Received: a Dataset. The Hugging Face data set must have"
    ):
        load_data("made_here:two")


def test_memory_does_not_grow_with_the_data(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_arrays(pictures())[0]
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 256)
    monkeypatch.setattr("compress.data.hugging_face.BATCH_SIZE", 7)
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(tmp_path))
    x = read_arrays(pictures())[0]
    assert arrays.is_mapped(x)
    np.testing.assert_array_equal(x, expected)

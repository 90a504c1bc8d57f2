"""CSV and Parquet files against files written here, frames, and their refusals."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core import arrays
from compress.core.errors import InputError, MissingDependency
from compress.data import DataOptions, Dataset, load_data
from compress.data.adapters import build_labelled_dataset
from compress.data.label_inference import Head, Heads
from compress.plan import Plan
from compress.plan.nesting import from_flat, to_nested
from compress.train.dataset_loading import as_dataset
from tests.same import same_arrays

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SEED = 0
ROWS = 60
A = np.random.default_rng(SEED).normal(size=ROWS).round(3)
B = np.arange(ROWS)
FLAG = B % 2 == 0
Y = B % 3
COLUMNS: dict[str, Any] = {"a": A, "b": B, "flag": FLAG, "label": Y}


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]], separator: str = ",") -> str:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def write_parquet(path: Path, columns: Mapping[str, Any], **how: Any) -> str:
    pq.write_table(pa.table(dict(columns)), path, **how)
    return str(path)


def write_text(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


Write = Callable[[Path, Mapping[str, Any]], str]
BOTH = pytest.mark.parametrize(
    ("write", "name"), [(write_csv, "t.csv"), (write_parquet, "t.parquet")]
)


def whole(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns examples and labels of all parts, by the column that numbers the rows."""
    x = np.concatenate([data.split(part).x for part in ("train", "val", "test")])
    y = np.concatenate([data.split(part).y for part in ("train", "val", "test")])
    order = np.argsort(x[:, 1])
    return x[order], y[order]


@BOTH
def test_columns_are_inputs_in_the_files_order(write: Write, name: str, tmp_path: Path) -> None:
    data = load_data(write(tmp_path / name, COLUMNS), normalize="none")
    x, y = whole(data)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, np.stack([A, B, FLAG], axis=1).astype(np.float32))
    np.testing.assert_array_equal(y, Y)
    assert (data.kind, data.class_names, data.input_shape) == ("multiclass", ("0", "1", "2"), (3,))


@BOTH
def test_both_files_give_the_same(write: Write, name: str, tmp_path: Path) -> None:
    data = load_data(write(tmp_path / name, COLUMNS))
    x = np.stack([A, B, FLAG], axis=1)
    np.savez(tmp_path / "t.npz", x_train=x, y_train=Y)
    assert data.fingerprint() == load_data(str(tmp_path / "t.npz")).fingerprint()


@BOTH
@pytest.mark.parametrize(
    ("names", "label", "expected"),
    [
        (("y", "target", "label"), "", "label"),
        (("target", "y", "c"), "", "y"),
        (("target", "b", "c"), "", "target"),
        (("label", "y", "c"), "c", "c"),
    ],
)
def test_which_column_is_the_label(
    names: tuple[str, ...], label: str, expected: str, write: Write, name: str, tmp_path: Path
) -> None:
    columns = {column: (B + place) % (place + 2) for place, column in enumerate(names)}
    data = load_data(write(tmp_path / name, columns), label=label, normalize="none")
    assert data.num_classes == names.index(expected) + 2
    assert data.input_shape == (2,)


@BOTH
def test_names_are_classes(write: Write, name: str, tmp_path: Path) -> None:
    kinds = np.array(["eel", "cat", "dog"])[Y]
    data = load_data(write(tmp_path / name, {**COLUMNS, "label": kinds}), normalize="none")
    assert data.class_names == ("cat", "dog", "eel")
    np.testing.assert_array_equal(whole(data)[1], np.array([2, 0, 1])[Y])
    assert data.notes == (
        "labels are names: classes are numbered by alphabetical order (cat, dog, eel)",
    )


@BOTH
def test_a_number_or_several_to_predict(write: Write, name: str, tmp_path: Path) -> None:
    columns = {"a": A, "b": B, "one": A / 2, "two": B / 4}
    path = write(tmp_path / name, columns)
    data = load_data(path, label=["one", "two"], normalize="none")
    assert (data.kind, data.num_classes, data.input_shape) == ("regression", 2, (2,))
    order = np.argsort(data.train.x[:, 1])
    index = data.train.x[order, 1].astype(int)
    expected = np.stack([A[index] / 2, index / 4], axis=1).astype(np.float32)
    np.testing.assert_array_equal(data.train.y[order], expected)
    labels = {"a": A, "b": B, "x": B % 2, "y": 1 - Y // 2}
    data = load_data(write(tmp_path / name, labels), label="x,y", normalize="none")
    assert (data.kind, data.num_classes) == ("multilabel", 2)


@BOTH
def test_parts_and_weights_have_columns(write: Write, name: str, tmp_path: Path) -> None:
    parts = np.array(["train", "Val", "validation", "test", "train"])[B % 5]
    weight = (B + 1) / 10
    path = write(tmp_path / name, {**COLUMNS, "split": parts, "weight": weight})
    data = load_data(path, normalize="none")
    for part, places in (("train", (0, 4)), ("val", (1, 2)), ("test", (3,))):
        rows = np.flatnonzero(np.isin(B % 5, places))
        split = data.split(part)
        np.testing.assert_array_equal(split.x[:, 1], B[rows])
        np.testing.assert_array_equal(split.y, Y[rows])
        np.testing.assert_allclose(split.weight, weight[rows], rtol=1e-6)
    assert data.input_shape == (3,)
    assert data.notes[:2] == (
        f"column 'weight' of '{path}' says how much examples count",
        f"column 'split' of '{path}' says which part is which",
    )


@BOTH
def test_inputs_and_outputs_by_name(write: Write, name: str, tmp_path: Path) -> None:
    heads = Heads(
        {"b": (1,), "a": (1,)},
        {"kind": Head("softmax", (3,), (1,)), "size": Head("linear", (1,), (1,))},
    )
    columns = {"a": A, "b": B, "size": A * 2, "kind": np.array(["x", "y", "z"])[Y], "id": B}
    path = write(tmp_path / name, columns)
    for label in ((), ("size", "kind")):
        data = load_data(path, label=label, head=heads, normalize="none")
        index = data.train.x["b"][:, 0]
        assert list(data.train.x) == ["b", "a"]
        # integers may be indices: they stay what they are
        assert (data.train.x["b"].dtype, data.train.x["a"].dtype) == (np.int64, np.float32)
        np.testing.assert_array_equal(data.train.x["a"][:, 0], A[index].astype(np.float32))
        np.testing.assert_array_equal(data.train.y["kind"], Y[index])
        np.testing.assert_allclose(data.train.y["size"][:, 0], A[index] * 2, rtol=1e-6)
        assert [(item.name, item.kind) for item in data.outputs] == [
            ("kind", "multiclass"), ("size", "regression"),
        ]  # fmt: skip
        assert data.notes[0] == f"left out of '{path}': id"
    with pytest.raises(InputError, match="each output of the model: kind, size. Received: size"):
        load_data(path, label="size", head=heads)
    none = {key: values for key, values in columns.items() if key != "b"}
    with pytest.raises(InputError, match="each input of the model: b, a. Received: a, id"):
        load_data(write(tmp_path / name, none), head=heads)


def test_lists_in_parquet(tmp_path: Path) -> None:
    lists = np.arange(ROWS * 4, dtype=np.float64).reshape(ROWS, 4)
    nested = np.arange(ROWS * 6).reshape(ROWS, 2, 3)
    kinds = {
        "list": pa.array(lists.tolist()),
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(lists.ravel()), 4),
        "large": pa.array(lists.tolist(), pa.large_list(pa.float32())),
    }
    for kind, values in kinds.items():
        path = write_parquet(tmp_path / f"{kind}.parquet", {"emb": values, "y": Y})
        data = load_data(path, normalize="none")
        assert (data.input_shape, data.train.x.dtype) == ((4,), np.float32)
        index = (data.train.x[:, 0] / 4).astype(int)
        np.testing.assert_array_equal(data.train.x, lists[index].astype(np.float32))
        np.testing.assert_array_equal(data.train.y, Y[index])
    sequence = Head("softmax", (3,), (2, 3))
    path = write_parquet(tmp_path / "n.parquet", {"seq": pa.array(nested.tolist()), "y": Y})
    data = load_data(path, normalize="none", head=sequence)
    assert (data.input_shape, data.train.x.dtype) == ((2, 3), np.int64)
    np.testing.assert_array_equal(data.train.x, nested[data.train.x[:, 0, 0] // 6])
    # bytes are pixels
    pixels = pa.array((lists % 256).astype(np.uint8).tolist(), pa.list_(pa.uint8()))
    data = load_data(write_parquet(tmp_path / "p.parquet", {"pixels": pixels, "y": Y}))
    assert (data.train.x.dtype, data.max_value) == (np.uint8, 255.0)
    heads = Heads({"emb": (4,), "a": (1,)}, {"out": Head("softmax", (3,), (4,))})
    columns = {"a": A, "emb": kinds["list"], "y": Y}
    data = load_data(write_parquet(tmp_path / "m.parquet", columns), head=heads, normalize="none")
    assert data.input_shapes == {"emb": (4,), "a": (1,)}
    # lists as labels: one-hot rows
    columns = {"a": A, "b": B, "label": pa.array(np.eye(3)[Y].tolist())}
    data = load_data(write_parquet(tmp_path / "o.parquet", columns), normalize="none")
    np.testing.assert_array_equal(whole(data)[1], Y)


def test_what_else_parquet_holds(tmp_path: Path) -> None:
    columns = {
        "half": pa.array(A.astype(np.float16)),
        "b": pa.array(B.tolist(), pa.uint16()),
        "price": pa.array([Decimal(f"{value}.25") for value in B], pa.decimal128(9, 2)),
        "code": pa.DictionaryArray.from_arrays(pa.array(Y), pa.array([10, 20, 30])),
        "label": pa.DictionaryArray.from_arrays(pa.array(Y), pa.array(["x", "y", "z"])),
    }
    data = load_data(write_parquet(tmp_path / "t.parquet", columns), normalize="none")
    x, y = whole(data)
    expected = np.stack([A.astype(np.float16), B, B + 0.25, 10 + 10 * Y], axis=1)
    np.testing.assert_array_equal(x, expected.astype(np.float32))
    np.testing.assert_array_equal(y, Y)
    frame = pd.DataFrame({"a": A, "b": B, "label": Y}, index=B + 100)
    frame.to_parquet(tmp_path / "f.parquet")
    assert load_data(str(tmp_path / "f.parquet")).input_shape == (2,)


def test_rows_of_a_known_shape_are_taken_for_it(tmp_path: Path) -> None:
    pixels = {f"pixel{place}": (B * place) % 256 for place in range(12)}
    path = write_csv(tmp_path / "t.csv", {"label": Y, **pixels})
    data = load_data(path, head=Head("softmax", (3,), (4, 3, 1)), normalize="none")
    assert data.input_shape == (4, 3, 1)
    plain = load_data(path, normalize="none")
    np.testing.assert_array_equal(data.train.x.reshape(-1, 12), plain.train.x)
    assert load_data(path, head=Head("softmax", (3,), (None, 3, 1))).input_shape == (12,)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_forms_of_csv(separator: str, packed: bool, tmp_path: Path) -> None:
    expected = load_data(write_csv(tmp_path / "t.csv", COLUMNS), normalize="none")
    path = Path(write_csv(tmp_path / "other.csv", COLUMNS, separator))
    # a byte order mark, as spreadsheets write it, and spaces behind separators
    text = "\ufeff" + path.read_text().replace(separator, f"{separator} ")
    content = text.encode("utf-8")
    path = tmp_path / ("other.CSV.gz" if packed else "other.CSV")
    path.write_bytes(gzip.compress(content) if packed else content)
    data = load_data(str(path), normalize="none")
    assert data.fingerprint() == expected.fingerprint()


def test_a_column_of_labels_is_of_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that begin like numbers stay names, in whatever lines they lie."""
    monkeypatch.setattr("compress.data.tables.MAX_ROWS", 8)
    kinds = np.array(["01", "1", "1a"])
    labels = [*kinds[B[:40] % 2], *kinds[B[40:] % 3]]
    path = write_csv(tmp_path / "t.csv", {"a": A, "b": B, "label": labels})
    data = load_data(path, normalize="none")
    assert data.class_names == ("01", "1", "1a")
    np.testing.assert_array_equal(whole(data)[1], [list(kinds).index(name) for name in labels])
    # numbers whose first lines are whole
    values = [*B[:40].tolist(), *(B[40:] / 8).tolist()]
    data = load_data(write_csv(tmp_path / "t.csv", {"a": A, "b": B, "label": values}))
    assert data.kind == "regression"
    np.testing.assert_array_equal(whole(data)[1][:, 0], np.asarray(values, np.float32))
    # inputs by name, whole in the first lines
    mixed = [*B[:40].tolist(), *A[40:].tolist()]
    heads = Heads({"m": (1,), "b": (1,)}, {"out": Head("softmax", (3,), (1,))})
    path = write_csv(tmp_path / "t.csv", {"m": mixed, "b": B, "label": Y})
    data = load_data(path, head=heads, normalize="none")
    index = data.train.x["b"][:, 0]
    np.testing.assert_array_equal(
        data.train.x["m"][:, 0], np.asarray(mixed, np.float64)[index].astype(np.float32)
    )


GOOD = {"a": A, "b": B, "label": Y}
NO = [None] * 3


@BOTH
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": A, "b": B}, r"that is the label: label, y or target, .* Received: a, b. Give --lab"),
        ({"label": Y}, "must hold numbers, or one column of lists .* Received: nothing"),
        ({**GOOD, "hue": ["red"] * ROWS}, "column 'hue' of names.*Encode them as numbers, or drop"),
        ({**GOOD, "a": [*NO, *A[3:]]}, r"a value in every row. Received: missing 3 in column 'a' "),
        (
            {**GOOD, "a": [*NO, *A[3:]], "label": [*["x", "y"] * 28, *NO, None]},
            "missing 3 in column 'a', 4 in column 'label' .empty, NaN",
        ),
        ({**GOOD, "flag": [*NO, *FLAG[3:].tolist()]}, "missing 3 in column 'flag'"),
        ({**GOOD, "split": [*NO, *["train"] * 57]}, "missing 3 in column 'split'"),
        ({**GOOD, "split": ["train", "tset"] * 30}, "train, val or test. Received: 'tset'"),
        ({**GOOD, "split": B}, "'split' of .* must hold train, val or test. Rec"),
        ({**GOOD, "split": ["test"] * ROWS}, "examples of the training part. Received: test"),
        ({**GOOD, "weight": ["much"] * ROWS}, "'weight' of .* must be numbers. Received: names"),
        ({**GOOD, "weight": -B}, "Weights of .* must be one finite number an example"),
        ({**GOOD, "a": np.where(B == 5, np.inf, A)}, "must be finite"),
        ({name: values[:0] for name, values in GOOD.items()}, "the training part. Received: none"),
        ({**GOOD, "label": ["x"] * ROWS}, "at least two classes. Received: 'x' alone"),
    ],
)  # fmt: skip
def test_refusals(
    columns: dict[str, Any], message: str, write: Write, name: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write(tmp_path / name, columns))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a CSV file whose first line names the columns.*No columns"),
        ("a,label\n1,0,7\n2,1,8\n", "a name in its first line for every column.*fewer than"),
        ("a,label\n1,0\n2,1,8\n", "Expected 2 fields in line 3, saw 3"),
        ('a,label\n"1,0\n2,1\n', "must be a CSV file.*EOF inside string"),
        (",a,label\n0,1,0\n1,2,1\n", r"name every column. Received: none for column 1 of 3.*index"),
        ("a,b,label\n1,2,0\n3,red,1\n", r"column 'b' of names \('red' in row 2\)"),
        ("a,when,label\n1,2024-02-01,0\n", r"'when' of dates \('2024-02-01' in row 1\). Make num"),
        (
            "a,b,label\n1,2,2024-02-01 10:00\n",
            "Labels of .* must be numbers, .*column 'label' of d",
        ),
        ("a,b,c\n1,2,x\n", "label must name a column of .*: a, b, c. Received: 'label, x'"),
    ],
)
def test_what_is_no_csv(text: str, message: str, tmp_path: Path) -> None:
    label = ["label, x"] if "c\n" in text else ()
    with pytest.raises(InputError, match=message):
        load_data(write_text(tmp_path / "t.csv", text), label=label)


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,label\n1,\xff\n")
    with pytest.raises(InputError, match="must be a CSV file.*in UTF-8.*can't decode byte 0xff"):
        load_data(str(tmp_path / "t.csv"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,label\n1,0\n" * 99)[:-9])
    with pytest.raises(InputError, match=r"'.*t\.csv\.gz' must be a CSV file"):
        load_data(str(tmp_path / "t.csv.gz"))
    path = Path(write_parquet(tmp_path / "t.parquet", COLUMNS))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(InputError, match="must be a complete Parquet file. Received: .*magic"):
        load_data(str(path))
    damaged = bytearray(content)
    damaged[4:60] = bytes(56)  # a page's header
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="must be a complete Parquet file. Received: "):
        load_data(str(path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"when": [date(2024, 1, 1)] * ROWS}, r"column 'when' of dates \(date32\[day\]\). Make"),
        ({"at": [datetime(2024, 1, 1)] * ROWS}, r"column 'at' of dates \(timestamp\[us\]\)"),
        ({"raw": [b"\xff\xd8"] * ROWS}, r"column 'raw' of other things \(binary\)"),
        ({"s": [{"q": 1}] * ROWS}, r"column 's' of other things \(struct<q: int64>\). Make num"),
        ({"emb": [[1.0]] * ROWS, "a": A}, r"beside the label.*: emb \(lists of numbers\), a"),
        ({"emb": [[1.0, 2.0]] * 59 + [[1.0]]}, "one length, at least 1.* 1 after 2 .row 60"),
        ({"emb": [[]] * ROWS}, "one length, at least 1. Received: 0 after 0 .row 1."),
        ({"emb": [[[1], [2]]] * 50 + [[[1], [2, 3]]] * 10}, "Received: 2 after 1 .row 51."),
        ({"emb": [[1.0, 2.0]] * 58 + [None, [1.0, None]]}, "missing 2 in column 'emb'"),
        ({"emb": [[1, 2]] * 59 + [[None, 2]]}, "missing 1 in column 'emb'"),
        ({"none": pa.nulls(ROWS)}, "missing 60 in column 'none'"),
    ],
)  # fmt: skip
def test_what_parquet_may_not_hold(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write_parquet(tmp_path / "t.parquet", {**columns, "label": Y}))


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(A), pa.array(A), pa.array(Y)], ["a", "a", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="names of their own. Received: 'a' twice"):
        load_data(str(tmp_path / "t.parquet"))


@BOTH
def test_without_labels(write: Write, name: str, tmp_path: Path) -> None:
    """Labels are not looked at, and are no inputs; what has none is all inputs."""
    for columns in (GOOD, {**GOOD, "label": ["?"] * ROWS}, {"a": A, "b": B}):
        data = load_data(write(tmp_path / name, columns), task="reconstruction", normalize="none")
        x = np.concatenate([data.split(part).x for part in ("train", "val", "test")])
        order = np.argsort(x[:, 1])
        np.testing.assert_array_equal(x[order], np.stack([A, B], axis=1).astype(np.float32))
    path = write(tmp_path / name, {**GOOD, "z": Y})
    data = load_data(path, task="reconstruction", label="z")
    assert data.input_shape == (3,)  # label is a column like others then


@BOTH
def test_memory_does_not_grow_with_the_file(
    write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / name, COLUMNS)
    held = load_data(path)
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 128)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 256)  # a few rows at a time
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(tmp_path / "spool"))
    data = load_data(path)
    assert arrays.is_mapped(data.train.x)
    assert not list((tmp_path / "spool").iterdir())
    for part in ("train", "val", "test"):
        same_arrays([data.split(part).x, data.split(part).y],
                    [held.split(part).x, held.split(part).y])  # fmt: skip
    heads = Heads({"a": (1,), "b": (1,)}, {"out": Head("softmax", (3,), (1,))})
    several = load_data(path, head=heads)
    assert all(map(arrays.is_mapped, several.train.x.values()))
    assert several.train.x["b"].dtype == np.int64


def test_parquet_is_not_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow holds about one group of rows at a time."""
    values = np.random.default_rng(SEED).normal(size=2**19)
    path = write_parquet(tmp_path / "t.parquet", {"a": values}, row_group_size=2**13)
    before, held = pa.total_allocated_bytes(), []

    def glance(table: Any, source: str, asked: Any) -> None:
        held.extend(pa.total_allocated_bytes() - before for _ in table.iter_batches(["a"]))

    monkeypatch.setattr("compress.data.tables.MAX_ROWS", 2**13)
    monkeypatch.setattr("compress.data.tables.read_table", glance)
    with suppress(AttributeError):  # nothing was read
        load_data(path, label="a")
    assert len(held) == 64
    assert max(held) < values.nbytes / 4


def test_label_is_an_option_of_plans_and_functions(tmp_path: Path) -> None:
    plan = from_flat(Plan, {"label": "kind,size"})
    assert plan.data.label == ("kind", "size")
    assert to_nested(plan)["data"]["label"] == ["kind", "size"]
    path = write_csv(tmp_path / "t.csv", {"a": A, "b": B, "kind": Y})
    assert load_data(DataOptions(path, label="kind")).num_classes == 3  # type: ignore[arg-type]
    assert as_dataset(path, label="kind").num_classes == 3
    np.savez(tmp_path / "t.npz", x_train=np.stack([A, B], 1), y_train=Y)
    for source in (str(tmp_path / "t.npz"), "digits"):
        with pytest.raises(InputError, match="label goes with tables and TFRecords. Received: kin"):
            load_data(source, label="kind")
    with pytest.raises(InputError, match="label goes with tables, records and Hugging Face data"):
        as_dataset((np.stack([A, B], 1), Y), label="kind")


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name, package in (("t.csv", "pandas"), ("t.parquet", "pyarrow")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(MissingDependency, match=rf"'{package}'.*install 'paretune\[tables\]'"):
            load_data(str(tmp_path / name))


def test_importing_the_room_imports_no_reader() -> None:
    code = (
        "import sys, compress.data, compress.data.tables, "
        "compress.data.tfrecords, compress.data.hugging_face\n"
        "heavy = ('pandas', 'pyarrow', 'tensorflow', 'tensorflow_datasets', 'datasets')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout == "[]\n"


# -- frames --------------------------------------------------------------------------------


def test_frames_are_arrays() -> None:
    frame = pd.DataFrame({"a": A, "b": B, "flag": FLAG})
    expected = build_labelled_dataset((np.stack([A, B, FLAG], axis=1), Y))
    own = frame.astype({"b": "Int64", "flag": "boolean"})
    for x in (frame, own):
        for y in (pd.Series(Y), pd.Series(Y, dtype="Int64"), pd.DataFrame({"y": Y}), Y):
            data = build_labelled_dataset((x, y))
            np.testing.assert_array_equal(data.train.x, expected.train.x)
            np.testing.assert_array_equal(data.train.y, expected.train.y)
    names = pd.Series(np.array(["x", "y", "z"])[Y])
    for y in (names, names.astype("category"), names.astype("string")):
        data = build_labelled_dataset((frame, y))
        assert data.class_names == ("x", "y", "z")
        np.testing.assert_array_equal(data.train.y, expected.train.y)
    for column in (names, [None, *A[1:]], pd.Series([None, *B[1:]], dtype="Int64")):
        with pytest.raises(InputError, match="x must be numbers|must be finite|x must be an array"):
            build_labelled_dataset((frame.assign(a=column), Y))

"""Data sources against files made by hand, and their refusals."""

from __future__ import annotations

import gzip
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset, RawData, load_data
from compress.data.keras_datasets import read_idx
from compress.data.kinds import Kind, ReadRequest, build_raw_data
from compress.data.label_inference import Head
from compress.plugins import FILES, FOLDERS


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an IDX file of bytes as the format's page describes it."""
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 6, 5))
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(count) % 3)
    return tmp_path


def test_digits_are_sklearns() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert sum(len(data.split(part)) for part in ("train", "val", "test")) == 1797
    assert data.input_shape == (8, 8, 1)
    total = sum(int(data.split(part).x.sum()) for part in ("train", "val", "test"))
    assert total == int(load_digits().images.sum())


def test_idx_round_trip(idx_folder: Path) -> None:
    data = load_data(str(idx_folder), normalize="unit")
    assert data.input_shape == (6, 5, 1)
    assert len(data.train) + len(data.val) == 60
    assert len(data.test) == 20
    expected = read_idx(idx_folder / "t10k-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(data.test.x[..., 0], expected)
    np.testing.assert_allclose(data.inputs("test")[..., 0], expected / 255.0, rtol=1e-6)


def test_idx_big_endian_floats(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [0.25, 8.0]])
    header = bytes([0, 0, 0x0D, 2]) + struct.pack(">2I", 2, 2)
    (tmp_path / "x-idx2-ubyte").write_bytes(header + values.astype(">f4").tobytes())
    np.testing.assert_array_equal(read_idx(tmp_path / "x-idx2-ubyte"), values)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx(idx_folder: Path, suffix: str) -> None:
    for path in idx_folder.glob("train-images*"):
        path.unlink()
    path = idx_folder / f"train-images-idx3-ubyte{suffix}"
    write_idx(path, np.zeros((60, 6, 5)))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*Fetch it again"):
        load_data(str(idx_folder))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (bytes([0, 0, 8, 65]) + struct.pack(">65I", *[1] * 65), "1 to 8 axes. Received: 65"),
        (bytes([0, 0, 8, 0]), "1 to 8 axes. Received: 0"),
        # 2^16 to the fourth is 2^64, which wraps to 0
        (bytes([0, 0, 8, 4]) + struct.pack(">4I", *[2**16] * 4), "must fit into memory"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", *[2**32 - 1] * 3), "must fit into memory"),
        (bytes([0, 0, 8, 3, 0, 0]), "complete and readable .its header is cut off"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + b"abcd", "the 3 bytes .* Received: more"),
        (bytes([0, 0, 7, 1]) + struct.pack(">I", 3) + b"abc", "must begin with an IDX header"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_headers(header: bytes, message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(header) if suffix else header)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_idx_of_a_bad_deflate_stream(tmp_path: Path) -> None:
    path = tmp_path / "x-idx1-ubyte.gz"
    write_idx(path, np.arange(100))
    content = bytearray(path.read_bytes())
    content[10] = 0xFF  # the first byte behind gzip's header: no such kind of block
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be complete and readable.*invalid block type"):
        read_idx(path)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_idx_that_is_no_file(kind: str, idx_folder: Path) -> None:
    path = idx_folder / "train-labels-idx1-ubyte"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(InputError, match="must be a file"):
        load_data(str(idx_folder))


def test_idx_lengths_disagree(idx_folder: Path) -> None:
    write_idx(idx_folder / "train-labels-idx1-ubyte", np.arange(59) % 3)
    with pytest.raises(InputError, match="Received: 60 and 59"):
        load_data(str(idx_folder))


def test_idx_half_a_part(idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="both images and labels of the test part"):
        load_data(str(idx_folder))


def save_npz(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def test_npz_with_all_parts(tmp_path: Path) -> None:
    x = np.arange(240, dtype=np.float64).reshape(60, 4)
    y = np.arange(60) % 2
    path = save_npz(
        tmp_path / "d.npz", x_train=x, y_train=y, x_val=x[:10] ** 2 + 0.5, y_val=y[:10],
        x_test=x[:6] ** 3 + 0.1, y_test=y[:6], class_names=np.array(["cat", "dog"]),
    )  # fmt: skip
    data = load_data(path)
    assert (len(data.train), len(data.val), len(data.test)) == (60, 10, 6)
    assert data.class_names == ("cat", "dog")
    assert data.train.x.dtype == np.float32
    assert data.counts()["train"] == [30, 30]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((5, 2)), "y_train": np.zeros(4, int)}, "Received: 5 and 4"),
        ({"x_train": np.zeros((5, 2))}, "Received: x_train"),
        ({"a": np.zeros(3)}, "must hold x_train and y_train"),
        ({"x_train": np.array([{}, 1], object), "y_train": np.zeros(2, int)}, "pickled objects"),
        ({"x_train": np.zeros((6, 2)), "y_train": np.array([0, 1, 0, 1, 0, 7])}, r"in \[0, 3\)"),
        ({"x_train": np.zeros((6, 2)), "y_train": np.array([0, 1, 0, 1, 0, -1])}, "-1"),
        ({"x_train": np.full((9, 2), np.nan), "y_train": np.arange(9) % 3}, "finite"),
        ({"x_train": np.zeros((6, 2)), "y_train": np.zeros(6, int)}, "at least two classes"),
        ({"x_train": np.zeros((6, 0)), "y_train": np.arange(6) % 2}, "one number an example"),
        ({"x_train": np.zeros((0, 2)), "y_train": np.zeros(0, int)}, "n at least 1"),
        ({"x_train": np.full((6, 2), 1e300), "y_train": np.arange(6) % 2}, "must be finite"),
        (
            {"x_train": np.zeros((6, 2)), "y_train": np.arange(6) % 2, "class_names": "cat"},
            r"class_names of .* must be a vector of names. Received: shape \(\), type <U3",
        ),
        (
            {"x_train": np.zeros((6, 2)), "y_train": np.arange(6) % 2, "class_names": [0.5, 1.0]},
            "class_names of .* must be a vector of names",
        ),
        (
            {"x_train": np.zeros((6, 2)), "y_train": np.arange(6) % 2, "weight_train": ["a"] * 6},
            "weight_train of .* must be numbers. Received: type <U1",
        ),
        (
            {"x_train": np.zeros((6, 2)), "y_train": np.arange(6) % 2, "weight_train": []},
            r"one finite number an example.* Received: shape \(0,\) in the train part",
        ),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(save_npz(tmp_path / "d.npz", **arrays))


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("multiclass", np.full(6, 0.5), "integer class indices"),
        ("regression", np.zeros(0), r"y must hold labels, .* Received: shape \(0,\)"),
        ("regression", np.zeros((0, 2)), "n at least 1"),
        ("regression", np.zeros((6, 0)), r"y must hold labels.*\(6, 0\)"),
        ("regression", np.full(6, 1e300), "must be finite"),
        ("multilabel", np.full((6, 2), 2), "rows of 0 and 1, one column a label"),
        ("multilabel", np.array([["0", "1"]] * 6), "names where each example is of one class"),
        ("multilabel", np.zeros((0, 2), int), "n at least 1"),
    ],
)
def test_npz_refusals_of_other_tasks(
    kind: str, labels: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = save_npz(tmp_path / "d.npz", x_train=np.zeros((len(labels), 2)), y_train=labels)
    with pytest.raises(InputError, match=message):
        load_data(path, task=kind)


def test_npz_class_names_of_bytes_and_numbers(tmp_path: Path) -> None:
    x, y = np.zeros((60, 2)), np.arange(60) % 2
    for names, wanted in (([b"cat", b"d\xffg"], ("cat", "d\\xffg")), ([7, 9], ("7", "9"))):
        path = save_npz(tmp_path / "d.npz", x_train=x, y_train=y, class_names=np.array(names))
        assert load_data(path).class_names == wanted


def test_npz_label_out_of_range_in_test(tmp_path: Path) -> None:
    y = np.arange(30) % 3
    path = save_npz(
        tmp_path / "d.npz", x_train=np.zeros((30, 2)), y_train=y, x_test=np.zeros((2, 2)),
        y_test=np.array([0, 3]),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"in \[0, 3\).*Received: 3 in the test part"):
        load_data(path)


def test_not_an_npz(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"must be an \.npz file"):
        load_data(str(tmp_path / "d.npz"))


def save_images(folder: Path, count: int, value: int, mode: str = "L") -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for index in range(count):
        shape = (6, 4) if mode == "L" else (6, 4, 3)
        Image.fromarray(np.full(shape, value + index, np.uint8)).save(folder / f"{index}.png")


def test_image_folder(tmp_path: Path) -> None:
    save_images(tmp_path / "cats", 10, 0)
    save_images(tmp_path / "dogs", 10, 100)
    (tmp_path / "cats" / "notes.txt").write_text("x")
    data = load_data(str(tmp_path), normalize="none")
    assert data.class_names == ("cats", "dogs")
    assert data.input_shape == (6, 4, 1)
    for part in ("train", "val", "test"):
        split = data.split(part)
        assert ((split.x[:, 0, 0, 0] >= 100) == (split.y == 1)).all()
    assert data.notes == ("1 files ending in '.txt' skipped: not images",)


def test_image_folder_with_parts_in_colour(tmp_path: Path) -> None:
    for part, count, value in (("train", 8, 10), ("test", 3, 40)):
        save_images(tmp_path / part / "a", count, value, "RGB")
        save_images(tmp_path / part / "b", count, value + 89, "RGB")
    data = load_data(str(tmp_path))
    assert data.input_shape == (6, 4, 3)
    assert len(data.test) == 6


def test_image_folder_refusals(tmp_path: Path) -> None:
    from PIL import Image

    save_images(tmp_path / "a", 4, 0)
    with pytest.raises(InputError, match="at least two class folders"):
        load_data(str(tmp_path))
    save_images(tmp_path / "b", 4, 0)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "b" / "big.png")
    with pytest.raises(InputError, match="4x6.*9x9"):
        load_data(str(tmp_path))
    (tmp_path / "b" / "big.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"big\.png.*must be readable"):
        load_data(str(tmp_path))


def test_python_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_source.py").write_text(
        "from compress import load_data\ndef make(): return load_data('digits')\nvalue = 3\n"
        "def wrong(): return 4\ndef more(n): return n\ndef broken(): return 1 / 0\n"
        "def leaves(): raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(load_data("my_source:make"), Dataset)
    for target, message in (
        ("my_source:wrong", "must return a compress.data.Dataset"),
        ("my_source:value", "must name a function"),
        ("no_such_module:f", "must name an importable module"),
        ("my_source:more", r"must take no arguments. Received: a function of \(n\)"),
        ("my_source:broken", r"It raised ZeroDivisionError: division by zero, .*my_source.py:6"),
        ("my_source:leaves", "It raised SystemExit: , .*my_source.py:7"),
        ("os:system", r"must take no arguments. Received: a function of \(command\)"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(target)
    sys.modules.pop("my_source")


def test_answers_must_be_a_function() -> None:
    with pytest.raises(InputError, match="answers must be a function"):
        load_data("digits", answers=3)  # type: ignore[arg-type]


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a path that exists, a known name"):
        load_data("no/such/path")
    for name in ("d.txt", "npz", "d.csv.zip"):
        (tmp_path / name).write_text("1,2")
        with pytest.raises(InputError, match=r"must end in \.npz, \.csv, .* or \.tfrecords"):
            load_data(str(tmp_path / name))


def test_keras_names_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def offline() -> None:
        raise Exception("URL fetch failure on http://...: None -- refused")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", offline)
    with pytest.raises(InputError, match="'cifar10' must be in Keras's cache or downloadable"):
        load_data("cifar10")


def test_keras_names_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    x, y = np.zeros((40, 4, 4, 3), np.uint8), (np.arange(40) % 10).reshape(-1, 1)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((x, y), (x[:10], y[:10])))
    data = load_data("cifar10", val_fraction=0.5)
    assert data.class_names[3] == "cat"
    assert data.preprocess.scale == pytest.approx(1 / 255)


def test_a_kind_of_file_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in a table: what ends so is read by it, with what it is read for."""

    def load(source: str, asked: ReadRequest) -> RawData:
        values = np.loadtxt(source)
        return build_raw_data({"train": (values[:, 1:], values[:, 0], None)}, source, asked)

    for table in (FILES, FOLDERS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    FILES.add("dat", Kind(load))
    values = np.column_stack([np.arange(60) % 3, np.arange(60), np.ones(60)])
    np.savetxt(tmp_path / "a.dat", values)
    data = load_data(str(tmp_path / "a.dat"), head=Head("softmax", (3,), (2,)))
    assert (data.kind, data.input_shape) == ("multiclass", (2,))
    FOLDERS.add("dat", Kind(lambda source, asked: load(f"{source}/a.dat", asked),
                            holds=lambda folder: (folder / "a.dat").exists()))  # fmt: skip
    again = load_data(str(tmp_path), head=Head("softmax", (3,), (2,)))
    assert again.fingerprint() == data.fingerprint()

"""`tfds:NAME` by what TensorFlow Datasets promises: a stand-in with its names, over tf.data."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.core import arrays
from compress.core.errors import InputError, MissingDependency
from compress.data import DataOptions, load_data
from compress.data.label_inference import Head
from compress.plugins import HUBS
from tests.same import same_arrays

tf = pytest.importorskip("tensorflow")

COUNTS = {"train": 60, "validation": 12, "test": 18}
NAMES = ("ant", "bee", "cow")


def image(row: int, height: int = 6) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (height, 5, 3)).astype(np.uint8)


class Builder:
    """What `tensorflow_datasets.builder` returns, as far as it is used."""

    def __init__(self, pair: Any, spec: Any, counts: dict[str, int], keys: Any, label: Any) -> None:
        self._pair, self._spec, self._counts = pair, spec, counts
        features = {"image": None, "label": label}
        self.info = SimpleNamespace(splits=counts, supervised_keys=keys, features=features)
        self.prepared = False

    def download_and_prepare(self) -> None:
        print("Downloading and preparing ...")
        self.prepared = True

    def as_dataset(self, *, split: str, as_supervised: bool, shuffle_files: bool) -> Any:
        assert self.prepared
        assert as_supervised
        assert not shuffle_files
        offset = 100 * list(self._counts).index(split)
        rows = range(offset, offset + self._counts[split])
        return tf.data.Dataset.from_generator(
            lambda: map(self._pair, rows), output_signature=self._spec
        )


def pixels(rank: Any = (6, 5, 3), kind: Any = tf.uint8) -> Any:
    return tf.TensorSpec(rank, kind)


INDEX = tf.TensorSpec((), tf.int64)
PAIR = (pixels(), INDEX)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets data sets be known: (name, pair of a row, spec of a pair, ...)."""
    known: dict[str, Builder] = {}
    module: Any = ModuleType("tensorflow_datasets")

    def builder(name: str) -> Builder:
        if name not in known:
            raise ValueError(f"Dataset {name} not found.\nMake sure you have the latest version.")
        return known[name]

    module.builder = builder
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setattr("compress.core.registry.require_packages", lambda *_: None)

    def add(
        name: str,
        pair: Any = lambda row: (image(row), row % 3),
        spec: Any = PAIR,
        counts: dict[str, int] = COUNTS,
        keys: Any = ("image", "label"),
        names: Any = NAMES,
    ) -> Builder:
        known[name] = Builder(pair, spec, counts, keys, SimpleNamespace(names=names))
        return known[name]

    return add


def test_pairs_and_parts(hub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hub("insects")
    data = load_data("tfds:insects", normalize="unit")
    assert [len(data.split(part)) for part in ("train", "val", "test")] == list(COUNTS.values())
    assert (data.name, data.class_names, data.kind) == ("tfds:insects", NAMES, "multiclass")
    assert (data.train.x.dtype, data.max_value) == (np.uint8, 255.0)
    for part, offset in (("train", 0), ("val", 100), ("test", 200)):
        rows = range(offset, offset + len(data.split(part)))
        np.testing.assert_array_equal(data.split(part).x, [image(row) for row in rows])
        np.testing.assert_array_equal(data.split(part).y, [row % 3 for row in rows])
    np.testing.assert_allclose(data.inputs("test"), data.test.x / 255.0, rtol=1e-6)
    # what it says is no result of a command
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("tfds:insects:1.0.0", "insects:1.0.0"),
        ("tfds:insects/1.0.0", "insects:1.0.0"),
        ("tfds:insects/small", "insects/small"),
        ("tfds:insects/small/1.0.0", "insects/small:1.0.0"),
    ],
)
def test_versions(source: str, name: str, hub: Any) -> None:
    hub(name)
    assert load_data(source).name == source


def test_parts_that_are_not_there_are_split_off(hub: Any) -> None:
    hub("one", counts={"train": 60, "unsupervised": 9})
    data = load_data("tfds:one")
    assert sum(len(data.split(part)) for part in ("train", "val", "test")) == 60
    assert data.notes[0] == "parts of 'tfds:one' that are not used: unsupervised"


def test_numbers_and_texts(hub: Any) -> None:
    hub(
        "rows", lambda row: (np.full(4, row, np.float64), row / 2),
        (pixels((4,), tf.float64), tf.TensorSpec((), tf.float32)), names=None,
    )  # fmt: skip
    data = load_data("tfds:rows", normalize="none")
    assert (data.kind, data.input_shape, data.train.x.dtype) == ("regression", (4,), np.float32)
    np.testing.assert_array_equal(data.train.y[:, 0], data.train.x[:, 0] / 2)
    hub("names", lambda row: (np.full((2, 2), row), NAMES[row % 3]),
        (pixels((2, 2), tf.int64), tf.TensorSpec((), tf.string)), names=None)  # fmt: skip
    data = load_data("tfds:names", head=Head("softmax", (3,), (2, 2)))
    assert (data.class_names, data.input_shape) == (NAMES, (2, 2))


def test_images_of_several_sizes(hub: Any) -> None:
    hub("sizes", lambda row: (image(row, 6 + row % 2), row % 3), (pixels((None, None, 3)), INDEX))
    with pytest.raises(InputError, match=r"5x6 \(example 1\) and 5x7 \(example 2\).*--resize"):
        load_data("tfds:sizes")
    assert load_data(DataOptions("tfds:sizes", resize=(4, 8))).input_shape == (4, 8, 3)


def test_a_task_that_is_said(hub: Any) -> None:
    hub("insects")
    data = load_data("tfds:insects", task="regression")
    assert (data.kind, data.num_classes) == ("regression", 1)
    data = load_data("tfds:insects", task="reconstruction")
    assert data.train.y.shape == (60, 0)


def test_what_is_refused(hub: Any) -> None:
    hub("untrained", counts={"test": 9})
    hub("scenes", keys=None)
    hub("texts", lambda row: ("a", 1), (pixels((), tf.string), INDEX))
    ragged = tf.RaggedTensorSpec((None, None), tf.float32)
    hub("ragged", lambda row: (tf.ragged.constant([[1.0], []]), row % 3), (ragged, INDEX))
    hub("lengths", lambda row: (np.zeros(3 + row % 2), row % 3), (pixels((None,)), INDEX))
    broken = hub("broken")

    def offline() -> None:
        raise OSError("[Errno -2] Name or service not known.\nat length")

    broken.download_and_prepare = offline
    for name, message in (
        ("nosuch", r"that TensorFlow Datasets knows, .* Dataset nosuch not found. Without network"),
        (
            "broken",
            r"downloadable. Received: .*service not known. Without .* set TFDS_DATA_DIR, or",
        ),
        ("untrained", "must have a part called train. Received: test"),
        ("scenes", r"pairs of example and label .as_supervised..*features image, label. Give mod"),
        ("texts", r"feature 'example' of names \(texts\).*Encode them .*module:function"),
        ("ragged", "must hold plain arrays. Received: a RaggedTensorSpec. Give module:function"),
        ("lengths", r"Every example of 'tfds:lengths' must have one shape.*\(3,\) and \(4,\)"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(f"tfds:{name}")
    with pytest.raises(InputError, match="label goes with tables and TFRecords"):
        load_data("tfds:insects", label="image")


def test_it_is_no_module_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:function` has the same form; what is missing is told with its line."""
    assert "tfds" in HUBS
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"'tensorflow_datasets'.*'paretune\[tfds\]'"):
        load_data("tfds:mnist")


def test_memory_does_not_grow_with_the_data(
    hub: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub("insects")
    held = load_data("tfds:insects")
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 256)
    monkeypatch.setattr("compress.data.tfrecords.BATCH_SIZE", 7)
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(tmp_path))
    data = load_data("tfds:insects")
    assert arrays.is_mapped(data.train.x)
    assert not list(tmp_path.iterdir())
    same_arrays([data.train.x, data.test.y], [held.train.x, held.test.y])

"""Arrays and streams as data: fed as they are, labels read as a model's head says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.core.arrays import GrowingArray
from compress.core.errors import InputError
from compress.data.adapters import build_labelled_dataset, build_unlabelled_dataset, read_arrays
from compress.data.label_inference import Head, Heads, infer_label_format

RNG = np.random.default_rng(0)
X = RNG.uniform(-5, 300, size=(60, 4))
OTHER = np.random.default_rng(9).normal(size=X.shape)
CLASSES = np.arange(60) % 3
ONE_HOT = np.eye(3)[CLASSES]
SOFTMAX = Head("softmax", (3,), (4,))
YES = Head("sigmoid", (1,), (4,))
LABELS = Head("sigmoid", (3,), (4,))
LINEAR = Head("linear", (1,), (4,))
TWO = Heads({"image": (4,), "table": (4,)}, {"box": Head("linear", (4,), (4,)), "class": SOFTMAX})
LOGITS = Head("linear", (3,), (4,))


def test_numbers_are_fed_as_they_are() -> None:
    """Neither scaled nor guessed, no channel axis added: what went in comes out, as float32."""
    for x in (X, X.astype(np.int64), (X % 255).astype(np.uint8), X > 100, X.tolist()):
        data = build_labelled_dataset((x, CLASSES))
        held = np.concatenate([data.inputs("train"), data.inputs("val")])
        assert held.dtype == np.float32
        wanted = np.asarray(x, np.float32)
        assert np.array_equal(np.sort(held, axis=0), np.sort(wanted, axis=0))
        assert data.max_value is None  # nobody looks for a scaling
    grey = build_labelled_dataset((np.zeros((60, 8, 8)), CLASSES))
    assert grey.input_shape == (8, 8)


def test_the_validation_part_is_split_off_by_seed_and_class() -> None:
    one, same, other = (build_labelled_dataset((X, CLASSES), seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.counts() == {"train": [17, 17, 17], "val": [3, 3, 3], "test": [0, 0, 0]}
    whole = np.concatenate([one.train.x, one.val.x])
    assert np.array_equal(np.sort(whole, axis=0), np.sort(X.astype(np.float32), axis=0))
    tested = build_labelled_dataset((X, CLASSES), test_fraction=0.2)
    assert tested.counts()["test"] == [4, 4, 4]


def test_parts_beside_each_other_stay_as_they_are() -> None:
    data = build_labelled_dataset(
        (X[:40], CLASSES[:40]), val=(X[40:50], CLASSES[40:50]), test=(X[50:], CLASSES[50:])
    )
    for part, rows in (("train", slice(40)), ("val", slice(40, 50)), ("test", slice(50, 60))):
        assert np.array_equal(data.inputs(part), X[rows].astype(np.float32))
        assert np.array_equal(data.split(part).y, CLASSES[rows])


def test_weights_come_along() -> None:
    weights = RNG.uniform(size=60)
    data = build_labelled_dataset((X, CLASSES, weights))
    order = [int(np.flatnonzero(X.astype(np.float32)[:, 0] == row[0])[0]) for row in data.train.x]
    assert data.train.weight is not None
    assert np.array_equal(data.train.weight, weights[order].astype(np.float32))


@pytest.mark.parametrize(
    ("y", "head", "kind", "names"),
    [
        (CLASSES, None, "multiclass", 3),
        (CLASSES, SOFTMAX, "multiclass", 3),
        (CLASSES, Head("softmax", (5,), (4,)), "multiclass", 5),  # the model's outputs
        (CLASSES, LOGITS, "multiclass", 3),
        (CLASSES[:, None], SOFTMAX, "multiclass", 3),
        (CLASSES.astype(np.float32), SOFTMAX, "multiclass", 3),
        (ONE_HOT, SOFTMAX, "multiclass", 3),
        (ONE_HOT.astype(np.float32), LOGITS, "multiclass", 3),
        (ONE_HOT, None, "multiclass", 3),
        (CLASSES % 2, YES, "binary", 2),
        ((CLASSES % 2).astype(np.float64), YES, "binary", 2),
        (CLASSES % 2 == 1, LINEAR, "binary", 2),
        (ONE_HOT, LABELS, "multilabel", 3),
        (1 - ONE_HOT, LABELS, "multilabel", 3),
        (1 - ONE_HOT, LOGITS, "multilabel", 3),
        (CLASSES * 0.5, None, "regression", 1),
        (CLASSES * 0.5, LINEAR, "regression", 1),
        (CLASSES, LINEAR, "regression", 1),  # 0 to 2, one output: numbers
        (ONE_HOT * 0.5, LOGITS, "regression", 3),
    ],
)
def test_the_task_is_told_from_labels_and_head(
    y: Any, head: Head | None, kind: str, names: int
) -> None:
    found = infer_label_format(y, head, None)
    assert found.kind == kind
    assert found.notes[0].startswith(f"task {kind}, inferred from the labels (")
    if names == 3 or kind != "multiclass":
        data = build_labelled_dataset((X, y), head=head)
        assert (data.kind, data.num_classes) == (kind, names)
        assert data.notes == found.notes


def test_one_hot_rows_are_classes() -> None:
    assert np.array_equal(
        build_labelled_dataset((X, ONE_HOT), val=(OTHER, ONE_HOT)).train.y, CLASSES
    )
    said = build_labelled_dataset((X, ONE_HOT), task="multiclass", val=(OTHER, ONE_HOT))
    assert np.array_equal(said.val.y, CLASSES)
    assert build_labelled_dataset((X, ONE_HOT), task="regression").num_classes == 3
    with pytest.raises(InputError, match="rows with one 1 each, as the training labels"):
        build_labelled_dataset((X, ONE_HOT), val=(OTHER, CLASSES))


def test_examples_alone() -> None:
    for given in (X, (X,), X.tolist()):
        found = build_unlabelled_dataset(given)
        assert np.array_equal(found.preprocess(found.train.x), X.astype(np.float32))
        assert found.kind == ""
    assert build_unlabelled_dataset((X, CLASSES), head=SOFTMAX).kind == "multiclass"


@pytest.mark.parametrize(
    ("data", "head", "message"),
    [
        (X, None, r"must hold labels here. Received: examples alone. Give \(x, y\)"),
        ((X, CLASSES[:50]), None, "x and y must have equal lengths. Received: 60 and 50"),
        ((X, CLASSES, X[:5, 0]), None, "x and weights must have equal lengths"),
        (({"a": X, "b": X[:9]}, CLASSES), None, "x and b must have equal lengths. Received: 60"),
        (([X, X], CLASSES), None, "x must be one array.*a list of 2 arrays"),
        ((X, {"a": CLASSES}), SOFTMAX, "y may have names.*Received: a, and a model of one output"),
        (({"a": X}, (X, CLASSES)), TWO, "x must have the names image, table. Received: a"),
        ((X, (X, CLASSES)), TWO, "x must be 2 arrays .image, table.. Received: 1"),
        (((X, X), CLASSES), TWO, "y must be 2 arrays .box, class.. Received: 1"),
        (((X, X), (X, CLASSES[:4])), TWO, "x and class must have equal lengths"),
        (((X, X), (X, CLASSES + 0.5)), TWO, "Output 'class': y must be class indices or one-hot"),
        (((X, X), ("a", CLASSES)), TWO, "y 'box' must be numbers"),
        (([["a", "b"]], [0]), None, "x must be numbers"),
        (([[1, 2], [3]], [0, 1]), None, "x must be an array of numbers"),
        ((X[:, 0], CLASSES), None, r"x must have shape \(n, ...\).*give x\[:, None\]"),
        ((X, CLASSES, X, X), None, "a tuple of 4"),
        ((X, np.zeros(60, int)), None, "at least two classes"),
        ((X, ONE_HOT * 0.5), SOFTMAX, "not one-hot. Of probabilities give the argmax"),
        ((X, CLASSES + 0.5), SOFTMAX, "class indices or one-hot rows.*with fractions"),
        ((X, CLASSES[:0]), None, r"equal lengths. Received: 60 and 0"),
        ((np.full((60, 4), 2**24 + 1), CLASSES), None, "within 16,777,216.*16,777,217"),
        ((np.where(X > 290, np.nan, X), CLASSES), None, "must be finite"),
        ((X, CLASSES + 1), SOFTMAX, "Do they start at 1"),
        (object(), None, "must be numbers"),
    ],
)
def test_refusals(data: Any, head: Head | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_labelled_dataset(data, head=head)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_labels_is_named(part: str) -> None:
    parts: dict[str, Any] = {"val": (X, CLASSES), "test": (X, CLASSES), part: X}
    message = rf"^{part} must hold labels, .* Received: examples alone. Give {part}=\(x, y\)"
    with pytest.raises(InputError, match=message):
        build_labelled_dataset((X, CLASSES), **parts)


# -- streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("labels", [CLASSES, ONE_HOT])
def test_a_tf_data_pipeline(batched: bool, labels: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    stream = tf.data.Dataset.from_tensor_slices((X, labels)).map(lambda x, y: (x * 2, y))
    stream = stream.batch(7) if batched else stream
    data = build_labelled_dataset(stream, val=(OTHER, labels), head=SOFTMAX)
    assert data.name == "tf.data"
    assert np.array_equal(data.train.x, (2 * X).astype(np.float32))
    assert np.array_equal(data.train.y, CLASSES)
    assert np.array_equal(build_unlabelled_dataset(stream, head=SOFTMAX).train.x, data.train.x)


def test_a_py_dataset() -> None:
    keras = pytest.importorskip("keras")

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            rows = slice(index * 10, index * 10 + 10)
            return X[rows], CLASSES[rows], np.full(10, index + 1.0)

    data = build_labelled_dataset(Batches(), val=(OTHER, CLASSES))
    assert np.array_equal(data.train.x, X.astype(np.float32))
    assert np.array_equal(data.train.weight, np.repeat(np.arange(1.0, 7), 10))


def test_tensors() -> None:
    tf = pytest.importorskip("tensorflow")
    data = build_labelled_dataset((tf.constant(X), tf.constant(CLASSES)), val=(OTHER, CLASSES))
    assert np.array_equal(data.train.x, X.astype(np.float32))
    half = build_labelled_dataset((tf.cast(X, tf.bfloat16), CLASSES), val=(OTHER, CLASSES))
    assert np.array_equal(half.train.x, tf.cast(tf.cast(X, tf.bfloat16), tf.float32))


def test_streams_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    pairs = tf.data.Dataset.from_tensor_slices((X, CLASSES))
    with pytest.raises(InputError, match=r"must end.*repeat.*Give data.take\(n\)"):
        build_labelled_dataset(pairs.batch(8).repeat())
    ragged = tf.data.Dataset.from_tensors((tf.ragged.constant([[1.0], [1.0, 2.0]]), [0, 1]))
    with pytest.raises(InputError, match="must hold plain tensors. Received: RaggedTensorSpec"):
        build_labelled_dataset(ragged)
    sparse = tf.data.Dataset.from_tensors((tf.sparse.from_dense(X), CLASSES))
    with pytest.raises(InputError, match="must hold plain tensors. Received: SparseTensorSpec"):
        build_labelled_dataset(sparse)
    with pytest.raises(InputError, match="at least one batch"):
        build_labelled_dataset(pairs.batch(8).take(0))

    class Endless(keras.utils.PyDataset):  # type: ignore[misc]
        num_batches = None

        def __getitem__(self, index: int) -> Any:
            return X, CLASSES

    class Unmeasured(keras.utils.PyDataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            return X, CLASSES

    for kind in (Endless, Unmeasured):
        with pytest.raises(InputError, match=r"must end.*without a length"):
            build_labelled_dataset(kind())
    # one without an end that does not say so is read until the disk would be full
    monkeypatch.setattr(
        "compress.data.streams.GrowingArray", lambda what: GrowingArray(what, 3 * X.nbytes)
    )
    little = SimpleNamespace(free=10 * X.nbytes)
    monkeypatch.setattr("compress.core.arrays.shutil.disk_usage", lambda _: little)

    def endless() -> Any:
        while True:
            yield X, CLASSES

    kinds = (tf.TensorSpec((60, 4), tf.float64), tf.TensorSpec((60,), tf.int64))
    stream = tf.data.Dataset.from_generator(endless, output_signature=kinds)
    with pytest.raises(InputError, match=r"tf.data stream .* must fit onto the disk.*take\(n\)"):
        build_labelled_dataset(stream)


@pytest.mark.parametrize("size", [1, 8, 60])
def test_generators_are_streams(size: int) -> None:
    def batches() -> Any:
        for at in range(0, 60, size):
            part = slice(at, at + size)
            yield (X[at], CLASSES[at]) if size == 1 else (X[part], CLASSES[part])

    expected = build_labelled_dataset((X, CLASSES))
    for given in (batches, batches()):
        data = build_labelled_dataset(given)
        np.testing.assert_array_equal(data.train.x, expected.train.x)
        np.testing.assert_array_equal(data.train.y, expected.train.y)
        assert data.name == "generator"


def test_generators_that_are_refused() -> None:
    def changing() -> Any:
        yield X, CLASSES
        yield X[:, :3], CLASSES

    def ending() -> Any:
        yield X, CLASSES
        raise OSError("the disk is gone")

    def nothing() -> Any:
        yield from ()

    def single() -> Any:
        for x in X:
            yield {"a": x, "b": x[:2]}, {"kind": 1, "size": 2.0}

    with pytest.raises(InputError, match=r"Every batch of a generator stream must hold the same"):
        build_labelled_dataset(changing)
    with pytest.raises(InputError, match="at least one batch"):
        build_labelled_dataset(nothing)
    with pytest.raises(InputError, match="must come to its end.*the disk is gone.* after 1 batch"):
        build_labelled_dataset(ending)
    x, y, _, _ = read_arrays(single)
    assert {name: part.shape for name, part in x.items()} == {"a": (60, 4), "b": (60, 2)}
    assert y["kind"].tolist() == [1] * 60


def test_a_stream_that_changes_from_pass_to_pass_is_told_of() -> None:
    """Order and chance are not assumed: the first pass counts, and a note says that it does."""
    import tensorflow as tf

    fixed = tf.data.Dataset.from_tensor_slices((X.astype(np.float32), CLASSES))
    draws = np.random.default_rng(1)

    def noisy() -> Any:
        yield X + draws.normal(size=X.shape), CLASSES

    def steady() -> Any:
        yield X, CLASSES

    told = {
        name: any(
            "a second pass" in note for note in build_labelled_dataset(data, head=SOFTMAX).notes
        )
        for name, data in {
            "batched": fixed.batch(16),
            "shuffled": fixed.shuffle(60).batch(16),
            "once": fixed.shuffle(60, reshuffle_each_iteration=False).batch(16),
            "examples": fixed,
            "noisy": noisy,
            "steady": steady,
            "iterator": steady(),
        }.items()
    }
    assert told == {
        "batched": False, "shuffled": True, "once": False, "examples": False, "noisy": True,
        "steady": False, "iterator": False,
    }  # fmt: skip


def test_of_several_inputs_each_is_held_against_the_first_pass() -> None:
    table = np.arange(240, dtype=np.float32).reshape(60, 4)
    draws = np.random.default_rng(2)

    def stream(changes: bool) -> Any:
        def batches() -> Any:
            image = X + draws.normal(size=X.shape) if changes else X
            yield [image, table], [table, CLASSES]

        return batches

    for changes in (False, True):
        data = build_labelled_dataset(stream(changes), head=TWO)
        assert any("a second pass" in note for note in data.notes) == changes


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["tf.data", "generator"])
def test_of_several_inputs_each_has_its_own_rank(kind: str, batched: bool) -> None:
    """TensorFlow sorts names: the first array of a stream is not of the model's first input."""
    import tensorflow as tf

    sequences = np.arange(60 * 40, dtype=np.float32).reshape(60, 10, 4)
    table = X.astype(np.float32)
    head = Heads({"sequences": (10, 4), "a_table": (4,)}, {"class": SOFTMAX})
    x = {"a_table": table, "sequences": sequences}
    data: Any = tf.data.Dataset.from_tensor_slices((x, CLASSES))
    data = data.batch(32) if batched else data
    if kind == "generator":
        data = iter(list(data.as_numpy_iterator()))
    read, _, _, _ = read_arrays(data, head)
    np.testing.assert_array_equal(read["sequences"], sequences)
    np.testing.assert_array_equal(read["a_table"], table)


def test_void_in_bytes_is_no_class() -> None:
    masks = np.random.default_rng(0).integers(0, 2, (40, 4, 4)).astype(np.uint8)
    masks[:, 0, 0] = 255
    images = np.random.default_rng(1).normal(size=(40, 4, 4, 3))
    data = build_labelled_dataset((images, masks), task="segmentation")
    assert data.num_classes == 2
    assert (data.train.y[:, 0, 0] == -1).all()


def test_what_is_not_finite_in_a_stream_is_named() -> None:
    def holed() -> Any:
        yield X[:30], CLASSES[:30]
        yield np.where(np.arange(4) == 2, np.nan, X[30:]), CLASSES[30:]

    with pytest.raises(InputError, match=r"(?i)nan"):
        build_labelled_dataset(holed)
    with pytest.raises(InputError, match="at least one batch"):  # of the validation part
        build_labelled_dataset((X, CLASSES), val=iter(()))


def test_examples_of_several_outputs_are_split_by_all_their_classes() -> None:
    """Two outputs with classes, 3 x 2 combinations of ten examples each: two of each are held."""
    yes = Head("sigmoid", (1,), (4,))
    heads = Heads({"x": (4,)}, {"kind": SOFTMAX, "big": yes, "size": LINEAR})
    x = np.arange(240, dtype=np.float32).reshape(60, 4)
    kind, big = np.arange(60) % 3, np.arange(60) // 3 % 2
    y = {"kind": kind, "big": big, "size": np.linspace(0, 1, 60)}
    data = build_labelled_dataset((x, y), head=heads, val_fraction=0.2)
    assert len(data.val) == 12
    pairs = np.stack([data.val.y["kind"], data.val.y["big"].reshape(-1)])
    assert np.unique(pairs, axis=1, return_counts=True)[1].tolist() == [2] * 6
    # a combination of one example alone: the first output's classes are what is kept even
    y["big"] = np.where(np.arange(60) == 0, 1, 0)
    data = build_labelled_dataset((x, y), head=heads, val_fraction=0.2)
    assert np.bincount(data.val.y["kind"]).tolist() == [4, 4, 4]

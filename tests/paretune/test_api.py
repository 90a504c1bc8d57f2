"""What a Keras user types: every call of the public API, as the documentation writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import paretune as pt

RNG = np.random.default_rng(0)
Y = np.arange(120) % 3
X = (3 * np.eye(3, 6)[Y] + RNG.normal(size=(120, 6))).astype(np.float32)


def network(width: int = 32, name: str = "big", seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, activation="relu", name="first"),
            keras.layers.Dense(width, activation="relu", name="middle"),
            keras.layers.Dense(3, activation="softmax", name="last"),
        ],
        name=name,
    )


@pytest.fixture(scope="module")
def model() -> Any:
    """A trained one: 96.7 % and more of the examples are right."""
    made = network()
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    made.fit(X, Y, batch_size=16, epochs=12, verbose=0)
    assert made.evaluate(X, Y, verbose=0)[1] > 0.9
    return made


@pytest.fixture
def data() -> Any:
    return X, Y


def macs(width: int) -> int:
    return 6 * width + width * width + width * 3


def test_prune_channels(model: Any) -> None:
    small = pt.prune_channels(model, macs=0.5, data=X)
    first, middle = (small.model.get_layer(name).units for name in ("first", "middle"))
    kept = 6 * first + first * middle + middle * 3
    assert small.report.macs == (macs(32), kept)
    assert abs(kept / macs(32) - 0.5) < 0.02  # the nearest that whole steps of channels give
    eight = pt.prune_channels(model, macs=0.5, data=X, criterion="activation", round_to=8)
    assert {eight.model.get_layer(name).units % 8 for name in ("first", "middle")} == {0}


@pytest.mark.parametrize("kind", ["labels", "stream", "path"])
def test_prune_channels_by_gradients(model: Any, kind: str, tmp_path: Path) -> None:
    """The criterion taylor needs labels: from arrays, from a stream, and by name of an .npz."""
    if kind == "path":
        np.savez(tmp_path / "d.npz", x_train=X, y_train=Y)
        given: Any = tmp_path / "d.npz"
    else:
        given = (X, Y) if kind == "labels" else tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    small = pt.prune_channels(model, macs=0.5, data=given, criterion="taylor", seed=1)
    assert small.report.criterion == "taylor"
    with pytest.raises(pt.InputError, match="must hold labels here. Received: examples alone"):
        pt.prune_channels(model, macs=0.5, data=X, criterion="taylor")


def test_prune_weights(model: Any, data: Any) -> None:
    sparse = pt.prune_weights(model, data, sparsity=0.8, pattern="2:4", epochs=4)
    kernel = np.asarray(sparse.model.get_layer("middle").kernel)  # the ends are kept
    assert np.count_nonzero(kernel) == kernel.size // 2
    # two of four neighbours along the inputs
    assert (np.count_nonzero(kernel.reshape(8, 4, 32), axis=1) <= 2).all()
    assert sparse.training is not None
    assert len(sparse.training.history) == 4
    assert np.count_nonzero(np.asarray(model.get_layer("middle").kernel)) == 32 * 32


def test_prune_weights_on_a_stream_is_the_same_as_on_its_arrays(model: Any) -> None:
    """Streams are read once: the same examples, the same split, the same weights."""

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return X[index * 30 : index * 30 + 30], Y[index * 30 : index * 30 + 30]

    streams = [(X, Y), tf.data.Dataset.from_tensor_slices((X, Y)).batch(50), Batches()]
    found = [pt.prune_weights(model, given, sparsity=0.5, epochs=2) for given in streams]
    first, *others = ([np.asarray(w) for w in result.model.weights] for result in found)
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_prune_weights_at_once(model: Any) -> None:
    sparse = pt.prune_weights(model, sparsity=0.75, include=["ends"])
    assert sparse.report.sparsity == 0.75
    with pytest.raises(pt.InputError, match="epochs must come with data to train on"):
        pt.prune_weights(model, sparsity=0.5, epochs=3)


def test_weight_pruner(data: Any) -> None:
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pt.WeightPruner(sparsity=0.8).attach(model, steps_per_epoch=5, epochs=4):
        model.fit(*data, batch_size=24, epochs=4, verbose=0)
    kernel = np.asarray(model.get_layer("middle").kernel)
    assert np.count_nonzero(kernel) == round(32 * 32 * 0.2)
    assert model.get_layer("middle").kernel.constraint is None


def test_distill(model: Any, data: Any, tmp_path: Path) -> None:
    student = network(8, "small", 1)
    taught = pt.distill(student, model, data, temperature=4, epochs=10)
    assert taught.model is student
    assert len(taught.training.history) == 10
    assert taught.teacher_val["accuracy"] > 0.8
    # from files: the same student, the same weights
    network(8, "small", 1).save(tmp_path / "student.keras")
    model.save(tmp_path / "teacher.keras")
    again = pt.distill(
        tmp_path / "student.keras", str(tmp_path / "teacher.keras"), data, temperature=4, epochs=10
    )
    for one, two in zip(student.weights, again.model.weights, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.slow
def test_compress_model(
    model: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how: dict[str, Any] = {"latency_budget": 0.3}
    result = pt.compress_model(
        model,
        data,
        channels=0.5,
        sparsity=0.8,
        finetune_epochs=4,
        formats=["float32", "int8"],
        **how,
    )
    assert result.folder == Path("runs/compress-big")
    lines = str(result).splitlines()
    assert len(lines) <= 25
    rows = [line for line in lines if line.endswith(" k")]  # a note may begin with the name, too
    assert sum(line[2:].startswith("big.int8 ") for line in rows) == 1  # names are whole
    assert {*result.files} == {"float32", "int8"}
    assert all(path.is_file() for path in result.files.values())
    assert max(row.artifact.macs for row in result.report.rows) == macs(32)
    record = json.loads((result.folder / "plan.json").read_text())
    assert record["facts"]["model"] == "big"
    assert len(record["facts"]["weights"]) == 16
    # the model was kept, so that the command which the report shows can be given
    kept = result.folder / "given" / "big.keras"
    assert np.array_equal(
        np.asarray(pt.load_model(kept).get_layer("middle").kernel),
        np.asarray(model.get_layer("middle").kernel),
    )
    assert str(kept) in record["shown"]["command"]
    # finished work is not repeated
    before = {path: path.stat().st_mtime_ns for path in result.files.values()}
    again = pt.compress_model(
        model,
        data,
        channels=0.5,
        sparsity=0.8,
        finetune_epochs=4,
        formats=["float32", "int8"],
        **how,
    )
    assert {path: path.stat().st_mtime_ns for path in again.files.values()} == before
    # another model of this name has another folder: a named one is refused, else it is numbered
    with pytest.raises(pt.InputError, match="belongs to another run: weights was"):
        pt.compress_model(
            network(seed=5), data, channels=0.5, sparsity=0.8, finetune_epochs=4,
            formats=["float32", "int8"], out="runs/compress-big", **how,
        )  # fmt: skip


def test_export(model: Any, tmp_path: Path) -> None:
    (made,) = pt.export(model, tmp_path / "m.tflite", format="int8", data=X)
    assert made.path == tmp_path / "m.tflite"
    assert made.path.is_file()
    assert made.agreement > 0.95
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["input_shape"] == [1, 6]
    assert about["files"]["m.tflite"]["input"]["dtype"] == "int8"
    assert about["preprocess"]["scale"] == 1.0
    # without data: checked on random inputs
    (plain,) = pt.export(model, str(tmp_path / "plain.tflite"))
    assert (plain.format, plain.agreement) == ("float32", 1.0)
    with pytest.raises(pt.InputError, match="int8 must have examples to calibrate on"):
        pt.export(model, tmp_path / "n.tflite", format="int8")
    with pytest.raises(pt.InputError, match="of format int8 must end in .tflite"):
        pt.export(model, tmp_path / "n.onnx", format="int8", data=X)
    with pytest.raises(pt.InputError, match="no suffix for several formats"):
        pt.export(model, tmp_path / "n.tflite", formats=["float32", "int8"], data=X)
    with pytest.raises(pt.InputError, match="Did you mean 'int8'"):
        pt.export(model, tmp_path / "n", format="uint8", data=X)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.json", "m.tflite", "plain.json", "plain.tflite"
    ]  # fmt: skip


def test_bench(model: Any, tmp_path: Path) -> None:
    big, small = model, tmp_path / "small.tflite"
    pt.export(network(8), small)
    result = pt.bench([big, small], threads=[1, 2], budget=0.5)
    found = {(row.model, row.latency.threads) for row in result.timed}
    assert found == {(name, threads) for name in ("big", "small") for threads in (1, 2)}
    assert [(item.name, item.macs) for item in result.models] == [
        ("big", macs(32)),
        ("small", macs(8)),
    ]
    assert result.models[0].path == Path("big.keras")  # not where it lay for the time being


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["arrays", *(pytest.param(kind, marks=pytest.mark.matrix) for kind in ("path", "stream"))],
)
def test_run(kind: str, tmp_path: Path) -> None:
    """Workers are processes of their own: they are given what was handed over, however small."""
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y)
    given: Any = {
        "path": str(tmp_path / "d.npz"),
        "arrays": (X, Y),
        "stream": tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
    }[kind]
    how: dict[str, Any] = {
        "space": "mlp", "trials": 2, "epochs": 1, "max_macs": 4e6, "finetune_epochs": 2,
        "workers": 1, "latency_budget": 0.3, "out": tmp_path / "run",
    }  # fmt: skip
    report = pt.run(given, **how)
    assert {row.artifact.format for row in report.rows} == {"float32", "int8"}
    stored = json.loads((tmp_path / "run" / "data.json").read_text())
    assert stored["source"] == {"path": str(given), "arrays": "arrays", "stream": "tf.data"}[kind]
    handed_over = any("handed over in Python" in note for note in stored["notes"])
    assert handed_over == (kind != "path")
    assert not (tmp_path / "run" / ".shared").exists()
    files = sorted((tmp_path / "run" / "exports").iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    pt.run(given, **how)  # continues where it was: at its end
    assert [path.stat().st_mtime_ns for path in files] == before
    assert len(str(report).splitlines()) <= 25


def test_what_run_refuses(tmp_path: Path) -> None:
    with pytest.raises(pt.InputError, match="must be given a plan by its keyword"):
        pt.run(pt.SearchPlan())
    with pytest.raises(pt.InputError, match="val, test, groups and time must come with arrays or"):
        pt.run("digits", val=(X, Y))
    with pytest.raises(pt.InputError, match="must hold labels here"):
        pt.run(X, space="mlp", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_count_macs(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    assert pt.count_macs(str(tmp_path / "model.keras")).macs == macs(32)
    assert pt.count_macs(model).macs == macs(32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: pt.prune_channels(m, macs=0.5, roundto=8), "Did you mean 'round_to'"),
        (lambda m: pt.prune_channels(m, sparsity=0.5), r"'sparsity', which prune_weights\(\)"),
        (lambda m: pt.prune_weights(m, (X, Y), epoch=3), "Did you mean 'epochs'"),
        (lambda m: pt.distill(m, m, (X, Y), temprature=3), "Did you mean 'temperature'"),
        (lambda m: pt.compress_model(m, (X, Y), chanels=0.5), "Did you mean 'channels'"),
        (lambda m: pt.bench([m], thread=2), "Did you mean 'threads'"),
        (lambda m: pt.export(m, "m", formt="int8"), "Did you mean 'format'"),
        (lambda m: pt.run("digits", trial=3), "Did you mean 'trials'"),
        (lambda m: pt.count_macs(3), "must be a Keras model or the path of its file"),
        (lambda m: pt.count_macs("nowhere.keras"), "A model file must exist"),
        (lambda m: pt.prune_weights(m, X, epochs=1), r"must hold labels here.*Give \(x, y\)"),
        (
            lambda m: pt.prune_weights(m, (X, Y), normalize="unit", epochs=1),
            "arrays and streams are fed as they are",
        ),
        (
            lambda m: pt.prune_weights(m, "digits", val=(X, Y), epochs=1),
            "val goes with arrays and streams",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(model: Any, call: Any, message: str) -> None:
    with pytest.raises(pt.InputError, match=message):
        call(model)


def test_results_fit_a_screen(
    model: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that comes back prints as one screen, and as a table in a notebook."""
    monkeypatch.chdir(tmp_path)  # a long path of temporary files would be broken into lines
    results = [
        (pt.prune_channels(model, macs=0.5), "first"),
        (pt.prune_weights(model, data, sparsity=0.5, epochs=2), "middle"),
        (pt.distill(network(8), model, data, epochs=1), "accuracy"),
        (pt.export(model, "m", data=X), "m.int8.tflite"),
        (pt.bench(model, budget=0.3), "big"),
        (pt.count_macs(model), "middle"),
    ]
    for result, name in results:
        lines = str(result).splitlines()
        assert 3 <= len(lines) <= 25
        assert max(map(len, lines)) <= 80
        assert any(name in line for line in lines), str(result)
        assert repr(result).startswith(f"<{type(result).__name__}: ")
        assert "\n" not in repr(result)
        page = result._repr_html_()
        assert page.startswith('<div class="paretune">')
        assert name in page


def test_names_in_results_are_no_markup() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="<script>")])
    page = pt.count_macs(model)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page

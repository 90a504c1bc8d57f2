"""compress_model from a file to a report, on digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model, load_data, load_model
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.io import save_model
from compress.plan import Plan, TrainSettings
from compress.plan.nesting import from_flat
from compress.train import train
from compress.train.dataset_loading import load_for_model
from tests.compress.exporting.tflite import zeros_in

QUICK = {
    "data": "digits",
    "finetune_epochs": 8,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "latency_budget": 1.0,
}

DIGITS = from_flat(Plan, {"data": "digits"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained dense model, 97 % or so."""
    import keras

    from compress.core.device import setup_device

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="mid")(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="last")(x))
    data = load_data("digits")
    settings = TrainSettings(epochs=15, batch_size=32, learning_rate=3e-3)
    result = train(model, data, settings, device=setup_device("cpu"))
    assert result.val["accuracy"] > 0.95
    path = tmp_path_factory.mktemp("models") / "mine.keras"
    save_model(model, path)
    return path


@pytest.mark.matrix
def test_from_a_file_to_a_report(trained: Path, tmp_path: Path, digits: Dataset) -> None:
    plan = from_flat(Plan, {**QUICK, "out": str(tmp_path / "out")})
    before = trained.read_bytes()
    seen: list[str] = []
    result = compress_model(trained, plan=plan, on_progress=lambda text, _: seen.append(text))
    assert trained.read_bytes() == before
    rows = {row.artifact.id: row for row in result.report.rows}
    assert list(rows) == ["mine.float32", "mine.int8", "mine-p80.float32", "mine-p80.int8"]
    for row in rows.values():
        assert (result.folder / row.artifact.file).stat().st_size == row.artifact.size_bytes
        assert row.latency is not None
        assert row.latency.median_ms > 0
    dense, pruned = rows["mine.float32"].artifact, rows["mine-p80.float32"].artifact
    assert dense.test["accuracy"] > 0.93
    assert pruned.test["accuracy"] > dense.test["accuracy"] - 0.05
    # mid: 9 * 16 * 32 = 4608 and hidden: 32 * 64 = 2048 weights, 80 % of both together zero
    assert dense.nonzero - pruned.nonzero == pytest.approx(3686 + 1638, abs=60)
    assert pruned.gzip_bytes < 0.6 * dense.gzip_bytes
    kernel = result.model.get_layer("mid").kernel.numpy()
    hidden = result.model.get_layer("hidden").kernel.numpy()
    zeros = np.count_nonzero(kernel == 0) + np.count_nonzero(hidden == 0)
    assert zeros / (4608 + 2048) == pytest.approx(0.8, abs=0.001)
    # distilled, exported, quantized: in the files they are zeros still
    for name, dtype in (("float32", np.float32), ("int8", np.int8)):
        content = (result.folder / rows[f"mine-p80.{name}"].artifact.file).read_bytes()
        assert zeros_in(content, (32, 3, 3, 16), dtype) >= np.count_nonzero(kernel == 0)
        assert zeros_in(content, (64, 32), dtype) >= np.count_nonzero(hidden == 0)
    assert any(text.startswith("fine-tuning") for text in seen)
    assert any(text.startswith("testing") for text in seen)
    # measured accuracy is the file's own, computed again from the Keras model
    predicted = result.model.predict(digits.inputs("test"), verbose=0).argmax(-1)
    assert pruned.test["accuracy"] == pytest.approx((predicted == digits.test.y).mean(), abs=0.006)
    record = json.loads((result.folder / "compressed" / "mine.json").read_text())
    assert record["teacher"].startswith("mine (")
    assert (result.folder / "log.txt").read_text().splitlines()[0].split(" ", 2)[2].startswith(
        "runs on CPU"
    )  # fmt: skip
    # again: nothing is trained or timed anew
    stamps = {path: path.stat().st_mtime_ns for path in result.folder.glob("exports/*")}
    latency = (result.folder / "latency.json").read_bytes()
    compress_model(trained, plan=plan)
    assert stamps == {path: path.stat().st_mtime_ns for path in result.folder.glob("exports/*")}
    assert (result.folder / "latency.json").read_bytes() == latency


@pytest.mark.slow
def test_channels_then_weights(trained: Path, tmp_path: Path) -> None:
    """Channels leave first, then weights are pruned while the model teaches."""
    values = {**QUICK, "channels": "0.5x", "sparsity": 0.5, "as_long": True}
    plan = from_flat(Plan, {**values, "out": str(tmp_path / "out")})
    seen: list[str] = []
    result = compress_model(trained, plan=plan, on_progress=lambda text, _: seen.append(text))
    rows = {row.artifact.id: row for row in result.report.rows}
    assert list(rows) == [
        "mine-c0_5x-p50.float32", "mine-c0_5x-p50.int8", "mine.float32", "mine.int8"
    ]  # fmt: skip
    dense, small = rows["mine.float32"].artifact, rows["mine-c0_5x-p50.float32"].artifact
    # first: 64 * 9 * 16, mid: 64 * 9 * 16 * 32, hidden: 32 * 64, last: 64 * 10
    assert dense.macs == 64 * 9 * 16 + 64 * 9 * 16 * 32 + 32 * 64 + 640
    assert small.macs == pytest.approx(0.5 * dense.macs, rel=0.02)
    assert small.test["accuracy"] > dense.test["accuracy"] - 0.05
    assert small.sparsity == pytest.approx(0.5, abs=0.01)
    record = result.report.compressed[0]
    assert record.channels is not None
    kept = {row["name"]: row["kept"] for row in record.channels["groups"]}
    assert kept["first"] == result.model.get_layer("first").filters == 8
    assert any(text.startswith("fine-tuning, validation") for text in seen)
    page = (result.folder / "report.html").read_text("utf-8")
    assert "first: 8 of 16 channels kept" in page
    assert "fewer MACs (50 % of the pruned kernels, " in page
    assert record.finetuned == record.epochs
    assert sum("training the original for as long" in text for text in seen) > 1
    assert record.dense_epochs is None
    assert record.as_long is not None
    assert record.as_long["test"]["accuracy"] > 0.9
    assert "against the original trained as long)" in page
    # what chooses files is measured on the files themselves, and test data are read once
    for row in result.report.rows:
        assert set(row.artifact.val) == set(row.artifact.test)
        assert row.artifact.tested == 360
        assert row.artifact.test_interval is None
    # one of 360 examples may fall to the other side
    assert small.val["accuracy"] == pytest.approx(record.val["pruned"]["accuracy"], abs=0.003)
    assert "--channels 0.5x" in record.command


@pytest.mark.slow
def test_zeros_are_worth_bytes_and_where_they_are_worth_time(trained: Path, tmp_path: Path) -> None:
    """A 1:4 pattern, the sparse file, and MNN beside LiteRT."""
    values = {**QUICK, "weight_pattern": "1:4", "formats": "float32,sparse"}
    values |= {"runtimes": "litert,mnn", "out": str(tmp_path / "out")}
    result = compress_model(trained, plan=from_flat(Plan, values))
    rows = {row.artifact.id: row for row in result.report.rows}
    assert list(rows) == ["mine.float32", "mine-p1_4.float32", "mine-p1_4.sparse"]
    pruned, dense = rows["mine-p1_4.float32"].artifact, rows["mine.float32"].artifact
    assert pruned.sparsity == 0.75
    # of 64 * 9 * 16 + 64 * 9 * 16 * 32 + 32 * 64 + 640 MACs those of mid and hidden by a quarter
    assert pruned.sparse_macs == 64 * 9 * 16 + (64 * 9 * 16 * 32 + 32 * 64) // 4 + 640
    assert pruned.gzip_bytes < 0.6 * dense.gzip_bytes
    assert rows["mine-p1_4.sparse"].artifact.size_bytes < pruned.size_bytes
    page = (result.folder / "report.html").read_text("utf-8")
    (other,) = result.report.others.values()
    if isinstance(other, str):
        assert "paretune[mnn]" in page
    else:
        assert set(other) == {"mine.float32", "mine-p1_4.float32"}
        assert "MNN" in page


def test_a_target_below_what_is_feasible_writes_nothing(trained: Path, tmp_path: Path) -> None:
    plan = from_flat(Plan, {"data": "digits", "channels": "0.001x", "out": str(tmp_path / "out")})
    with pytest.raises(InputError, match="macs must be at least"):
        compress_model(trained, plan=plan)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_pruning_and_teacher(trained: Path, tmp_path: Path) -> None:
    values = {
        **QUICK,
        "finetune_epochs": 1,
        "sparsity": 0.0,
        "teacher": "none",
        "formats": "float32",
    }
    plan = from_flat(Plan, {**values, "out": str(tmp_path / "out")})
    result = compress_model(trained, plan=plan)
    assert [row.artifact.id for row in result.report.rows] == ["mine.float32", "mine-p0.float32"]
    assert result.report.compressed[0].teacher == ""
    assert result.report.rows[1].artifact.sparsity == 0.0


def test_a_model_from_a_run_brings_its_scaling(trained: Path, tmp_path: Path) -> None:
    """The run stored 'unit' scaling; `--normalize auto` must find and use it."""
    run = tmp_path / "run"
    (run / "candidates").mkdir(parents=True)
    (run / "final").mkdir()
    unit = load_data("digits", normalize="unit")
    (run / "data.json").write_text(json.dumps({"preprocess": unit.preprocess.to_json()}))
    model = load_model(trained)
    for folder in ("candidates", "final"):
        target = run / folder / "0001.keras"
        target.write_bytes(trained.read_bytes())
        assert load_for_model(target, DIGITS.data, model).preprocess == unit.preprocess
    explicit = from_flat(Plan, {"data": "digits", "normalize": "none"})
    assert load_for_model(target, explicit.data, model).preprocess.scale == 1.0
    # of a stranger's model the answers tell
    data = load_for_model(trained, DIGITS.data, model)
    assert data.preprocess == load_data("digits").preprocess
    assert data.notes[-1].startswith(f"inputs of model '{trained}' are scaled by standardize (acc")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": ""}, "data must be named.* Give --data"),
        ({"teacher": "no.keras"}, "must exist"),
        ({"data": "nowhere"}, "a path that exists"),
    ],
)
def test_bad_input_writes_nothing(
    trained: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    plan = from_flat(Plan, {"data": "digits", **values, "out": str(tmp_path / "out")})
    with pytest.raises(InputError, match=message):
        compress_model(trained, plan=plan)
    assert not (tmp_path / "out").exists()


def test_data_are_named_or_given(trained: Path, tmp_path: Path) -> None:
    """Forgotten data are not digits."""
    for plan in (None, Plan(), from_flat(Plan, {"sparsity": 0.5, "out": str(tmp_path / "out")})):
        with pytest.raises(InputError, match=r"data must be named.*Received: none\. Give --data"):
            compress_model(trained, plan=plan)
    assert list(tmp_path.iterdir()) == []


def scaled_inside(path: Path, data: Dataset) -> Any:
    """A CNN that is fed with bytes and rescales them itself, trained by Keras alone."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="second")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="last")(x))
    model.compile(
        keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(data.train.x, data.train.y, epochs=6, batch_size=64, verbose=0)
    model.save(path)
    return model


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.slow
def test_a_strangers_model_is_fed_as_it_was_trained(
    dtype: Any, digits: Dataset, tmp_path: Path, cpu: Device
) -> None:
    """Its file has the quality that Keras's own `evaluate` gives it, and the report says why."""
    every = {part: digits.split(part) for part in ("train", "val", "test")}
    arrays = {f"x_{part}": (split.x * (255.0 / 16)).astype(dtype) for part, split in every.items()}
    arrays |= {f"y_{part}": split.y for part, split in every.items()}
    np.savez(tmp_path / "pixels.npz", **arrays)
    data = load_data(str(tmp_path / "pixels.npz"), normalize="none")
    model = scaled_inside(tmp_path / "mine.keras", data)
    accuracy = model.evaluate(arrays["x_test"], every["test"].y, verbose=0)[1]
    assert accuracy > 0.7
    values = {"data": str(tmp_path / "pixels.npz"), "finetune_epochs": 1, "formats": "float32"}
    values |= {"latency_budget": 0.5, "out": str(tmp_path / "out")}
    result = compress_model(tmp_path / "mine.keras", plan=from_flat(Plan, values))
    dense = next(row.artifact for row in result.report.rows if row.artifact.variant == "dense")
    assert dense.test["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    record = json.loads((result.folder / "data.json").read_text())
    note = f"inputs of model '{tmp_path / 'mine.keras'}' are scaled by none (accuracy 0."
    assert record["notes"][-1].startswith(note)
    assert ", before " in record["notes"][-1]
    assert record["preprocess"]["scale"] == 1.0
    assert "are scaled by none" in (result.folder / "log.txt").read_text()
    assert "are scaled by none" in (result.folder / "report.html").read_text("utf-8")
    if dtype is not np.uint8:
        return
    # a model that knows nothing: nothing is written, and what to pass is said
    model.layers[-1].set_weights([np.zeros((576, 10)), np.zeros(10)])
    model.save(tmp_path / "new.keras")
    plan = from_flat(Plan, {**values, "out": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"better than guessing.* Pass --normalize with what"):
        compress_model(tmp_path / "new.keras", plan=plan)
    assert not (tmp_path / "none").exists()


def test_a_candidate_is_not_judged_on_what_it_has_learnt(trained: Path, tmp_path: Path) -> None:
    from compress.run.directory import RunFolder
    from compress.run.origin import write_data_record, write_examples

    run = RunFolder(tmp_path / "run")
    run.claim("compress", DIGITS)
    data = load_data("digits")
    write_data_record(run, data)
    write_examples(run, data)
    file = run.get_model_path("0001")
    file.write_bytes(trained.read_bytes())
    out = tmp_path / "out"
    again = {"data": "digits", "seed": 1, "out": str(out)}
    for model, more, who in (
        (file, {}, "Model"),
        (trained, {"teacher": str(file)}, "Teacher"),
        (trained, {"teacher": (str(trained), str(file))}, "Teacher"),
    ):
        plan = from_flat(Plan, {**again, **more})
        message = f"{who} '{file}' must be evaluated on .* of the 360 test .*--seed 0"
        with pytest.raises(InputError, match=message):
            compress_model(model, plan=plan)
        # data in memory are no way around it
        with pytest.raises(InputError, match=message):
            compress_model(model, load_data("digits", seed=1), plan)
    with pytest.raises(InputError, match="must be fed in the scaling of its run"):
        compress_model(file, plan=from_flat(Plan, {**again, "seed": 0, "normalize": "unit"}))
    assert not out.exists()


def test_a_model_for_other_data_is_refused(
    blobs: Dataset, trained: Path, tmp_path: Path, cpu: Device
) -> None:
    plan = from_flat(Plan, {"out": str(tmp_path / "out")})
    with pytest.raises(InputError, match="must take inputs of the data's shape"):
        compress_model(trained, blobs, plan)
    assert not (tmp_path / "out").exists()


def test_model_predicts_after_reload(trained: Path, small_cnn: Callable[..., Any]) -> None:
    x = np.zeros((2, 8, 8, 1), np.float32)
    assert load_model(trained)(x).shape == (2, 10)

"""`quantize`: what it trains, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import compress
from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure.runtimes import prepare_session
from compress.plan import QuantizeOptions, TrainSettings
from compress.quantization.quantizer import compare_on_test
from compress.train import train
from compress.train.predict import evaluate_model

L = keras.layers


@pytest.fixture
def rows_net() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = L.Dense(16, use_bias=False, name="first")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU(name="relu")(x)
    x = L.Dense(12, activation="relu", name="middle")(x)
    return keras.Model(inputs, L.Dense(3, activation="softmax", name="last")(x), name="rows")


@pytest.fixture(scope="module")
def learnt_weights() -> list[Any]:
    """Those of the first test that needs them: training takes longer than most tests."""
    return []


@pytest.fixture
def learnt(rows_net: Any, blobs: Dataset, cpu: Any, learnt_weights: list[Any]) -> Any:
    if not learnt_weights:
        train(rows_net, blobs, TrainSettings(epochs=20, batch_size=32), device=cpu)
        learnt_weights += rows_net.get_weights()
    rows_net.set_weights(learnt_weights)
    return rows_net


def weights_of(model: Any) -> list[Any]:
    return [weight.copy() for weight in model.get_weights()]


@pytest.mark.slow
def test_it_trains_and_leaves_the_model_as_it_was(
    learnt: Any, blobs: Dataset, tmp_path: Path
) -> None:
    before = weights_of(learnt)
    made = compress.quantize(learnt, blobs, epochs=3, batch_size=32, learning_rate=1e-3)
    for one, two in zip(before, learnt.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [type(layer) for layer in made.model.layers] == [type(x) for x in learnt.layers]
    assert [layer.name for layer in made.model.layers] == [x.name for x in learnt.layers]
    moved = [
        not np.array_equal(a, b) for a, b in zip(before, made.model.get_weights(), strict=True)
    ]
    names = [weight.path for weight in made.model.weights]
    # statistics stay, for they are in the kernels
    assert {name for name, changed in zip(names, moved, strict=True) if not changed} == {
        "norm/moving_mean", "norm/moving_variance",
    }  # fmt: skip
    assert made.training is not None
    assert made.training.val["accuracy"] >= evaluate_model(learnt, blobs, "val")["accuracy"] - 0.02
    (file,) = made.export(tmp_path / "rows.tflite")
    assert (file.format, file.agreement) == ("int8-qat", 1.0)
    session = prepare_session(file.path)
    assert [info.dtype for info in (*session.inputs, *session.outputs)] == ["int8", "int8"]
    about = json.loads((tmp_path / "rows.json").read_text())
    assert about["class_names"] == ["a", "b", "c"]
    assert "all 5 layer calls compute in integers" in str(made)


def test_the_plain_model_is_what_the_twin_computes_with(learnt: Any, blobs: Dataset) -> None:
    made = compress.quantize(learnt, blobs, epochs=1, batch_size=32)
    x = blobs.inputs("val")
    plain = np.asarray(made.model(x, training=False))
    whole = np.asarray(made.quantized(x, training=False))
    assert np.abs(plain - whole).max() < 0.1
    assert np.mean(plain.argmax(-1) == whole.argmax(-1)) > 0.95
    labels, tested = blobs.test.y, blobs.inputs("test")
    before, after = (
        np.mean(np.asarray(net(tested, training=False)).argmax(-1) == labels)
        for net in (learnt, made.quantized)
    )
    assert made.verdict is not None
    assert (made.verdict.before, made.verdict.after) == (before, after)
    assert f"test accuracy: {before:.2%} -> {after:.2%}".replace("%", " %") in str(made)


def test_the_verdict_tells_the_original_from_the_other(learnt: Any, blobs: Dataset) -> None:
    broken = keras.models.clone_model(learnt)
    for weight in broken.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    verdict = compare_on_test(learnt, broken, blobs)
    labels = blobs.test.y
    right = np.asarray(learnt(blobs.inputs("test"), training=False)).argmax(-1) == labels
    assert verdict.examples == len(labels)
    assert verdict.before == np.mean(right)
    assert verdict.after == np.mean(labels == 0)  # the first class where all outputs are equal
    assert verdict.low is not None
    assert verdict.high is not None
    change = verdict.after - verdict.before
    assert verdict.low < change < verdict.high < 0


def test_examples_alone_calibrate(learnt: Any, blobs: Dataset) -> None:
    made = compress.quantize(learnt, blobs.inputs("train"), epochs=0)
    assert made.training is None
    assert made.verdict is None
    for one, two in zip(weights_of(learnt), made.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_zeros_of_a_pruned_model_stay(learnt: Any, blobs: Dataset, tmp_path: Path) -> None:
    small = compress.prune_weights(learnt, sparsity=0.75, scope="layer", include=["ends"]).model
    zeros = {
        weight.path: weight.numpy() == 0 for weight in small.weights if "kernel" in weight.path
    }
    made = compress.quantize(small, blobs, epochs=2, batch_size=32, learning_rate=1e-2)
    for weight in made.model.weights:
        if weight.path in zeros:
            assert not weight.numpy()[zeros[weight.path]].any(), weight.path
            assert zeros[weight.path].mean() > 0.7
            assert weight.constraint is None
    (file,) = made.export(tmp_path / "m.tflite")
    counts = compress.count_macs(file.path)
    assert counts.nonzero < 0.5 * counts.params


def test_labels_alone(learnt: Any, blobs: Dataset) -> None:
    made = compress.quantize(learnt, blobs, epochs=1, distill=False, batch_size=32)
    assert made.training is not None


def test_what_stays_in_floats_is_named(blobs: Dataset, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = L.Dense(8, name="first")(inputs)
    x = L.LayerNormalization(name="by_example")(x)
    x = L.Lambda(lambda v: v * 2.0, output_shape=(8,), name="own")(x)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x), name="mixed")
    made = compress.quantize(model, blobs, epochs=0)
    floats = {call.layer: call.reason for call in made.placed if call.reason}
    assert set(floats) == {"by_example", "own"}
    assert "own statistics" in floats["by_example"]
    assert "no rule" in floats["own"]
    (file,) = made.export(tmp_path / "m.tflite")
    assert file.agreement > 0.97


def test_nested_models_and_shared_layers(blobs: Dataset, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    shared = L.Dense(4, activation="relu", name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, L.Dense(4, name="other")(shared(inner_input)), name="inner")
    inputs = keras.Input((4,))
    x = inner(inputs)
    x = L.Add()([shared(x), inner(x)])
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x), name="nested")
    made = compress.quantize(model, blobs, epochs=1, batch_size=32)
    assert [call.layer for call in made.placed][:2] == ["inner/shared", "inner/other"]
    (file,) = made.export(tmp_path / "m.tflite")
    assert file.agreement == 1.0


def test_a_twin_computes_in_single_precision_whatever_a_training_does(
    learnt: Any, blobs: Dataset
) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = compress.quantize(learnt, blobs.inputs("train"), epochs=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in made.quantized.layers} == {"float32"}


def test_several_outputs_keep_names_and_order(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="given")
    x = L.Dense(8, activation="relu")(inputs)
    ends = [
        L.Dense(3, activation="softmax", name="kind")(x),
        L.Dense(2, name="box")(x),
        L.Softmax(name="also")(L.Dense(4)(x)),
    ]
    model = keras.Model(inputs, ends, name="several")
    x = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    y = {
        "kind": np.arange(100) % 3,
        "box": x[:, :2] * 2.0,
        "also": np.arange(100) % 4,
    }
    made = compress.quantize(model, (x, y), epochs=1, batch_size=20)
    (file,) = made.export(tmp_path / "m.tflite")
    session = prepare_session(file.path)
    session.set_inputs([x[:1]])
    session.invoke()
    for found, wanted in zip(session.results(), model(x[:1]), strict=True):
        assert np.abs(found - np.asarray(wanted)).max() < 0.25
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["outputs"] == ["kind", "box", "also"]


def test_several_inputs_and_whole_numbers(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    words, numbers = keras.Input((5,), name="words"), keras.Input((3,), name="numbers")
    x = L.GlobalAveragePooling1D()(L.Embedding(20, 6)(words))
    x = L.Concatenate()([x, L.Dense(6)(numbers)])
    model = keras.Model({"words": words, "numbers": numbers}, L.Dense(2, activation="softmax")(x))
    rng = np.random.default_rng(0)
    x = {"words": rng.integers(0, 20, (80, 5)), "numbers": rng.normal(size=(80, 3))}
    made = compress.quantize(model, x, epochs=0)
    assert [call.reason for call in made.placed if call.reason] == []
    (file,) = made.export(tmp_path / "m.tflite")
    assert file.agreement == 1.0
    kinds = {info.name: info.dtype for info in prepare_session(file.path).inputs}
    assert sorted(kinds.values()) == ["int32", "int8"]


# -- bad input -------------------------------------------------------------------------------


def test_a_quantized_model_is_refused(learnt: Any, blobs: Dataset) -> None:
    made = compress.quantize(learnt, blobs, epochs=0)
    with pytest.raises(InputError, match="rounds its values already"):
        compress.quantize(made.quantized, blobs, epochs=0)


def test_a_plain_model_has_no_such_file(learnt: Any, blobs: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"quantize\(model, data\)"):
        compress.export(learnt, tmp_path / "m.tflite", format="int8-qat", data=blobs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1}, "qat_epochs"),
        ({"learning_rate": 0.0}, "qat_learning_rate"),
        ({"sparsity": 0.5}, "prune_weights"),
        ({"qat": True}, "Name int8-qat among formats"),
        ({"learned_ranges": True}, "Option 'learned_ranges' was removed. No figure"),
    ],
)
def test_bad_options(learnt: Any, blobs: Dataset, settings: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        compress.quantize(learnt, blobs, **settings)


def test_nan_weights_are_named(learnt: Any, blobs: Dataset) -> None:
    learnt.get_layer("middle").bias.assign(np.full(12, np.nan, np.float32))
    with pytest.raises(InputError, match="middle"):
        compress.quantize(learnt, blobs, QuantizeOptions(epochs=0))

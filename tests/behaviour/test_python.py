"""`import paretune`: each engine on a trained model, against arithmetic and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import paretune as pt
from tests.behaviour.conftest import MACS, PARAMS, Digits, accuracy, answers


def predict(model: Any, x: Any) -> Any:
    return np.asarray(model(x, training=False))


def test_macs_of_a_model_are_counted(model: Any) -> None:
    costs = pt.count_macs(model)
    assert (costs.macs, costs.params, costs.unsupported) == (MACS, PARAMS, ())


def test_channels_are_removed_and_nothing_else_changes(model: Any, images: Digits) -> None:
    """A removed channel is one whose values are zero: the smaller model equals that model."""
    before = [np.asarray(w) for w in model.weights]
    small = pt.prune_channels(model, macs=0.5, repair=False)
    widths = {name: small.model.get_layer(name).filters for name in ("first", "second", "inner")}
    assert widths["second"] == widths["inner"]  # their outputs are added
    kept = {key: np.asarray(value) for key, value in _kept_filters(model, small.model).items()}
    silenced = keras.models.clone_model(model)
    silenced.set_weights(model.get_weights())
    for name in ("second", "inner"):
        layer = silenced.get_layer(name)
        mask = np.isin(np.arange(24), kept["second"])
        layer.set_weights([w * mask for w in layer.get_weights()])
    first = np.isin(np.arange(16), kept["first"])
    norm = silenced.get_layer("norm")
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma * first, beta * first, mean, variance])
    hidden = silenced.get_layer("hidden")
    units = np.isin(np.arange(32), kept["hidden"])
    hidden.set_weights([w * units for w in hidden.get_weights()])
    x = images.x_test[:50]
    np.testing.assert_allclose(predict(small.model, x), predict(silenced, x), atol=1e-5)
    a, b, c = widths["first"], widths["second"], small.model.get_layer("hidden").units
    macs = 64 * 9 * a + 16 * 9 * a * b + 16 * 9 * b * b + b * c + c * 10
    assert macs <= 0.5 * MACS
    assert pt.count_macs(small.model).macs == macs
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))


def _kept_filters(model: Any, small: Any) -> dict[str, list[int]]:
    """Find which output channels of the original each layer kept, by its weights."""
    kept: dict[str, list[int]] = {}
    for name, reads in (("first", None), ("second", "first"), ("hidden", "second")):
        whole = np.asarray(model.get_layer(name).kernel)
        part = np.asarray(small.get_layer(name).kernel)
        rows = kept[reads] if reads else slice(None)
        read = whole[..., rows, :]
        kept[name] = [
            next(i for i in range(read.shape[-1]) if np.array_equal(read[..., i], part[..., o]))
            for o in range(part.shape[-1])
        ]
    return kept


def test_data_make_a_pruned_model_better(model: Any, images: Digits) -> None:
    plain = pt.prune_channels(model, macs=0.4, repair=False)
    helped = pt.prune_channels(model, macs=0.4, data=images.x)
    found = [accuracy(predict(m.model, images.x_test), images.y_test) for m in (plain, helped)]
    assert found[1] > found[0]
    assert found[1] > 0.85


def test_repair_brings_outputs_back(model: Any, images: Digits) -> None:
    pruned = pt.prune_channels(model, params=0.5, repair=False)
    assert pt.count_macs(pruned.model).params == pytest.approx(0.5 * PARAMS, rel=0.03)

    def error() -> float:
        return float(np.square(predict(pruned.model, images.x_test) - wanted).mean())

    wanted = predict(model, images.x_test)
    before = error()
    pt.repair(pruned.model, model, images.x, kept=pruned.kept)
    assert error() < 0.5 * before


@pytest.mark.parametrize(("pattern", "of"), [("unstructured", 0), ("2:4", 4)])
def test_weights_are_pruned_to_exactly_what_was_asked(
    model: Any, images: Digits, pattern: str, of: int
) -> None:
    options: dict[str, Any] = {"pattern": "2:4"} if of else {"sparsity": 0.75}
    sparse = pt.prune_weights(model, (images.x, images.y), epochs=2, **options)
    middle = [np.asarray(sparse.model.get_layer(n).kernel) for n in ("second", "inner", "hidden")]
    if of:
        for kernel in middle:
            rows = np.moveaxis(kernel, -2, -1).reshape(-1, 4)
            assert (np.count_nonzero(rows, axis=1) <= 2).all()
    zeros, size = (sum(f(k) for k in middle) for f in (lambda k: (k == 0).sum(), np.size))
    assert zeros / size == pytest.approx(0.5 if of else 0.75, abs=0.001)
    assert accuracy(predict(sparse.model, images.x_test), images.y_test) > 0.8


def test_a_callback_prunes_while_fit_trains(model: Any, images: Digits) -> None:
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images.x, images.y, epochs=3, verbose=0, callbacks=[pt.WeightPruner(sparsity=0.5)])
    middle = [np.asarray(model.get_layer(n).kernel) for n in ("second", "inner", "hidden")]
    zeros = sum(int((kernel == 0).sum()) for kernel in middle)
    assert zeros / sum(kernel.size for kernel in middle) == pytest.approx(0.5, abs=0.01)


def test_pruning_is_saved_and_resumed(model: Any, images: Digits, tmp_path: Path) -> None:
    pruner = pt.WeightPruner(sparsity=0.5)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pruner.attach(model, steps_per_epoch=22, epochs=4):
        model.fit(images.x, images.y, batch_size=64, epochs=1, verbose=0)
        pt.save_pruning(model, pruner, tmp_path / "half.keras")
    resumed, again = pt.resume_pruning(tmp_path / "half.keras")
    with again:
        resumed.fit(images.x, images.y, batch_size=64, initial_epoch=1, epochs=4, verbose=0)
    kernels = [np.asarray(resumed.get_layer(n).kernel) for n in ("second", "inner", "hidden")]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    assert zeros / sum(kernel.size for kernel in kernels) == pytest.approx(0.5, abs=0.01)


def test_a_teacher_makes_a_student_agree_with_it(model: Any, images: Digits) -> None:
    keras.utils.set_random_seed(1)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(24, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    taught = pt.distill(student, model, (images.x, images.y), epochs=25, learning_rate=0.01)
    found, wanted = predict(taught.model, images.x_test), predict(model, images.x_test)
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() > 0.8


@pytest.mark.parametrize("format", ["float32", "float16", "dynamic", "int8"])
def test_files_answer_as_the_model_does(
    model: Any, images: Digits, format: str, tmp_path: Path
) -> None:
    (file,) = pt.export(model, tmp_path / "m.tflite", format=format, data=images.x)
    x = images.x_test[:100]
    found, wanted = answers(file.path, x), predict(model, x)
    # Dynamic files round activations to int8, too, and the trained weights differ by processor.
    integer = format in ("dynamic", "int8")
    np.testing.assert_allclose(found, wanted, atol=0.1 if integer else 0.02)
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() >= (0.95 if integer else 0.97)


def test_quantization_makes_an_integer_file(model: Any, images: Digits, tmp_path: Path) -> None:
    made = pt.quantize(model, (images.x, images.y), epochs=1)
    (file,) = made.export(tmp_path / "m.tflite")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file.path))
    assert interpreter.get_input_details()[0]["dtype"] is np.int8
    assert accuracy(answers(file.path, images.x_test), images.y_test) > 0.9


def test_a_mobile_network_an_lstm_and_attention_are_pruned() -> None:
    image, words = keras.Input((16, 16, 3)), keras.Input((12, 8))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1, activation="relu")(x))
    y = layers.LSTM(16, return_sequences=True)(words)
    y = layers.MultiHeadAttention(4, 4)(y, y)
    y = layers.GlobalAveragePooling1D()(y)
    two = keras.Model([image, words], layers.Dense(5)(layers.Concatenate()([x, y])))
    small = pt.prune_channels(two, macs=0.6)
    before, after = (pt.count_macs(m).macs for m in (two, small.model))
    assert after <= 0.6 * before
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(2, 16, 16, 3)), rng.normal(size=(2, 12, 8))]
    assert small.model.predict(given, verbose=0).shape == (2, 5)


def test_groups_tell_what_is_removed_together(model: Any) -> None:
    groups = {row.makers: row.total for row in pt.coupled_groups(model).groups}
    assert groups == {("first",): 16, ("second", "inner"): 24, ("hidden",): 32}


def test_models_are_timed_against_each_other(model: Any, tmp_path: Path) -> None:
    big = pt.export(model, tmp_path / "big.tflite", format="float32")[0].path
    small = pt.export(
        pt.prune_channels(model, macs=0.2).model, tmp_path / "small.tflite", format="float32"
    )[0].path
    timed = pt.measure_latency({"big": big, "small": small}, baselines={"small": "big"})
    for latency in timed.values():
        assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
    result = pt.bench(big, small, budget=1.0)
    assert "LiteRT" in str(result)
    assert [item.path.name for item in result.models] == ["big.tflite", "small.tflite"]


def test_batch_statistics_are_measured_anew(images: Digits) -> None:
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
    pt.recalibrate(model, images.x, 20)
    norm = model.get_layer("norm")
    assert float(norm.moving_mean[0]) == pytest.approx(images.x.mean(), abs=0.01)
    assert float(norm.moving_variance[0]) == pytest.approx(images.x.var(), abs=0.01)


def test_parts_of_data_do_not_overlap_and_groups_stay_together() -> None:
    rng = np.random.default_rng(0)
    x, y, person = rng.normal(size=(300, 4)), np.arange(300) % 3, np.arange(300) // 10
    x[:, 0] = person
    data = pt.as_dataset((x, y), groups=person, normalize="none", test_fraction=0.2)
    parts = [set(part.x[:, 0]) for part in (data.train, data.val, data.test)]
    assert set.union(*parts) == set(range(30))
    assert sum(map(len, parts)) == 30


def test_a_criterion_of_ones_own(model: Any) -> None:
    def last_first(group: Any, context: Any) -> Any:
        return -np.arange(len(group.units), dtype=float)

    small = pt.prune_channels(model, macs=0.6, criterion=last_first, scope="layer", repair=False)
    kept = _kept_filters(model, small.model)
    for places in kept.values():
        assert places == list(range(len(places)))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m, d: pt.prune_channels(m, macs=2.5), "macs"),
        (lambda m, d: pt.prune_channels(m, 0.5), "macs="),
        (lambda m, d: pt.prune_channels(m, mac=0.5), "Did you mean 'macs'?"),
        (lambda m, d: pt.prune_channels("none.keras", macs=0.5), "none.keras"),
        (lambda m, d: pt.prune_weights(m, sparsity=1.5), "sparsity"),
        (lambda m, d: pt.quantize(m, d.x[:, :4], epochs=0), "(8, 8, 1)"),
        (lambda m, d: pt.export(m, "m.tflite", format="onnx"), "m.tflite"),
        (lambda m, d: pt.shrink(m, (d.x, d.y), latency="200KB"), "latency"),
        (lambda m, d: pt.distill(m, m, (d.x, d.y), loss="kdd"), "kd"),
        (lambda m, d: pt.load_data("digitz"), "Did you mean 'digits'?"),
    ],
)
def test_wrong_calls_name_the_argument(model: Any, images: Digits, call: Any, told: str) -> None:
    with pytest.raises(pt.InputError) as caught:
        call(model, images)
    assert told in str(caught.value)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that a call makes by default are of this test."""
    monkeypatch.chdir(tmp_path)

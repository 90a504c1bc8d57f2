"""Layers that work in training alone are no part of what is exported and timed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import BenchPlan, bench, export
from compress.core.errors import RunFailed
from compress.data import Dataset, Preprocessing, Split
from compress.exporting.litert import export_litert
from compress.exporting.onnx import export_onnx
from compress.measure.file_agreement import compute_outputs
from compress.measure.runtimes import prepare_session
from compress.model.layer_patches import (
    describe_excluded_layers,
    disable_training_layers,
    find_training_only_layers,
)
from compress.model.layers import select_classes
from compress.plan import ExportOptions

TRAINING_ONLY_CLASSES = select_classes("left_out")
SHAPE = (16, 16, 3)
GIVEN: dict[str, tuple[Any, ...]] = {
    "GaussianNoise": (0.5,), "RandomBrightness": (0.5,), "RandomColorDegeneration": (0.5,),
    "RandomContrast": (0.5,), "RandomCrop": (12, 12), "RandomHue": (0.5,),
    "RandomPosterization": (4,), "RandomRotation": (0.5,), "RandomSaturation": (0.5,),
    "RandomSharpness": (0.5,), "RandomShear": (0.5, 0.5), "RandomTranslation": (0.5, 0.5),
    "RandomZoom": (0.5,),
}  # fmt: skip
# they do work at inference, or have nothing to do with images
OTHERS = {"AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization",
          "MaxNumBoundingBoxes", "Resizing"}  # fmt: skip


def images(count: int = 3) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(TRAINING_ONLY_CLASSES))
def test_each_of_them_leaves_its_input_as_it_is_in_inference(name: str) -> None:
    import keras

    layer = getattr(keras.layers, name)(*GIVEN.get(name, ()))
    np.testing.assert_array_equal(np.asarray(layer(images(), training=False)), images())


def test_no_preprocessing_layer_of_keras_is_forgotten() -> None:
    import keras
    from keras.src.layers.preprocessing.image_preprocessing import base_image_preprocessing_layer

    base = base_image_preprocessing_layer.BaseImagePreprocessingLayer
    members = inspect.getmembers(keras.layers, inspect.isclass)
    names = {name for name, kind in members if issubclass(kind, base)}
    assert names == (TRAINING_ONLY_CLASSES - {"GaussianNoise"}) | OTHERS
    x = images()
    contrast = keras.layers.AutoContrast()(x / 2, training=False)
    assert np.abs(np.asarray(contrast) - x / 2).max() > 1


def augmented() -> Any:
    """A classifier with augmentation in front: alone, in a Sequential in one, in a pipeline."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input(SHAPE), layers.RandomFlip(), layers.RandomRotation(0.2)], name="inner"
    )
    outer = keras.Sequential([keras.Input(SHAPE), inner, layers.RandomHue(0.3)], name="outer")
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255, name="scaled")(inputs)
    x = outer(x)
    x = layers.Pipeline(
        [layers.AutoContrast(value_range=(0, 1)), layers.RandomZoom(0.2)], name="line"
    )(x)
    x = layers.RandomTranslation(0.2, 0.2, name="moved")(x)
    x = layers.GaussianNoise(0.3, name="noise")(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x, name="augmented")


NAMES = ["outer/inner/random_flip", "outer/inner/random_rotation", "outer/random_hue",
         "line/random_zoom", "moved", "noise"]  # fmt: skip


def numbers_off(name: str) -> str:
    """Drops the number that Keras gives to a second layer of a class."""
    return name.rstrip("0123456789").rstrip("_")


def test_nested_ones_are_found_and_named() -> None:
    model = augmented()
    found = find_training_only_layers(model)
    assert [numbers_off(name) for name in found] == NAMES
    (note,) = describe_excluded_layers(model)
    assert note.startswith("exported without layers that work in training alone: outer/inner/ran")
    assert note.endswith("moved (RandomTranslation), noise (GaussianNoise)")
    with disable_training_layers(model):
        assert all("call" in vars(layer) for layer in found.values())
    assert not any("call" in vars(layer) for layer in found.values())


def test_what_belongs_to_a_layer_goes_with_it_and_other_peoples_layers_stay() -> None:
    import keras

    class RandomFlip(keras.layers.Layer):
        """Not Keras's: nobody knows what it does."""

        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input(SHAPE)
    x = keras.layers.RandAugment(name="policy")(inputs)
    model = keras.Model(inputs, RandomFlip()(keras.layers.Rescaling(2.0)(x)))
    assert list(find_training_only_layers(model)) == ["policy"]
    assert (
        describe_excluded_layers(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) == ()
    )


@pytest.mark.parametrize("writes", [export_litert, export_onnx])
@pytest.mark.parametrize("sequential", [False, True])
def test_exported_files_compute_inference(
    writes: Callable[..., None], sequential: bool, tmp_path: Path
) -> None:
    """Converters refuse what such layers draw; Keras in inference mode is the reference."""
    import keras

    model = augmented()
    if sequential:
        model = keras.Sequential([keras.Input(SHAPE), keras.layers.RandomContrast(0.4), model])
    path = tmp_path / ("m.onnx" if writes is export_onnx else "m.tflite")
    writes(model, path)
    expected = np.asarray(model(images(), training=False))
    np.testing.assert_allclose(
        compute_outputs(prepare_session(path), [images()])[0], expected, atol=1e-5
    )


def test_files_and_the_record_say_what_was_left_out(tmp_path: Path) -> None:
    def part(count: int) -> Split:
        return Split(np.resize(images(9), (count, *SHAPE)), np.arange(count) % 3)

    data = Dataset("i", part(30), part(12), part(12), ("a", "b", "c"), Preprocessing())
    options = ExportOptions(formats=("float32", "int8"))
    model = augmented()
    made = export(model, tmp_path / "m", data=data, options=options)
    assert made[0].max_difference < 1e-5
    (note,) = json.loads((tmp_path / "m.json").read_text())["notes"]
    assert note == describe_excluded_layers(model)[0]


@pytest.mark.slow
def test_a_bench_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    augmented().save(tmp_path / "m.keras")
    plan = BenchPlan(runtimes=("litert", "tensorflow"), budget=0.3, out=str(tmp_path / "out"))
    result = bench([tmp_path / "m.keras"], plan)
    assert [row.runtime for row in result.timed] == ["litert", "tensorflow"]
    (note,) = result.models[0].notes
    assert "noise (GaussianNoise)" in note
    stored = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert stored["models"][0]["notes"] == [note]

    assert "exported without layers that work in training alone" in " ".join(str(result).split())


def test_a_layer_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    import keras

    class Spectrum(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.linalg.svd(x, compute_uv=False)

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4))
    inner = keras.Sequential([keras.Input((4, 4)), Spectrum(name="spectrum")], name="inner")
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)), name="odd")
    with pytest.raises(RunFailed) as caught:
        export_litert(model, tmp_path / "m.tflite")
    assert str(caught.value) == (
        "LiteRT's converter refused model 'odd' (float32): layer 'inner/spectrum' needs Svd, "
        "which cannot be converted"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_layer_of_two_models_is_left_out_once_and_comes_back() -> None:
    import keras

    flip = keras.layers.RandomFlip("horizontal")
    models = [keras.Sequential([keras.Input((4, 4, 1)), flip]) for _ in range(2)]
    own = flip.call
    with disable_training_layers(models[0]), disable_training_layers(models[1]):
        np.testing.assert_array_equal(flip(np.eye(4)[None, ..., None], training=True)[0, 0, 0], 1)
    assert flip.call == own
    assert "call" not in vars(flip)

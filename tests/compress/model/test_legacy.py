"""Files of Keras 2: read where Keras 3 has the layers, else the error names the layer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import load_model
from compress.core.errors import InputError
from compress.model.keras2_files import open_as_keras3, read_keras_version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("legacy")
    script = Path(__file__).with_name("legacy_files.py")
    done = subprocess.run(
        [sys.executable, str(script), str(place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.mark.parametrize(
    "kind", [pytest.param("convolutions", marks=pytest.mark.slow), "recurrent"]
)
def test_same_outputs(kind: str, folder: Path) -> None:
    path = folder / f"{kind}.h5"
    before = path.read_bytes()
    model = load_model(path)
    with np.load(folder / "outputs.npz") as stored:
        np.testing.assert_allclose(model([stored["x"]]), stored[kind], rtol=1e-4, atol=1e-5)
    assert model.get_layer("block_bn").name == "block_bn"
    assert path.read_bytes() == before
    assert read_keras_version(path).startswith("2.")


def edited(source: Path, path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """Copy a file with the configs of its layers changed."""
    import h5py

    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_known_differences_of_older_files(folder: Path, tmp_path: Path) -> None:
    def as_of_old(layers: list[dict[str, Any]]) -> None:
        # TensorFlow 2.0 and before: no input layer, and initializers with a type
        (start,) = (layer for layer in layers if layer["class_name"] == "InputLayer")
        layers.remove(start)
        conv, out = layers[0], layers[-1]
        conv["config"]["batch_input_shape"] = [None, 8, 8, 3]
        for layer in (conv, out):
            layer["config"].pop("groups", None)
            for name in ("kernel_initializer", "bias_initializer"):
                layer["config"][name]["config"]["dtype"] = "float32"
        conv["config"]["kernel_initializer"] = {
            "class_name": "VarianceScaling",
            "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "normal", "dtype": "x"},
        }
        out["config"]["activation"] = "softmax_v2"

    path = edited(folder / "sequential.h5", tmp_path / "old.h5", as_of_old)
    model = load_model(path)
    with np.load(folder / "outputs.npz") as stored:
        found = model(stored["x"])
        np.testing.assert_allclose(found, stored["sequential"], rtol=1e-4, atol=1e-5)
    assert model.input_shape == (None, 8, 8, 3)


def test_unknown_keys_are_named_with_their_layer(folder: Path, tmp_path: Path) -> None:
    def of_layer(layers: list[dict[str, Any]]) -> None:
        layers[-1]["config"]["turbo"] = True

    def of_initializer(layers: list[dict[str, Any]]) -> None:
        layers[-1]["config"]["kernel_initializer"]["config"]["turbo"] = True

    for change in (of_layer, of_initializer):
        path = edited(folder / "sequential.h5", tmp_path / "odd.h5", change)
        with pytest.raises(InputError, match=r"layer 'out' \(Dense\): .* its key 'turbo'"):
            load_model(path)


@pytest.mark.slow
def test_classes_of_users_are_named_with_what_to_do(tmp_path: Path) -> None:
    make = (
        "import keras\n"
        "@keras.saving.register_keras_serializable()\n"
        "class Scale(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "inputs = keras.Input((3,))\n"
        "inner = keras.Sequential([keras.Input((3,)), Scale(name='scaled')])\n"
        "for name in ('custom.keras', 'custom.h5'):\n"
        "    keras.Model(inputs, inner(inputs)).save(name)\n"
        "keras.Model(inputs, keras.layers.Lambda(lambda x: x, name='same')(inputs)).save('l.keras')"
    )
    done = subprocess.run(
        [sys.executable, "-c", make], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("custom.keras", "custom.h5"):
        with pytest.raises(InputError, match=r"^Class Scale of layer 'scaled' .* --plugins"):
            load_model(tmp_path / name)
    with pytest.raises(InputError, match=r"^Layer 'same' .*a Lambda. For the command line make"):
        load_model(tmp_path / "l.keras")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("operation.h5", r"layer 'tf.nn.relu' \(TFOpLambda\): .*raw TensorFlow call: nn.relu"),
        ("lambda.h5", r"layer 'doubled' \(Lambda\): it holds Python code"),
        ("attention.h5", r"layer 'heads' \(MultiHeadAttention\): Keras 3 does not know its key "),
        ("hard.h5", r"layer 'cells' \(LSTM\): recurrent_activation hard_sigmoid is another func"),
        ("two.keras", r"it was written by Keras 2\..* save it as .h5"),
    ],
)
def test_the_error_says_which_layer_and_why(name: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(folder / name)


def test_files_of_keras_3_are_read_as_they_are(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for name in ("m.keras", "m.h5"):
        path = tmp_path / name
        model.save(path)
        with open_as_keras3(path) as file:
            assert file == path
        assert read_keras_version(path).startswith("3.")
        assert load_model(path).count_params() == 8


def test_a_damaged_file(tmp_path: Path) -> None:
    for name in ("m.keras", "m.h5"):
        (tmp_path / name).write_bytes(b"nothing")
        assert read_keras_version(tmp_path / name) == ""
        with pytest.raises(InputError, match="Keras 3 must be able to read"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("odd", [5, ["Dense"], None, "No\nSuch", "__class__", ""])
def test_odd_class_names_are_refused_in_words(odd: object, folder: Path, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "odd.h5"
    path.write_bytes((folder / "convolutions.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][2]["class_name"] = odd
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(InputError, match=r"odd\.h5'. Received: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 50_000, "5", '{"class_name": "Functional"}', "\x00"])
def test_configs_that_are_none(text: str, folder: Path, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "odd.h5"
    path.write_bytes((folder / "convolutions.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = np.bytes_(text) if text != "\x00" else b"\xff\xfe"
    with pytest.raises(InputError, match=r"odd\.h5'. Received: "):
        load_model(path)

"""Files of Keras 2: read where Keras 3 has the layers, else the error names the layer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress import load_model
from compress.core.errors import InputError
from compress.model.keras2_files import keras_version, readable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("legacy")
    script = Path(__file__).with_name("legacy_files.py")
    done = subprocess.run(
        [sys.executable, str(script), str(place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.mark.parametrize("kind", ["convolutions", "recurrent"])
def test_same_outputs(kind: str, folder: Path) -> None:
    path = folder / f"{kind}.h5"
    before = path.read_bytes()
    model = load_model(path)
    with np.load(folder / "outputs.npz") as stored:
        np.testing.assert_allclose(model([stored["x"]]), stored[kind], rtol=1e-4, atol=1e-5)
    assert model.get_layer("block_bn").name == "block_bn"
    assert path.read_bytes() == before
    assert keras_version(path).startswith("2.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("operation.h5", r"layer 'tf.nn.relu' \(TFOpLambda\): .*raw TensorFlow call: nn.relu"),
        ("lambda.h5", r"layer 'doubled' \(Lambda\): it holds Python code"),
        ("attention.h5", r"layer 'heads' \(MultiHeadAttention\): Unrecognized keyword"),
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
        with readable(path) as file:
            assert file == path
        assert keras_version(path).startswith("3.")
        assert load_model(path).count_params() == 8


def test_a_damaged_file(tmp_path: Path) -> None:
    for name in ("m.keras", "m.h5"):
        (tmp_path / name).write_bytes(b"nothing")
        assert keras_version(tmp_path / name) == ""
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

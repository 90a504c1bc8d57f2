"""A trained model, its data, and the command line, as users have them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from sklearn.datasets import load_digits

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code.
        out: What it printed as its result.
        said: What it printed about its work, and errors.
    """

    code: int
    out: str
    said: str


Command = Callable[..., Ended]


@pytest.fixture
def paretune(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    """The command line, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["paretune", *map(str, words)])
        capsys.readouterr()
        try:
            runpy.run_module("paretune", run_name="__main__")
            code: Any = 0
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return Ended(int(code or 0), printed.out, printed.err)

    return run


@dataclass(frozen=True)
class Digits:
    """Images of 8 x 8 pixels in [0, 1], (n, 8, 8, 1), and their labels."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


@pytest.fixture(scope="package")
def images() -> Digits:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x[order].reshape(-1, 8, 8, 1) / 16).astype(np.float32), y[order]
    return Digits(x[:1400], y[:1400], x[1400:], y[1400:])


@pytest.fixture(scope="package")
def data_file(images: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=images.x, y_train=images.y, x_test=images.x_test, y_test=images.y_test)
    return path


def build() -> Any:
    """Build the CNN: 16 and 24 channels, a residual block of 24, and two dense layers."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    skip = x = layers.Conv2D(24, 3, strides=2, padding="same", activation="relu", name="second")(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="sum")([skip, x])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras.Model(
        inputs, layers.Dense(10, activation="softmax", name="last")(x), name="digits_cnn"
    )


MACS = 64 * 9 * 16 + 16 * 9 * 16 * 24 + 16 * 9 * 24 * 24 + 24 * 32 + 32 * 10
"""Of that CNN, by hand: kernels times positions, then the dense layers."""
PARAMS = 9 * 16 + 4 * 16 + (9 * 16 + 1) * 24 + (9 * 24 + 1) * 24 + 25 * 32 + 33 * 10


@pytest.fixture(scope="package")
def model_file(images: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(images.x, images.y, batch_size=64, epochs=20, verbose=0)
    assert accuracy(model.predict(images.x_test, verbose=0), images.y_test) > 0.9
    path = tmp_path_factory.mktemp("model") / "digits_cnn.keras"
    model.save(path)
    return path


@pytest.fixture
def model(model_file: Path) -> Any:
    """A fresh copy; a test that changes it without being asked to would change no other."""
    return keras.models.load_model(model_file)


def accuracy(outputs: Array, labels: Array) -> float:
    return float((np.asarray(outputs).argmax(-1) == labels).mean())


def answers(path: Path, x: Array) -> Array:
    """Run a LiteRT file on examples, one at a time, with integers put in and taken out."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for example in x:
        interpreter.set_tensor(entry["index"], _quantized(example[None], entry))
        interpreter.invoke()
        rows.append(_real(interpreter.get_tensor(end["index"]), end)[0])
    return np.stack(rows)


def _quantized(x: Array, tensor: dict[str, Any]) -> Array:
    scale, zero = tensor["quantization"]
    if not scale:
        return x.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    made: Array = np.clip(np.round(x / scale) + zero, limits.min, limits.max)
    return made.astype(tensor["dtype"])


def _real(x: Array, tensor: dict[str, Any]) -> Array:
    scale, zero = tensor["quantization"]
    return (x.astype(np.float32) - zero) * scale if scale else x


def tree(folder: Path) -> set[str]:
    """List the files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

"""Activations that are functions of the user's own, whatever they are called."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import compress
from compress.distillation.teachers import describe_structure
from compress.model.recording import record_program

ops = keras.ops


def my_function(x: Any) -> Any:
    return x * ops.sigmoid(1.7 * x)


def größe(x: Any) -> Any:
    return ops.tanh(x)


def _private(x: Any) -> Any:
    return ops.relu(x)


class Doubled:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return self.factor * ops.relu(x)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "function": my_function,
    "lambda": lambda x: 2.0 * ops.relu(x),
    "no ASCII": größe,
    "private": _private,
    "object": Doubled(),
    "partial": partial(keras.activations.leaky_relu, negative_slope=0.3),
}


def net(function: Any) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation=function, name="hidden")(inputs)
    x = keras.layers.Activation(function, name="again")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("object", "lambda") else pytest.mark.slow)
     for name in FUNCTIONS],
)  # fmt: skip
def test_it_stays_in_floats_and_the_file_is_made(name: str, tmp_path: Path) -> None:
    function = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    y = np.arange(120) % 3
    model = net(function)
    trains = name == "object"
    made = compress.quantize(model, (x, y) if trains else x, epochs=1 if trains else 0)
    floats = {call.layer for call in made.placed if call.reason}
    assert floats == {"hidden", "again"}
    files = [*made.export(tmp_path / "m.tflite"), *made.export(tmp_path / "m.onnx")]
    assert min(file.agreement for file in files) > 0.999
    # beside the model itself: rounding moves probabilities by no more than some steps of 1/256
    moved = np.abs(np.asarray(made.quantized(x)) - np.asarray(made.model(x))).max()
    assert moved < 0.05


def test_what_keras_cannot_serialize_tells_two_teachers_apart() -> None:
    one, same, other = (
        describe_structure(record_program(net(Doubled(f)))) for f in (2.0, 2.0, 2.0)
    )
    assert one == same == other
    slopes = [partial(keras.activations.leaky_relu, negative_slope=s) for s in (0.3, 0.3, 0.1)]
    one, same, other = (describe_structure(record_program(net(slope))) for slope in slopes)
    assert one == same
    assert one != other


@pytest.mark.slow
def test_the_command_line_takes_a_model_with_a_function_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_activations.py").write_text(
        "import keras\n\n\n"
        "@keras.saving.register_keras_serializable()\n"
        "def my_function(x):\n"
        "    return x * keras.ops.sigmoid(1.7 * x)\n"
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=x[:, :3].argmax(-1))
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("my_activations").my_function
    layers = [
        keras.Input((6,)), keras.layers.Dense(8, activation=function),
        keras.layers.Dense(3, activation="softmax"),
    ]  # fmt: skip
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, x[:, :3].argmax(-1), epochs=10, verbose=0)
    model.save(tmp_path / "net.keras")
    command = (
        "compress", "net.keras", "--data", "rows.npz", "--plugins", "my_activations",
        "--sparsity", "0", "--finetune-epochs", "0", "--formats", "float32,int8-qat",
        "--qat-epochs", "0", "--latency-budget", "0.3", "--normalize", "none",
        "--device", "cpu", "--out", "out",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "paretune", *command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (about,) = (
        json.loads(p.read_text()) for p in (tmp_path / "out" / "exports").glob("net-*.json")
    )
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in about["files"]} == {
        "float32", "int8-qat",
    }  # fmt: skip

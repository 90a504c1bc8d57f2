"""Loading, saving and copying models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import load_model
from compress.core.errors import InputError
from compress.model.copies import copy_model
from compress.model.io import save_model

X = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)


def test_round_trip(tmp_path: Path, small_cnn: Callable[..., Any]) -> None:
    model = small_cnn()
    save_model(model, tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(X).numpy(), model(X).numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_copies_are_equal_and_apart(kind: str, small_cnn: Callable[..., Any]) -> None:
    import keras

    model = small_cnn()
    if kind == "sequential":
        layers = [keras.layers.Flatten(), keras.layers.Dense(10, name="d")]
        model = keras.Sequential([keras.Input((8, 8, 1), name="image"), *layers])
    copy = copy_model(model)
    np.testing.assert_array_equal(copy(X).numpy(), model(X).numpy())
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    before = model(X).numpy()
    for weight in copy.weights:
        weight.assign(weight + 1.0)
    np.testing.assert_array_equal(model(X).numpy(), before)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.keras"):
        load_model(tmp_path / "m.txt")
    with pytest.raises(InputError, match="m.pb', a file of TensorFlow 1: a graph of operations"):
        load_model(tmp_path / "m.pb")
    with pytest.raises(InputError, match="must exist"):
        load_model(tmp_path / "m.keras")
    (tmp_path / "m.keras").write_bytes(b"nothing")
    with pytest.raises(InputError, match="Keras 3 must be able to read"):
        load_model(tmp_path / "m.keras")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.save(tmp_path / "m.keras")
    with pytest.raises(InputError, match=r"Lambda|lambda"):
        load_model(tmp_path / "m.keras")


def saved(path: Path, *layers: Any, shape: tuple[int, ...] | None = (4, 4, 3)) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    first = [] if shape is None else [keras.Input(shape)]
    model = keras.Sequential([*first, *layers])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an unbuilt model is saved
        model.save(path)
    return path


def test_models_that_nothing_can_be_fed_to(tmp_path: Path) -> None:
    import keras

    path = saved(tmp_path / "m.keras", keras.layers.Dense(3), shape=None)
    with pytest.raises(InputError, match=r"m\.keras' must have inputs.*keras\.Input"):
        load_model(path)
    saved(path, keras.layers.Flatten(), shape=(0, 4, 3))
    with pytest.raises(InputError, match=r"at least one number.*shape \(None, 0, 4, 3\)"):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("weight", "value", "message"),
    [
        ("moving_variance", -0.5, r"Variances .* at least 0. Received: -0.5 .* layer 'norm'"),
        ("moving_mean", np.nan, r"must be numbers. Received: NaN in 'moving_mean' of layer 'norm'"),
        ("kernel", np.nan, r"Received: NaN in 'kernel' of layer 'conv'"),
    ],
)
def test_weights_that_make_every_output_nan(
    suffix: str, weight: str, value: float, message: str, tmp_path: Path
) -> None:
    import keras

    layers = [keras.layers.Conv2D(2, 1, name="conv"), keras.layers.BatchNormalization(name="norm")]
    path = saved(tmp_path / f"m{suffix}", *layers)
    assert load_model(path).name
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
    (variable,) = (item for item in model.weights if item.name == weight)
    spoilt = np.array(variable)
    spoilt.flat[1] = value
    variable.assign(spoilt)
    model.save(path)
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_a_model_in_bfloat16_is_looked_at_too(tmp_path: Path) -> None:
    import keras

    path = saved(tmp_path / "m.keras", keras.layers.Dense(2, dtype="bfloat16"), shape=(3,))
    assert load_model(path).count_params() == 8


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damage_at_many_places(suffix: str, tmp_path: Path) -> None:
    """A bit flip or a cut ends in a model or in our error, never in another."""
    import keras

    path = saved(tmp_path / f"m{suffix}", keras.layers.Dense(2, name="d"))
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(broken[: len(whole) if rng.random() < 0.5 else rng.integers(len(whole))])
        try:
            load_model(path)
        except InputError:
            refused += 1
    assert refused > 20

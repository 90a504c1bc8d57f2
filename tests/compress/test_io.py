"""Loading, saving and copying models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import load_model
from compress.errors import InputError
from compress.io import copy_model, save_model

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

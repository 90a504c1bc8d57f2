"""Activations counted by hand, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.core import memory_budget
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget
from compress.model.activations import count_activation_bytes, find_batch_size, run_in_batches
from compress.model.recording import record_program


@pytest.fixture
def budget_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the budget, of which nothing is occupied."""

    def use(size: int) -> None:
        monkeypatch.setattr(memory_budget, "_current", MemoryBudget(size, is_user_set=True))
        monkeypatch.setattr(MemoryBudget, "measure_free_bytes", lambda self: self.bytes)

    return use


def branched() -> Any:
    """A residual block: 8 x 8 x 4 in, 8 x 8 x 16 inside, pooled to 4."""
    import keras

    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(16, 3, padding="same")(inputs)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(4, 1)(x)
    x = keras.layers.Add()([x, inputs])
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def test_by_hand() -> None:
    found = count_activation_bytes(branched())
    small, large = 4 * 8 * 8 * 4, 4 * 8 * 8 * 16
    # the input waits for the addition while convolution and ReLU have both their tensors
    assert found.live == small + 2 * large
    assert found.total == 3 * small + 2 * large + 4 * 4


def test_open_sizes_and_a_fixed_batch() -> None:
    import keras

    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    assert count_activation_bytes(model, [(33, 33, 3)]).total == 4 * (33 * 33 * 3 + 16 * 16 * 8 + 8)
    fixed = keras.Input(batch_shape=(5, 10))
    assert count_activation_bytes(keras.Model(fixed, keras.layers.Dense(2)(fixed))).total == 48


def test_attention_counts_its_scores() -> None:
    import keras

    inputs = keras.Input((50, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    scores, projected = 2 * 2 * 50 * 50, 2 * 8 * (50 + 50)
    assert count_activation_bytes(model).total == 4 * (scores + projected + 2 * 50 * 8)


def test_mixed_precision_takes_half() -> None:
    import keras

    inputs = keras.Input((10,))
    model = keras.Model(inputs, keras.layers.Dense(6, dtype="mixed_bfloat16")(inputs))
    assert count_activation_bytes(model).total == 4 * 10 + 2 * 6


def test_examples_and_outputs_follow(budget_of: Any) -> None:
    model = branched()
    program = record_program(model)
    x = np.random.default_rng(0).normal(size=(37, 8, 8, 4)).astype(np.float32)
    wanted = np.asarray(model(x))
    budget_of(10**9)
    assert find_batch_size(model, 37) == 37
    budget_of(2 * 10 * 14_000)  # an example takes 1.5 x 9,216 bytes; half is planned with
    assert find_batch_size(model, 37) == 8
    assert find_batch_size(model, 37, copies=2) == 4
    assert find_batch_size(model, 37, keeps_all=True) == 8
    np.testing.assert_allclose(run_in_batches(program, [x])[0], wanted, rtol=1e-5, atol=1e-6)
    budget_of(10_000)
    with pytest.raises(InputError, match="memory must be at least"):
        find_batch_size(model, 37)

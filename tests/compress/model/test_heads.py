"""Whether a head answers probabilities is found by inputs that the model can read."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from compress.data.tasks import create_task
from compress.model.heads import is_probability_output


def test_indices_are_looked_up_where_there_are_some() -> None:
    """Tokens come as floats by default; random numbers would be no rows of the table."""
    for activation, expected in ((None, False), ("softmax", True)):
        model = keras.Sequential(
            [
                keras.Input((20,)),
                layers.Embedding(50, 8),
                layers.GlobalAveragePooling1D(),
                layers.Dense(2, activation=activation),
            ]
        )
        assert is_probability_output(model, create_task("multiclass", 2)) is expected


def test_open_sizes_are_large_enough_for_strides() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 7, strides=4)(inputs)
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(8, 5, strides=4)(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert not is_probability_output(model, create_task("multiclass", 2))
    assert np.asarray(model(np.zeros((1, 64, 64, 3)))).shape == (1, 2)
    # a cropping has words of its own for it
    x = layers.Cropping2D(5)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    assert not is_probability_output(model, create_task("multiclass", 2))

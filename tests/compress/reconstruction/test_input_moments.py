"""What kernels read: the moments of one pass equal those of the layer's own inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.model.program import flatten_program
from compress.model.recording import record_program
from compress.reconstruction.input_moments import collect_input_moments


def test_what_kernels_read_is_seen_once() -> None:
    keras.utils.set_random_seed(0)
    model: Any = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(8, 3, activation="relu", name="first"),
            keras.layers.Conv2D(12, 3, use_bias=False, name="middle"),
            keras.layers.BatchNormalization(),
        ]
    )
    x = np.random.default_rng(0).normal(size=(300, 8, 8, 2)).astype(np.float32)
    seen = collect_input_moments(flatten_program(record_program(model)), [x], samples=10**6)
    middle = seen[id(model.get_layer("middle").kernel)]
    given = keras.Model(model.inputs[0], model.get_layer("first").output)(x).numpy()
    assert middle.moments.count == len(x) * 4 * 4
    # the centre of a 3 x 3 patch runs over all positions but the outer ones
    centre = given[:, 1:-1, 1:-1].reshape(-1, 8).astype(np.float64)
    columns = slice(4 * 8, 5 * 8)
    np.testing.assert_allclose(
        middle.compute_covariance()[columns, columns],
        np.cov(centre.T, bias=True),
        rtol=1e-4,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    ("between", "passes"),
    [
        (keras.layers.Dropout(0.1), True),
        (keras.layers.SpatialDropout2D(0.1), True),
        (keras.layers.GaussianDropout(0.1), True),
        (keras.layers.GaussianNoise(0.1), True),
        (keras.layers.Identity(), True),
        (keras.layers.MaxPooling2D(), True),
        (keras.layers.AveragePooling2D(2), True),
        (keras.layers.UpSampling2D(), True),
        (keras.layers.GlobalAveragePooling2D(), True),
        (keras.layers.GlobalMaxPooling2D(), True),
        (keras.layers.AlphaDropout(0.1), False),
        (keras.layers.ActivityRegularization(0.1), False),
        (keras.layers.RandomFlip(), False),
        (keras.layers.ReLU(), False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else None,
)
def test_where_a_shift_reaches_a_normalization(between: Any, passes: bool) -> None:
    model: Any = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, use_bias=False, name="first"),
            between,
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype(np.float32)
    absorbers = collect_input_moments(flatten_program(record_program(model)), [x])[
        id(model.get_layer("first").kernel)
    ].absorbers
    if not passes:
        assert absorbers is None
        return
    assert absorbers is not None
    assert [item.layer.name for item in absorbers] == ["norm"]

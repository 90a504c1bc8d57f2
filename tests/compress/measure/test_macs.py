"""Counts against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import pytest

from compress.errors import InputError
from compress.measure import count_macs, macs


def test_formulas_by_hand() -> None:
    assert macs.dense(1, 128, 10) == 1280
    # 32 x 32 outputs, 3 x 3 x 16 products for each of 64 filters
    assert macs.convolution((32, 32), (3, 3), 16, 64) == 32 * 32 * 3 * 3 * 16 * 64
    assert macs.convolution((32, 32), (3, 3), 16, 64, groups=4) == 32 * 32 * 3 * 3 * 4 * 64
    assert macs.transposed_convolution((8,), (4,), 3, 5) == 8 * 4 * 3 * 5
    assert macs.depthwise_convolution((7, 7), (5, 5), 12, 2) == 7 * 7 * 25 * 24
    assert macs.einsum("abc,cd->abd", (1, 5, 6), (6, 7)) == 5 * 6 * 7
    with pytest.raises(ValueError, match="no ellipsis"):
        macs.einsum("...c,cd->...d", (1, 5), (5, 2))


def layer_macs(layer: Any, shape: tuple[int, ...]) -> int:
    import keras

    inputs = keras.Input(shape)
    analysis = count_macs(keras.Model(inputs, layer(inputs)))
    assert analysis.unsupported == ()
    return analysis.macs


def test_layers_by_hand() -> None:
    from keras import layers as L

    assert layer_macs(L.Conv2D(8, 3), (10, 10, 4)) == 8 * 8 * 9 * 4 * 8
    assert layer_macs(L.Conv2D(8, 3, strides=2, padding="same"), (10, 10, 4)) == 25 * 9 * 4 * 8
    assert layer_macs(L.Conv2D(8, 3, groups=2), (10, 10, 4)) == 64 * 9 * 2 * 8
    assert layer_macs(L.Conv2D(8, (3, 1), dilation_rate=(2, 1)), (10, 10, 4)) == 60 * 3 * 4 * 8
    assert layer_macs(L.Conv1D(6, 5), (20, 3)) == 16 * 5 * 3 * 6
    assert layer_macs(L.Conv3D(2, 2), (4, 4, 4, 3)) == 27 * 8 * 3 * 2
    assert layer_macs(L.Conv2DTranspose(5, 2, strides=2), (3, 3, 4)) == 9 * 4 * 4 * 5
    assert layer_macs(L.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 6)) == 9 * 9 * 12
    depthwise, pointwise = 9 * 9 * 6, 9 * 6 * 7
    assert layer_macs(L.SeparableConv2D(7, 3), (5, 5, 6)) == depthwise + pointwise
    assert layer_macs(L.Dense(7), (5, 6)) == 5 * 6 * 7
    assert layer_macs(L.EinsumDense("abc,cd->abd", (5, 7)), (5, 6)) == 5 * 6 * 7


def test_channels_first_counts_the_same() -> None:
    from keras import layers as L

    layer = L.Conv2D(8, 3, data_format="channels_first")
    assert layer_macs(layer, (4, 10, 10)) == 8 * 8 * 9 * 4 * 8


def test_nested_and_shared_layers() -> None:
    import keras

    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="d")], name="inner")
    shared = keras.layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    analysis = count_macs(model)
    assert analysis.macs == 36 + 36 + 30
    assert analysis.params == (36 + 6) + (30 + 5)
    assert analysis.params == model.count_params()
    assert [layer.name for layer in analysis.layers] == ["shared", "shared", "inner/d"]


def test_a_mobilenet_like_total() -> None:
    """MobileNetV2 1.0 at 224: 300 M multiply-adds (Sandler et al. 2018, table 4)."""
    import keras

    analysis = count_macs(keras.applications.MobileNetV2(weights=None))
    assert analysis.unsupported == ()
    assert analysis.macs == pytest.approx(300e6, rel=0.01)


def test_nonzero_parameters(small_cnn: Any) -> None:
    model = small_cnn()
    kernel = model.get_layer("mid").kernel.numpy()
    kernel[:, :, :, :4] = 0.0
    model.get_layer("mid").kernel.assign(kernel)
    row = next(layer for layer in count_macs(model).layers if layer.name == "mid")
    assert (row.params, row.nonzero) == (9 * 8 * 16, 9 * 8 * 12)


def test_what_cannot_be_counted_is_named() -> None:
    import keras

    inputs = keras.Input((5, 6))
    x = keras.layers.LSTM(4, name="memory")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    analysis = count_macs(model)
    assert analysis.unsupported == ("memory (LSTM): no counting rule for this class",)
    assert analysis.macs == 8
    open_size = keras.Input((None, None, 3))
    analysis = count_macs(keras.Model(open_size, keras.layers.Conv2D(4, 3, name="c")(open_size)))
    assert analysis.unsupported[0].startswith("c (Conv2D): an input size is unknown")


def test_a_subclassed_model_is_refused() -> None:
    import keras

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(InputError, match="must be functional"):
        count_macs(Own(name="own"))

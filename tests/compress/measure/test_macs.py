"""Counts against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.measure import count_macs
from compress.measure.rules import OPERATION_RULES, RULES, count_einsum, count_matmul
from compress.model.layers import CLASSES, TRAITS, UNCOUNTED


def test_formulas_by_hand() -> None:
    assert count_einsum("abc,cd->abd", (1, 5, 6), (6, 7)) == 5 * 6 * 7
    assert count_einsum("...c,cd->...d", (3, 4, 5), (5, 2)) == 3 * 4 * 5 * 2
    with pytest.raises(ValueError, match="two operands"):
        count_einsum("ab,bc,cd->ad", (1, 5), (5, 2), (2, 3))
    assert count_matmul((2, 1, 4, 5), (3, 5, 6)) == 2 * 3 * 4 * 5 * 6
    assert count_matmul((5,), (5, 6)) == 30


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


def test_positions_in_the_first_axis_count() -> None:
    """A Reshape may fold positions into the batch, a Transpose put another axis first."""
    import keras
    from keras import layers as L
    from keras import ops

    inputs = keras.Input((4, 6))
    rows = ops.relu(L.Dense(5)(ops.reshape(inputs, (-1, 6))))
    back = ops.reshape(rows, (-1, 4, 5))
    turned = L.Dense(3)(ops.transpose(back, (1, 0, 2)))
    gone = L.Dense(2)(ops.transpose(turned, (1, 0, 2)))
    analysis = count_macs(keras.Model(inputs, gone))
    assert analysis.macs == 4 * 6 * 5 + 4 * 5 * 3 + 4 * 3 * 2
    assert analysis.layers[2].other_ops == 4 * 5  # the relu


def test_a_fixed_batch_counts_as_one_example() -> None:
    import keras
    from keras import layers as L

    one = keras.Input(batch_shape=(13, 4, 6))
    two = keras.Input(batch_shape=(13, 5, 6))
    dotted = L.Dot(axes=2)([L.Dense(6)(one), two])
    analysis = count_macs(keras.Model([one, two], dotted))
    assert analysis.macs == 4 * 6 * 6 + 4 * 5 * 6
    assert analysis.layers[-1].output_shape == (4, 5)


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

    inputs = keras.Input((8, 8))
    x = keras.ops.inv(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    analysis = count_macs(model)
    assert len(analysis.unsupported) == 1
    assert "(Inv): a matrix decomposition or solver" in analysis.unsupported[0]
    assert analysis.macs == 8 * 8 * 2


def test_unknown_sizes_are_asked_for() -> None:
    import keras

    open_size = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="c")(open_size)
    x = keras.layers.UpSampling2D()(x)
    x = keras.layers.Conv2D(5, 1, name="d")(x)
    model = keras.Model(open_size, keras.layers.GlobalAveragePooling2D()(x))
    analysis = count_macs(model)
    assert analysis.unsupported[0].startswith("c (Conv2D): an input size is unknown")
    assert "--input-shape" in analysis.unsupported[0]
    assert analysis.peak_bytes is None
    analysis = count_macs(model, (10, 6, 3))
    assert analysis.unsupported == ()
    assert analysis.macs == 5 * 3 * 27 * 4 + 10 * 6 * 4 * 5
    # the model keeps its open size
    assert count_macs(model, (20, 6, 3)).macs == 10 * 3 * 27 * 4 + 20 * 6 * 4 * 5
    for wrong in ((10, 6, 4), (10, 6), ((10, 6, 3), (10, 6, 3))):
        with pytest.raises(InputError, match="input_shape must"):
            count_macs(model, wrong)


def test_subclassed_models_and_composite_layers_are_opened() -> None:
    import keras

    class Block(keras.layers.Layer):
        def __init__(self, width: int, **given: Any) -> None:
            super().__init__(**given)
            self.a, self.b = keras.layers.Dense(width), keras.layers.Dense(3)

        def build(self, shape: Any) -> None:
            self.a.build(shape)
            self.b.build((*shape[:-1], self.a.units))

        def call(self, x: Any) -> Any:
            return keras.ops.relu(self.b(self.a(x)))

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.block = Block(7, name="block")

        def call(self, x: Any) -> Any:
            return self.block(x) + self.block(x * 2.0)

    own = Own()
    own(np.zeros((2, 3), np.float32))
    analysis = count_macs(own)
    assert analysis.unsupported == ()
    assert analysis.macs == 2 * (3 * 7 + 7 * 3)
    assert analysis.params == 3 * 7 + 7 + 7 * 3 + 3
    with pytest.raises(InputError, match="must be built before"):
        count_macs(Own())

    class Opaque(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 4))

        def call(self, x: Any) -> Any:
            return x @ self.kernel

    inputs = keras.Input((3,))
    analysis = count_macs(keras.Model(inputs, Opaque(name="opaque")(inputs)))
    assert analysis.unsupported[0].startswith("opaque (Opaque): it owns weights itself")


def test_recurrent_and_attention_layers_by_hand() -> None:
    from keras import layers as L

    assert layer_macs(L.LSTM(4), (5, 6)) == 5 * 4 * (6 * 4 + 4 * 4)
    assert layer_macs(L.GRU(4, return_sequences=True), (5, 6)) == 5 * 3 * (6 * 4 + 4 * 4)
    assert layer_macs(L.Bidirectional(L.SimpleRNN(4)), (5, 6)) == 2 * 5 * (6 * 4 + 4 * 4)
    cells = L.RNN([L.LSTMCell(3), L.GRUCell(2)])
    assert layer_macs(cells, (5, 6)) == 5 * (4 * (6 * 3 + 9) + 3 * (3 * 2 + 4))
    inner = L.TimeDistributed(L.Conv2D(2, 3, padding="same"))
    assert layer_macs(inner, (4, 5, 6, 3)) == 4 * 30 * 27 * 2
    lstm = L.ConvLSTM2D(2, 3, padding="same", return_sequences=True)
    assert layer_macs(lstm, (4, 5, 6, 3)) == 4 * 4 * 30 * 9 * (3 * 2 + 2 * 2)
    assert layer_macs(L.SpectralNormalization(L.Dense(4)), (6,)) == 24


def attention_macs(layer: Any, *shapes: tuple[int, ...], **given: Any) -> int:
    import keras

    inputs = [keras.Input(shape) for shape in shapes]
    analysis = count_macs(keras.Model(inputs, layer(*inputs, **given)))
    assert analysis.unsupported == ()
    return analysis.macs


def test_attention_by_hand() -> None:
    import keras
    from keras import layers as L

    # 5 queries of 6, 7 keys and values of 8; 2 heads of 3 (keys) and 4 (values); output of 6
    projections = 5 * 6 * 2 * 3 + 7 * 8 * 2 * 3 + 7 * 8 * 2 * 4 + 5 * 2 * 4 * 6
    between = 2 * 5 * 7 * 3 + 2 * 5 * 7 * 4
    layer = L.MultiHeadAttention(2, 3, value_dim=4)
    assert attention_macs(layer, (5, 6), (7, 8)) == projections + between
    grouped = L.GroupQueryAttention(3, 4, 2)
    projections = 5 * 6 * 4 * 3 + 2 * (7 * 6 * 2 * 3) + 5 * 4 * 3 * 6
    assert attention_macs(grouped, (5, 6), (7, 6)) == projections + 4 * 5 * 7 * (3 + 3)
    inputs = [keras.Input((5, 6)), keras.Input((7, 6))]
    luong = keras.Model(inputs, L.Attention()(inputs))
    assert count_macs(luong).macs == 5 * 7 * (6 + 6)
    additive = keras.Model(inputs, L.AdditiveAttention()(inputs))
    assert count_macs(additive).macs == 5 * 7 * 6
    dot = keras.Model(inputs, L.Dot(axes=2)(inputs))
    assert count_macs(dot).macs == 5 * 7 * 6


def test_raw_operations_by_hand() -> None:
    import keras
    from keras import ops

    def raw(function: Any, *shapes: tuple[int, ...]) -> int:
        inputs = [keras.Input(shape) for shape in shapes]
        analysis = count_macs(keras.Model(inputs, function(*inputs)))
        assert analysis.unsupported == ()
        return analysis.macs

    table = np.ones((6, 7), np.float32)
    assert raw(lambda x: ops.matmul(x, table), (5, 6)) == 5 * 6 * 7
    assert raw(lambda x: ops.dot(x, table), (5, 6)) == 5 * 6 * 7
    assert raw(ops.matmul, (4, 5, 6), (4, 6, 3)) == 4 * 5 * 6 * 3
    assert raw(lambda x, y: ops.einsum("bij,bkj->bik", x, y), (5, 6), (7, 6)) == 5 * 6 * 7
    assert raw(lambda x: ops.tensordot(x, table, axes=1), (5, 6)) == 5 * 6 * 7
    kernel = np.ones((3, 3, 4, 8), np.float32)
    assert raw(lambda x: ops.conv(x, kernel, padding="valid"), (10, 10, 4)) == 64 * 36 * 8
    each = np.ones((3, 3, 4, 2), np.float32)
    assert raw(lambda x: ops.depthwise_conv(x, each, padding="valid"), (10, 10, 4)) == 64 * 9 * 8
    up = np.ones((2, 2, 5, 4), np.float32)
    assert raw(lambda x: ops.conv_transpose(x, up, 2), (3, 3, 4)) == 9 * 4 * 4 * 5
    both = raw(ops.dot_product_attention, (5, 2, 3), (7, 2, 3), (7, 2, 4))
    assert both == 2 * 5 * 7 * (3 + 4)


def test_elementwise_work_memory_and_bytes_by_hand() -> None:
    """Input 8 x 8 x 1, 3 x 3 convolution to 4, ReLU, added to itself, pooled, dense."""
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="c")(inputs)
    y = keras.layers.ReLU(name="r")(x)
    z = keras.layers.MaxPooling2D(2, name="p")(keras.layers.Add(name="a")([x, y]))
    z = keras.layers.BatchNormalization(name="n")(z)
    model = keras.Model(inputs, keras.layers.Dense(3, name="d")(keras.layers.Flatten()(z)))
    analysis = count_macs(model)
    found = {layer.name: layer for layer in analysis.layers}
    others = {name: found[name].other_ops for name in "crapnd"}
    assert others == {"c": 0, "r": 256, "a": 256, "p": 64 * 4, "n": 2 * 64, "d": 0}
    assert analysis.other_ops == 256 + 256 + 256 + 128
    assert found["c"].bytes_moved == 4 * (64 + 256 + 36)
    assert found["d"].bytes_moved == 4 * (64 + 3 + 64 * 3 + 3)
    # at the addition: both branches and the sum
    assert analysis.peak_bytes == 4 * 3 * 256
    assert analysis.by_class() == {"Conv2D": 64 * 9 * 4, "Dense": 64 * 3}


def test_every_class_that_keras_ships_has_a_place() -> None:
    """Counted, elementwise, or refused with a reason; a new Keras must not slip through."""
    import importlib
    import inspect
    import pkgutil

    import keras
    import keras.src.ops
    from keras.src.ops.operation import Operation

    classes = [item for _, item in inspect.getmembers(keras.layers, inspect.isclass)]
    for module in pkgutil.iter_modules(keras.src.ops.__path__):
        if not module.name.endswith("_test"):
            loaded = importlib.import_module(f"keras.src.ops.{module.name}")
            members = inspect.getmembers(loaded, inspect.isclass)
            classes += [item for _, item in members if item.__module__ == loaded.__name__]
    # bases, and what is opened: wrappers of the user's own code or layers
    opened = {"Layer", "Wrapper", "Operation", "Function", "Lambda", "Pipeline", "Dot"}
    shipped = {item.__name__ for item in classes if issubclass(item, Operation)} - opened
    assert len(shipped) > 400
    assert shipped - {name for name, row in CLASSES.items() if row.work} == set()


def test_rows_name_rules_or_reasons_and_known_traits() -> None:
    works = {row.work for row in CLASSES.values()} - UNCOUNTED - {""}
    rules = {*RULES, *OPERATION_RULES}
    assert not set(RULES) & set(OPERATION_RULES)
    assert rules <= works
    assert all(" " in reason for reason in works - rules)
    assert frozenset().union(*(row.traits for row in CLASSES.values())) == set(TRAITS)


def test_layers_of_keras_applications_have_a_place_too() -> None:
    """ConvNeXt brings a class of its own, with weights that scale channels."""
    import keras

    analysis = count_macs(keras.applications.ConvNeXtTiny(weights=None))
    assert analysis.unsupported == ()
    scale = next(layer for layer in analysis.layers if layer.kind == "LayerScale")
    assert (scale.macs, scale.other_ops) == (0, 56 * 56 * 96)


def test_counting_is_quick_and_runs_nothing() -> None:
    """Nothing is computed: weights are only looked at for zeros."""
    from unittest import mock

    import keras

    model = keras.applications.MobileNetV2(weights=None)
    with mock.patch.object(
        keras.layers.Conv2D, "call", side_effect=AssertionError("a forward pass")
    ):
        assert count_macs(model).unsupported == ()

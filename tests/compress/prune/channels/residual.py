"""Networks with residual branches, and random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tests.compress.prune.channels.generator import ANY, IMAGES, Rng, pick


def classifier(inputs: Any, x: Any) -> Any:
    """Pools an image or a sequence and ends in three logits."""
    pool = layers.GlobalAveragePooling2D if len(x.shape) == 4 else layers.GlobalAveragePooling1D
    return keras.Model(inputs, layers.Dense(3, name="head")(pool()(x)))


def inverted_residuals() -> Any:
    """MobileNetV2 in small: strided and widening blocks have no shortcut."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    for name, width, stride in (("a", 8, 1), ("b", 12, 2), ("c", 12, 1)):
        y = layers.Conv2D(3 * x.shape[-1], 1, use_bias=False, name=f"{name}_expand")(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization(name=f"{name}_bn1")(y))
        y = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"{name}_dw")(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization(name=f"{name}_bn2")(y))
        y = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(y)
        y = layers.BatchNormalization(name=f"{name}_bn3")(y)
        x = layers.Add(name=f"{name}_add")([x, y]) if stride == 1 else y
    return classifier(inputs, x)


def convnext() -> Any:
    """ConvNeXt in small, with its layer scale as a product with an array, and dropped paths."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 2, 2, name="stem")(inputs)
    for name in ("a", "b"):
        y = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_dw")(x)
        y = layers.LayerNormalization(epsilon=1e-3, name=f"{name}_norm")(y)
        y = layers.Dense(24, activation="gelu", name=f"{name}_up")(y)
        y = layers.Dense(8, name=f"{name}_down")(y)
        y = y * np.linspace(0.5, 1.5, 8).astype(np.float32)
        x = x + layers.Dropout(0.1, noise_shape=(None, 1, 1, 1))(y)
    return classifier(inputs, layers.LayerNormalization(epsilon=1e-3)(x))


def transformer(parallel: bool = False) -> Any:
    """A small ViT: attention and MLP one after the other, or both of one normalization."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, 2, name="patches")(inputs))
    for name in ("a", "b"):
        norm = layers.LayerNormalization(epsilon=1e-3, name=f"{name}_norm")(x)
        attended = layers.MultiHeadAttention(2, 4, name=f"{name}_heads")(norm, norm)
        if parallel:
            x, y = x + attended, norm
        else:
            x = layers.Add(name=f"{name}_attended")([x, attended])
            y = layers.LayerNormalization(epsilon=1e-3, name=f"{name}_norm2")(x)
        y = layers.Dense(12, activation="gelu", name=f"{name}_up")(y)
        x = layers.Add(name=f"{name}_mlp")([x, layers.Dense(8, name=f"{name}_down")(y)])
    return classifier(inputs, x)


def preactivated() -> Any:
    """A pre-activation ResNet: the first block of a stage has a projection of the activation."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for name, width, stride in (("a", 8, 1), ("b", 12, 2), ("c", 12, 1)):
        before = layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn1")(x))
        shortcut = x
        if stride > 1:
            shortcut = layers.Conv2D(width, 1, stride, name=f"{name}_projection")(before)
        y = layers.Conv2D(width, 3, stride, "same", name=f"{name}_conv1")(before)
        y = layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn2")(y))
        y = layers.Conv2D(width, 3, padding="same", name=f"{name}_conv2")(y)
        x = layers.Add(name=f"{name}_add")([shortcut, y])
    return classifier(inputs, x)


def three_operands() -> Any:
    """One sum of an identity and two branches."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    one = layers.Dense(8, activation="tanh", name="one")(x)
    two = layers.Dense(8, name="two")(layers.Dense(4, activation="relu", name="inside")(x))
    return classifier(inputs, layers.Add(name="sum")([one, x, two]))


def within_each_other() -> Any:
    """A block whose branch holds two blocks."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    y = layers.Dense(6, activation="relu", name="down")(x)
    for name in ("a", "b"):
        y = layers.Add(name=f"{name}_add")(
            [y, layers.Dense(6, activation="tanh", name=f"{name}_dense")(y)]
        )
    y = layers.Dense(8, name="up")(y)
    return classifier(inputs, layers.Add(name="outer")([x, y]))


def body(name: str, width: int = 8, steps: int = 6) -> Any:
    """A model of one block, whose sum is its output."""
    inputs = keras.Input((steps, width))
    y = layers.Dense(5, activation="relu", name=f"{name}_down")(inputs)
    y = layers.Dense(width, name=f"{name}_up")(y)
    return keras.Model(inputs, layers.Add(name="sum")([inputs, y]), name=name)


def nested() -> Any:
    """A model with a block that is called twice, and one that is the branch of a block."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    twice, once = body("twice"), body("once")
    x = twice(layers.LayerNormalization(epsilon=1e-3)(twice(x)))
    return classifier(inputs, layers.Add(name="outer")([x, once(x)]))


class Residual(layers.Layer):
    """A layer made of layers, opened into them."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.down = layers.Dense(5, activation="relu", name="down")
        self.up = layers.Dense(width, name="up")
        self.sum = layers.Add()

    def build(self, shape: Any) -> None:
        self.down.build(shape)
        self.up.build((*shape[:-1], 5))

    def call(self, x: Any) -> Any:
        return self.sum([x, self.up(self.down(x))])


def opened() -> Any:
    """Two layers that are opened: one is called twice."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    twice = Residual(8, name="twice")
    return classifier(inputs, Residual(8, name="once")(twice(twice(x))))


def in_a_sequence() -> Any:
    """A Sequential of models with a block each."""
    one, two = body("one"), body("two")
    return keras.Sequential(
        [keras.Input((6, 5)), layers.Dense(8), one, layers.ReLU(), two, layers.Dense(3)]
    )


def recurrent() -> Any:
    """Recurrent and bidirectional branches, the latter summed with their input twice."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    x = layers.Add(name="one")([x, layers.LSTM(8, return_sequences=True, name="lstm")(x)])
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")
    x = layers.Add(name="two")([x, x, both(x)])
    return classifier(inputs, x)


def with_a_mask() -> Any:
    """Attention whose mask is computed in raw operations: it leaves with the last of its users."""
    inputs, lengths = keras.Input((6, 5)), keras.Input((6,), name="lengths")
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    allowed = ops.expand_dims(ops.greater(lengths, 0.0), 1)
    for name in ("a", "b"):
        heads = layers.MultiHeadAttention(2, 4, name=f"{name}_heads")
        x = x + heads(x, x, attention_mask=ops.repeat(allowed, 6, axis=1))
    return classifier([inputs, lengths], x)


def transformed() -> Any:
    """A branch in which raw operations multiply what its layers make."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    q, k, v = (layers.Dense(8, name=name)(x) for name in "qkv")
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))) / 3.0)
    return classifier(inputs, ops.add(ops.matmul(scores, v), x))


class Scaled(layers.Layer):
    """A user's layer that its config does not make again: it is copied as it is."""

    def __init__(self, inner: Any) -> None:
        super().__init__(name="scaled")
        self.inner = inner

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(1,), name="factor")

    def call(self, x: Any) -> Any:
        return self.inner(x) * self.factor


def copied() -> Any:
    """A copied layer in the trunk behind a block, and one in a block."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    y = layers.Dense(6, activation="relu", name="down")(x)
    x = x + layers.Dense(8, name="up")(y)
    x = Scaled(layers.Dense(8, name="kept"))(x)
    return classifier(inputs, layers.Add(name="sum")([x, layers.Dense(8, name="last")(x)]))


NETS: dict[str, Callable[[], Any]] = {
    "inverted residuals": inverted_residuals,
    "convnext": convnext,
    "transformer": transformer,
    "parallel transformer": lambda: transformer(parallel=True),
    "preactivated": preactivated,
    "three operands": three_operands,
    "within each other": within_each_other,
    "nested": nested,
    "opened": opened,
    "in a sequence": in_a_sequence,
    "recurrent": recurrent,
    "with a mask": with_a_mask,
    "transformed": transformed,
    "copied": copied,
}


def random_blocks(seed: int, depth: int = 4) -> Any:
    """A chain of residual blocks with templates of the random graphs in their branches."""
    rng = np.random.default_rng(seed)
    keras.backend.clear_session()
    inputs = keras.Input((6, 6, 3), batch_size=5)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    for _ in range(depth):
        x = _block(rng, x, deeper=1)
        if rng.random() < 0.3:
            x = layers.Activation("relu")(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name=f"blocks_{seed}")


def _block(rng: Rng, x: Any, deeper: int) -> Any:
    """Adds one or two branches to a tensor, or to a projection of it."""
    if rng.random() < 0.15:
        inner = keras.Input(batch_shape=x.shape)
        model = keras.Model(inner, _block(rng, inner, 0))
        x, fits = model(x), model.output_shape == model.input_shape
        return model(x) if fits and rng.random() < 0.5 else x
    width = int(rng.choice([8, 12])) if rng.random() < 0.3 else x.shape[-1]
    shortcut = x if width == x.shape[-1] else layers.Conv2D(width, 1)(x)
    start = layers.LayerNormalization(epsilon=1e-2)(x) if rng.random() < 0.4 else x
    branches = [_branch(rng, start, width, deeper) for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.5:
        operands = [shortcut, *branches]
        return layers.Add()([operands[index] for index in rng.permutation(len(operands))])
    for branch in branches:
        shortcut = shortcut + branch if rng.random() < 0.5 else ops.add(branch, shortcut)
    return shortcut


def _branch(rng: Rng, x: Any, width: int, deeper: int) -> Any:
    y = x
    for _ in range(int(rng.integers(1, 3))):
        new = pick(rng, IMAGES if rng.random() < 0.6 else ANY)(rng, y)
        y = new if tuple(new.shape[:3]) == tuple(x.shape[:3]) and len(new.shape) == 4 else y
    if deeper and rng.random() < 0.4:
        y = _block(rng, layers.Conv2D(6, 1, activation="relu")(y), deeper - 1)
    return layers.Conv2D(width, int(rng.choice([1, 3])), padding="same")(y)

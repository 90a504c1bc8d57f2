"""Random functional graphs drawn from all the rules.

A graph grows from four inputs (an image, a sequence, a vector, tokens). Each step applies a
random template to tensors of the kinds that it takes and adds its result to the pool; what is
left in the end is reduced to vectors, joined and classified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Rng = np.random.Generator
Template = Callable[[Rng, Any], Any]

WIDTHS = (4, 6, 8, 12)
ACTIVATIONS = (None, "relu", "tanh", "sigmoid", "gelu", "softplus", "silu", "elu")
VECTOR, SEQUENCE, IMAGE, VOLUME = 2, 3, 4, 5


def width(rng: Rng) -> int:
    """A random number of channels."""
    return int(rng.choice(WIDTHS))


def activation(rng: Rng) -> str | None:
    """A random activation by name."""
    return ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]


def again(rng: Rng, x: Any, **settings: Any) -> Any:
    """A second branch of equal shape: the same channels from other weights."""
    return layers.Dense(x.shape[-1], activation=activation(rng), **settings)(x)


def grouped(rng: Rng, x: Any) -> Any:
    """A grouped convolution behind one that makes the channels divisible."""
    groups = int(rng.choice([2, 4, 8]))
    x = layers.Conv2D(8, 1)(x)
    return layers.Conv2D(8 * int(rng.integers(1, 3)), 3, padding="same", groups=groups)(x)


def shuffled(rng: Rng, x: Any) -> Any:
    """ShuffleNet's channel shuffle in raw operations."""
    x = layers.Conv2D(8, 1)(x)
    _, high, wide, channels = x.shape
    x = ops.reshape(x, (-1, high, wide, 2, channels // 2))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, high, wide, channels))


def squeezed(rng: Rng, x: Any) -> Any:
    """Squeeze and excite in raw operations."""
    gate = ops.mean(x, axis=(1, 2), keepdims=True)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = ops.relu6(layers.Conv2D(x.shape[-1], 1)(gate) + 3.0) * (1 / 6)
    return x * gate


def nested(rng: Rng, x: Any) -> Any:
    """A nested model that is called twice."""
    inner = keras.Input(x.shape[1:])
    y = layers.Dense(x.shape[-1], activation="relu")(inner)
    body = keras.Model(inner, layers.Add()([y, inner]))
    return body(body(x))


def attended_by_hand(rng: Rng, x: Any) -> Any:
    """Attention in raw operations."""
    steps, heads, size = x.shape[1], 2, 4
    parts = [layers.Dense(heads * size)(x) for _ in range(3)]
    q, k, v = (
        ops.transpose(ops.reshape(part, (-1, steps, heads, size)), (0, 2, 1, 3)) for part in parts
    )
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * 0.5)
    y = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
    return ops.reshape(y, (-1, steps, heads * size))


def halves(rng: Rng, x: Any) -> Any:
    """Splits the channels and joins them the other way round."""
    x = layers.Dense(8)(x)
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([second, first, second], axis=-1)


def separate(rng: Rng, x: Any) -> Any:
    """Stacks, unstacks and sums."""
    stacked = ops.stack([x, again(rng, x)], axis=1)
    first, second = ops.unstack(stacked, 2, axis=1)
    return first - second


def option_a(rng: Rng, x: Any) -> Any:
    """A residual whose shortcut is strided and padded with zero channels."""
    y = layers.Conv2D(x.shape[-1] + 4, 3, strides=2, padding="same")(x)
    shortcut = ops.pad(x[:, ::2, ::2, :], ((0, 0), (0, 0), (0, 0), (2, 2)))
    return ops.add(y, shortcut)


def tied(rng: Rng, tokens: Any) -> Any:
    """A table that embeds and, transposed, projects back."""
    table = layers.ReversibleEmbedding(5, 8)
    x = layers.Dense(8, activation="tanh")(table(tokens))
    return table(x, reverse=True)


ANY: dict[str, Template] = {
    "dense": lambda rng, x: layers.Dense(width(rng), activation=activation(rng))(x),
    "einsum dense": lambda rng, x: layers.EinsumDense(
        "...a,ab->...b", width(rng), bias_axes="b"
    )(x),
    "activation": lambda rng, x: layers.Activation(activation(rng) or "linear")(x),
    "leaky relu": lambda rng, x: layers.LeakyReLU()(x),
    "relu": lambda rng, x: layers.ReLU(6.0)(x),
    "prelu": lambda rng, x: layers.PReLU(alpha_initializer="uniform")(x),
    "softmax": lambda rng, x: layers.Softmax()(x),
    "batch normalization": lambda rng, x: layers.BatchNormalization(scale=bool(rng.integers(2)))(x),
    "layer normalization": lambda rng, x: layers.LayerNormalization(epsilon=1e-2)(x),
    "rms normalization": lambda rng, x: layers.RMSNormalization(epsilon=1e-2)(x),
    "unit normalization": lambda rng, x: layers.UnitNormalization()(x * 1.0),
    "group normalization": lambda rng, x: layers.GroupNormalization(
        int(rng.choice([2, 4, 8])), epsilon=1e-2
    )(layers.Dense(8)(x)),
    "spectral normalization": lambda rng, x: layers.SpectralNormalization(
        layers.Dense(width(rng))
    )(x),
    "rescaling": lambda rng, x: layers.Rescaling(
        [0.5 + 0.1 * index for index in range(x.shape[-1])], offset=0.1
    )(x),
    "normalization": lambda rng, x: layers.Normalization(axis=None, mean=0.1, variance=1.5)(x),
    "dropout": lambda rng, x: layers.Dropout(0.5)(x),
    "add": lambda rng, x: layers.Add()([x, again(rng, x)]),
    "maximum": lambda rng, x: layers.Maximum()([x, again(rng, x), again(rng, x)]),
    "multiply": lambda rng, x: layers.Multiply()([x, again(rng, x)]),
    "concatenate": lambda rng, x: layers.Concatenate()([x, again(rng, x)]),
    "nested": nested,
    "ops.arithmetic": lambda rng, x: ops.abs(x) * 0.3 - ops.square(ops.tanh(again(rng, x))) + 0.1,
    "ops.constants": lambda rng, x: ops.add(
        x * rng.normal(size=x.shape[-1]).astype(np.float32), 0.5
    ),
    "ops.where": lambda rng, x: ops.where(ops.greater(x, 0.1), x, again(rng, x)),
    "ops.activations": lambda rng, x: ops.hard_silu(ops.leaky_relu(ops.softplus(x) - 0.5)),
    "ops.softmax": lambda rng, x: ops.softmax(x, axis=-1),
    "ops.glu": lambda rng, x: ops.glu(layers.Dense(8)(x)),
    "ops.split": halves,
    "ops.array split": lambda rng, x: ops.array_split(layers.Dense(8)(x), 3, axis=-1)[0],
    "ops.append": lambda rng, x: ops.append(x, again(rng, x), axis=-1),
    "ops.stack": separate,
    "ops.getitem": lambda rng, x: layers.Dense(8)(x)[..., 2:7],
    "ops.getitem step": lambda rng, x: layers.Dense(8)(x)[..., 1::2],
    "ops.flip": lambda rng, x: ops.flip(x, axis=-1),
    "ops.roll": lambda rng, x: ops.roll(x, 1, axis=-1),
    "ops.repeat": lambda rng, x: ops.repeat(x, 2, axis=-1),
    "ops.pad": lambda rng, x: ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(1, 2)]),
    "ops.expand": lambda rng, x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "ops.sum": lambda rng, x: x + ops.sum(layers.Dense(6)(x), axis=-1, keepdims=True),
    "ops.max": lambda rng, x: x - ops.max(again(rng, x), axis=-1, keepdims=True),
    "ops.average": lambda rng, x: x - ops.expand_dims(ops.average(x, axis=-1), -1),
    "ops.moments": lambda rng, x: x - ops.moments(x, axes=(-1,), keepdims=True)[0],
    "ops.cumsum": lambda rng, x: ops.cumsum(x * 0.2, axis=-1),
    "ops.argsort": lambda rng, x: x + 0.01 * ops.cast(ops.argsort(x, axis=-1), "float32"),
    "ops.top k": lambda rng, x: ops.top_k(layers.Dense(8)(x), 4)[0],
    "ops.normalize": lambda rng, x: ops.normalize(x + 0.5, axis=-1),
    "ops.ravel": lambda rng, x: x + ops.reshape(ops.ravel(x), x.shape),
    "ops.rms normalization": lambda rng, x: ops.rms_normalization(x + 0.5, epsilon=1e-2),
    "ops.take": lambda rng, x: ops.take(x, np.arange(x.shape[-1] - 1), axis=-1),
}  # fmt: skip
VECTORS: dict[str, Template] = {
    "repeat vector": lambda rng, x: layers.RepeatVector(3)(x),
    "reshape": lambda rng, x: layers.Reshape((3, 4))(layers.Dense(12)(x)),
    "ops.reshape": lambda rng, x: ops.reshape(layers.Dense(12)(x), (-1, 3, 4)),
    "ops.tile": lambda rng, x: ops.tile(x, (1, 2)),
    "ops.einsum": lambda rng, x: ops.einsum("ab,ab->ab", x, again(rng, x)),
    "ops.tensordot": lambda rng, x: ops.tensordot(
        layers.Dense(6)(x), rng.normal(size=(6, 5)).astype(np.float32), axes=1
    ),
    "ops.dot": lambda rng, x: ops.dot(
        layers.Dense(6)(x), rng.normal(size=(6, 5)).astype(np.float32)
    ),
}
SEQUENCES: dict[str, Template] = {
    "conv1d": lambda rng, x: layers.Conv1D(width(rng), 2, padding="same")(x),
    "conv1d transpose": lambda rng, x: layers.Conv1DTranspose(width(rng), 2, padding="same")(x),
    "depthwise1d": lambda rng, x: layers.DepthwiseConv1D(2, padding="same", depth_multiplier=2)(x),
    "separable1d": lambda rng, x: layers.SeparableConv1D(width(rng), 2, padding="same")(x),
    "padding1d": lambda rng, x: layers.ZeroPadding1D(1)(x),
    "global average": lambda rng, x: layers.GlobalAveragePooling1D()(x),
    "flatten": lambda rng, x: layers.Flatten()(x),
    "permute": lambda rng, x: layers.Permute((2, 1))(layers.Permute((2, 1))(x)),
    "concatenate steps": lambda rng, x: layers.Concatenate(axis=1)([x, again(rng, x)]),
    "lstm": lambda rng, x: layers.LSTM(width(rng), return_sequences=bool(rng.integers(2)))(x),
    "gru": lambda rng, x: layers.GRU(width(rng), return_sequences=True)(x),
    "rnn": lambda rng, x: layers.RNN(
        [layers.LSTMCell(5), layers.GRUCell(6), layers.SimpleRNNCell(7)]
    )(x),
    "bidirectional": lambda rng, x: layers.Bidirectional(
        layers.GRU(5, return_sequences=True), merge_mode=str(rng.choice(["concat", "sum", "mul"]))
    )(x),
    "time distributed": lambda rng, x: layers.TimeDistributed(layers.Dense(width(rng)))(x),
    "heads": lambda rng, x: layers.MultiHeadAttention(
        int(rng.choice([2, 4])), 4, value_dim=int(rng.choice([4, 6]))
    )(x, again(rng, x)),
    "grouped heads": lambda rng, x: layers.GroupQueryAttention(4, 4, 2)(x, again(rng, x)),
    "attention": lambda rng, x: layers.Attention()([layers.Dense(6)(x), layers.Dense(6)(x)]),
    "additive attention": lambda rng, x: layers.AdditiveAttention()(
        [layers.Dense(6)(x), layers.Dense(6)(x)]
    ),
    "dot": lambda rng, x: layers.Dot((2, 2))([layers.Dense(6)(x), layers.Dense(6)(x)]),
    "by hand": attended_by_hand,
    "ops.attention": lambda rng, x: ops.reshape(
        ops.dot_product_attention(
            *[ops.reshape(layers.Dense(8)(x), (-1, x.shape[1], 2, 4)) for _ in range(3)]
        ),
        (-1, x.shape[1], 8),
    ),
    "ops.mean": lambda rng, x: ops.mean(x, axis=1),
    "ops.swapaxes": lambda rng, x: ops.swapaxes(ops.moveaxis(x, 1, 2), 1, 2),
    "ops.broadcast": lambda rng, x: ops.broadcast_to(
        layers.Dense(8)(ops.mean(x, axis=1, keepdims=True)), (BATCH, x.shape[1], 8)
    ),
    "ops.triangle": lambda rng, x: ops.tril(x),
}  # fmt: skip
IMAGES: dict[str, Template] = {
    "conv2d": lambda rng, x: layers.Conv2D(width(rng), 3, padding="same")(x),
    "conv2d residual": lambda rng, x: layers.Add()(
        [x, layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)]
    ),
    "grouped": grouped,
    "conv2d transpose": lambda rng, x: layers.Conv2DTranspose(width(rng), 2, padding="same")(x),
    "depthwise2d": lambda rng, x: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
    "separable2d": lambda rng, x: layers.SeparableConv2D(width(rng), 3, padding="same")(x),
    "pooling": lambda rng, x: layers.AveragePooling2D(2, padding="same")(x),
    "padding": lambda rng, x: layers.ZeroPadding2D(1)(x),
    "resizing": lambda rng, x: layers.Resizing(4, 4)(x),
    "augmentation": lambda rng, x: layers.RandomFlip()(x),
    "global average": lambda rng, x: layers.GlobalAveragePooling2D()(x),
    "flatten": lambda rng, x: layers.Flatten()(x),
    "reshape": lambda rng, x: layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x),
    "squeeze and excite": squeezed,
    "shuffle": shuffled,
    "option a": option_a,
    "volume": lambda rng, x: ops.expand_dims(x, 1),
    "convolutional lstm": lambda rng, x: layers.ConvLSTM1D(4, 2, padding="same")(x),
    "ops.depth to space": lambda rng, x: ops.depth_to_space(layers.Conv2D(8, 1)(x), 2),
    "ops.space to depth": lambda rng, x: ops.space_to_depth(layers.Resizing(4, 4)(x), 2),
    "ops.window": lambda rng, x: ops.max_pool(x, 2, padding="same"),
    "ops.resize": lambda rng, x: ops.image.resize(x, (4, 4)),
    "ops.transpose": lambda rng, x: ops.transpose(x, (0, 2, 1, 3)),
}
VOLUMES: dict[str, Template] = {
    "conv3d": lambda rng, x: layers.Conv3D(width(rng), 1)(x),
    "conv3d transpose": lambda rng, x: layers.Conv3DTranspose(width(rng), 1)(x),
    "global max": lambda rng, x: layers.GlobalMaxPooling3D()(x),
    "time distributed": lambda rng, x: layers.TimeDistributed(layers.Conv2D(4, 1))(x),
}
TOKENS: dict[str, Template] = {
    "embedding": lambda rng, x: layers.Embedding(5, width(rng))(x),
    "tied": tied,
}
BY_RANK = {VECTOR: VECTORS, SEQUENCE: SEQUENCES, IMAGE: IMAGES, VOLUME: VOLUMES}
LARGEST = 4000
# no width: Keras 3.15's add takes (n, 1) added to (n, n) for a bias of n channels
BATCH = 13


def graph(seed: int, depth: int = 7, *, several: bool = False) -> keras.Model:
    """Builds a random graph of four inputs.

    Args:
        seed: The same seed, the same graph.
        depth: Number of templates applied.
        several: Two to four outputs instead of one: heads on parts of the graph, tensors with
            positions among them, in a dictionary or a list.
    """
    rng = np.random.default_rng(seed)
    keras.backend.clear_session()
    kinds = {"image": (6, 6, 3), "sequence": (4, 5), "vector": (5,)}
    inputs = [keras.Input(shape, name=name, batch_size=BATCH) for name, shape in kinds.items()]
    tokens = keras.Input((4,), dtype="int32", name="tokens", batch_size=BATCH)
    pool = list(inputs)
    pool.append(pick(rng, TOKENS)(rng, tokens))
    # inputs are fixed: a layer with weights first, so that there is something to remove
    pool = [layers.Dense(8, activation=activation(rng))(x) for x in pool]
    for _ in range(depth):
        index = int(rng.integers(len(pool)))
        x = pool[index]
        own = BY_RANK[len(x.shape)]
        y = pick(rng, own if rng.random() < 0.6 else ANY)(rng, x)
        if np.prod(y.shape[1:]) <= LARGEST and len(y.shape) in BY_RANK:
            pool[index] = y
    if several:
        heads = ended(rng, pool)
        outputs: Any = list(heads.values()) if rng.random() < 0.5 else heads
        return keras.Model([*inputs, tokens], outputs, name=f"graph_{seed}")
    vectors = [vector(rng, x) for x in pool]
    x = layers.Concatenate(name="all")(vectors)
    x = layers.Dense(6, activation="tanh", name="mixed")(x)
    return keras.Model([*inputs, tokens], layers.Dense(3, name="head")(x), name=f"graph_{seed}")


def ended(rng: Rng, pool: list[Any]) -> dict[str, Any]:
    """Returns outputs by name: some see one tensor alone, at least one sees all of them."""
    all_of_them = layers.Concatenate(name="all")([vector(rng, x) for x in pool])
    heads = {"class": layers.Dense(3, activation="softmax", name="class")(all_of_them)}
    for place in rng.permutation(len(pool))[: int(rng.integers(1, 4))]:
        x = pool[place]
        if len(x.shape) == IMAGE and rng.random() < 0.5:
            heads[f"pixels_{place}"] = layers.Conv2D(2, 1, name=f"pixels_{place}")(x)
        else:  # at every position of a sequence or an image too
            heads[f"numbers_{place}"] = layers.Dense(2, name=f"numbers_{place}")(x)
    return heads


def pick(rng: Rng, templates: dict[str, Template]) -> Template:
    """Draws a template."""
    return templates[str(rng.choice(list(templates)))]


def vector(rng: Rng, x: Any) -> Any:
    """Reduces a tensor to a vector."""
    if len(x.shape) == VECTOR:
        return x
    if rng.random() < 0.5 and np.prod(x.shape[1:]) < 500:
        return layers.Flatten()(x)
    pool = {
        SEQUENCE: layers.GlobalAveragePooling1D,
        IMAGE: layers.GlobalAveragePooling2D,
        VOLUME: layers.GlobalAveragePooling3D,
    }
    return pool[len(x.shape)]()(x)

"""LSTMs as one operation of LiteRT's instead of a loop of small ones, with the same results.

Keras 3 writes an LSTM as a loop; each step then calls some ten operations, and the calls cost more
than what is computed unless the layer is wide. LiteRT has one operation for the whole sequence
(UNIDIRECTIONAL_SEQUENCE_LSTM), which its converter puts in for a function that says so.

That operation keeps its state from one run to the next: the second example would begin where the
first one ended, unless whoever runs the file resets it, which nobody does. So the sequence gets
one step more, before the first. In it all gates are shut: a feature that is 1 there and 0 in
all other steps has weights that outweigh whatever the state and the bias can add. Behind it the
state is zero, as Keras begins. Only a NaN outlasts it: whoever feeds one makes the interpreter
anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.model.internals import layers_inside

if TYPE_CHECKING:
    import keras

    Array = npt.NDArray[np.float32]

FUSED = ("float32", "float16", "dynamic", "sparse")
"""Formats in which it is exact: of int8 the weights that shut the gates would widen the range."""
SHUT = 40.0
"""A gate at minus this lets 4e-18 pass."""
MOST = 1e4
"""Of the feature that shuts the gates: half floats end at 65,504."""


@contextmanager
def fused_lstms(model: keras.Model) -> Iterator[None]:
    """Lets the LSTMs of a model become one operation each, while it is traced for LiteRT.

    Those that LiteRT's operation does not compute stay loops: other activations, masks, states
    that are handed over or kept, sequences of unknown length.

    Args:
        model: Any model; layers inside others (Bidirectional) are looked into.
    """
    import keras

    layers = [
        layer
        for layer in layers_inside(model)
        if type(layer) is keras.layers.LSTM and _is_plain(layer)
    ]
    for layer in layers:
        layer.call = _fused_call(layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def has_lstms(model: keras.Model) -> bool:
    """Tells whether `fused_lstms` would do anything to a model."""
    import keras

    return any(
        type(layer) is keras.layers.LSTM and _is_plain(layer) for layer in layers_inside(model)
    )


class Shutting(NamedTuple):
    """What shuts the gates before the first step.

    Attributes:
        value: Of the added feature in that step.
        weights: Of the added feature, (1, 4 * units): none larger than what the gate has.
    """

    value: float
    weights: Array


def shutting(kernel: Array, recurrent: Array, bias: Array) -> Shutting:
    """Returns a feature that shuts the gates, whatever the state is.

    The state is within [-1, 1], so that it adds at most the sum of its weights. Weights are no
    larger than those of the gate beside them, so that int8 weights lose nothing by them: the
    feature is large instead, as far as half floats go.

    Args:
        kernel: (features, 4 * units), gates in Keras's order: input, forget, cell, output.
        recurrent: (units, 4 * units).
        bias: (4 * units,).

    Example:
        >>> import numpy as np
        >>> shut = shutting(np.full((3, 8), 0.5), np.zeros((2, 8)), np.zeros(8))
        >>> shut.value, shut.weights.tolist()
        (80.0, [[-0.5, -0.5, -0.5, -0.5, 0.0, 0.0, -0.5, -0.5]])
    """
    units = len(recurrent)
    against = (np.abs(recurrent).sum(axis=0) + np.abs(bias)).reshape(4, units).max(axis=1)
    needed = SHUT + against
    largest = np.abs(kernel).reshape(len(kernel), 4, units).max(axis=(0, 2))
    largest = np.maximum(largest, needed / MOST)
    gates = np.array([0, 1, 3])
    value = float((needed[gates] / largest[gates]).max())
    weights = np.zeros((4, units), np.float32)
    weights[gates] = -largest[gates, None]
    return Shutting(value, weights.reshape(1, -1))


def _is_plain(layer: Any) -> bool:
    """Tells whether LiteRT's operation computes what a layer does."""
    import keras

    return bool(
        layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.built
        and not layer.return_state
        and not layer.stateful
    )


def _fused_call(layer: Any, own: Any) -> Any:
    cell = layer.cell
    kernel, recurrent = (np.asarray(v) for v in (cell.kernel, cell.recurrent_kernel))
    bias = np.asarray(cell.bias) if layer.use_bias else np.zeros(kernel.shape[1], np.float32)
    shut = shutting(kernel, recurrent, bias)
    units = len(recurrent)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        import tensorflow as tf

        known = None not in tuple(sequences.shape)
        if initial_state is not None or mask is not None or training or not known:
            return own(sequences, initial_state=initial_state, mask=mask, training=training)
        count, _, features = sequences.shape
        if layer.go_backwards:
            sequences = tf.reverse(sequences, [1])
        first = np.zeros((count, 1, features + 1), np.float32)
        first[..., -1] = shut.value
        zeros = tf.zeros([count, units])
        last, outputs, *_ = _standing_for_lstm()(
            tf.concat([first, tf.pad(sequences, [[0, 0], [0, 0], [0, 1]])], axis=1),
            zeros,
            zeros,
            tf.constant(np.concatenate([kernel, shut.weights])),
            tf.constant(recurrent),
            tf.constant(bias),
        )
        return outputs[:, 1:] if layer.return_sequences else last

    return call


def _standing_for_lstm() -> Any:
    """Returns a function that the converter takes for Keras 2's LSTM, which it knows.

    It looks at the attributes and the arguments and puts its operation there, whatever the
    function computes: what it does compute here is the same, for whoever else runs it.
    """
    import tensorflow as tf

    def lstm(
        sequences: Any, hidden: Any, state: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, ...]:
        count, length, _ = sequences.shape

        def step(place: Any, hidden: Any, state: Any, made: Any) -> tuple[Any, ...]:
            gates = sequences[:, place] @ kernel + hidden @ recurrent + bias
            taken, kept, new, given = tf.split(gates, 4, axis=1)
            state = tf.sigmoid(kept) * state + tf.sigmoid(taken) * tf.tanh(new)
            hidden = tf.sigmoid(given) * tf.tanh(state)
            return place + 1, hidden, state, made.write(place, hidden)

        made = tf.TensorArray(tf.float32, length)
        _, hidden, state, made = tf.while_loop(
            lambda place, *_: place < length, step, (0, hidden, state, made)
        )
        outputs = tf.transpose(made.stack(), [1, 0, 2])
        outputs.set_shape([count, length, recurrent.shape[0]])
        return hidden, outputs, hidden, state, tf.constant(1.0)

    return tf.function(
        lstm,
        autograph=False,
        experimental_attributes={
            # of one name, functions would be taken for ways to compute the same
            "api_implements": f"lstm_{uuid.uuid4()}",
            "api_preferred_device": "CPU",
            "time_major": False,
            "go_backwards": False,
        },
    )

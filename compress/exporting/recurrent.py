"""LSTMs and GRUs as loops in a form that converters take for one operation.

Keras 3 writes a recurrent layer as a loop; each step then calls some ten operations, and the calls
cost more than what is computed unless the layer is wide. LiteRT and ONNX have operations for whole
sequences, and their converters put them in where they recognize a loop: tf2onnx by its operations
one by one, so what stands here may be written in no other way.

LiteRT's operation keeps its state from one run to the next: the second example would begin where
the first one ended, unless whoever runs the file resets it, which nobody does. So the sequence gets
one step more, before the first. In it all gates are shut: a feature that is set there, and 0 in
all other steps, has weights that outweigh whatever the state and the bias can add. Behind it the
state is zero, as Keras begins. Only a NaN outlasts it: whoever feeds one makes the interpreter
anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.model.internals import layers_inside
from compress.plan.output import QAT

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[np.float32]
FUSED = ("float32", "float16", "dynamic", QAT)
"""Formats that have it: in int8 what shuts the gates would widen the range of the input, and sparse
weights are not stored as such in it."""
SHUT = 40.0
"""A gate at minus this lets 4e-18 pass."""
MOST = 1e4
"""Of the feature that shuts the gates: half floats end at 65,504."""


class Weights(NamedTuple):
    """Weights of a recurrent layer: arrays, or tensors of a graph.

    Attributes:
        kernel: (features, gates * units).
        recurrent: (units, gates * units).
        bias: (gates * units,), of a GRU (2, gates * units); zeros where the layer has none.
    """

    kernel: Any
    recurrent: Any
    bias: Any


class LayerWeights(NamedTuple):
    """Weights of a layer, in both forms.

    Attributes:
        values: As arrays: while a model is traced its variables may stand for tensors.
        traced: Returns them as tensors of the graph that is traced now.
    """

    values: Weights
    traced: Callable[[], Weights]


@contextmanager
def recurrent_as(model: keras.Model, made: Mapping[str, Computed]) -> Iterator[None]:
    """Replace the computation of recurrent layers while a model is traced.

    Those that no converter's operation computes stay as they are: other activations, masks, states
    that are handed over or kept, sequences of unknown length.

    Args:
        model: Any model; layers inside others (Bidirectional) are looked into.
        made: How, by the name of Keras's class: "LSTM", "GRU".
    """
    layers = [
        (layer, made[kind])
        for layer, kind in _plain(model)
        # one that several models share is changed once
        if kind in made and "call" not in vars(layer)
    ]
    for layer, computed in layers:
        layer.call = _call(layer, layer.call, computed)
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.call


def has_lstms(model: keras.Model) -> bool:
    """Tell whether `FUSED_LSTMS` would change anything of a model."""
    return any(kind == "LSTM" for _, kind in _plain(model))


def lstm_of(sequences: Any, weights: Weights) -> tuple[Any, Any]:
    """Compute an LSTM of tensors, gates in the order of Keras: input, forget, cell, output.

    Shapes:
        sequences: (n, steps, features), all known. Returns (n, units) and (n, steps, units).

    Reference:
        Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; the forget gate of Gers et al.
        2000.
    """
    import tensorflow as tf

    kernel, recurrent, bias = weights

    def step(given: Any, hidden: Any, state: Any) -> tuple[Any, Any]:
        gates = tf.matmul(given, kernel) + tf.matmul(hidden, recurrent)
        gates = tf.nn.bias_add(gates, bias)
        taken, kept, new, shown = tf.split(gates, 4, axis=1)
        state = tf.sigmoid(kept) * state + tf.sigmoid(taken) * tf.tanh(new)
        return tf.sigmoid(shown) * tf.tanh(state), state

    return _loop(sequences, step, recurrent.shape[0], states=2)


def gru_loop(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """Compute a GRU with the reset gate behind the matrix, as Keras's default has it.

    See `Computed`. Gates in the order of Keras: update, reset, new.

    Reference:
        Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", in the form of
        cuDNN.
    """
    import tensorflow as tf

    kernel, recurrent, biases = weights.traced()
    of_inputs, of_state = tf.unstack(biases)

    def step(given: Any, hidden: Any) -> tuple[Any]:
        left = tf.split(tf.nn.bias_add(tf.matmul(given, kernel), of_inputs), 3, axis=1)
        right = tf.split(tf.nn.bias_add(tf.matmul(hidden, recurrent), of_state), 3, axis=1)
        kept = tf.sigmoid(left[0] + right[0])
        reset = tf.sigmoid(left[1] + right[1])
        new = tf.tanh(left[2] + reset * right[2])
        return (kept * hidden + (1 - kept) * new,)

    return _loop(sequences, step, recurrent.shape[0], states=1)


LOOPS: Mapping[str, Computed] = {
    # weights from outside the loop: constants in it would not be found
    "LSTM": lambda sequences, weights: lstm_of(sequences, weights.traced()),
    "GRU": gru_loop,
}
"""What tf2onnx takes for one operation each."""


def shutting(kernel: Array, recurrent: Array, bias: Array) -> tuple[float, Array]:
    """Return a feature that shuts the gates before the first step, for any state.

    The state is within [-1, 1], so that it adds at most the sum of its weights. Weights are no
    larger than those of the gate beside them, so that int8 weights lose nothing by them: the
    feature is large instead, as far as half floats go.

    Args:
        kernel: (features, 4 * units), gates in Keras's order: input, forget, cell, output.
        recurrent: (units, 4 * units).
        bias: (4 * units,).

    Returns:
        The feature's value in that step, and its weights, (1, 4 * units): none is larger than what
        the gate has.

    Example:
        >>> import numpy as np
        >>> value, weights = shutting(np.full((3, 8), 0.5), np.zeros((2, 8)), np.zeros(8))
        >>> value, weights.tolist()
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
    return value, weights.reshape(1, -1)


Computed = Callable[[Any, LayerWeights], tuple[Any, Any]]
"""(sequences (n, steps, features), weights) -> last output (n, units), all (n, steps, units)."""


def _loop(sequences: Any, step: Callable[..., Any], units: int, states: int) -> tuple[Any, Any]:
    """Run a step over sequences, from states of zero."""
    import tensorflow as tf

    count, length, features = sequences.shape
    given = tf.TensorArray(tf.float32, length, element_shape=(count, features))
    given = given.unstack(tf.transpose(sequences, [1, 0, 2]))
    made = tf.TensorArray(tf.float32, length, element_shape=(count, units))

    def body(place: Any, made: Any, *before: Any) -> tuple[Any, ...]:
        after = step(given.read(place), *before)
        return (place + 1, made.write(place, after[0]), *after)

    zeros = [tf.zeros([count, units]) for _ in range(states)]
    _, made, last, *_ = tf.while_loop(
        lambda place, *_: place < length, body, (tf.constant(0), made, *zeros)
    )
    return last, tf.transpose(made.stack(), [1, 0, 2])


def _plain(model: keras.Model) -> Iterator[tuple[Any, str]]:
    """Yield the layers that converters have an operation for, with their kinds."""
    import keras

    kinds = {keras.layers.LSTM: "LSTM", keras.layers.GRU: "GRU"}
    for layer in layers_inside(model):
        kind = kinds.get(type(layer))
        if (
            kind is not None
            and layer.built
            and layer.activation is keras.activations.tanh
            and layer.recurrent_activation is keras.activations.sigmoid
            and not layer.return_state
            and not layer.stateful
            and (kind == "LSTM" or layer.reset_after)
        ):
            yield layer, kind


def _call(layer: Any, own: Any, computed: Computed) -> Any:
    import keras

    traced = partial(_read_weights, layer, keras.ops.convert_to_tensor)
    weights = LayerWeights(_read_weights(layer, np.asarray), traced)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        import tensorflow as tf

        known = None not in tuple(sequences.shape)
        if initial_state is not None or mask is not None or training or not known:
            return own(sequences, initial_state=initial_state, mask=mask, training=training)
        if layer.go_backwards:
            sequences = tf.reverse(sequences, [1])
        last, outputs = computed(sequences, weights)
        return outputs if layer.return_sequences else last

    return call


def _read_weights(layer: Any, read: Callable[[Any], Any]) -> Weights:
    """Return the weights of an LSTM or a GRU, each converted by `read`."""
    kernel, recurrent = read(layer.cell.kernel), read(layer.cell.recurrent_kernel)
    if layer.use_bias:
        return Weights(kernel, recurrent, read(layer.cell.bias))
    size = int(kernel.shape[1])
    # a GRU of this kind has one for the inputs and one for the state
    gru = type(layer).__name__ == "GRU"
    return Weights(kernel, recurrent, read(np.zeros((2, size) if gru else size, np.float32)))


def _fused(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """Compute an LSTM as one operation of LiteRT's; see `Computed`."""
    import tensorflow as tf

    kernel, recurrent, bias = weights.values
    shut, shut_weights = shutting(kernel, recurrent, bias)
    count, _, features = sequences.shape
    first = np.zeros((count, 1, features + 1), np.float32)
    first[..., -1] = shut
    zeros = tf.zeros([count, len(recurrent)])
    last, outputs, *_ = _taken_for_lstm()(
        tf.concat([first, tf.pad(sequences, [[0, 0], [0, 0], [0, 1]])], axis=1),
        zeros,
        zeros,
        tf.constant(np.concatenate([kernel, shut_weights])),
        tf.constant(recurrent),
        tf.constant(bias),
    )
    return last, outputs[:, 1:]


def _taken_for_lstm() -> Any:
    """Return a function that LiteRT's converter takes for the LSTM of Keras 2.

    It looks at the attributes and the arguments and puts its operation there, whatever the
    function computes. What it does compute here is the same, but for the states that it is given
    and returns, which are zeros and nobody's.
    """
    import tensorflow as tf

    def lstm(
        sequences: Any, hidden: Any, state: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, ...]:
        last, outputs = lstm_of(sequences, Weights(kernel, recurrent, bias))
        return last, outputs, hidden, state, tf.constant(1.0)

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


FUSED_LSTMS: Mapping[str, Computed] = {"LSTM": _fused}
"""What LiteRT's converter takes for one operation each."""

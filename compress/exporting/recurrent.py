"""LSTMs and GRUs as loops of a form that converters know, and take for one operation.

Keras 3 writes a recurrent layer as a loop; each step then calls some ten operations, and the calls
cost more than what is computed unless the layer is wide. LiteRT and ONNX have operations for whole
sequences, and their converters put them in where they recognize a loop: tf2onnx by its operations
one by one, so what stands here may be written in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from compress.model.internals import layers_inside

if TYPE_CHECKING:
    import keras


class Weights(NamedTuple):
    """Of a recurrent layer: arrays, or tensors of a graph.

    Attributes:
        kernel: (features, gates * units).
        recurrent: (units, gates * units).
        bias: (gates * units,), of a GRU (2, gates * units); zeros where the layer has none.
    """

    kernel: Any
    recurrent: Any
    bias: Any


class LayerWeights:
    """The weights of a layer, in both forms.

    Args:
        layer: An LSTM or a GRU, built.

    Attributes:
        values: As arrays: while a model is traced its variables may stand for tensors.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.values = self._read(np.asarray)

    def traced(self) -> Weights:
        """Returns them as tensors of the graph that is traced now."""
        import keras

        return self._read(keras.ops.convert_to_tensor)

    def _read(self, read: Callable[[Any], Any]) -> Weights:
        cell = self._layer.cell
        kernel, recurrent = read(cell.kernel), read(cell.recurrent_kernel)
        if self._layer.use_bias:
            return Weights(kernel, recurrent, read(cell.bias))
        size = int(kernel.shape[1])
        # a GRU of this kind has one for the inputs and one for the state
        gru = type(self._layer).__name__ == "GRU"
        return Weights(kernel, recurrent, read(np.zeros((2, size) if gru else size, np.float32)))


Computed = Callable[[Any, LayerWeights], tuple[Any, Any]]
"""(sequences (n, steps, features), weights) -> last output (n, units), all (n, steps, units)."""


@contextmanager
def recurrent_as(model: keras.Model, made: Mapping[str, Computed]) -> Iterator[None]:
    """Lets recurrent layers compute in another way while a model is traced.

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


def has_recurrent(model: keras.Model, kind: str) -> bool:
    """Tells whether `recurrent_as` would find a layer of a kind."""
    return any(found == kind for _, found in _plain(model))


def lstm_loop(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """Computes an LSTM; see `Computed`."""
    # from outside the loop: constants in it would not be found
    return lstm_of(sequences, weights.traced())


def lstm_of(sequences: Any, weights: Weights) -> tuple[Any, Any]:
    """Computes an LSTM of tensors, gates in the order of Keras: input, forget, cell, output.

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
    """Computes a GRU whose reset gate comes behind the matrix, as Keras's default does.

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


LOOPS: Mapping[str, Computed] = {"LSTM": lstm_loop, "GRU": gru_loop}
"""What tf2onnx takes for one operation each."""


def _loop(sequences: Any, step: Callable[..., Any], units: int, states: int) -> tuple[Any, Any]:
    """Runs a step over sequences, from states of zero."""
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
    """Yields layers whose like the converters know, with their kinds."""
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
    weights = LayerWeights(layer)

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

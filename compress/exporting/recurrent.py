"""LSTMs and GRUs as loops that converters recognize and replace with one operation.

Keras 3 writes a recurrent layer as a loop of some ten operations per step. Calling these takes
longer than computing them unless the layer is wide. LiteRT and ONNX have operations for whole
sequences, and their converters use them where they recognize a loop. tf2onnx matches the operations
of a loop one by one, so the loops below must be written exactly as they are.

LiteRT's operation keeps its state between runs: unless the caller resets it, the second example
would start from the final state of the first. So one step is added before the sequence, in which
all gates are shut: an additional feature is set in this step and 0 in all others, and its weights
outweigh any contribution of the state and the bias. After this step the state is zero, the initial
state of Keras. Only a NaN in the state survives it: after feeding a NaN, create a new interpreter.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras, tf
from compress.model.keras_internals import list_layers, set_attributes
from compress.plan.output import QAT

Array = npt.NDArray[np.float32]
FUSED = ("float32", "float16", "dynamic", QAT)
"""Formats with the fused operation. Not int8, where the additional feature would widen the range
of the input, nor sparse, which does not store the weights of this operation sparsely."""
SHUT = 40.0
"""Negative gate input that shuts a gate: its sigmoid is 4e-18."""
MOST = 1e4
"""Largest value of the feature that shuts the gates: float16 ends at 65,504."""


class Weights(NamedTuple):
    """Weights of a recurrent layer, as arrays or as graph tensors.

    Attributes:
        kernel: (features, gates * units).
        recurrent: (units, gates * units).
        bias: (gates * units,), for a GRU (2, gates * units); zeros if the layer has none.
    """

    kernel: Any
    recurrent: Any
    bias: Any


class LayerWeights(NamedTuple):
    """Weights of a recurrent layer, in both forms.

    Attributes:
        values: The weights as arrays, which stay readable while a model is traced.
        traced: Function that returns the weights as tensors of the graph being traced.
    """

    values: Weights
    traced: Callable[[], Weights]


@contextmanager
def replace_recurrent(
    model: keras.Model, functions: Mapping[str, RecurrentFunction]
) -> Iterator[None]:
    """Replace the computation of recurrent layers while a model is traced.

    Layers that no converter operation supports are unchanged: those with other activations, masks,
    initial, returned or kept (stateful) states, or inputs of unknown size.

    Args:
        model: Any model; nested layers (Bidirectional) are included.
        functions: Replacement by the name of the Keras class: "LSTM" or "GRU".
    """
    calls = [
        (layer, "call", _build_call(layer, layer.call, functions[kind]))
        for layer, kind in _find_plain_layers(model)
        # a layer that several models share is patched once
        if kind in functions and "call" not in vars(layer)
    ]
    with set_attributes(calls):
        yield


def has_lstms(model: keras.Model) -> bool:
    """Return whether `FUSED_LSTMS` applies to any layer of a model.

    Args:
        model: Any model; nested layers are included.
    """
    return any(kind == "LSTM" for _, kind in _find_plain_layers(model))


def compute_lstm(sequences: Any, weights: Weights) -> tuple[Any, Any]:
    """Compute an LSTM on tensors, with the gate order of Keras: input, forget, cell, output.

    Args:
        sequences: Inputs of the layer.
        weights: Weights of the layer.

    Shapes:
        sequences: (n, steps, features), all known. Returns (n, units) and (n, steps, units).

    Reference:
        Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; the forget gate of Gers et al.
        2000.
    """
    kernel, recurrent, bias = weights

    def step(features: Any, hidden: Any, state: Any) -> tuple[Any, Any]:
        gates = tf.matmul(features, kernel) + tf.matmul(hidden, recurrent)
        gates = tf.nn.bias_add(gates, bias)
        input_gate, forget_gate, cell_input, output_gate = tf.split(gates, 4, axis=1)
        state = tf.sigmoid(forget_gate) * state + tf.sigmoid(input_gate) * tf.tanh(cell_input)
        return tf.sigmoid(output_gate) * tf.tanh(state), state

    return _run_loop(sequences, step, recurrent.shape[0], states=2)


def compute_gru(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """Compute a GRU with the reset gate applied after the matrix product, the default of Keras.

    See `RecurrentFunction`. Gate order of Keras: update, reset, new.

    Args:
        sequences: Inputs of the layer, (n, steps, features), all known.
        weights: Weights of the layer.

    Reference:
        Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", in the cuDNN
        variant.
    """
    kernel, recurrent, biases = weights.traced()
    input_bias, state_bias = tf.unstack(biases)

    def step(features: Any, hidden: Any) -> tuple[Any]:
        from_input = tf.split(tf.nn.bias_add(tf.matmul(features, kernel), input_bias), 3, axis=1)
        from_state = tf.split(tf.nn.bias_add(tf.matmul(hidden, recurrent), state_bias), 3, axis=1)
        update_gate = tf.sigmoid(from_input[0] + from_state[0])
        reset_gate = tf.sigmoid(from_input[1] + from_state[1])
        new = tf.tanh(from_input[2] + reset_gate * from_state[2])
        return (update_gate * hidden + (1 - update_gate) * new,)

    return _run_loop(sequences, step, recurrent.shape[0], states=1)


LOOPS: Mapping[str, RecurrentFunction] = {
    # tf2onnx does not find weights that are constants inside the loop
    "LSTM": lambda sequences, weights: compute_lstm(sequences, weights.traced()),
    "GRU": compute_gru,
}
"""Loops that tf2onnx converts to one operation each."""


def compute_shut_feature(kernel: Array, recurrent: Array, bias: Array) -> tuple[float, Array]:
    """Return a feature that shuts all gates before the first step, for any state.

    The state is within [-1, 1], so its contribution is at most the sum of its absolute weights. The
    weights of the feature are no larger than those of the same gate, so that int8 weights lose no
    precision. Its value is large instead, up to a limit that float16 can hold.

    Args:
        kernel: (features, 4 * units), gates in Keras's order: input, forget, cell, output.
        recurrent: (units, 4 * units).
        bias: (4 * units,).

    Returns:
        Value of the feature in the added step, and its weights, (1, 4 * units), none larger than
        the largest weight of its gate.

    Example:
        >>> import numpy as np
        >>> kernel, recurrent = np.full((3, 8), 0.5), np.zeros((2, 8))
        >>> value, weights = compute_shut_feature(kernel, recurrent, np.zeros(8))
        >>> value, weights.tolist()
        (80.0, [[-0.5, -0.5, -0.5, -0.5, 0.0, 0.0, -0.5, -0.5]])
    """
    units = len(recurrent)
    largest_sums = (np.abs(recurrent).sum(axis=0) + np.abs(bias)).reshape(4, units).max(axis=1)
    needed = SHUT + largest_sums
    largest = np.abs(kernel).reshape(len(kernel), 4, units).max(axis=(0, 2))
    largest = np.maximum(largest, needed / MOST)
    gates = np.array([0, 1, 3])
    value = float((needed[gates] / largest[gates]).max())
    weights = np.zeros((4, units), np.float32)
    weights[gates] = -largest[gates, None]
    return value, weights.reshape(1, -1)


RecurrentFunction = Callable[[Any, LayerWeights], tuple[Any, Any]]
"""Function (sequences (n, steps, features), weights) -> last output (n, units), all outputs
(n, steps, units)."""


def _run_loop(sequences: Any, step: Callable[..., Any], units: int, states: int) -> tuple[Any, Any]:
    """Run a step function over sequences, with zero initial states."""
    count, length, features = sequences.shape
    inputs = tf.TensorArray(tf.float32, length, element_shape=(count, features))
    inputs = inputs.unstack(tf.transpose(sequences, [1, 0, 2]))
    outputs = tf.TensorArray(tf.float32, length, element_shape=(count, units))

    def run_step(index: Any, outputs: Any, *previous: Any) -> tuple[Any, ...]:
        updated = step(inputs.read(index), *previous)
        return (index + 1, outputs.write(index, updated[0]), *updated)

    zeros = [tf.zeros([count, units]) for _ in range(states)]
    _, outputs, last, *_ = tf.while_loop(
        lambda index, *_: index < length, run_step, (tf.constant(0), outputs, *zeros)
    )
    return last, tf.transpose(outputs.stack(), [1, 0, 2])


def _find_plain_layers(model: keras.Model) -> Iterator[tuple[Any, str]]:
    """Yield the recurrent layers that converters have an operation for, with their class names."""
    kinds = {keras.layers.LSTM: "LSTM", keras.layers.GRU: "GRU"}
    for layer in list_layers(model):
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


def _build_call(layer: Any, keras_call: Any, function: RecurrentFunction) -> Any:
    """Return a `call` by `function`; states, masks, training and open sizes use `keras_call`."""
    traced = partial(_read_weights, layer, keras.ops.convert_to_tensor)
    weights = LayerWeights(_read_weights(layer, np.asarray), traced)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        has_known_shape = None not in tuple(sequences.shape)
        if initial_state is not None or mask is not None or training or not has_known_shape:
            return keras_call(sequences, initial_state=initial_state, mask=mask, training=training)
        if layer.go_backwards:
            sequences = tf.reverse(sequences, [1])
        last, outputs = function(sequences, weights)
        return outputs if layer.return_sequences else last

    return call


def _read_weights(layer: Any, read: Callable[[Any], Any]) -> Weights:
    """Return the weights of an LSTM or a GRU, each converted by `read`."""
    kernel, recurrent = read(layer.cell.kernel), read(layer.cell.recurrent_kernel)
    if layer.use_bias:
        return Weights(kernel, recurrent, read(layer.cell.bias))
    size = int(kernel.shape[1])
    # such a GRU has one bias for the inputs and one for the state
    gru = type(layer).__name__ == "GRU"
    return Weights(kernel, recurrent, read(np.zeros((2, size) if gru else size, np.float32)))


def _compute_fused_lstm(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """Compute an LSTM as one LiteRT operation; see `RecurrentFunction`."""
    kernel, recurrent, bias = weights.values
    shut, shut_weights = compute_shut_feature(kernel, recurrent, bias)
    count, _, features = sequences.shape
    first = np.zeros((count, 1, features + 1), np.float32)
    first[..., -1] = shut
    zeros = tf.zeros([count, len(recurrent)])
    last, outputs, *_ = _build_fusable_lstm()(
        tf.concat([first, tf.pad(sequences, [[0, 0], [0, 0], [0, 1]])], axis=1),
        zeros,
        zeros,
        tf.constant(np.concatenate([kernel, shut_weights])),
        tf.constant(recurrent),
        tf.constant(bias),
    )
    return last, outputs[:, 1:]


def _build_fusable_lstm() -> Any:
    """Return a function that LiteRT's converter recognizes as the LSTM of Keras 2.

    The converter checks the attributes and the arguments and inserts its operation without checking
    the computation. The function computes the same outputs, except that it returns the given zero
    states, which are not used.
    """

    def lstm(
        sequences: Any, hidden: Any, state: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, ...]:
        last, outputs = compute_lstm(sequences, Weights(kernel, recurrent, bias))
        return last, outputs, hidden, state, tf.constant(1.0)

    return tf.function(
        lstm,
        autograph=False,
        experimental_attributes={
            # functions of one name count as alternative implementations of each other
            "api_implements": f"lstm_{uuid.uuid4()}",
            "api_preferred_device": "CPU",
            "time_major": False,
            "go_backwards": False,
        },
    )


FUSED_LSTMS: Mapping[str, RecurrentFunction] = {"LSTM": _compute_fused_lstm}
"""Computation that LiteRT's converter replaces with one operation."""

"""LSTMs as LiteRT's operation for a whole sequence, with the same results for every example.

That operation keeps its state from one run to the next: the second example would begin where the
first one ended, unless whoever runs the file resets it, which nobody does. So the sequence gets
one step more, before the first. In it all gates are shut: a feature that is set there, and 0 in
all other steps, has weights that outweigh whatever the state and the bias can add. Behind it the
state is zero, as Keras begins. Only a NaN outlasts it: whoever feeds one makes the interpreter
anew.
"""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.exporting.recurrent import LayerWeights, Weights, has_recurrent, lstm_of, recurrent_as
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


def fused_lstms(model: keras.Model) -> AbstractContextManager[None]:
    """Lets the LSTMs of a model become one operation each, while it is traced for LiteRT.

    Args:
        model: See `compress.exporting.recurrent.recurrent_as`.
    """
    return recurrent_as(model, {"LSTM": _fused})


def has_lstms(model: keras.Model) -> bool:
    """Tells whether `fused_lstms` would do anything to a model."""
    return has_recurrent(model, "LSTM")


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


def _fused(sequences: Any, weights: LayerWeights) -> tuple[Any, Any]:
    """See `compress.exporting.recurrent.Computed`."""
    import tensorflow as tf

    kernel, recurrent, bias = weights.values
    shut = shutting(kernel, recurrent, bias)
    count, _, features = sequences.shape
    first = np.zeros((count, 1, features + 1), np.float32)
    first[..., -1] = shut.value
    zeros = tf.zeros([count, len(recurrent)])
    last, outputs, *_ = _taken_for_lstm()(
        tf.concat([first, tf.pad(sequences, [[0, 0], [0, 0], [0, 1]])], axis=1),
        zeros,
        zeros,
        tf.constant(np.concatenate([kernel, shut.weights])),
        tf.constant(recurrent),
        tf.constant(bias),
    )
    return last, outputs[:, 1:]


def _taken_for_lstm() -> Any:
    """Returns a function that LiteRT's converter takes for Keras 2's LSTM, which it knows.

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

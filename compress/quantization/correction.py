"""Biases that make up for what rounding does to the means of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.program import Node
from compress.model.recording import record
from compress.quantization.layers.kernels import QuantizedKernel

if TYPE_CHECKING:
    from compress.quantization.twin import Twin

EXAMPLES = 256
"""That means are taken of: hundreds tell them, and all are in memory at a time."""


def correct_biases(
    twin: Twin,
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> int:
    """Shifts the bias of each kernel by what rounding moved its channels' means.

    The calls are gone through once, in floats and in whole numbers side by side: what a layer is
    fed has the errors of all before it, and its own correction is there for those behind it.

    Args:
        twin: Its ranges are set; weights of its layers are changed.
        inputs: Of the model (n, ...), one array an input, in its order.
        on_progress: Called with the share that is done.

    Returns:
        How many kernels were corrected: those that have a bias, or a normalization behind them
        that has an offset.

    Reference:
        Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
        Correction", section 4.2, by examples and layer by layer (appendix D).
    """
    import tensorflow as tf

    program = record(twin.served)
    total, done, corrected = len(program.nodes), 0, 0

    def both(node: Node, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        nonlocal done, corrected
        with twin.state.in_floats():
            plain = made_by(node, [pair[0] for pair in pairs])
        whole = made_by(node, [pair[1] for pair in pairs])
        layer = node.operation
        if isinstance(layer, QuantizedKernel):
            channels = layer.kernel_of.channels
            rows = tf.reshape(plain[0] - whole[0], (-1, channels))
            moved = tf.reduce_mean(rows, 0)
            if layer.shift(np.asarray(moved)):
                corrected += 1
                inner = _inner(tuple(whole[0].shape), channels)
                whole = [whole[0] + tf.reshape(moved, inner)]
        done += 1
        if on_progress is not None:
            on_progress(done / total)
        return list(zip(plain, whole, strict=True))

    given = [tf.convert_to_tensor(part[:EXAMPLES]) for part in inputs]
    program.interpret(both, [(part, part) for part in given])
    return corrected


def made_by(node: Node, values: Sequence[Any]) -> list[Any]:
    """Returns what a call makes of values."""
    import keras

    args, kwargs = node.arguments(list(values))
    made: list[Any] = keras.tree.flatten(node.operation(*args, **kwargs))
    return made


def _inner(shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """Returns the last axes of an output, whose product is the number of channels."""
    count, place = 1, len(shape)
    while count < channels:
        place -= 1
        count *= shape[place]
    return shape[place:]

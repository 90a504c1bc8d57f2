"""Biases that make up for what rounding does to the means of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.activations import examples_at_once
from compress.model.program import Node
from compress.model.recording import record
from compress.quantization.layers.kernels import QuantizedKernel
from compress.reconstruction.values import Store, Value

if TYPE_CHECKING:
    from compress.quantization.twin import Twin

EXAMPLES = 256
"""That means are taken of: hundreds tell them."""
Chunks = list[Value]
"""A tensor for all examples, some at a time; what memory does not hold lies in files."""


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
    store = Store()

    def both(node: Node, pairs: list[tuple[Chunks, Chunks]]) -> list[tuple[Chunks, Chunks]]:
        nonlocal done, corrected
        with twin.state.in_floats():
            plain = made_in_chunks(node, [pair[0] for pair in pairs], store)
        whole = made_in_chunks(node, [pair[1] for pair in pairs], store)
        layer = node.operation
        if isinstance(layer, QuantizedKernel):
            channels = layer.kernel_of.channels
            moved = _moved(plain[0], whole[0], channels)
            if layer.shift(np.asarray(moved)):
                corrected += 1
                inner = _inner(whole[0][0].blank.shape, channels)
                shift = tf.reshape(moved, inner)
                whole = [[store.keep(value.tensor + shift) for value in whole[0]]]
        done += 1
        if on_progress is not None:
            on_progress(done / total)
        return list(zip(plain, whole, strict=True))

    size = examples_at_once(program, EXAMPLES, copies=2)
    given = [in_chunks(part[:EXAMPLES], size, store) for part in inputs]
    try:
        program.interpret(both, [(part, part) for part in given])
    finally:
        store.close()
    return corrected


def _moved(plain: Chunks, whole: Chunks, channels: int) -> Any:
    """Return the mean over all positions of what rounding takes off each channel."""
    import tensorflow as tf

    count = sum(len(value.blank) for value in plain)
    return sum(
        tf.reduce_mean(tf.reshape(first.tensor - second.tensor, (-1, channels)), 0)
        * (len(first.blank) / count)
        for first, second in zip(plain, whole, strict=True)
    )


def in_chunks(x: npt.NDArray[Any], size: int, store: Store) -> Chunks:
    """Return examples as tensors of some each."""
    import tensorflow as tf

    starts = range(0, len(x), size)
    return [store.keep(tf.convert_to_tensor(x[start : start + size])) for start in starts]


def made_in_chunks(node: Node, values: Sequence[Chunks], store: Store) -> list[Chunks]:
    """Return what a call makes of values, output by output."""
    made: list[Chunks] = [[] for _ in node.outputs]
    for parts in zip(*values, strict=True):
        for chunks, result in zip(
            made, made_by(node, [part.tensor for part in parts]), strict=True
        ):
            chunks.append(store.keep(result))
    return made


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

"""What lies between two kernels in a row, where it is by channel and by element alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.model.program import Node
from compress.reconstruction.paths import (
    Graph,
    Numbers,
    Rows,
    Way,
    affine,
    clip_of,
    is_linear,
    scales,
)
from compress.reconstruction.sums import Singles
from compress.reconstruction.values import make_call

STEP = 1e-2
"""Of the differences that slopes of activations are told by."""


@dataclass(frozen=True, eq=False)
class Between:
    """From the output z of a kernel to the input of the next: gain * f(way(z)) + offset.

    Attributes:
        nodes: The calls on it, in their order; the kernel's own call is not among them.
        way: From z to the activation; nothing is added there.
        apply: The activation on arrays of any shape, or None: there is none.
        gain, offset: Behind it, by channel.
    """

    nodes: tuple[Node, ...]
    way: Way
    apply: Callable[[Singles], Singles] | None
    gain: Numbers
    offset: Numbers

    def __call__(self, z: Singles) -> tuple[Singles, Singles]:
        """Returns the next kernel's input for (rows, channels) behind the way, and its slope."""
        gain = self.gain.astype(np.float32)
        if self.apply is None:
            value, slope = z, np.ones_like(z)
        elif self.way.clip is not None:
            value = np.clip(z, self.way.clip.low, self.way.clip.high)
            slope = (value == z).astype(np.float32)
        else:
            value = self.apply(z)
            slope = (self.apply(z + STEP) - self.apply(z - STEP)) / (2 * STEP)
        return value * gain + self.offset.astype(np.float32), slope * gain


def between(graph: Graph, first: Node, second: Node, rows: Rows, width: int) -> Between | None:
    """Follows a kernel's output to the next kernel; None where more happens, or it branches off.

    Args:
        graph: Of the pruned model.
        first, second: The calls of both kernels.
        rows: Brings tensors of the first one's output into rows of channels.
        width: Its channels.
    """
    one, zero = np.ones(width), np.zeros(width)
    way = Way(one, zero, one, zero, rest=one, tail=zero)
    gain, offset, apply = one, zero, None
    own = getattr(first.operation, "activation", None)
    if own is not None and not is_linear(own):
        apply, way.clip = _elementwise(own), clip_of(own)
        if apply is None:
            return None
    nodes: list[Node] = []
    tensor = first.outputs[0]
    while True:
        node = graph.only_user(tensor)
        if node is None or (node is not second and len(node.outputs) != 1):
            return None
        if node is second:
            whole = tensor is node.inputs[0]
            return Between(tuple(nodes), way, apply, gain, offset) if whole else None
        if tuple(node.outputs[0].shape)[1:] != tuple(tensor.shape)[1:]:
            return None
        found = affine(node, rows)
        if found is None:
            called = _elementwise_call(node) if apply is None else None
            if called is None:
                return None
            apply, way.clip = called, clip_of(node.operation)
        elif apply is not None:
            gain, offset = found[0] * gain, found[0] * offset + found[1]
        else:
            if not nodes and scales(node.operation) and graph.calls[id(node.operation)] == 1:
                way.first = node.operation
            else:
                way.rest, way.tail = way.rest * found[0], way.tail * found[0] + found[1]
            way.gain, way.offset = found[0] * way.gain, found[0] * way.offset + found[1]
        nodes.append(node)
        tensor = node.outputs[0]


def _elementwise_call(node: Node) -> Callable[[Singles], Singles] | None:
    """Returns an activation layer or raw operation as a function of arrays."""
    if len(node.inputs) != 1 or getattr(node.operation, "weights", None):
        return None

    return _elementwise(lambda x: make_call(node, [x]))


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Singles], Singles] | None:
    """Returns a function as one of arrays; None where an element depends on others, by trial."""
    import keras

    def apply(x: Singles) -> Singles:
        made = function(keras.ops.convert_to_tensor(x))
        return np.asarray(keras.ops.convert_to_numpy(made), np.float32)

    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    changed = x.copy()
    changed[:3, :4] = 3.0 * changed[3:, 4:]
    try:
        made, other = apply(x), apply(changed)
    except Exception:  # what takes no array of this shape is no function of elements
        return None
    if made.shape != x.shape or not np.isfinite(made).all():
        return None
    same = np.ones(x.shape, bool)
    same[:3, :4] = False
    return apply if np.array_equal(made[same], other[same]) else None

"""What becomes of a layer's output: scales, shifts and additions up to the next nonlinearity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.model.layers import class_of
from compress.model.program import Node, Program, Readers
from compress.reconstruction.sums import Clip

Numbers = npt.NDArray[np.float64]


class Graph(Readers[Node]):
    """A flat program, asked where tensors come from and go to.

    Attributes:
        program: The program.
        place: Index of each node, by id.
        made: Place of the node that makes a tensor, by id; inputs have -1.
        calls: How often each operation is called, by id.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program.nodes, program.outputs)
        self.program = program
        self.place = {id(node): place for place, node in enumerate(program.nodes)}
        self.made = dict.fromkeys(map(id, program.inputs), -1)
        self.made.update((key, self.place[id(node)]) for key, node in self.maker.items())
        self.calls = Counter(id(node.operation) for node in program.nodes)


@dataclass(eq=False)
class Other:
    """What is added on the way, in the pruned and in the dense model.

    Attributes:
        pruned, dense: The tensors.
        begin: Where the layer's channels begin in the pruned one.
        kept: Where they are in the dense one, (channels,).
        gains: Behind the addition, in the pruned and in the dense model.
    """

    pruned: Any
    dense: Any
    begin: int
    kept: npt.NDArray[np.int64]
    gains: tuple[Numbers, Numbers]


class Way:
    """From a layer's output z to the end of what is linear: gain * z + offset + others.

    All arrays are (channels,) of the pruned layer; of the dense model those that were kept.

    Args:
        width: Channels; nothing happens to them at first.

    Attributes:
        gain, offset: In the pruned model.
        dense_gain, dense_offset: In the dense one.
        others: What is added.
        first: The layer right behind that has a scale of its own; None: there is none.
        rest: The gain behind `first`.
        tail: The offset that is added behind `first`, at the end.
        clip: The activation at its end, where that cuts values off; None: it is another one.
    """

    def __init__(self, width: int) -> None:
        self.gain = self.dense_gain = self.rest = np.ones(width)
        self.offset = self.dense_offset = self.tail = np.zeros(width)
        self.others: list[Other] = []
        self.first: Any = None
        self.clip: Clip | None = None

    def scale(self, gain: Numbers, offset: Numbers, first: Any) -> None:
        """Go on through gain * z + offset in the pruned model.

        Args:
            gain, offset: By channel.
            first: The layer that does it, where it is `first`; else None.
        """
        if first is not None:
            self.first = first
        else:
            self.rest, self.tail = self.rest * gain, self.tail * gain + offset
        self.gain, self.offset = gain * self.gain, gain * self.offset + offset


Rows = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""A tensor of one example -> rows of channels."""


def way_from(
    graphs: tuple[Graph, Graph],
    nodes: tuple[Node, Node],
    kept: npt.NDArray[np.int64],
    rows: Rows,
    before: Callable[[Any], bool],
) -> Way:
    """Follow a kernel layer's output as long as all that happens is per-channel and linear.

    Args:
        graphs: Of the pruned and of the dense model.
        nodes: The layer's calls.
        kept: Output channels of the dense layer that the pruned one has.
        rows: Brings tensors of the output's layout into rows of channels.
        before: Sees to it that a tensor of the pruned model is known before the layer is called;
            returns whether it can be.
    """
    pruned, dense = graphs
    tensor, twin = nodes[0].outputs[0], nodes[1].outputs[0]
    width, begin, chosen = len(kept), 0, kept
    one, way = np.ones(width), Way(width)
    own = getattr(nodes[0].operation, "activation", None)
    if not is_linear(own):
        way.clip = clip_of(own)
        return way
    for count in range(len(pruned.program.nodes)):
        node = pruned.only_user(tensor)
        other_node = None if node is None else _counterpart(node, dense.users(twin))
        if node is None or other_node is None or len(node.outputs) != 1:
            break
        kind = type(node.operation).__name__
        if kind == "Add" and len(node.inputs) > 1:
            found = _added(node, other_node, tensor, twin)
            if found is None or not all(before(x) for x, _ in found):
                break
            way.others += [Other(x, y, begin, chosen, (one, one)) for x, y in found]
        elif kind == "Concatenate":
            starts = _start(node, tensor), _start(other_node, twin)
            if starts[0] is None or starts[1] is None:
                break
            begin, chosen = begin + starts[0], chosen + starts[1]
        else:
            here, there = affine(node, rows), affine(other_node, rows)
            if here is None or there is None:
                way.clip = clip_of(node.operation) if begin == 0 else None
                break
            gain, offset = (part[begin : begin + width] for part in here)
            dense_gain, dense_offset = (part[chosen] for part in there)
            way.scale(gain, offset, own_scale(pruned, node) if count == 0 else None)
            way.dense_gain = dense_gain * way.dense_gain
            way.dense_offset = dense_gain * way.dense_offset + dense_offset
            for other in way.others:
                other.gains = other.gains[0] * gain, other.gains[1] * dense_gain
        tensor, twin = node.outputs[0], other_node.outputs[0]
    return way


def is_linear(activation: Any) -> bool:
    """Tell whether an activation function changes nothing."""
    import keras

    return activation is None or activation is keras.activations.linear


def clip_of(operation: Any) -> Clip | None:
    """Return how a layer, raw operation or function cuts values off, if that is all it does."""
    import keras

    kind = type(operation).__name__
    if isinstance(operation, keras.layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        high = np.inf if operation.max_value is None else float(operation.max_value)
        return Clip(0.0, high) if plain else None
    if isinstance(operation, keras.layers.Activation):
        return clip_of(operation.activation)
    if operation is keras.activations.relu or kind == "Relu":
        return Clip(0.0, np.inf)
    if operation is keras.activations.relu6 or kind == "Relu6":
        return Clip(0.0, 6.0)
    return None


def own_scale(graph: Graph, node: Node) -> Any:
    """Return the layer that is called where its own scale may be set by channel; else None."""
    import keras

    layer = node.operation
    gamma = getattr(layer, "gamma", None)
    if isinstance(layer, keras.layers.BatchNormalization):
        fits = gamma is not None and layer.beta is not None
    else:
        fits = type(layer).__name__ == "LayerScale" and len(getattr(gamma, "shape", ())) == 1
    return layer if fits and graph.calls[id(layer)] == 1 else None


def _counterpart(node: Node, candidates: list[Node]) -> Node | None:
    """Return the dense model's call of the same name; of raw operations, of the same class."""
    import keras

    layer = isinstance(node.operation, keras.layers.Layer)
    same = [
        other
        for other in candidates
        if type(other.operation) is type(node.operation) and (not layer or other.name == node.name)
    ]
    return same[0] if len(same) == 1 else None


def _added(node: Node, twin_node: Node, tensor: Any, twin: Any) -> list[tuple[Any, Any]] | None:
    """Pair the other operands of an addition; None where they do not pair."""
    mine = [x for x in node.inputs if x is not tensor]
    theirs = [x for x in twin_node.inputs if x is not twin]
    same = len(mine) == len(theirs) == len(node.inputs) - 1
    shaped = all(_alike(x.shape, tensor.shape) for x in mine) and all(
        _alike(x.shape, twin.shape) for x in theirs
    )
    return list(zip(mine, theirs, strict=True)) if same and shaped else None


def _alike(shape: Any, other: Any) -> bool:
    """Tell whether shapes are the same as far as they are known, and nothing is repeated."""
    return len(shape) == len(other) and all(
        a == b or (None in (a, b) and 1 not in (a, b)) for a, b in zip(shape, other, strict=True)
    )


def _start(node: Node, tensor: Any) -> int | None:
    """Return where a tensor's channels begin in a concatenation of channels."""
    rank = len(tensor.shape)
    if node.operation.axis % rank != rank - 1 or sum(x is tensor for x in node.inputs) != 1:
        return None
    before = takewhile(lambda other: other is not tensor, node.inputs)
    return int(sum(other.shape[-1] for other in before))


def affine(node: Node, rows: Rows) -> tuple[Numbers, Numbers] | None:
    """Return gain and offset by channel of a call that is affine by channel, found by trial."""
    import keras

    operation = node.operation
    weights = getattr(operation, "weights", [])
    if (
        len(node.inputs) != 1
        or any(len(weight.shape) > 1 for weight in weights)
        or tuple(node.outputs[0].shape)[1:] != tuple(node.inputs[0].shape)[1:]
        or clip_of(operation) is not None
    ):
        return None
    shape = [1, *(2 if size is None else size for size in tuple(node.inputs[0].shape)[1:])]
    if type(operation) is keras.layers.BatchNormalization:  # a subclass may do otherwise
        known = _normalization(operation, shape, rows)
        if known is not None:
            return known

    def called(x: Any) -> npt.NDArray[Any] | None:
        made = node.call([keras.ops.convert_to_tensor(x.astype(np.float32))])
        y = np.asarray(keras.ops.convert_to_numpy(made), np.float64)
        return rows(y) if y.shape == x.shape else None

    zero, one = called(np.zeros(shape)), called(np.ones(shape))
    if zero is None or one is None:
        return None
    gain, offset = (one - zero)[0], zero[0]
    if not all(np.allclose(part, part[0], rtol=1e-5, atol=1e-6) for part in (one, zero)):
        return None
    x = np.random.default_rng(0).normal(size=shape)
    for probe in (x, -1e3 * x, 1e3 * x):  # what is linear near zero may be cut off far from it
        made = called(probe)
        expected = rows(probe.astype(np.float32)) * gain + offset
        if made is None or np.abs(made - expected).max() > 1e-4 * (np.abs(expected).max() + 1e-12):
            return None
    return gain, offset


def _normalization(layer: Any, shape: list[int], rows: Rows) -> tuple[Numbers, Numbers] | None:
    """Return gain and offset of a batch normalization over the channels that rows have."""
    axis = layer.axis % len(shape)
    along = [-1 if place == axis else 1 for place in range(len(shape))]
    numbers = np.broadcast_to(np.arange(shape[axis]).reshape(along), shape)
    if not np.array_equal(rows(numbers)[0], np.arange(shape[axis])):
        return None
    mean, variance = (np.asarray(part.numpy(), np.float64)
                      for part in (layer.moving_mean, layer.moving_variance))  # fmt: skip
    gain = 1 / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        gain = gain * layer.gamma.numpy()
    offset = -mean * gain
    return gain, offset if layer.beta is None else offset + layer.beta.numpy()


@dataclass(frozen=True, eq=False)
class Absorber:
    """A batch normalization that takes up a shift of some of its channels."""

    layer: Any
    start: int


def absorbers(graph: Graph, tensor: Any, start: int = 0) -> list[Absorber] | None:
    """Find normalizations whose moving means can take up a constant that is added to a tensor.

    Returns:
        All that the constant reaches; None where some of it reaches something else.
    """
    import keras

    if graph.is_output(tensor):
        return None
    found: list[Absorber] = []
    for node in graph.users(tensor):
        if isinstance(node.operation, keras.layers.BatchNormalization):
            last = node.operation.axis in (-1, len(tensor.shape) - 1)
            if not last or graph.calls[id(node.operation)] != 1:
                return None
            found.append(Absorber(node.operation, start))
            continue
        if type(node.operation).__name__ == "Concatenate":
            begin = _start(node, tensor)
        else:
            begin = 0 if "keeps_shifts" in class_of(node.operation).traits else None
        more = None if begin is None else absorbers(graph, node.outputs[0], start + begin)
        if more is None:
            return None
        found += more
    return found or None

"""Linear paths after a layer: scales, shifts and additions up to the next nonlinearity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.model.keras_internals import is_own_class, list_layers
from compress.model.layers import find_layer_class
from compress.model.program import Node, Program, TensorReaders
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sums import Clip


class Graph(TensorReaders[Node]):
    """Index of a flat program: producers and readers of tensors, and positions of calls.

    Attributes:
        program: The program.
        call_index: Index of each node, by id.
        producer_index: Index of the node that produces a tensor, by id of the tensor; -1 for
            inputs.
        calls: Number of calls of each operation, by id.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program.nodes, program.outputs)
        self.program = program
        self.call_index = {id(node): index for index, node in enumerate(program.nodes)}
        self.producer_index = dict.fromkeys(map(id, program.inputs), -1)
        self.producer_index.update(
            (key, self.call_index[id(node)]) for key, node in self.producers.items()
        )
        self.calls = Counter(id(node.operation) for node in program.nodes)

    def count_common_calls(self, other: Graph) -> int:
        """Count the calls, from the first on, that give the same outputs in both programs.

        These calls have the same inputs, and their layers are Keras's own and have equal weights
        and settings. What else a user's layer depends on cannot be known.

        Args:
            other: Graph of another version of the same model.
        """
        indices = [_index_tensors(graph.program) for graph in (self, other)]
        pairs = zip(self.program.nodes, other.program.nodes, strict=False)
        are_equal = (
            _are_equal_layers(first.operation, second.operation)
            and _describe_arguments(first, indices[0]) == _describe_arguments(second, indices[1])
            for first, second in pairs
        )
        return sum(1 for _ in takewhile(bool, are_equal))


def _index_tensors(program: Program) -> dict[int, int]:
    """Return the index of each tensor of a program by id, in the order of the calls."""
    tensors = chain(program.inputs, *(node.outputs for node in program.nodes))
    return {id(tensor): index for index, tensor in enumerate(tensors)}


def _describe_arguments(node: Node, indices: dict[int, int]) -> str:
    """Describe the arguments of a call, with indices in place of tensors."""
    return repr(node.fill_arguments([indices[id(tensor)] for tensor in node.inputs]))


def _are_equal_layers(first: Any, second: Any) -> bool:
    """Return whether two operations are layers of Keras's own that compute the same."""
    if (
        type(first) is not type(second)
        or not isinstance(first, keras.Layer)
        or not all(map(is_own_class, list_layers(first)))
        or repr(first.get_config()) != repr(second.get_config())
    ):
        return False
    pairs = zip(first.weights, second.weights, strict=True)
    return all(np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)


@dataclass(eq=False)
class Addend:
    """A tensor added on the path, in the pruned and in the original model.

    Attributes:
        pruned, original: The tensors.
        start: First channel of the layer in the pruned tensor.
        kept: Corresponding channels in the original tensor, (channels,).
        gains: Gains after the addition, in the pruned and in the original model.
    """

    pruned: Any
    original: Any
    start: int
    kept: npt.NDArray[np.int64]
    gains: tuple[Numbers, Numbers]


class LinearPath:
    """Linear path after a layer with output z: gain * z + offset + addends.

    All arrays are (channels,) of the pruned layer; those of the original model are restricted to
    the kept channels.

    Args:
        channel_count: Number of channels; the path starts as the identity.

    Attributes:
        gain, offset: In the pruned model.
        original_gain, original_offset: In the original model.
        addends: Tensors added on the path.
        scale_layer: Layer directly after this one with a scale of its own; None: there is none.
        later_gain: Gain after `scale_layer`.
        later_offset: Offset added after `scale_layer`, at the end of the path.
        clip: Clipping activation at the end; None: there is no activation or another one.
    """

    def __init__(self, channel_count: int) -> None:
        self.gain = self.original_gain = self.later_gain = np.ones(channel_count)
        self.offset = self.original_offset = self.later_offset = np.zeros(channel_count)
        self.addends: list[Addend] = []
        self.scale_layer: Any = None
        self.clip: Clip | None = None

    def append_affine(self, gain: Numbers, offset: Numbers, scale_layer: Any) -> None:
        """Append gain * z + offset of the pruned model to the path.

        Args:
            gain, offset: By channel.
            scale_layer: The layer that applies them, if it becomes `scale_layer`; else None.
        """
        if scale_layer is not None:
            self.scale_layer = scale_layer
        else:
            self.later_gain, self.later_offset = (
                self.later_gain * gain,
                self.later_offset * gain + offset,
            )
        self.gain, self.offset = gain * self.gain, gain * self.offset + offset


RowExtractor = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Function from a tensor of one example to rows of channels."""


def trace_linear_path(
    graphs: tuple[Graph, Graph],
    nodes: tuple[Node, Node],
    kept: npt.NDArray[np.int64],
    extract_rows: RowExtractor,
    require_before: Callable[[Any], bool],
) -> LinearPath:
    """Follow a kernel layer's output while all operations are linear by channel.

    Args:
        graphs: Graphs of the pruned and of the original model.
        nodes: Calls of the layer in both.
        kept: Output channels of the original layer that the pruned one has.
        extract_rows: Converts tensors in the layout of the output to rows of channels.
        require_before: Requests that a tensor of the pruned model is computed before the layer is
            called; returns whether this is possible.

    Returns:
        The path up to the first other operation.
    """
    pruned_graph, original_graph = graphs
    tensor, original_tensor = nodes[0].outputs[0], nodes[1].outputs[0]
    channel_count, start, original_channels = len(kept), 0, kept
    ones, path = np.ones(channel_count), LinearPath(channel_count)
    activation = getattr(nodes[0].operation, "activation", None)
    if not is_linear(activation):
        path.clip = find_clip(activation)
        return path
    for count in range(len(pruned_graph.program.nodes)):
        node = pruned_graph.find_only_reader(tensor)
        original_node = (
            None
            if node is None
            else _find_counterpart(node, original_graph.list_readers(original_tensor))
        )
        if node is None or original_node is None or len(node.outputs) != 1:
            break
        kind = type(node.operation).__name__
        if kind == "Add" and len(node.inputs) > 1:
            addends = _pair_addends(node, original_node, tensor, original_tensor)
            if addends is None or not all(require_before(x) for x, _ in addends):
                break
            path.addends += [
                Addend(x, y, start, original_channels, (ones, ones)) for x, y in addends
            ]
        elif kind == "Concatenate":
            starts = (
                _find_channel_start(node, tensor),
                _find_channel_start(original_node, original_tensor),
            )
            if starts[0] is None or starts[1] is None:
                break
            start, original_channels = start + starts[0], original_channels + starts[1]
        else:
            pruned_affine, original_affine = (
                find_affine(node, extract_rows),
                find_affine(original_node, extract_rows),
            )
            if pruned_affine is None or original_affine is None:
                path.clip = find_clip(node.operation) if start == 0 else None
                break
            gain, offset = (part[start : start + channel_count] for part in pruned_affine)
            original_gain, original_offset = (part[original_channels] for part in original_affine)
            path.append_affine(
                gain, offset, find_scale_layer(pruned_graph, node) if count == 0 else None
            )
            path.original_gain = original_gain * path.original_gain
            path.original_offset = original_gain * path.original_offset + original_offset
            for addend in path.addends:
                addend.gains = addend.gains[0] * gain, addend.gains[1] * original_gain
        tensor, original_tensor = node.outputs[0], original_node.outputs[0]
    return path


def is_linear(activation: Any) -> bool:
    """Return whether an activation function is the identity."""
    return activation is None or activation is keras.activations.linear


def find_clip(operation: Any) -> Clip | None:
    """Return the bounds of a layer, raw operation or function that only clips values, else None."""
    kind = type(operation).__name__
    if isinstance(operation, keras.layers.ReLU):
        is_plain = not operation.negative_slope and not operation.threshold
        high = np.inf if operation.max_value is None else float(operation.max_value)
        return Clip(0.0, high) if is_plain else None
    if isinstance(operation, keras.layers.Activation):
        return find_clip(operation.activation)
    if operation is keras.activations.relu or kind == "Relu":
        return Clip(0.0, np.inf)
    if operation is keras.activations.relu6 or kind == "Relu6":
        return Clip(0.0, 6.0)
    return None


def find_scale_layer(graph: Graph, node: Node) -> Any:
    """Return the layer of a call if its scale can be set by channel, else None."""
    layer = node.operation
    gamma = getattr(layer, "gamma", None)
    if isinstance(layer, keras.layers.BatchNormalization):
        fits = gamma is not None and layer.beta is not None
    else:
        fits = type(layer).__name__ == "LayerScale" and len(getattr(gamma, "shape", ())) == 1
    return layer if fits and graph.calls[id(layer)] == 1 else None


def _find_counterpart(node: Node, candidates: list[Node]) -> Node | None:
    """Return the original call of the same name, or of the same class for raw operations."""
    is_layer = isinstance(node.operation, keras.layers.Layer)
    matching = [
        candidate
        for candidate in candidates
        if type(candidate.operation) is type(node.operation)
        and (not is_layer or candidate.name == node.name)
    ]
    return matching[0] if len(matching) == 1 else None


def _pair_addends(
    node: Node, original_node: Node, tensor: Any, original_tensor: Any
) -> list[tuple[Any, Any]] | None:
    """Pair the other operands of an addition; None if they do not match."""
    addends = [x for x in node.inputs if x is not tensor]
    original_addends = [x for x in original_node.inputs if x is not original_tensor]
    has_same_count = len(addends) == len(original_addends) == len(node.inputs) - 1
    has_same_shapes = all(_has_same_shape(x.shape, tensor.shape) for x in addends) and all(
        _has_same_shape(x.shape, original_tensor.shape) for x in original_addends
    )
    return (
        list(zip(addends, original_addends, strict=True))
        if has_same_count and has_same_shapes
        else None
    )


def _has_same_shape(shape: Any, other: Any) -> bool:
    """Return whether shapes agree as far as they are known, without broadcasting."""
    return len(shape) == len(other) and all(
        a == b or (None in (a, b) and 1 not in (a, b)) for a, b in zip(shape, other, strict=True)
    )


def _find_channel_start(node: Node, tensor: Any) -> int | None:
    """Return the first channel of a tensor in a concatenation of channels, else None."""
    rank = len(tensor.shape)
    if node.operation.axis % rank != rank - 1 or sum(x is tensor for x in node.inputs) != 1:
        return None
    before = takewhile(lambda other: other is not tensor, node.inputs)
    return int(sum(other.shape[-1] for other in before))


def find_affine(node: Node, extract_rows: RowExtractor) -> tuple[Numbers, Numbers] | None:
    """Return gain and offset of a call that is affine by channel, else None.

    This is tested on random inputs, except for plain batch normalizations.
    """
    operation = node.operation
    weights = getattr(operation, "weights", [])
    if (
        len(node.inputs) != 1
        or any(len(weight.shape) > 1 for weight in weights)
        or tuple(node.outputs[0].shape)[1:] != tuple(node.inputs[0].shape)[1:]
        or find_clip(operation) is not None
    ):
        return None
    shape = [1, *(2 if size is None else size for size in tuple(node.inputs[0].shape)[1:])]
    if type(operation) is keras.layers.BatchNormalization:  # a subclass may do otherwise
        normalization = _read_normalization(operation, shape, extract_rows)
        if normalization is not None:
            return normalization

    def call_node(x: Any) -> npt.NDArray[Any] | None:
        outputs = node.call([keras.ops.convert_to_tensor(x.astype(np.float32))])
        y = np.asarray(keras.ops.convert_to_numpy(outputs), np.float64)
        return extract_rows(y) if y.shape == x.shape else None

    at_zero, at_one = call_node(np.zeros(shape)), call_node(np.ones(shape))
    if at_zero is None or at_one is None:
        return None
    gain, offset = (at_one - at_zero)[0], at_zero[0]
    if not all(np.allclose(part, part[0], rtol=1e-5, atol=1e-6) for part in (at_one, at_zero)):
        return None
    x = np.random.default_rng(0).normal(size=shape)
    for probe in (x, -1e3 * x, 1e3 * x):  # large values reveal clipping
        outputs = call_node(probe)
        expected = extract_rows(probe.astype(np.float32)) * gain + offset
        if outputs is None or np.abs(outputs - expected).max() > 1e-4 * (
            np.abs(expected).max() + 1e-12
        ):
            return None
    return gain, offset


def _read_normalization(
    layer: Any, shape: list[int], extract_rows: RowExtractor
) -> tuple[Numbers, Numbers] | None:
    """Return gain and offset of a batch normalization over the channels of the rows, else None."""
    axis = layer.axis % len(shape)
    along = [-1 if dimension == axis else 1 for dimension in range(len(shape))]
    indices = np.broadcast_to(np.arange(shape[axis]).reshape(along), shape)
    if not np.array_equal(extract_rows(indices)[0], np.arange(shape[axis])):
        return None
    mean, variance = (np.asarray(part.numpy(), np.float64)
                      for part in (layer.moving_mean, layer.moving_variance))  # fmt: skip
    gamma = 1.0 if layer.gamma is None else layer.gamma.numpy()
    gain = 1 / np.sqrt(variance + layer.epsilon) * gamma
    offset = -mean * gain
    return gain, offset if layer.beta is None else offset + layer.beta.numpy()


@dataclass(frozen=True, eq=False)
class Absorber:
    """A batch normalization that can absorb a shift of its channels from `start` on."""

    layer: Any
    start: int


def find_absorbers(graph: Graph, tensor: Any, start: int = 0) -> list[Absorber] | None:
    """Find the normalizations whose moving means can absorb a constant added to a tensor.

    Args:
        graph: Graph of the model.
        tensor: The tensor to which the constant is added.
        start: First channel of the tensor in the normalization's input.

    Returns:
        All normalizations that the constant reaches; None if it reaches anything else.
    """
    if graph.is_output(tensor):
        return None
    normalizations: list[Absorber] = []
    for node in graph.list_readers(tensor):
        if isinstance(node.operation, keras.layers.BatchNormalization):
            is_last_axis = node.operation.axis in (-1, len(tensor.shape) - 1)
            if not is_last_axis or graph.calls[id(node.operation)] != 1:
                return None
            normalizations.append(Absorber(node.operation, start))
            continue
        if type(node.operation).__name__ == "Concatenate":
            offset = _find_channel_start(node, tensor)
        else:
            offset = 0 if "keeps_shifts" in find_layer_class(node.operation).traits else None
        further = None if offset is None else find_absorbers(graph, node.outputs[0], start + offset)
        if further is None:
            return None
        normalizations += further
    return normalizations or None

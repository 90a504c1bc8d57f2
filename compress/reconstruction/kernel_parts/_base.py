"""Linear parts of layers: calls expressed as systems of rows times a matrix.

At every position, the output of a layer before its activation is a row of inputs times the kernel,
plus the bias. Some layers consist of several such systems that share no weights: one per group of a
grouped convolution, one per channel of a depthwise one. All arrays have a leading axis of systems;
the outputs of the systems, concatenated, are the channels of the layer's output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.model.layers import is_keras

Array = npt.NDArray[Any]
Positions = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Example indices and position indices within each example, both (rows,)."""
KeptIndices = Callable[[Any, int], npt.NDArray[np.int64] | None]
"""Function from a variable of the original model and an axis to the kept indices; None: all."""
RowsAndTargets = tuple[Array, Array]


class KernelPart(ABC):
    """One kernel of a layer, as one or more linear systems.

    Args:
        layer: A built layer.
        kernel: The variable to reconstruct.
        bias: The variable added to the output's channels; None: there is none.
        features: Axes of the kernel that form the output's channels, those of the systems first.
        systems: Number of systems.

    Attributes:
        variables: All variables to reconstruct except the bias: the kernel and those that share its
            rows.
        channel_count: Number of output channels.
        offsets: Number of input positions that form a row.
        name: Suffix in the report if a layer has several parts, such as "depthwise"; else "".
    """

    name = ""
    uses_original_states = False
    """Whether rows and targets come from `build_pairs`, because both need states of the original
    layer."""
    has_position_bias = False
    """Whether the layer has a bias that depends on the position; it is not changed."""

    def __init__(
        self, layer: Any, kernel: Any, bias: Any, features: Sequence[int] = (-1,), systems: int = 1
    ) -> None:
        self.layer, self.kernel, self.bias, self.systems = layer, kernel, bias, systems
        self.variables: tuple[Any, ...] = (kernel,)
        self.features = tuple(axis % len(kernel.shape) for axis in features)
        self.channel_count = math.prod(kernel.shape[axis] for axis in self.features)
        self.offsets = math.prod(getattr(layer, "kernel_size", ()))

    @property
    def columns(self) -> int:
        """Number of weights per output channel."""
        return int(math.prod(self.kernel.shape) // self.channel_count)

    def to_matrix(self, kernel: Array) -> Array:
        """Return a kernel, or a mask of its shape, as (systems, columns, outputs)."""
        return kernel.reshape(-1, self.systems, self.channel_count // self.systems).transpose(
            1, 0, 2
        )

    def from_matrix(self, matrix: Array) -> Array:
        """Return a matrix (systems, columns, outputs) in the shape of the kernel."""
        return matrix.transpose(1, 0, 2).reshape(-1, *self.kernel.shape[1:])

    def move_channels_last(self, y: Array) -> Array:
        """Return a tensor in the layout of the output with its channels on the last axis."""
        return y

    def compute_grid_shape(self, y: Array) -> tuple[int, ...]:
        """Return the sizes of the grid of positions of an output; only its shape is used."""
        return tuple(self.move_channels_last(y).shape[1:-1])

    def count_positions(self, y: Array) -> int:
        """Return the number of positions of one example of an output; only its shape is used."""
        return math.prod(self.compute_grid_shape(y))

    @abstractmethod
    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the rows that the kernel is multiplied with, (systems, rows, columns).

        Args:
            x: Inputs of a call, (examples, ...).
            y: Its outputs; only their shape is used, except for states.
            positions: Examples and positions of the rows.
        """

    def extract_outputs(self, y: Array, positions: Positions) -> Array:
        """Return rows of a tensor in the layout of the output, (rows, channels)."""
        y = self.move_channels_last(y)
        return np.asarray(y.reshape(len(y), -1, y.shape[-1])[positions])

    def extract_all_outputs(self, y: Array) -> Array:
        """Return all rows of one example in the layout of the output, (rows, channels)."""
        positions = np.arange(self.count_positions(y))
        return self.extract_outputs(y, (np.zeros_like(positions), positions))

    def create_blank_output(self, shape: tuple[int, ...]) -> Array:
        """Return an array of the output's shape for an input shape; it takes no memory."""
        return np.broadcast_to(np.float32(0), tuple(self.layer.compute_output_shape(shape)))

    def map_input_positions(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Return the input positions that each output position reads.

        Args:
            x: Inputs of a call; only their shape is used.
            y: Its outputs; only their shape is used.

        Returns:
            (positions, offsets), -1 for padding; None: not available for this class.
        """
        return None

    def arrange_rows(self, values: Array) -> Array:
        """Arrange input values (rows, offsets, channels) as rows like those of `extract_rows`."""
        count, offsets, channels = values.shape
        split = values.reshape(count, offsets, self.systems, channels // self.systems)
        return split.transpose(2, 0, 1, 3).reshape(self.systems, count, -1)

    def scatter_rows(self, rows: Array) -> Array:
        """Return rows in the shape (rows, offsets, channels): the inverse of `arrange_rows`."""
        count = rows.shape[1]
        split = rows.reshape(self.systems, count, self.offsets, -1)
        return split.transpose(1, 2, 0, 3).reshape(count, self.offsets, -1)

    def read_weights(self) -> npt.NDArray[np.float64]:
        """Return the current weights of all variables, (systems, columns, outputs)."""
        values = [variable.numpy() for variable in self.variables]
        return self.to_matrix(np.concatenate(values).astype(np.float64))

    def assign(self, matrix: Array) -> None:
        """Assign weights in the shape of `read_weights`."""
        self.kernel.assign(self.from_matrix(matrix))

    def build_support(self, mask_of: Callable[[Any], Array | None]) -> Array | None:
        """Return a mask of the weights that may differ from zero, in their shape; None: all.

        Args:
            mask_of: Returns the mask of a variable, or None.
        """
        masks = [mask_of(variable) for variable in self.variables]
        if all(mask is None for mask in masks):
            return None
        filled = [
            np.ones(variable.shape, bool) if mask is None else mask
            for mask, variable in zip(masks, self.variables, strict=True)
        ]
        return self.to_matrix(np.concatenate(filled)).astype(bool)

    def find_kept_channels(self, kept: KeptIndices) -> npt.NDArray[np.int64]:
        """Return the kept output channels; call it on the part of the original layer."""
        sizes = [self.kernel.shape[axis] for axis in self.features]
        axes = []
        for axis, size in zip(self.features, sizes, strict=True):
            indices = kept(self.kernel, axis)
            axes.append(np.arange(size) if indices is None else indices)
        return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), sizes).ravel()

    def build_pairs(
        self, original: Any, x: Any, original_x: Any, positions: Positions, kept: KeptIndices
    ) -> RowsAndTargets:
        """Return rows (systems, rows, columns) and targets (rows, kept channels).

        Only for parts with `uses_original_states`.

        Args:
            original: Part of the original layer.
            x: Input of a call in the pruned model, a `StoredTensor` with its mask.
            original_x: Input of the same call in the original model.
            positions: Examples and positions of the rows.
            kept: Returns the kept indices of the original model's weights.
        """
        raise NotImplementedError

    def read_bias(self) -> npt.NDArray[np.float64]:
        """Return the bias, (channels,); zeros if there is none."""
        if self.bias is None:
            return np.zeros(self.channel_count)
        return np.asarray(self.bias.numpy(), np.float64).reshape(-1)

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign the bias, (channels,)."""
        self.bias.assign(value.reshape(self.bias.shape).astype(self.bias.dtype))


PartBuilder = Callable[[Any, int], list[KernelPart]]
"""Function from a layer and the number of axes of its input to its parts."""
_BUILDERS: dict[str, PartBuilder] = {}


def register_parts(*names: str) -> Callable[[PartBuilder], PartBuilder]:
    """Register a function that builds the parts of the Keras layers with these class names."""

    def register(builder: PartBuilder) -> PartBuilder:
        _BUILDERS.update(dict.fromkeys(names, builder))
        return builder

    return register


def has_parts(layer: Any) -> bool:
    """Return whether a layer is of a Keras class with registered parts."""
    return is_keras(layer) and type(layer).__name__ in _BUILDERS


def build_parts(layer: Any, rank: int) -> tuple[list[KernelPart], str]:
    """Return a layer's parts in the order of reconstruction, or the reason for having none.

    Args:
        layer: A built layer.
        rank: Number of axes of its input, including the batch axis.
    """
    if not has_parts(layer):
        return [], f"there is no way to solve for the weights of {type(layer).__name__}"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return [], "LoRA and quantized kernels are not reconstructed"
    if getattr(layer, "stateful", False):
        return [], "it carries its state from batch to batch"
    parts = _BUILDERS[type(layer).__name__](layer, rank)
    return parts, "" if parts else "its equation is not a product of rows and a matrix"


class DensePart(KernelPart):
    """A kernel (in, out) applied to the last axis."""

    def compute_grid_shape(self, y: Array) -> tuple[int, ...]:
        """Return the number of positions: the product of all axes but the first and the last."""
        return (math.prod(y.shape[1:-1]),)

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the inputs at the positions, (1, rows, in)."""
        return self.extract_outputs(x, positions)[None]

    def map_input_positions(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Return the positions themselves: each reads only itself."""
        return np.arange(self.count_positions(y))[:, None]


@register_parts("Dense")
def _build_dense(layer: Any, _: int) -> list[KernelPart]:
    return [DensePart(layer, layer.kernel, layer.bias)]


class EinsumPart(KernelPart):
    """A kernel applied by an einsum equation such as "abc,cde->abde".

    Each kernel label is summed (shared with the input), new (only in the output), or shared by all
    three; shared labels index systems that share no weights.

    Args:
        layer: An `EinsumDense` layer.
        input_labels, kernel_labels, output_labels: Labels of input, kernel and output, one letter
            per axis.
    """

    def __init__(
        self, layer: Any, input_labels: str, kernel_labels: str, output_labels: str
    ) -> None:
        self.input_labels, self.kernel_labels, self.output_labels = (
            input_labels,
            kernel_labels,
            output_labels,
        )
        self.shared = [x for x in kernel_labels if x in input_labels and x in output_labels]
        self.new = [x for x in kernel_labels if x not in input_labels]
        self.summed = [x for x in kernel_labels if x in input_labels and x not in output_labels]
        self.free = [x for x in input_labels if x not in kernel_labels]
        self.order = [kernel_labels.index(x) for x in (*self.shared, *self.summed, *self.new)]
        features = [kernel_labels.index(x) for x in (*self.shared, *self.new)]
        sizes = [layer.kernel.shape[axis] for axis in features]
        channels = [size for size in sizes if size != 1]
        bias = layer.bias
        # a bias with an axis of positions is not changed
        self.has_position_bias = bias is not None and [n for n in bias.shape if n != 1] != channels
        systems = math.prod(sizes[: len(self.shared)])
        super().__init__(
            layer, layer.kernel, None if self.has_position_bias else bias, features, systems
        )

    def create_blank_output(self, shape: tuple[int, ...]) -> Array:
        """Return an array of the output's shape for an input shape; sizes come from the labels."""
        sizes = dict(
            zip(
                (*self.kernel_labels, *self.input_labels), (*self.kernel.shape, *shape), strict=True
            )
        )
        return np.broadcast_to(np.float32(0), tuple(sizes[label] for label in self.output_labels))

    def to_matrix(self, kernel: Array) -> Array:
        """Return the kernel with its axes in the order shared, summed, new."""
        moved = kernel.transpose(self.order)
        return moved.reshape(self.systems, -1, self.channel_count // self.systems)

    def from_matrix(self, matrix: Array) -> Array:
        """Return a matrix with its axes in the order of the kernel."""
        shape = [self.kernel.shape[axis] for axis in self.order]
        return matrix.reshape(shape).transpose(np.argsort(self.order))

    def move_channels_last(self, y: Array) -> Array:
        """Return a tensor with the axes absent from the kernel first, then all channels."""
        moved = y.transpose(
            [self.output_labels.index(x) for x in (*self.free, *self.shared, *self.new)]
        )
        return moved.reshape(*moved.shape[: len(self.free)], -1)

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the inputs at the positions, with the summed axes flattened."""
        moved = x.transpose(
            [self.input_labels.index(x) for x in (*self.free, *self.shared, *self.summed)]
        )
        columns = math.prod(moved.shape[len(self.free) + len(self.shared) :])
        flat = moved.reshape(len(x), -1, self.systems, columns)
        return np.asarray(flat[positions].transpose(1, 0, 2))


@register_parts("EinsumDense")
def _build_einsum(layer: Any, rank: int) -> list[KernelPart]:
    input_labels, other_labels = layer.equation.replace(" ", "").split(",")
    kernel_labels, output_labels = other_labels.split("->")
    if "..." in input_labels:
        spare = [x for x in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if x not in layer.equation]
        dots = "".join(spare[: rank - len(input_labels.replace("...", ""))])
        input_labels, output_labels = (
            input_labels.replace("...", dots),
            output_labels.replace("...", dots),
        )
    is_matrix_product = (
        len(set(input_labels)) == len(input_labels)
        and len(set(kernel_labels)) == len(kernel_labels)
        and set(output_labels)
        == (set(input_labels) | set(kernel_labels))
        - {x for x in kernel_labels if x in input_labels and x not in output_labels}
        and input_labels[0] not in kernel_labels
        and output_labels[0] == input_labels[0]
        and all(x in output_labels for x in input_labels if x not in kernel_labels)
    )
    return (
        [EinsumPart(layer, input_labels, kernel_labels, output_labels)] if is_matrix_product else []
    )

"""What is linear in a layer: its calls as systems of rows times a matrix.

A layer's output before its activation is, at every position, a row of inputs times the kernel,
plus the bias. Some layers are several such systems side by side that share no weights: one per
group of a grouped convolution, one per channel of a depthwise one. Everything here has a leading
axis of systems; their columns in a row, system by system, are the output's channels.
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
Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Examples and, in each, the positions that are looked at, both (rows,)."""
Kept = Callable[[Any, int], npt.NDArray[np.int64] | None]
"""Variable of the dense model and an axis of it -> its kept indices; None: all."""
Pair = tuple[Array, Array]


class Part(ABC):
    """One kernel of a layer and the systems that it solves.

    Args:
        layer: A built layer.
        kernel: The variable that is solved for.
        bias: The variable that is added to the output's channels; None: there is none.
        features: Axes of the kernel that are the output's channels, those of the systems first.
        systems: Their number.

    Attributes:
        variables: All that is solved for, the bias apart: the kernel, and what it shares rows with.
        width: Channels of the output.
        offsets: Positions of an input that a row of a call is made of.
        name: What is said of it where a layer has several parts: "depthwise"; else "".
    """

    name = ""
    guided = False
    """Whether rows and targets come from `pairs`: both need what the dense layer makes."""
    adds_more = False
    """Whether the layer adds something that is no bias by channel; it stays as it is."""

    def __init__(
        self, layer: Any, kernel: Any, bias: Any, features: Sequence[int] = (-1,), systems: int = 1
    ) -> None:
        self.layer, self.kernel, self.bias, self.systems = layer, kernel, bias, systems
        self.variables: tuple[Any, ...] = (kernel,)
        self.features = tuple(axis % len(kernel.shape) for axis in features)
        self.width = math.prod(kernel.shape[axis] for axis in self.features)
        self.offsets = math.prod(getattr(layer, "kernel_size", ()))

    @property
    def columns(self) -> int:
        """Weights of the kernel that make one channel of the output."""
        return int(math.prod(self.kernel.shape) // self.width)

    def matrix(self, kernel: Array) -> Array:
        """Return a kernel, or a mask of its shape, as (systems, columns of rows, outputs)."""
        return kernel.reshape(-1, self.systems, self.width // self.systems).transpose(1, 0, 2)

    def array(self, matrix: Array) -> Array:
        """Return what `matrix` does, in the kernel's own shape."""
        return matrix.transpose(1, 0, 2).reshape(-1, *self.kernel.shape[1:])

    def last(self, y: Array) -> Array:
        """Return a tensor of the output's layout with its channels on the last axis."""
        return y

    def grid(self, y: Array) -> tuple[int, ...]:
        """Return how the positions of an output lie, by axes; only its shape matters."""
        return tuple(self.last(y).shape[1:-1])

    def positions(self, y: Array) -> int:
        """Return the positions of one example of an output; only its shape matters."""
        return math.prod(self.grid(y))

    @abstractmethod
    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Return the rows that the kernel is multiplied with, (systems, rows, columns).

        Args:
            x: Inputs of a call, (examples, ...).
            y: Its outputs: only their shape matters, except where they are states.
            places: What is looked at.
        """

    def outputs(self, y: Array, places: Places) -> Array:
        """Return rows of a tensor of the output's layout, (rows, channels)."""
        y = self.last(y)
        return np.asarray(y.reshape(len(y), -1, y.shape[-1])[places])

    def channel_rows(self, y: Array) -> Array:
        """Return all rows of a tensor of the output's layout, of one example."""
        where = np.arange(self.positions(y))
        return self.outputs(y, (np.zeros_like(where), where))

    def blank_output(self, shape: tuple[int, ...]) -> Array:
        """Return an array of the output's shape, for an input's, that takes no memory."""
        return np.broadcast_to(np.float32(0), tuple(self.layer.compute_output_shape(shape)))

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Return which positions of an input each position of the output reads.

        Args:
            x: Inputs of a call; only their shape matters.
            y: Its outputs, likewise.

        Returns:
            (positions, offsets), -1 where padding is read; None: it is not told of this kind.
        """
        return None

    def arranged(self, found: Array) -> Array:
        """Return what positions read, (rows, offsets, channels), as `rows` does."""
        count, offsets, channels = found.shape
        split = found.reshape(count, offsets, self.systems, channels // self.systems)
        return split.transpose(2, 0, 1, 3).reshape(self.systems, count, -1)

    def scattered(self, rows: Array) -> Array:
        """Return what `arranged` does back, (rows, offsets, channels)."""
        count = rows.shape[1]
        split = rows.reshape(self.systems, count, self.offsets, -1)
        return split.transpose(1, 2, 0, 3).reshape(count, self.offsets, -1)

    def weights(self) -> npt.NDArray[np.float64]:
        """Return what is solved for as it is now, (systems, columns of rows, outputs)."""
        values = [variable.numpy() for variable in self.variables]
        return self.matrix(np.concatenate(values).astype(np.float64))

    def assign(self, matrix: Array) -> None:
        """Assign what `weights` returns."""
        self.kernel.assign(self.array(matrix))

    def support(self, mask_of: Callable[[Any], Array | None]) -> Array | None:
        """Return where weights may differ from zero, shaped as they are; None: everywhere.

        Args:
            mask_of: Variable -> mask of its shape, or None.
        """
        masks = [mask_of(variable) for variable in self.variables]
        if all(mask is None for mask in masks):
            return None
        filled = [
            np.ones(variable.shape, bool) if mask is None else mask
            for mask, variable in zip(masks, self.variables, strict=True)
        ]
        return self.matrix(np.concatenate(filled)).astype(bool)

    def channels(self, kept: Kept) -> npt.NDArray[np.int64]:
        """Return the output channels that are kept of this, the dense layer's part."""
        sizes = [self.kernel.shape[axis] for axis in self.features]
        axes = []
        for axis, size in zip(self.features, sizes, strict=True):
            indices = kept(self.kernel, axis)
            axes.append(np.arange(size) if indices is None else indices)
        return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), sizes).ravel()

    def pairs(self, twin: Any, x: Any, given: Any, places: Places, kept: Kept) -> Pair:
        """Return rows (systems, rows, columns) and targets (rows, kept channels).

        Only of parts that are `guided`.

        Args:
            twin: The dense layer's part.
            x: Input of a call in the pruned model, with its mask (`Value`).
            given: Input of the same call in the dense one.
            places: What is looked at.
            kept: Of the dense model's weights.
        """
        raise NotImplementedError

    def bias_vector(self) -> npt.NDArray[np.float64]:
        """Return the bias by channel, (channels,); zeros where there is none."""
        if self.bias is None:
            return np.zeros(self.width)
        return np.asarray(self.bias.numpy(), np.float64).reshape(-1)

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign the bias by channel."""
        self.bias.assign(value.reshape(self.bias.shape).astype(self.bias.dtype))


PartMaker = Callable[[Any, int], list[Part]]
"""Takes a layer and the number of axes of its input."""
_MAKERS: dict[str, PartMaker] = {}


def parts_for(*names: str) -> Callable[[PartMaker], PartMaker]:
    """Register what makes the parts of Keras's layers of these classes."""

    def register(maker: PartMaker) -> PartMaker:
        _MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return register


def has_parts(layer: Any) -> bool:
    """Tell whether a layer is of a class of Keras that has parts to solve for."""
    return is_keras(layer) and type(layer).__name__ in _MAKERS


def parts_of(layer: Any, rank: int) -> tuple[list[Part], str]:
    """Return a layer's parts in the order in which they are solved, or why it has none.

    Args:
        layer: Built.
        rank: Axes of its input, the batch among them.
    """
    if not has_parts(layer):
        return [], f"there is no way to solve for the weights of {type(layer).__name__}"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return [], "LoRA and quantized kernels are not solved for"
    if getattr(layer, "stateful", False):
        return [], "it carries its state from batch to batch"
    parts = _MAKERS[type(layer).__name__](layer, rank)
    return parts, "" if parts else "its equation is not a product of rows and a matrix"


class DensePart(Part):
    """A kernel (in, out), applied to the last axis."""

    def grid(self, y: Array) -> tuple[int, ...]:
        """All but the batch and the last axis, in a row."""
        return (math.prod(y.shape[1:-1]),)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, (1, rows, in)."""
        return self.outputs(x, places)[None]

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Each position reads itself."""
        return np.arange(self.positions(y))[:, None]


@parts_for("Dense")
def _dense(layer: Any, _: int) -> list[Part]:
    return [DensePart(layer, layer.kernel, layer.bias)]


class EinsumPart(Part):
    """A kernel multiplied by an equation: "abc,cde->abde".

    Labels of the kernel are summed over (also the input's), new (the output's alone), or shared
    by all three: these count systems that share no weights.

    Args:
        layer: `EinsumDense`.
        given, own, made: Labels of input, kernel and output, one letter an axis.
    """

    def __init__(self, layer: Any, given: str, own: str, made: str) -> None:
        self.given, self.own, self.made = given, own, made
        self.shared = [x for x in own if x in given and x in made]
        self.new = [x for x in own if x not in given]
        self.summed = [x for x in own if x in given and x not in made]
        self.free = [x for x in given if x not in own]
        self.order = [own.index(x) for x in (*self.shared, *self.summed, *self.new)]
        features = [own.index(x) for x in (*self.shared, *self.new)]
        sizes = [layer.kernel.shape[axis] for axis in features]
        channels = [size for size in sizes if size != 1]
        bias = layer.bias
        # a bias of which an axis is that of positions stays
        self.adds_more = bias is not None and [n for n in bias.shape if n != 1] != channels
        systems = math.prod(sizes[: len(self.shared)])
        super().__init__(layer, layer.kernel, None if self.adds_more else bias, features, systems)

    def blank_output(self, shape: tuple[int, ...]) -> Array:
        """By labels: the layer knows no size that it was not told."""
        sizes = dict(zip((*self.own, *self.given), (*self.kernel.shape, *shape), strict=True))
        return np.broadcast_to(np.float32(0), tuple(sizes[label] for label in self.made))

    def matrix(self, kernel: Array) -> Array:
        """Order axes: shared, summed, new."""
        moved = kernel.transpose(self.order)
        return moved.reshape(self.systems, -1, self.width // self.systems)

    def array(self, matrix: Array) -> Array:
        """Put axes back."""
        shape = [self.kernel.shape[axis] for axis in self.order]
        return matrix.reshape(shape).transpose(np.argsort(self.order))

    def last(self, y: Array) -> Array:
        """Axes that the kernel does not know, then channels in a row."""
        moved = y.transpose([self.made.index(x) for x in (*self.free, *self.shared, *self.new)])
        return moved.reshape(*moved.shape[: len(self.free)], -1)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, summed axes in a row."""
        moved = x.transpose([self.given.index(x) for x in (*self.free, *self.shared, *self.summed)])
        columns = math.prod(moved.shape[len(self.free) + len(self.shared) :])
        flat = moved.reshape(len(x), -1, self.systems, columns)
        return np.asarray(flat[places].transpose(1, 0, 2))


@parts_for("EinsumDense")
def _einsum(layer: Any, rank: int) -> list[Part]:
    given, rest = layer.equation.replace(" ", "").split(",")
    own, made = rest.split("->")
    if "..." in given:
        spare = [x for x in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if x not in layer.equation]
        dots = "".join(spare[: rank - len(given.replace("...", ""))])
        given, made = given.replace("...", dots), made.replace("...", dots)
    plain = (
        len(set(given)) == len(given)
        and len(set(own)) == len(own)
        and set(made) == (set(given) | set(own)) - {x for x in own if x in given and x not in made}
        and given[0] not in own
        and made[0] == given[0]
        and all(x in made for x in given if x not in own)
    )
    return [EinsumPart(layer, given, own, made)] if plain else []

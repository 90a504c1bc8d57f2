"""Convolutions of one to three axes: rows are patches of the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kinds._base import Array, OwnKernel, Part, Places, at, parts_for
from compress.reconstruction.sums import products


class _Windows:
    """Where a kernel looks at an input.

    Args:
        layer: A convolution: its `kernel_size`, `strides`, `dilation_rate`, `padding` and
            `data_format` are read.
        transposed: Its strides spread the input instead of skipping it.
    """

    def __init__(self, layer: Any, *, transposed: bool = False) -> None:
        self.size = tuple(layer.kernel_size)
        axes = len(self.size)
        self.strides = _each(layer.strides, axes)
        self.dilation = _each(layer.dilation_rate, axes)
        self.padding = layer.padding
        self.first = layer.data_format == "channels_first"
        self.transposed = transposed
        self.offsets = np.stack(
            [part.ravel() for part in np.meshgrid(*map(np.arange, self.size), indexing="ij")], 1
        )

    def last(self, x: Array) -> Array:
        """Returns a tensor with its channels on the last axis."""
        return np.moveaxis(x, 1, -1) if self.first else x

    def _before(self, given: Sequence[int], made: Sequence[int]) -> list[int]:
        """Returns the padding in front of each axis, as TensorFlow pads."""
        if self.padding == "valid":
            return [0] * len(self.size)
        spans = [(size - 1) * step + 1 for size, step in zip(self.size, self.dilation, strict=True)]
        if self.padding == "causal":
            return [span - 1 for span in spans]
        small, large = (given, made) if self.transposed else (made, given)
        return [
            max((count - 1) * stride + span - all_, 0) // 2
            for count, stride, span, all_ in zip(small, self.strides, spans, large, strict=True)
        ]

    def patches(self, x: Array, y: Array, places: Places) -> Array:
        """Returns what the kernel sees at places of the output, (rows, offsets, channels)."""
        x, shape = self.last(x), self.last(y).shape[1:-1]
        before = self._before(x.shape[1:-1], shape)
        where = np.unravel_index(places[1], shape)
        found = np.zeros((len(places[0]), len(self.offsets), x.shape[-1]), x.dtype)
        for index, offset in enumerate(self.offsets):
            inside = np.ones(len(places[0]), bool)
            source = []
            for axis, place in enumerate(where):
                step = offset[axis] * self.dilation[axis]
                if self.transposed:
                    at_ = place + before[axis] - step
                    inside &= at_ % self.strides[axis] == 0
                    at_ = at_ // self.strides[axis]
                else:
                    at_ = place * self.strides[axis] - before[axis] + step
                inside &= (at_ >= 0) & (at_ < x.shape[1 + axis])
                source.append(at_)
            if inside.all():
                found[:, index] = x[(places[0], *source)]
            else:
                found[inside, index] = x[(places[0][inside], *[part[inside] for part in source])]
        return found

    def positions(self, y: Array) -> int:
        """Returns the positions of an output."""
        return int(np.prod(self.last(y).shape[1:-1], dtype=np.int64))

    def outputs(self, y: Array, places: Places) -> Array:
        """Returns rows of an output, (rows, channels)."""
        y = self.last(y)
        return at(y.reshape(len(y), -1, y.shape[-1]), places)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


class _Convolution(OwnKernel):
    """What convolutions share."""

    def __init__(self, layer: Any, *, transposed: bool = False) -> None:
        super().__init__(layer)
        self.windows = _Windows(layer, transposed=transposed)

    def positions(self, x: Array, y: Array) -> int:
        """All positions of the output."""
        return self.windows.positions(y)

    def outputs(self, y: Array, places: Places) -> Array:
        """Outputs at the places."""
        return self.windows.outputs(y, places)

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Found by looking at an input whose values are the numbers of its positions."""
        shape = list(self.windows.last(x).shape[1:-1])
        numbers = 1 + np.arange(math.prod(shape)).reshape([1, *shape, 1])
        if self.windows.first:
            numbers = np.moveaxis(numbers, -1, 1)
        count = self.windows.positions(y)
        where = np.zeros(count, np.int64), np.arange(count)
        return np.asarray(self.windows.patches(numbers, y[:1], where)[:, :, 0] - 1)

    def grid(self, y: Array) -> tuple[int, ...]:
        """Its axes in space."""
        return tuple(self.windows.last(y).shape[1:-1])

    def arranged(self, found: Array) -> Array:
        """Offsets and channels in a row."""
        return found.reshape(1, len(found), -1)

    def scattered(self, rows: Array) -> Array:
        """Takes them apart."""
        return np.asarray(rows[0].reshape(rows.shape[1], len(self.windows.offsets), -1))

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Patches, zero where there is padding or strides left a gap."""
        return self.arranged(self.windows.patches(x, y, places))


class ConvolutionPart(_Convolution):
    """A kernel (*size, in / groups, out); every group is a system."""

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return int(self.layer.groups)

    @property
    def features(self) -> tuple[int, ...]:
        """The last axis: groups lie in a row."""
        return (len(self.kernel.shape) - 1,)

    def matrix(self, kernel: Array) -> Array:
        """Offsets and channels in a row, group by group."""
        flat = kernel.reshape(-1, self.groups, kernel.shape[-1] // self.groups)
        return flat.transpose(1, 0, 2)

    def array(self, matrix: Array) -> Array:
        """Puts groups side by side."""
        return matrix.transpose(1, 0, 2).reshape(self.kernel.shape)

    def arranged(self, found: Array) -> Array:
        """Patches by group."""
        rows, offsets, channels = found.shape
        split = found.reshape(rows, offsets, self.groups, channels // self.groups)
        return split.transpose(2, 0, 1, 3).reshape(self.groups, rows, -1)

    def scattered(self, rows: Array) -> Array:
        """Puts groups side by side."""
        groups, count, _ = rows.shape
        split = rows.reshape(groups, count, len(self.windows.offsets), -1)
        return split.transpose(1, 2, 0, 3).reshape(count, len(self.windows.offsets), -1)


class TransposedPart(_Convolution):
    """A kernel (*size, out, in) whose strides spread the input."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, transposed=True)

    @property
    def features(self) -> tuple[int, ...]:
        """The axis before the last."""
        return (len(self.kernel.shape) - 2,)

    def matrix(self, kernel: Array) -> Array:
        """Offsets and input channels in a row."""
        return np.swapaxes(kernel, -1, -2).reshape(-1, kernel.shape[-2])[None]

    def array(self, matrix: Array) -> Array:
        """Puts them back."""
        *size, out, given = self.kernel.shape
        return np.asarray(np.swapaxes(matrix[0].reshape(*size, given, out), -1, -2))


class DepthwisePart(_Convolution):
    """A kernel (*size, in, multiplier); every input channel is a system."""

    @property
    def features(self) -> tuple[int, ...]:
        """Input channels and what each is multiplied to."""
        rank = len(self.kernel.shape)
        return (rank - 2, rank - 1)

    def matrix(self, kernel: Array) -> Array:
        """Offsets in a row, channel by channel."""
        *_, channels, each = kernel.shape
        return kernel.reshape(-1, channels, each).transpose(1, 0, 2)

    def array(self, matrix: Array) -> Array:
        """Puts channels side by side."""
        return matrix.transpose(1, 0, 2).reshape(self.kernel.shape)

    def arranged(self, found: Array) -> Array:
        """Patches of each channel."""
        return found.transpose(2, 0, 1)

    def scattered(self, rows: Array) -> Array:
        """Puts channels last."""
        return rows.transpose(1, 2, 0)


class _SpreadPart(DepthwisePart):
    """The first kernel of a separable convolution; its output is seen by the second alone."""

    name = "depthwise"

    @property
    def kernel(self) -> Any:
        """The depthwise kernel."""
        return self.layer.depthwise_kernel

    @property
    def bias(self) -> Any:
        """None between the two kernels."""
        return None


class _MixingPart(_Convolution):
    """The second kernel of a separable convolution: 1 x 1 over what the first one makes."""

    name = "pointwise"

    @property
    def kernel(self) -> Any:
        """The pointwise kernel."""
        return self.layer.pointwise_kernel

    @property
    def features(self) -> tuple[int, ...]:
        """The last axis."""
        return (len(self.kernel.shape) - 1,)

    def matrix(self, kernel: Array) -> Array:
        """The only offset."""
        return kernel.reshape(1, -1, kernel.shape[-1])

    def array(self, matrix: Array) -> Array:
        """Adds the axes of size 1."""
        return matrix.reshape(self.kernel.shape)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """What the depthwise kernel makes at the places."""
        first = _SpreadPart(self.layer)
        kernel = first.matrix(np.asarray(first.kernel.numpy()))
        return products(first.rows(x, y, places), kernel)[None]


@parts_for("Conv1D", "Conv2D", "Conv3D")
def _convolution(layer: Any, _: int) -> list[Part]:
    return [ConvolutionPart(layer)]


@parts_for("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed(layer: Any, _: int) -> list[Part]:
    return [TransposedPart(layer)]


@parts_for("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise(layer: Any, _: int) -> list[Part]:
    return [DepthwisePart(layer)]


@parts_for("SeparableConv1D", "SeparableConv2D")
def _separable(layer: Any, _: int) -> list[Part]:
    return [_SpreadPart(layer), _MixingPart(layer)]

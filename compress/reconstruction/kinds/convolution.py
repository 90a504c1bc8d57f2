"""Convolutions of one to three axes: rows are patches of the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kinds._base import Array, Part, Places, parts_for
from compress.reconstruction.sums import products


class ConvolutionPart(Part):
    """A kernel (*size, in / groups, out); every group is a system."""

    transposed = False
    """Whether strides spread the input instead of skipping it."""

    def last(self, y: Array) -> Array:
        """Return a tensor with its channels on the last axis."""
        return np.moveaxis(y, 1, -1) if self.layer.data_format == "channels_first" else y

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Found by looking at an input whose values are the numbers of its positions."""
        shape = self.last(x).shape[1:-1]
        numbers = 1 + np.arange(math.prod(shape)).reshape(1, *shape, 1)
        where = np.arange(self.positions(y))
        patches = self._patches(numbers, self.last(y), (np.zeros_like(where), where))
        return np.asarray(patches[:, :, 0] - 1)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Patches, zero where there is padding or strides left a gap."""
        return self.arranged(self._patches(self.last(x), self.last(y), places))

    def _patches(self, x: Array, y: Array, places: Places) -> Array:
        """Return what the kernel sees of x at places of y, (rows, offsets, channels)."""
        shape, strides = y.shape[1:-1], self.layer.strides
        before = self._before(x.shape[1:-1], shape)
        where = np.unravel_index(places[1], shape)
        found = np.zeros((len(places[0]), self.offsets, x.shape[-1]), x.dtype)
        for index, offset in enumerate(np.ndindex(*self.layer.kernel_size)):
            inside = np.ones(len(places[0]), bool)
            source = []
            for axis, place in enumerate(where):
                step = offset[axis] * self.layer.dilation_rate[axis]
                if self.transposed:
                    at = place + before[axis] - step
                    inside &= at % strides[axis] == 0
                    at = at // strides[axis]
                else:
                    at = place * strides[axis] - before[axis] + step
                inside &= (at >= 0) & (at < x.shape[1 + axis])
                source.append(at)
            if inside.all():
                found[:, index] = x[(places[0], *source)]
            else:
                found[inside, index] = x[(places[0][inside], *[part[inside] for part in source])]
        return found

    def _before(self, given: Sequence[int], made: Sequence[int]) -> list[int]:
        """Return the padding in front of each axis, as TensorFlow pads."""
        layer = self.layer
        if layer.padding == "valid":
            return [0] * len(given)
        steps = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        spans = [(size - 1) * step + 1 for size, step in steps]
        if layer.padding == "causal":
            return [span - 1 for span in spans]
        small, large = (given, made) if self.transposed else (made, given)
        return [
            max((count - 1) * stride + span - all_, 0) // 2
            for count, stride, span, all_ in zip(small, layer.strides, spans, large, strict=True)
        ]


class TransposedPart(ConvolutionPart):
    """A kernel (*size, out, in) whose strides spread the input."""

    transposed = True

    def matrix(self, kernel: Array) -> Array:
        """Offsets and input channels in a row."""
        return np.swapaxes(kernel, -1, -2).reshape(-1, kernel.shape[-2])[None]

    def array(self, matrix: Array) -> Array:
        """Put them back."""
        *size, out, given = self.kernel.shape
        return np.asarray(np.swapaxes(matrix[0].reshape(*size, given, out), -1, -2))


class DepthwisePart(ConvolutionPart):
    """A kernel (*size, in, multiplier); every input channel is a system."""

    def __init__(self, layer: Any, kernel: Any, bias: Any, name: str = "") -> None:
        super().__init__(layer, kernel, bias, (-2, -1), kernel.shape[-2])
        self.name = name


class _MixingPart(ConvolutionPart):
    """The second kernel of a separable convolution: 1 x 1 over what the first one makes."""

    name = "pointwise"

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """What the depthwise kernel makes at the places."""
        first = _spread(self.layer)
        kernel = first.matrix(np.asarray(first.kernel.numpy()))
        return products(first.rows(x, y, places), kernel)[None]


def _spread(layer: Any) -> Part:
    """Return the first kernel of a separable convolution: the second alone sees its output."""
    return DepthwisePart(layer, layer.depthwise_kernel, None, "depthwise")


@parts_for("Conv1D", "Conv2D", "Conv3D")
def _convolution(layer: Any, _: int) -> list[Part]:
    return [ConvolutionPart(layer, layer.kernel, layer.bias, systems=layer.groups)]


@parts_for("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed(layer: Any, _: int) -> list[Part]:
    return [TransposedPart(layer, layer.kernel, layer.bias, (-2,))]


@parts_for("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise(layer: Any, _: int) -> list[Part]:
    return [DepthwisePart(layer, layer.kernel, layer.bias)]


@parts_for("SeparableConv1D", "SeparableConv2D")
def _separable(layer: Any, _: int) -> list[Part]:
    return [_spread(layer), _MixingPart(layer, layer.pointwise_kernel, layer.bias)]

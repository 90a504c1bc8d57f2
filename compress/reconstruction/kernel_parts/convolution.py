"""Convolutions with one to three spatial axes: rows are patches of the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kernel_parts._base import Array, KernelPart, Positions, register_parts
from compress.reconstruction.row_products import multiply_rows


class ConvolutionPart(KernelPart):
    """A kernel (*size, in / groups, out); each group is a system."""

    is_transposed = False
    """Whether the convolution is transposed: strides expand the input."""

    def move_channels_last(self, y: Array) -> Array:
        """Return a tensor with its channels on the last axis."""
        return np.moveaxis(y, 1, -1) if self.layer.data_format == "channels_first" else y

    def map_input_positions(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Return the input positions of each output position, from patches of position numbers."""
        shape = self.move_channels_last(x).shape[1:-1]
        numbers = 1 + np.arange(math.prod(shape)).reshape(1, *shape, 1)
        positions = np.arange(self.count_positions(y))
        patches = self._extract_patches(
            numbers, self.move_channels_last(y), (np.zeros_like(positions), positions)
        )
        return np.asarray(patches[:, :, 0] - 1)

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the patches, zero for padding and for the gaps of strides."""
        return self.arrange_rows(
            self._extract_patches(self.move_channels_last(x), self.move_channels_last(y), positions)
        )

    def _extract_patches(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the input patches at output positions, (rows, offsets, channels)."""
        shape, strides = y.shape[1:-1], self.layer.strides
        padding = self._compute_padding(x.shape[1:-1], shape)
        coordinates = np.unravel_index(positions[1], shape)
        patches = np.zeros((len(positions[0]), self.offsets, x.shape[-1]), x.dtype)
        for index, offset in enumerate(np.ndindex(*self.layer.kernel_size)):
            inside = np.ones(len(positions[0]), bool)
            source = []
            for axis, coordinate in enumerate(coordinates):
                step = offset[axis] * self.layer.dilation_rate[axis]
                if self.is_transposed:
                    at = coordinate + padding[axis] - step
                    inside &= at % strides[axis] == 0
                    at = at // strides[axis]
                else:
                    at = coordinate * strides[axis] - padding[axis] + step
                inside &= (at >= 0) & (at < x.shape[1 + axis])
                source.append(at)
            if inside.all():
                patches[:, index] = x[(positions[0], *source)]
            else:
                patches[inside, index] = x[
                    (positions[0][inside], *[part[inside] for part in source])
                ]
        return patches

    def _compute_padding(
        self, input_sizes: Sequence[int], output_sizes: Sequence[int]
    ) -> list[int]:
        """Return the padding before each axis, as TensorFlow pads."""
        layer = self.layer
        if layer.padding == "valid":
            return [0] * len(input_sizes)
        steps = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        spans = [(size - 1) * step + 1 for size, step in steps]
        if layer.padding == "causal":
            return [span - 1 for span in spans]
        small, large = (
            (input_sizes, output_sizes) if self.is_transposed else (output_sizes, input_sizes)
        )
        return [
            max((count - 1) * stride + span - size, 0) // 2
            for count, stride, span, size in zip(small, layer.strides, spans, large, strict=True)
        ]


class TransposedPart(ConvolutionPart):
    """A kernel (*size, out, in) of a transposed convolution."""

    is_transposed = True

    def to_matrix(self, kernel: Array) -> Array:
        """Return the kernel as (1, offsets x in, out)."""
        return np.swapaxes(kernel, -1, -2).reshape(-1, kernel.shape[-2])[None]

    def from_matrix(self, matrix: Array) -> Array:
        """Return a matrix in the shape of the kernel."""
        *size, out_channels, in_channels = self.kernel.shape
        return np.asarray(np.swapaxes(matrix[0].reshape(*size, in_channels, out_channels), -1, -2))


class DepthwisePart(ConvolutionPart):
    """A kernel (*size, in, multiplier); each input channel is a system."""

    def __init__(self, layer: Any, kernel: Any, bias: Any, name: str = "") -> None:
        super().__init__(layer, kernel, bias, (-2, -1), kernel.shape[-2])
        self.name = name


class _PointwisePart(ConvolutionPart):
    """The second kernel of a separable convolution: 1 x 1 over the depthwise outputs."""

    name = "pointwise"

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the outputs of the depthwise kernel at the positions."""
        depthwise = _create_depthwise_part(self.layer)
        kernel = depthwise.to_matrix(np.asarray(depthwise.kernel.numpy()))
        return multiply_rows(depthwise.extract_rows(x, y, positions), kernel)[None]


def _create_depthwise_part(layer: Any) -> KernelPart:
    """Return the first kernel of a separable convolution; the second one reads its output."""
    return DepthwisePart(layer, layer.depthwise_kernel, None, "depthwise")


@register_parts("Conv1D", "Conv2D", "Conv3D")
def _build_convolution(layer: Any, _: int) -> list[KernelPart]:
    return [ConvolutionPart(layer, layer.kernel, layer.bias, systems=layer.groups)]


@register_parts("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _build_transposed(layer: Any, _: int) -> list[KernelPart]:
    return [TransposedPart(layer, layer.kernel, layer.bias, (-2,))]


@register_parts("DepthwiseConv1D", "DepthwiseConv2D")
def _build_depthwise(layer: Any, _: int) -> list[KernelPart]:
    return [DepthwisePart(layer, layer.kernel, layer.bias)]


@register_parts("SeparableConv1D", "SeparableConv2D")
def _build_separable(layer: Any, _: int) -> list[KernelPart]:
    return [
        _create_depthwise_part(layer),
        _PointwisePart(layer, layer.pointwise_kernel, layer.bias),
    ]

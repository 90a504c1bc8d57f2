"""Calls of layers with kernels, computed as integers will: folded, then rounded by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from compress.quantization.kernels import Affine, Kernel
from compress.quantization.layers.ranges import FakeQuant
from compress.quantization.layers.state import State

LEVELS = 127
"""Whole numbers of a weight on either side of 0."""
REDUCED_LEVELS = 64
"""The same where two products with 0 to 255 are added in 16 bits: 2 x 255 x 64 < 2**15."""
SMALLEST = 1e-9
"""Largest weight of a channel at least: a channel of zeros needs a scale too."""


class QuantizedKernel(keras.layers.Layer):  # type: ignore[misc]
    """Computes what a layer does before its activation, with a kernel of whole numbers.

    Batch normalization behind the layer is folded into its kernel and bias first, with the
    statistics that it has: they stay as they are, scale and offset learn.

    The layer's own weights are used, not copies: training this trains them.

    Args:
        state: Of the model.
        kernel: Of a layer.
        source: Range of the input: with the kernel's scales it gives the bias its steps.
        behind: What is folded into it: scales and offsets by channel, in their order.
        reduced_range: Weights have 7 bits, where a runtime of `.onnx` files may add two products
            in 16 bits; a depthwise convolution has none to add.

    Shapes:
        As the layer's.

    Reference:
        Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
        section 3.2.2, with the moving statistics from the first step on.
    """

    def __init__(
        self,
        state: State,
        kernel: Kernel,
        source: FakeQuant,
        behind: Sequence[Affine] = (),
        *,
        reduced_range: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.state, self.kernel_of, self.behind = state, kernel, tuple(behind)
        # whose weights are trained with this layer
        self.layers = [part for part in (kernel.layer, *(one.layer for one in behind)) if part]
        self._source = (source,)  # its owner is the model: a layer of this one it is not
        self.for_file = False
        self.reduced_range = reduced_range
        self.built = True

    def folded(self) -> tuple[Any, Any]:
        """Returns kernel and bias (channels,) with what is behind them folded in."""
        kernel, bias = self.kernel_of.value(), self.kernel_of.bias()
        for affine in self.behind:
            # an output of several axes has its last one once for each of the others
            scale, offset = (self._by_channel(part) for part in affine.terms())
            kernel = kernel * self.kernel_of.by_channel(scale)
            if bias is not None:
                bias = bias * scale
            if offset is not None:
                bias = offset if bias is None else bias + offset
        return kernel, bias

    def _by_channel(self, part: Any) -> Any:
        if part is None:
            return None
        return tf.tile(part, (self.kernel_of.channels // int(part.shape[0]),))

    def bound(self, kernel: Any) -> Any:
        """Returns what 127 steps of each channel's grid are, (channels,), or of all, ().

        They are the channel's largest weight; of a reduced range 64 steps are.
        """
        sizes = tf.abs(tf.stop_gradient(kernel))
        if self.kernel_of.scale_by_channel:
            sizes = tf.reduce_max(tf.reshape(sizes, (-1, kernel.shape[-1])), axis=0)
        else:
            sizes = tf.reduce_max(sizes)
        sizes = tf.maximum(sizes, SMALLEST)
        if self.reduced_range and not self.kernel_of.is_depthwise:
            return sizes * (LEVELS / REDUCED_LEVELS)
        return sizes

    def rounded(self, kernel: Any, bound: Any) -> Any:
        """Returns a kernel on the grids of its channels; see `bound`."""
        if self.kernel_of.scale_by_channel:
            return tf.quantization.fake_quant_with_min_max_vars_per_channel(
                kernel, -bound, bound, narrow_range=True
            )
        return tf.quantization.fake_quant_with_min_max_vars(
            kernel, -bound, bound, narrow_range=True
        )

    def rounded_bias(self, bias: Any, bound: Any) -> Any:
        """Returns a bias in steps of input scale times kernel scale, as 32 bits hold it."""
        low, high = self._source[0].bounds()
        step = (high - low) / 255.0 * bound / LEVELS
        return bias + tf.stop_gradient(tf.round(bias / step) * step - bias)

    def call(self, inputs: Any) -> Any:
        """Computes with the rounded kernel."""
        kernel, bias = self.folded()
        image = self.kernel_of.image(inputs)
        if self.state.quantizes:
            bound = self.bound(kernel)
            kernel = self.rounded(kernel, bound)
            if self.for_file:
                # said again: what brings an input into this shape may be shared with others
                image = self._source[0](image)
            elif bias is not None:
                bias = self.rounded_bias(bias, bound)
        made = self.kernel_of.convolved(image, kernel, for_file=self.for_file)
        if bias is not None:
            made = tf.nn.bias_add(made, bias)
        return self.kernel_of.restored(made, inputs)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Says what the layer itself would make."""
        shape = self.kernel_of.output_shape(tuple(inputs.shape))
        return keras.KerasTensor(shape, inputs.dtype)

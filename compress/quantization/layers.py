"""Layers of a fake-quantized model, which computes as its file of integers will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from compress.quantization.kernels import Affine, Kernel
from compress.quantization.ranges import TIE, BuiltLayer, FakeQuant, State

_NOTHING = 1e-30
"""Less than any difference of two values on a grid."""
BITS = 256.0
"""Parts of a step in which XNNPACK holds a slope."""
LEVELS = 127
"""Whole numbers of a weight on either side of 0."""
REDUCED_LEVELS = 64
"""The same where two products with 0 to 255 are added in 16 bits: 2 x 255 x 64 < 2**15."""
SMALLEST = 1e-9
"""Largest weight of a channel at least: a channel of zeros needs a scale too."""


class QuantizedKernel(BuiltLayer):
    """Layer of another one's kernel, rounded to integers, before its activation.

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
        super().__init__(shape=kernel.output_shape, **settings)
        self.state, self.kernel_of, self.behind = state, kernel, tuple(behind)
        # whose weights are trained with this layer
        self.layers = [part for part in (kernel.layer, *(one.layer for one in behind)) if part]
        self._source = (source,)  # its owner is the model: a layer of this one it is not
        self.reduced_range = reduced_range

    def folded(self) -> tuple[Any, Any]:
        """Return kernel and bias (channels,) with the scales and offsets behind them folded in."""
        kernel, bias = self.kernel_of.value(), self.kernel_of.bias()
        for affine in self.behind:
            scale, offset = affine.terms()
            # an output of several axes has its last one once for each of the others
            channels = int(kernel.shape[-len(self.kernel_of.by_channel)])
            copies = (channels // int(scale.shape[0]),)
            scale = tf.tile(scale, copies)
            kernel = kernel * tf.reshape(scale, self.kernel_of.by_channel)
            if bias is not None:
                bias = bias * scale
            if offset is not None:
                offset = tf.tile(offset, copies)
                bias = offset if bias is None else bias + offset
        return kernel, bias

    def bound(self, kernel: Any) -> Any:
        """Return the size of 127 steps of each channel's grid, (channels,), or of all, ().

        They are the channel's largest weight; of a reduced range 64 steps are.
        """
        shape = (-1, kernel.shape[-1]) if self.kernel_of.scale_by_channel else (-1,)
        sizes = tf.reshape(tf.abs(tf.stop_gradient(kernel)), shape)
        sizes = tf.maximum(tf.reduce_max(sizes, axis=0), SMALLEST)
        if self.reduced_range and not self.kernel_of.is_depthwise:
            return sizes * (LEVELS / REDUCED_LEVELS)
        return sizes

    def rounded(self, kernel: Any, bound: Any) -> Any:
        """Return a kernel on the grids of its channels; see `bound`."""
        fake_quant = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self.kernel_of.scale_by_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return fake_quant(kernel, -bound, bound, narrow_range=True)

    def call(self, inputs: Any) -> Any:
        """Compute with the rounded kernel."""
        kernel, bias = self.folded()
        image = self.kernel_of.image(inputs)
        if self.state.quantizes:
            bound = self.bound(kernel)
            kernel = self.rounded(kernel, bound)
            if self.for_file:
                # said again: what brings an input into this shape may be shared with others
                image = self._source[0](image)
            elif bias is not None:
                # in steps of input scale times kernel scale, as 32 bits hold it
                step = self._source[0].step() * bound / LEVELS
                bias = bias + tf.stop_gradient(tf.round(bias / step) * step - bias)
        made = self.kernel_of.convolved(image, kernel, for_file=self.for_file)
        if bias is not None:
            made = tf.nn.bias_add(made, bias)
        return self.kernel_of.restored(made, inputs)


class LeakySlopes(BuiltLayer):
    """Leaky ReLU: positive and negative values are multiplied by a slope each.

    The slopes bring one grid to another, and have few bits: about one output in thirty is a step
    away from what exact slopes would give.

    Args:
        state: Of the model.
        slope: Of what is negative.
        source: Range of the input.
        target: Range of the output.
    """

    def __init__(
        self, state: State, slope: float, source: FakeQuant, target: FakeQuant, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.state, self.slope = state, slope
        self._ranges = (source, target)

    def call(self, inputs: Any) -> Any:
        """Apply the slopes."""
        if self.for_file or not self.state.quantizes:
            return tf.nn.leaky_relu(inputs, self.slope)
        source, target = (part.step() for part in self._ranges)
        ratio = tf.stop_gradient(source / target)
        up, down = (tf.round(BITS * ratio * slope) / BITS / ratio for slope in (1.0, self.slope))
        made = inputs * tf.where(inputs > 0, up, down)
        # ties go up, and are many
        return made + tf.stop_gradient(TIE * target)


class WithConstant(BuiltLayer):
    """Combination of values with a constant, or a weight, rounded to a grid of its own.

    Args:
        function: Of values and the constant.
        constant: Returns it (graph code).
        range: Of the constant.
        layer: Whose weight it is, or None.
        settings: The output's `shape`, see `BuiltLayer`.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        constant: Callable[[], Any],
        range: FakeQuant,
        layer: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.function, self.constant = function, constant
        self.layer, self.range = layer, range  # checkpoints hold their variables in this order

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Combine them."""
        return self.function(inputs, self.range(self.constant(), training=training))


class Applied(BuiltLayer):
    """Function without weights, as a layer.

    Args:
        function: Of tensors.
        settings: The output's `shape`, see `BuiltLayer`.
    """

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function

    def call(self, *inputs: Any) -> Any:
        """Apply the function."""
        return self.function(*inputs)


class OffGrid(BuiltLayer):
    """Identity between a value on a grid and operations in floats.

    The converter computes the mean of a value that lies on a grid in whole numbers, on that same
    grid, whatever reads it: the mean of a layer normalization would be rounded. So a file adds
    a number that changes nothing, and that no converter takes for 0.
    """

    def call(self, inputs: Any) -> Any:
        """Return the inputs; for a file, by an operation in floats."""
        return inputs + _NOTHING if self.for_file else inputs


class Inside(BuiltLayer):
    """Layer under another name: nested models may hold layers of equal names.

    Args:
        layer: Built.
    """

    def __init__(self, layer: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer = layer

    def call(self, *inputs: Any, **settings: Any) -> Any:
        """Call the layer."""
        return self.layer(*inputs, **settings)

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Return the output spec of the layer."""
        return self.layer.compute_output_spec(*inputs, **settings)

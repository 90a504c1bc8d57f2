"""Layers of a fake-quantized model, which simulate integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from compress.quantization.kernels import Affine, Kernel
from compress.quantization.ranges import TIE, BuiltLayer, FakeQuant, QuantizationState

_NOTHING = 1e-30
"""Offset smaller than any difference of two grid values."""
BITS = 256.0
"""Resolution of XNNPACK's slopes: fractions of 1/256."""
LEVELS = 127
"""Largest integer of a weight."""
REDUCED_LEVELS = 64
"""Largest integer where two products with 0 to 255 are added in 16 bits: 2 x 255 x 64 < 2**15."""
SMALLEST = 1e-9
"""Lower limit of a channel's largest weight: a channel of zeros needs a scale, too."""


class QuantizedKernel(BuiltLayer):
    """Kernel of another layer, rounded to integers, without the activation.

    A following batch normalization is first folded into kernel and bias, with its moving
    statistics. The statistics stay fixed; scale and offset are trained.

    The layer's own weights are used without a copy: training this layer trains them.

    Args:
        state: State of the model.
        kernel: Kernel of the layer.
        source: Range of the input; its step times the kernel's steps are the steps of the bias.
        affines: Per-channel scales and offsets to fold into the kernel, in order.
        reduced_range: Whether weights have 7 bits, because a runtime of `.onnx` files may add two
            products in 16 bits; depthwise kernels, which add none, keep 8 bits.
        settings: Arguments of `BuiltLayer`.

    Shapes:
        Same as those of the layer.

    Reference:
        Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
        section 3.2.2, with the moving statistics from the first step on.
    """

    def __init__(
        self,
        state: QuantizationState,
        kernel: Kernel,
        source: FakeQuant,
        affines: Sequence[Affine] = (),
        *,
        reduced_range: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(shape=kernel.compute_output_shape, **settings)
        self.state, self.source_kernel, self.affines = state, kernel, tuple(affines)
        # layers whose weights this layer trains
        self.layers = [
            part for part in (kernel.layer, *(affine.layer for affine in affines)) if part
        ]
        self._source = (source,)  # a tuple hides it from Keras: it is no sublayer of this layer
        self.reduced_range = reduced_range

    def fold_affines(self) -> tuple[Any, Any]:
        """Return kernel and bias (channels,) with the following scales and offsets folded in."""
        kernel, bias = self.source_kernel.read_kernel(), self.source_kernel.read_bias()
        for affine in self.affines:
            scale, offset = affine.terms()
            # the last of several output axes repeats for each entry of the others
            channels = int(kernel.shape[-len(self.source_kernel.by_channel)])
            copies = (channels // int(scale.shape[0]),)
            scale = tf.tile(scale, copies)
            kernel = kernel * tf.reshape(scale, self.source_kernel.by_channel)
            if bias is not None:
                bias = bias * scale
            if offset is not None:
                offset = tf.tile(offset, copies)
                bias = offset if bias is None else bias + offset
        return kernel, bias

    def compute_bound(self, kernel: Any) -> Any:
        """Return the size of 127 steps per channel, (channels,), or for the whole kernel, ().

        The largest absolute weight has 127 steps, or 64 steps in a reduced range.
        """
        shape = (-1, kernel.shape[-1]) if self.source_kernel.scale_by_channel else (-1,)
        sizes = tf.reshape(tf.abs(tf.stop_gradient(kernel)), shape)
        sizes = tf.maximum(tf.reduce_max(sizes, axis=0), SMALLEST)
        if self.reduced_range and not self.source_kernel.is_depthwise:
            return sizes * (LEVELS / REDUCED_LEVELS)
        return sizes

    def round_kernel(self, kernel: Any, bound: Any) -> Any:
        """Return a kernel rounded to the grids of its channels; see `compute_bound`."""
        fake_quant = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self.source_kernel.scale_by_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return fake_quant(kernel, -bound, bound, narrow_range=True)

    def call(self, inputs: Any) -> Any:
        """Compute the layer with the rounded kernel."""
        kernel, bias = self.fold_affines()
        image = self.source_kernel.to_image(inputs)
        if self.state.quantizes:
            bound = self.compute_bound(kernel)
            kernel = self.round_kernel(kernel, bound)
            if self.for_file:
                # rounded again: the reshape to images may be shared with other readers
                image = self._source[0](image)
                bias = None if bias is None else _make_unequal(bias)
            elif bias is not None:
                # steps of input scale times kernel scale, as the 32-bit bias has
                step = self._source[0].compute_step() * bound / LEVELS
                bias = bias + tf.stop_gradient(tf.round(bias / step) * step - bias)
        outputs = self.source_kernel.convolve(image, kernel, for_file=self.for_file)
        if bias is not None:
            outputs = tf.nn.bias_add(outputs, bias)
        return self.source_kernel.restore_shape(outputs, inputs)


def _make_unequal(bias: Any) -> Any:
    """Return a bias whose last entry is greater by its last bit.

    The LiteRT converter rounds a bias of equal entries by the steps of the first channel alone.
    """
    factors = np.ones(bias.shape, np.float32)
    factors[-1] += np.finfo(np.float32).eps
    return bias * factors


class LeakySlopes(BuiltLayer):
    """Leaky ReLU with integer slopes for positive and negative values.

    The slopes convert from the input grid to the output grid and have few bits: about one output in
    thirty differs by one step from the result with exact slopes.

    Args:
        state: State of the model.
        slope: Slope for negative values.
        source: Range of the input.
        target: Range of the output.
        settings: Arguments of `BuiltLayer`.
    """

    def __init__(
        self,
        state: QuantizationState,
        slope: float,
        source: FakeQuant,
        target: FakeQuant,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.state, self.slope = state, slope
        self._ranges = (source, target)

    def call(self, inputs: Any) -> Any:
        """Multiply the inputs by their slopes."""
        if self.for_file or not self.state.quantizes:
            return tf.nn.leaky_relu(inputs, self.slope)
        source, target = (part.compute_step() for part in self._ranges)
        ratio = tf.stop_gradient(source / target)
        up, down = (tf.round(BITS * ratio * slope) / BITS / ratio for slope in (1.0, self.slope))
        outputs = inputs * tf.where(inputs > 0, up, down)
        # ties are frequent and are rounded up
        return outputs + tf.stop_gradient(TIE * target)


class WithConstant(BuiltLayer):
    """Combination of values with a constant or a weight, which is rounded to its own grid.

    Args:
        function: Function of the values and the constant.
        constant: Function that returns the constant (graph code).
        range: Range of the constant.
        layer: Layer that holds the weight, or None.
        settings: Output `shape`, see `BuiltLayer`.
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
        self.layer, self.range = layer, range  # this order is the variable order in checkpoints

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Apply the function to the inputs and the rounded constant."""
        return self.function(inputs, self.range(self.constant(), training=training))


class FunctionLayer(BuiltLayer):
    """Function without weights, as a layer.

    Args:
        function: Function of tensors.
        settings: Output `shape`, see `BuiltLayer`.
    """

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function

    def call(self, *inputs: Any) -> Any:
        """Apply the function."""
        return self.function(*inputs)


class FloatBoundary(BuiltLayer):
    """Identity between a value on a grid and float operations.

    The converter computes the mean of a quantized value in integers on the same grid, even for
    float readers: the mean of a layer normalization would be rounded. So a file adds a number that
    is too small to change a value and that the converter does not treat as 0.
    """

    def call(self, inputs: Any) -> Any:
        """Return the inputs; in a file, through a float operation."""
        return inputs + _NOTHING if self.for_file else inputs


class RenamedLayer(BuiltLayer):
    """Layer under another name, because nested models may have layers of the same name.

    Args:
        layer: A built layer.
        settings: Arguments of `BuiltLayer`.
    """

    def __init__(self, layer: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer = layer

    def call(self, *inputs: Any, **settings: Any) -> Any:
        """Call the wrapped layer."""
        return self.layer(*inputs, **settings)

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Return the output spec of the wrapped layer."""
        return self.layer.compute_output_spec(*inputs, **settings)

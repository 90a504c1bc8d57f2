"""Layers that a fake-quantized model computes with as its file of integers will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from compress.quantization.kernels import Affine, Kernel
from compress.quantization.ranges import TIE, FakeQuant, State

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


class LeakySlopes(keras.layers.Layer):  # type: ignore[misc]
    """Multiplies what is positive and what is negative by a slope each.

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
        self.for_file = False
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Applies the slopes."""
        if self.for_file or not self.state.quantizes:
            return tf.nn.leaky_relu(inputs, self.slope)
        source, target = ((high - low) / 255.0 for low, high in (r.bounds() for r in self._ranges))
        ratio = tf.stop_gradient(source / target)
        up, down = (tf.round(BITS * ratio * slope) / BITS / ratio for slope in (1.0, self.slope))
        made = inputs * tf.where(inputs > 0, up, down)
        # ties go up, and are many
        return made + tf.stop_gradient(TIE * target)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class QuantizedTable(keras.layers.Layer):  # type: ignore[misc]
    """Looks rows up in a table of whole numbers.

    Args:
        layer: A `keras.layers.Embedding`.
        range: Of the table's entries, and so of what is looked up.
    """

    def __init__(self, layer: Any, range: FakeQuant, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer, self.range = layer, range
        self.built = True

    def call(self, indices: Any, training: bool | None = None) -> Any:
        """Looks up."""
        table = tf.convert_to_tensor(self.layer.embeddings.value)
        return tf.gather(self.range(table, training=training), tf.cast(indices, tf.int32))

    def compute_output_spec(self, indices: Any, training: bool | None = None) -> Any:
        """Says what shape comes of it."""
        width = self.layer.output_dim
        return keras.KerasTensor((*indices.shape, width), self.layer.compute_dtype)


class WithConstant(keras.layers.Layer):  # type: ignore[misc]
    """Combines values with a constant, or a weight, that is rounded to a grid of its own.

    Args:
        function: Of values and the constant.
        constant: Returns it (graph code).
        range: Of the constant.
        layer: Whose weight it is, or None.
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
        self.function, self.constant, self.range, self.layer = function, constant, range, layer
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Combines them."""
        return self.function(inputs, self.range(self.constant(), training=training))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class Applied(keras.layers.Layer):  # type: ignore[misc]
    """Applies a function without weights.

    Args:
        function: Of tensors.
        shape: Of its output for the shapes of its inputs; default: that of the first input.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shape: Callable[..., tuple[int | None, ...]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.function, self.shape = function, shape
        self.built = True

    def call(self, *inputs: Any) -> Any:
        """Applies it."""
        return self.function(*inputs)

    def compute_output_spec(self, *inputs: Any) -> Any:
        """Says what shape comes of it."""
        shapes = [tuple(tensor.shape) for tensor in inputs]
        made = shapes[0] if self.shape is None else self.shape(*shapes)
        return keras.KerasTensor(made, inputs[0].dtype)


class OffGrid(keras.layers.Layer):  # type: ignore[misc]
    """Hands a value of a grid to operations in floats.

    The converter computes the mean of a value that lies on a grid in whole numbers, on that same
    grid, whatever reads it: the mean of a layer normalization would be rounded. So a file adds
    a number that changes nothing, and that no converter takes for 0.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.for_file = False
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns them; for a file, by an operation in floats."""
        return inputs + _NOTHING if self.for_file else inputs

    def compute_output_spec(self, inputs: Any) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class Inside(keras.layers.Layer):  # type: ignore[misc]
    """Calls a layer under another name: nested models may hold layers of equal names.

    Args:
        layer: Built.
    """

    def __init__(self, layer: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer = layer
        self.built = True

    def call(self, *inputs: Any, **settings: Any) -> Any:
        """Calls it."""
        return self.layer(*inputs, **settings)

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Says what the layer makes."""
        return self.layer.compute_output_spec(*inputs, **settings)

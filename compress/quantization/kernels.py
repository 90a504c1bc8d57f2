"""Kernels in integer arithmetic, each as the kernel of a 2D convolution.

LiteRT has per-channel scales for convolutions. Its converter uses them only if the rounded kernel
is directly the kernel of the convolution, without a transposition or a reshape in between. So a
dense layer becomes a 1 x 1 convolution, and a convolution over time one over images of height 1.
Kernels are brought into this shape before they are rounded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Shape = tuple[int | None, ...]


class Kernel(ABC):
    """Kernel of a layer, as the kernel of a 2D convolution.

    A call is `restore_shape(convolve(to_image(x), kernel) + bias, x)`.

    Args:
        layer: A built layer with channels last.

    Attributes:
        layer: The layer.
    """

    scale_by_channel = True
    """Whether each channel has its own scale."""
    by_channel: tuple[int, ...] = (-1,)
    """Shape in which per-channel values are multiplied with the kernel."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel, which no other channel reads."""
        return False

    @abstractmethod
    def read_kernel(self) -> Any:
        """Return the kernel, (height, width, inputs, channels) (graph code)."""

    def read_bias(self) -> Any:
        """Return the bias, (channels,), or None."""
        bias = self.layer.bias
        return None if bias is None else tf.reshape(to_tensor(bias), (-1,))

    def to_image(self, x: Any) -> Any:
        """Return an input of the layer as images, (batch, height, width, inputs)."""
        return x

    @abstractmethod
    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Return the convolution of images with a kernel.

        Args:
            image: Images from `to_image`.
            kernel: Kernel in the shape of `read_kernel`.
            for_file: Whether the model is traced for a converter instead of training.
        """

    def restore_shape(self, outputs: Any, x: Any) -> Any:
        """Return images in the shape of the layer's output.

        Args:
            outputs: Result of `convolve`.
            x: Input of the layer.
        """
        return outputs

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the layer's output shape for an input shape."""
        return tuple(self.layer.compute_output_shape(shape))


class PositionKernel(Kernel):
    """Kernel of a layer that is applied at each position; positions become those of an image.

    Attributes:
        axes: Number of trailing input axes that are summed over.
    """

    axes = 1

    def to_image(self, x: Any) -> Any:
        """Return the input with its positions as height and width of an image."""
        shape = tuple(x.shape)
        kept = len(shape) - self.axes
        return tf.reshape(x, (-1, *_to_image_size(shape[1:kept]), math.prod(shape[kept:])))

    def restore_shape(self, outputs: Any, x: Any) -> Any:
        """Return the outputs with the positions and axes of the layer's output."""
        return tf.reshape(outputs, (-1, *self.compute_output_shape(tuple(x.shape))[1:]))


class MatrixKernel(PositionKernel):
    """Kernel of `Dense`, or of an `EinsumDense` that multiplies the last axes of its input.

    Args:
        layer: A built layer.
        inputs: Number of axes summed over: the first of the kernel, the last of the input.
    """

    def __init__(self, layer: Any, inputs: int = 1) -> None:
        super().__init__(layer)
        self.axes = inputs

    @property
    def bias_by_position(self) -> bool:
        """Whether the bias differs between positions, so that it cannot be part of the kernel."""
        bias = self.layer.bias
        return bias is not None and len(bias.shape) > len(self.layer.kernel.shape) - self.axes

    def read_kernel(self) -> Any:
        """Return the kernel, (1, 1, inputs, channels)."""
        kernel = to_tensor(self.layer.kernel)
        return tf.reshape(kernel, (1, 1, math.prod(kernel.shape[: self.axes]), -1))

    def read_bias(self) -> Any:
        """Return the bias, (channels,); None if there is none or it differs between positions."""
        if self.layer.bias is None or self.bias_by_position:
            return None
        channels = tuple(self.layer.kernel.shape)[self.axes :]
        return tf.reshape(tf.broadcast_to(to_tensor(self.layer.bias), channels), (-1,))

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Multiply with the matrix, as a 1 x 1 convolution."""
        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the output shape, parts of which Keras would leave open."""
        return (*shape[: len(shape) - self.axes], *tuple(self.layer.kernel.shape)[self.axes :])


class Affine(PositionKernel):
    """Per-channel scale and offset, folded into the preceding kernel or computed depthwise.

    Folding is exact in integer arithmetic.

    Args:
        layer: Layer that holds the weights; None: there are no weights.
        terms: Function that returns scale and offset, (channels,) each; the offset may be None
            (graph code).
    """

    is_depthwise = True

    def __init__(self, layer: Any, terms: Callable[[], tuple[Any, Any]]) -> None:
        super().__init__(layer)
        self.terms = terms

    def apply(self, x: Any) -> Any:
        """Return scaled and shifted values, in float."""
        scale, offset = self.terms()
        return x * scale if offset is None else x * scale + offset

    def read_kernel(self) -> Any:
        """Return the scales, (1, 1, 1, channels)."""
        return tf.reshape(self.terms()[0], (1, 1, 1, -1))

    def read_bias(self) -> Any:
        """Return the offsets."""
        return self.terms()[1]

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Scale each channel."""
        scales = tf.reshape(kernel, (1, 1, int(image.shape[-1]), 1))
        return tf.nn.depthwise_conv2d(image, scales, (1, 1, 1, 1), "VALID")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape


class ImageKernel(Kernel):
    """Kernel of `Conv1D` and `Conv2D`, including grouped ones; sequences have height 1.

    Args:
        layer: A built layer with channels last.
        name: Name of its weight.
    """

    def __init__(self, layer: Any, name: str = "kernel") -> None:
        super().__init__(layer)
        self.name = name

    @property
    def is_depthwise(self) -> bool:
        """Whether each group has one channel."""
        inputs, channels = tuple(self.layer.kernel.shape)[-2:]
        return bool(inputs == 1 and channels == self.layer.groups)

    def read_kernel(self) -> Any:
        """Return the kernel as a 2D kernel."""
        kernel = to_tensor(getattr(self.layer, self.name))
        return tf.expand_dims(kernel, 0) if self.layer.rank == 1 else kernel

    def to_image(self, x: Any) -> Any:
        """Return the input as images, with causal padding, which 2D convolutions do not support."""
        layer = self.layer
        if layer.padding == "causal":
            causal_padding = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            x = tf.pad(x, ((0, 0), (causal_padding, 0), (0, 0)))
        return tf.expand_dims(x, 1) if layer.rank == 1 else x

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve the images with the kernel."""
        layer = self.layer
        strides, dilations = _to_2d_sizes(layer.strides), _to_2d_sizes(layer.dilation_rate)
        if layer.groups > 1 and not for_file:
            # Keras's XLA-compiled function: TensorFlow's own operation has no gradients on a CPU
            padding = self.padding.lower()
            return keras.ops.conv(image, kernel, strides, padding, None, dilations)
        return tf.nn.convolution(
            image, kernel, strides=strides, padding=self.padding, dilations=dilations
        )

    def restore_shape(self, outputs: Any, x: Any) -> Any:
        """Return images in the shape of the layer's output."""
        return tf.squeeze(outputs, 1) if self.layer.rank == 1 else outputs

    @property
    def padding(self) -> str:
        """Padding in TensorFlow's spelling."""
        padding = self.layer.padding
        return "VALID" if padding == "causal" else str(padding).upper()


class DepthwiseKernel(ImageKernel):
    """Kernel of depthwise convolutions, also the first one of separable convolutions."""

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel has one output channel."""
        return bool(self.layer.depth_multiplier == 1)

    def read_kernel(self) -> Any:
        """Return the kernel, (height, width, 1, channels)."""
        kernel = super().read_kernel()
        height, width, inputs, multiplier = kernel.shape
        return tf.reshape(kernel, (height, width, 1, inputs * multiplier))

    def read_bias(self) -> Any:
        """Return the bias; that of a separable convolution belongs to its second kernel."""
        return super().read_bias() if self.name == "kernel" else None

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve each channel."""
        dilations = _to_2d_sizes(self.layer.dilation_rate)
        # TensorFlow has one stride for both axes; for sequences the height is 1 anyway
        stride = max(_to_2d_sizes(self.layer.strides))
        height, width, _, channels = kernel.shape
        inputs = int(image.shape[-1])
        return tf.nn.depthwise_conv2d(
            image,
            tf.reshape(kernel, (height, width, inputs, channels // inputs)),
            strides=(1, stride, stride, 1),
            padding=self.padding,
            dilations=dilations if max(dilations) > 1 else None,
        )

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the output shape of the depthwise convolution."""
        output_shape = super().compute_output_shape(shape)
        if self.name == "kernel":
            return output_shape
        assert shape[-1] is not None
        return (*output_shape[:-1], shape[-1] * self.layer.depth_multiplier)


class PointwiseKernel(ImageKernel):
    """Kernel of the second convolution of `SeparableConv1D` and `SeparableConv2D`."""

    is_depthwise = False

    def to_image(self, x: Any) -> Any:
        """Return the input as images; the first convolution has already padded it."""
        return tf.expand_dims(x, 1) if self.layer.rank == 1 else x

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve the images with the 1 x 1 kernel."""
        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the output shape for an input shape."""
        return (*shape[:-1], self.layer.filters)


class TransposedKernel(Kernel):
    """Kernel of `Conv2DTranspose`: one scale for all channels, as the converter requires."""

    scale_by_channel = False
    by_channel = (-1, 1)

    def read_kernel(self) -> Any:
        """Return the unchanged kernel, (height, width, channels, inputs)."""
        return to_tensor(self.layer.kernel)

    def convolve(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Apply the transposed convolution."""
        layer = self.layer
        shape = self.compute_output_shape(tuple(image.shape))
        batch = tf.shape(image)[0] if shape[0] is None else shape[0]
        return tf.nn.conv2d_transpose(
            image,
            kernel,
            (batch, *shape[1:]),
            strides=layer.strides,
            padding=layer.padding.upper(),
        )


def to_tensor(variable: Any) -> Any:
    """Return a variable as a tensor (graph code)."""
    return tf.convert_to_tensor(variable.value)


def _to_image_size(positions: Sequence[Any]) -> Sequence[int]:
    """Return position axes as height and width; more than two axes are merged into one."""
    if None in positions:
        raise ValueError("positions must be known")
    return positions if len(positions) == 2 else (math.prod(positions), 1)


def _to_2d_sizes(sizes: Sequence[int]) -> tuple[int, int]:
    """Return sizes as height and width; sequences have height 1."""
    return (1, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))

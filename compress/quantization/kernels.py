"""Kernels in integer arithmetic: each is that of a convolution of images.

LiteRT has scales by channel for convolutions, and its converter finds them only where the kernel
that is rounded is the one that is convolved: nothing may be transposed or reshaped in between.
So a dense layer is a 1 x 1 convolution and a convolution over time one of images of height 1, and
kernels are brought into that shape before they are rounded.
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
    """Kernel of a layer, as that of a convolution of images.

    A call is `restored(convolved(image(x), kernel) + bias, x)`.

    Args:
        layer: Built, channels last.

    Attributes:
        layer: That layer.
    """

    scale_by_channel = True
    """Whether each channel has a scale of its own."""
    by_channel: tuple[int, ...] = (-1,)
    """Shape in which values of channels multiply the kernel."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel, which no other reads."""
        return False

    @abstractmethod
    def value(self) -> Any:
        """Return the kernel, (height, width, inputs, channels) (graph code)."""

    def bias(self) -> Any:
        """Return the bias, (channels,), or None."""
        bias = self.layer.bias
        return None if bias is None else tf.reshape(tensor_of(bias), (-1,))

    def image(self, x: Any) -> Any:
        """Return an input of the layer as images, (batch, height, width, inputs)."""
        return x

    @abstractmethod
    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Return the convolution of images with a kernel.

        Args:
            image: Of `image`.
            kernel: Shaped as `value`.
            for_file: It is traced for a converter, not for a training.
        """

    def restored(self, made: Any, x: Any) -> Any:
        """Return images in the shape of the layer's output.

        Args:
            made: Of `convolved`.
            x: Input of the layer.
        """
        return made

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the layer's output for one of its input."""
        return tuple(self.layer.compute_output_shape(shape))


class PositionKernel(Kernel):
    """Kernel of a layer that computes the same at each position: these are an image's.

    Attributes:
        axes: How many of the input's last axes are summed over.
    """

    axes = 1

    def image(self, x: Any) -> Any:
        """Return the input's positions as those of an image."""
        shape = tuple(x.shape)
        kept = len(shape) - self.axes
        return tf.reshape(x, (-1, *_to_image_size(shape[1:kept]), math.prod(shape[kept:])))

    def restored(self, made: Any, x: Any) -> Any:
        """Return positions and axes of outputs as the layer has them."""
        return tf.reshape(made, (-1, *self.output_shape(tuple(x.shape))[1:]))


class MatrixKernel(PositionKernel):
    """Kernel of `Dense`, and of an `EinsumDense` that multiplies the last axes of its input.

    Args:
        layer: Built.
        inputs: How many axes of the kernel are summed over: the first of them, and the last of
            the layer's input.
    """

    def __init__(self, layer: Any, inputs: int = 1) -> None:
        super().__init__(layer)
        self.axes = inputs

    @property
    def bias_by_position(self) -> bool:
        """Whether the bias differs from position to position: it is no part of the kernel then."""
        bias = self.layer.bias
        return bias is not None and len(bias.shape) > len(self.layer.kernel.shape) - self.axes

    def value(self) -> Any:
        """Return the kernel, (1, 1, inputs, channels)."""
        kernel = tensor_of(self.layer.kernel)
        return tf.reshape(kernel, (1, 1, math.prod(kernel.shape[: self.axes]), -1))

    def bias(self) -> Any:
        """Return the bias, (channels,), or None."""
        if self.layer.bias is None or self.bias_by_position:
            return None
        channels = tuple(self.layer.kernel.shape)[self.axes :]
        return tf.reshape(tf.broadcast_to(tensor_of(self.layer.bias), channels), (-1,))

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Multiply, as a 1 x 1 convolution."""
        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output: Keras leaves some of it open."""
        return (*shape[: len(shape) - self.axes], *tuple(self.layer.kernel.shape)[self.axes :])


class Affine(PositionKernel):
    """Scale and offset by channel: part of the kernel before, or a convolution by channels.

    That is exact in whole numbers.

    Args:
        layer: Whose weights they are; None: of none.
        terms: Returns scale and offset, (channels,) each; no offset is None (graph code).
    """

    is_depthwise = True

    def __init__(self, layer: Any, terms: Callable[[], tuple[Any, Any]]) -> None:
        super().__init__(layer)
        self.terms = terms

    def of(self, x: Any) -> Any:
        """Return values scaled and shifted, in floats."""
        scale, offset = self.terms()
        return x * scale if offset is None else x * scale + offset

    def value(self) -> Any:
        """Return the scales, (1, 1, 1, channels)."""
        return tf.reshape(self.terms()[0], (1, 1, 1, -1))

    def bias(self) -> Any:
        """Return the offsets."""
        return self.terms()[1]

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Scale each channel."""
        scales = tf.reshape(kernel, (1, 1, int(image.shape[-1]), 1))
        return tf.nn.depthwise_conv2d(image, scales, (1, 1, 1, 1), "VALID")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape


class ImageKernel(Kernel):
    """Kernel of `Conv1D` and `Conv2D`, grouped ones too; images over time have height 1.

    Args:
        layer: Built, channels last.
        name: Of its weight.
    """

    def __init__(self, layer: Any, name: str = "kernel") -> None:
        super().__init__(layer)
        self.name = name

    @property
    def is_depthwise(self) -> bool:
        """Whether its groups have a channel each."""
        inputs, channels = tuple(self.layer.kernel.shape)[-2:]
        return bool(inputs == 1 and channels == self.layer.groups)

    def value(self) -> Any:
        """Return the kernel, as one of images."""
        kernel = tensor_of(getattr(self.layer, self.name))
        return tf.expand_dims(kernel, 0) if self.layer.rank == 1 else kernel

    def image(self, x: Any) -> Any:
        """Return the input, with the causal padding that no convolution adds."""
        layer = self.layer
        if layer.padding == "causal":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            x = tf.pad(x, ((0, 0), (before, 0), (0, 0)))
        return tf.expand_dims(x, 1) if layer.rank == 1 else x

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve."""
        layer = self.layer
        strides, dilations = _both_sizes(layer.strides), _both_sizes(layer.dilation_rate)
        if layer.groups > 1 and not for_file:
            # a function that XLA compiles: TensorFlow's own has no gradients on a CPU
            padding = self.padding.lower()
            return keras.ops.conv(image, kernel, strides, padding, None, dilations)
        return tf.nn.convolution(
            image, kernel, strides=strides, padding=self.padding, dilations=dilations
        )

    def restored(self, made: Any, x: Any) -> Any:
        """Return images in the shape of the layer's output."""
        return tf.squeeze(made, 1) if self.layer.rank == 1 else made

    @property
    def padding(self) -> str:
        """Padding as TensorFlow calls it."""
        padding = self.layer.padding
        return "VALID" if padding == "causal" else str(padding).upper()


class DepthwiseKernel(ImageKernel):
    """Kernel of `DepthwiseConv1D` and `DepthwiseConv2D`, and the first of separable
    convolutions."""

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel makes one output channel."""
        return bool(self.layer.depth_multiplier == 1)

    def value(self) -> Any:
        """Return the kernel, (height, width, 1, channels)."""
        kernel = super().value()
        height, width, inputs, multiplier = kernel.shape
        return tf.reshape(kernel, (height, width, 1, inputs * multiplier))

    def bias(self) -> Any:
        """Return the bias; that of a separable convolution belongs to the second kernel."""
        return super().bias() if self.name == "kernel" else None

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve each channel."""
        dilations = _both_sizes(self.layer.dilation_rate)
        # TensorFlow knows one stride for both axes: of a row of time the height is 1 anyway
        stride = max(_both_sizes(self.layer.strides))
        height, width, _, channels = kernel.shape
        inputs = int(image.shape[-1])
        return tf.nn.depthwise_conv2d(
            image,
            tf.reshape(kernel, (height, width, inputs, channels // inputs)),
            strides=(1, stride, stride, 1),
            padding=self.padding,
            dilations=dilations if max(dilations) > 1 else None,
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output shape of the convolution by channels."""
        made = super().output_shape(shape)
        if self.name == "kernel":
            return made
        assert shape[-1] is not None
        return (*made[:-1], shape[-1] * self.layer.depth_multiplier)


class PointwiseKernel(ImageKernel):
    """Kernel of the second convolution of `SeparableConv1D` and `SeparableConv2D`."""

    is_depthwise = False

    def image(self, x: Any) -> Any:
        """Return the input, which the first convolution has padded."""
        return tf.expand_dims(x, 1) if self.layer.rank == 1 else x

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve."""
        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for that of its input."""
        return (*shape[:-1], self.layer.filters)


class TransposedKernel(Kernel):
    """Kernel of `Conv2DTranspose`: one scale for all channels, as the converter requires."""

    scale_by_channel = False
    by_channel = (-1, 1)

    def value(self) -> Any:
        """Return the kernel as it is, (height, width, channels, inputs)."""
        return tensor_of(self.layer.kernel)

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolve."""
        layer = self.layer
        shape = self.output_shape(tuple(image.shape))
        batch = tf.shape(image)[0] if shape[0] is None else shape[0]
        return tf.nn.conv2d_transpose(
            image,
            kernel,
            (batch, *shape[1:]),
            strides=layer.strides,
            padding=layer.padding.upper(),
        )


def tensor_of(variable: Any) -> Any:
    """Return a variable as a tensor (graph code)."""
    return tf.convert_to_tensor(variable.value)


def _to_image_size(positions: Sequence[Any]) -> Sequence[int]:
    """Return positions as height and width; more than two axes as one."""
    if None in positions:
        raise ValueError("positions must be known")
    return positions if len(positions) == 2 else (math.prod(positions), 1)


def _both_sizes(sizes: Sequence[int]) -> tuple[int, int]:
    """Return sizes of an image; those over time have height 1."""
    return (1, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))

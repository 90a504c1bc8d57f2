"""Kernels as integers see them: every layer with one is a convolution of images.

LiteRT has scales by channel for convolutions, and its converter finds them only where the kernel
that is rounded is the one that is convolved: nothing may be transposed or reshaped in between.
So a dense layer is a 1 x 1 convolution and a convolution over time one of images of height 1, and
kernels are brought into that shape before they are rounded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Affine:
    """A scale and an offset by channel.

    Attributes:
        layer: Whose weights they are; None: of none.
        terms: Returns scale and offset, (channels,) each; no offset is None (graph code).
        offset: The weight that is added; None: none is.
    """

    layer: Any
    terms: Callable[[], tuple[Any, Any]]
    offset: Any = None

    def of(self, x: Any) -> Any:
        """Returns values scaled and shifted, in floats."""
        scale, offset = self.terms()
        return x * scale if offset is None else x * scale + offset


def normalization(layer: Any) -> Affine:
    """Returns a batch normalization by its moving statistics."""

    def terms() -> tuple[Any, Any]:
        import tensorflow as tf

        scale = tf.math.rsqrt(_tensor(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale *= _tensor(layer.gamma)
        offset = -_tensor(layer.moving_mean) * scale
        return scale, offset + _tensor(layer.beta) if layer.center else offset

    return Affine(layer, terms, layer.beta if layer.center else None)


class Kernel(ABC):
    """The kernel of a layer as that of a convolution of images.

    A call is `restored(convolved(image(x), kernel) + bias, x)`.

    Args:
        layer: Built, channels last.

    Attributes:
        layer: That layer.
    """

    scale_by_channel = True
    """Whether each channel has a scale of its own."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def channels(self) -> int:
        """How many channels its output has."""
        return int(self.value().shape[-1])

    @abstractmethod
    def value(self) -> Any:
        """Returns the kernel, (height, width, inputs, channels) (graph code)."""

    def bias(self) -> Any:
        """Returns the bias, (channels,), or None."""
        import tensorflow as tf

        if not self.layer.use_bias or self.layer.bias is None:
            return None
        return tf.reshape(_tensor(self.layer.bias), (-1,))

    @property
    def offset(self) -> Any:
        """The bias as a weight; None: it has none of its own."""
        return self.layer.bias if self.layer.use_bias else None

    def by_channel(self, values: Any) -> Any:
        """Returns values of channels, (channels,), in a shape that multiplies the kernel."""
        return values

    @abstractmethod
    def image(self, x: Any) -> Any:
        """Returns an input of the layer as images, (batch, height, width, inputs)."""

    @abstractmethod
    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Returns the images that a kernel makes of images.

        Args:
            image: Of `image`.
            kernel: Shaped as `value`.
            for_file: It is traced for a converter, not for a training.
        """

    @abstractmethod
    def restored(self, made: Any, x: Any) -> Any:
        """Returns images in the shape of the layer's output.

        Args:
            made: Of `convolved`.
            x: Input of the layer.
        """

    def assign(self, kernel: Any) -> None:
        """Puts a kernel of `value`'s shape into the layer."""
        _assign(self.layer.kernel, kernel)

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the layer's output for one of its input."""
        made: Shape = tuple(self.layer.compute_output_shape(shape))
        return made


class OfImages(Kernel):
    """Of a convolution over images, or over time: images of height 1."""

    def image(self, x: Any) -> Any:
        """Returns the input, padded where no convolution does that."""
        import tensorflow as tf

        layer = self.layer
        if layer.padding == "causal":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            x = tf.pad(x, ((0, 0), (before, 0), (0, 0)))
        return tf.expand_dims(x, 1) if layer.rank == 1 else x

    def restored(self, made: Any, x: Any) -> Any:
        """Returns what was made."""
        import tensorflow as tf

        return tf.squeeze(made, 1) if self.layer.rank == 1 else made

    @property
    def padding(self) -> str:
        """As TensorFlow calls it."""
        padding = self.layer.padding
        return "VALID" if padding == "causal" else str(padding).upper()


class ImageKernel(OfImages):
    """Of `Conv1D` and `Conv2D`, grouped ones too."""

    def value(self) -> Any:
        """Returns the kernel, as one of images."""
        return _of_images(_tensor(self.layer.kernel), self.layer.rank)

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import keras
        import tensorflow as tf

        layer = self.layer
        strides, dilations = _both(layer.strides), _both(layer.dilation_rate)
        if layer.groups > 1 and not for_file:
            # a function that XLA compiles: TensorFlow's own has no gradients on a CPU
            padding = self.padding.lower()
            return keras.ops.conv(image, kernel, strides, padding, None, dilations)
        return tf.nn.convolution(
            image, kernel, strides=strides, padding=self.padding, dilations=dilations
        )


class DepthwiseKernel(OfImages):
    """Of `DepthwiseConv1D` and `DepthwiseConv2D`, and the first of separable convolutions.

    Args:
        layer: Built, channels last.
        name: Of its weight.
    """

    def __init__(self, layer: Any, name: str = "kernel") -> None:
        super().__init__(layer)
        self.name = name

    def value(self) -> Any:
        """Returns the kernel, (height, width, 1, channels)."""
        import tensorflow as tf

        kernel = _of_images(_tensor(getattr(self.layer, self.name)), self.layer.rank)
        height, width, inputs, multiplier = kernel.shape
        return tf.reshape(kernel, (height, width, 1, inputs * multiplier))

    def bias(self) -> Any:
        """Returns the bias; of a separable convolution it is the second kernel's."""
        return super().bias() if self.name == "kernel" else None

    @property
    def offset(self) -> Any:
        """The bias as a weight, likewise."""
        return super().offset if self.name == "kernel" else None

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves each channel."""
        import tensorflow as tf

        layer = self.layer
        dilations = _both(layer.dilation_rate)
        # TensorFlow knows one stride for both axes: of a row of time the height is 1 anyway
        stride = max(_both(layer.strides))
        height, width, _, channels = kernel.shape
        inputs = int(image.shape[-1])
        return tf.nn.depthwise_conv2d(
            image,
            tf.reshape(kernel, (height, width, inputs, channels // inputs)),
            strides=(1, stride, stride, 1),
            padding=self.padding,
            dilations=dilations if max(dilations) > 1 else None,
        )

    def assign(self, kernel: Any) -> None:
        """Puts a kernel into the layer."""
        _assign(getattr(self.layer, self.name), kernel)

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of what the convolution by channels makes."""
        if self.name == "kernel":
            return super().output_shape(shape)
        made = tuple(self.layer.compute_output_shape(shape))
        assert shape[-1] is not None
        return (*made[:-1], shape[-1] * self.layer.depth_multiplier)


class PointwiseKernel(Kernel):
    """Of the second convolution of `SeparableConv1D` and `SeparableConv2D`."""

    def value(self) -> Any:
        """Returns the kernel, (1, 1, inputs, channels)."""
        return _of_images(_tensor(self.layer.pointwise_kernel), self.layer.rank)

    def image(self, x: Any) -> Any:
        """Returns the input as it is: the first convolution has padded it."""
        import tensorflow as tf

        return tf.expand_dims(x, 1) if self.layer.rank == 1 else x

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import tensorflow as tf

        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def restored(self, made: Any, x: Any) -> Any:
        """Returns what was made."""
        import tensorflow as tf

        return tf.squeeze(made, 1) if self.layer.rank == 1 else made

    def assign(self, kernel: Any) -> None:
        """Puts a kernel into the layer."""
        _assign(self.layer.pointwise_kernel, kernel)

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the output for that of its input."""
        return (*shape[:-1], self.layer.filters)


class TransposedKernel(Kernel):
    """Of `Conv2DTranspose`: one scale for all channels, the converter knows no other."""

    scale_by_channel = False

    @property
    def channels(self) -> int:
        """How many channels its output has."""
        return int(self.layer.filters)

    def value(self) -> Any:
        """Returns the kernel as it is, (height, width, channels, inputs)."""
        return _tensor(self.layer.kernel)

    def by_channel(self, values: Any) -> Any:
        """Returns values of channels, before the inputs' axis."""
        import tensorflow as tf

        return tf.reshape(values, (-1, 1))

    def image(self, x: Any) -> Any:
        """Returns the input."""
        return x

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import tensorflow as tf

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

    def restored(self, made: Any, x: Any) -> Any:
        """Returns what was made."""
        return made


class MatrixKernel(Kernel):
    """Of `Dense`, and of an `EinsumDense` that multiplies the last axes of its input.

    Args:
        layer: Built.
        inputs: How many axes of the kernel are summed over: the first of them, and the last of
            the layer's input.
    """

    def __init__(self, layer: Any, inputs: int = 1) -> None:
        super().__init__(layer)
        self.axes = inputs

    @property
    def offset(self) -> Any:
        """The bias as a weight; None: it has none, or one by position."""
        return None if self.bias_by_position else getattr(self.layer, "bias", None)

    @property
    def bias_by_position(self) -> bool:
        """Whether the bias differs from position to position: it is no part of the kernel then."""
        bias = getattr(self.layer, "bias", None)
        return bias is not None and len(bias.shape) > len(self.layer.kernel.shape) - self.axes

    def value(self) -> Any:
        """Returns the kernel, (1, 1, inputs, channels)."""
        import tensorflow as tf

        kernel = _tensor(self.layer.kernel)
        rows = math.prod(kernel.shape[: self.axes])
        return tf.reshape(kernel, (1, 1, rows, -1))

    def bias(self) -> Any:
        """Returns the bias, (channels,), or None."""
        import tensorflow as tf

        bias = getattr(self.layer, "bias", None)
        if bias is None or self.bias_by_position:
            return None
        channels = tuple(self.layer.kernel.shape)[self.axes :]
        return tf.reshape(tf.broadcast_to(_tensor(bias), channels), (-1,))

    def image(self, x: Any) -> Any:
        """Returns the input's positions as those of an image."""
        import tensorflow as tf

        shape = tuple(x.shape)
        rows = math.prod(self.layer.kernel.shape[: self.axes])
        return tf.reshape(x, (-1, *_spatial(shape[1 : len(shape) - self.axes]), rows))

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Multiplies, as a 1 x 1 convolution."""
        import tensorflow as tf

        return tf.nn.conv2d(image, kernel, 1, "VALID")

    def restored(self, made: Any, x: Any) -> Any:
        """Returns positions and axes of outputs as the layer has them."""
        import tensorflow as tf

        return tf.reshape(made, (-1, *self.output_shape(tuple(x.shape))[1:]))

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the output: Keras leaves some of it open."""
        return (*shape[: len(shape) - self.axes], *tuple(self.layer.kernel.shape)[self.axes :])


class AffineKernel(Kernel):
    """A scale and an offset by channel as a convolution by channels: exact in whole numbers.

    Args:
        affine: Both.
    """

    def __init__(self, affine: Affine) -> None:
        super().__init__(affine.layer)
        self.terms = affine.terms
        self._offset = affine.offset

    @property
    def offset(self) -> Any:
        """The offset as a weight, or None."""
        return self._offset

    def value(self) -> Any:
        """Returns the scales, (1, 1, 1, channels)."""
        import tensorflow as tf

        return tf.reshape(self.terms()[0], (1, 1, 1, -1))

    def bias(self) -> Any:
        """Returns the offsets."""
        return self.terms()[1]

    def image(self, x: Any) -> Any:
        """Returns the input's positions as those of an image."""
        import tensorflow as tf

        shape = tuple(x.shape)
        return tf.reshape(x, (-1, *_spatial(shape[1:-1]), shape[-1]))

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Scales each channel."""
        import tensorflow as tf

        scales = tf.reshape(kernel, (1, 1, int(image.shape[-1]), 1))
        return tf.nn.depthwise_conv2d(image, scales, (1, 1, 1, 1), "VALID")

    def restored(self, made: Any, x: Any) -> Any:
        """Returns what was made in the input's shape."""
        import tensorflow as tf

        return tf.reshape(made, (-1, *tuple(x.shape)[1:]))

    def assign(self, kernel: Any) -> None:
        """Refuses: what is behind the scales is not said."""
        raise NotImplementedError("scales are not assigned")

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the same shape."""
        return shape


def _tensor(variable: Any) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def _assign(variable: Any, kernel: Any) -> None:
    import numpy as np

    variable.assign(np.reshape(kernel, tuple(variable.shape)))


def _both(sizes: Sequence[int]) -> tuple[int, int]:
    """Returns sizes of an image: of a row of time the height's is 1."""
    return (1, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def _of_images(kernel: Any, rank: int) -> Any:
    import tensorflow as tf

    return tf.expand_dims(kernel, 0) if rank == 1 else kernel


def _spatial(positions: Sequence[int | None]) -> tuple[int, int]:
    """Returns positions as height and width; more than two axes as one."""
    known = [size for size in positions if size is not None]
    if len(known) != len(positions):
        raise ValueError("positions must be known")
    return (known[0], known[1]) if len(known) == 2 else (math.prod(known), 1)

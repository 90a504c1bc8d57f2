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
    """

    layer: Any
    terms: Callable[[], tuple[Any, Any]]

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

    return Affine(layer, terms)


class Kernel(ABC):
    """The kernel of a layer as that of a convolution.

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

    @abstractmethod
    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Returns what the layer makes with a kernel and a bias (channels,) or None.

        Args:
            x: Input of the layer.
            kernel: Shaped as `value`.
            bias: (channels,), or None.
            for_file: It is traced for a converter, not for a training.
        """

    def bias(self) -> Any:
        """Returns the bias, (channels,), or None."""
        import tensorflow as tf

        if not self.layer.use_bias or self.layer.bias is None:
            return None
        return tf.reshape(tf.convert_to_tensor(self.layer.bias.value), (-1,))

    def by_channel(self, values: Any) -> Any:
        """Returns values of channels, (channels,), in a shape that multiplies the kernel."""
        return values

    def assign(self, kernel: Any) -> None:
        """Puts a kernel of `value`'s shape into the layer."""
        self.layer.kernel.assign(_reshaped(kernel, tuple(self.layer.kernel.shape)))

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the layer's output for one of its input."""
        made: Shape = tuple(self.layer.compute_output_shape(shape))
        return made


class ImageKernel(Kernel):
    """Of `Conv1D` and `Conv2D`, grouped ones too."""

    def value(self) -> Any:
        """Returns the kernel, as one of images."""
        return _of_images(_tensor(self.layer.kernel), self.layer.rank)

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import keras
        import tensorflow as tf

        layer = self.layer
        x, padding = _padded(layer, x)
        image = _as_images(x, layer.rank)
        if layer.groups > 1 and not for_file:
            # a function that XLA compiles: TensorFlow's own has no gradients on a CPU
            made = keras.ops.conv(
                image,
                kernel,
                _both(layer.strides),
                padding.lower(),
                None,
                _both(layer.dilation_rate),
            )
            return _as_before(_plus(made, bias), layer.rank)
        made = tf.nn.convolution(
            image,
            kernel,
            strides=_both(layer.strides),
            padding=padding,
            dilations=_both(layer.dilation_rate),
        )
        return _as_before(_plus(made, bias), layer.rank)


class DepthwiseKernel(Kernel):
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

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Convolves each channel."""
        import tensorflow as tf

        layer = self.layer
        x, padding = _padded(layer, x)
        strides, dilations = _both(layer.strides), _both(layer.dilation_rate)
        # TensorFlow knows one stride for both axes: of a row of time the height is 1 anyway
        stride = max(strides)
        height, width, _, channels = kernel.shape
        inputs = int(x.shape[-1])
        made = tf.nn.depthwise_conv2d(
            _as_images(x, layer.rank),
            tf.reshape(kernel, (height, width, inputs, channels // inputs)),
            strides=(1, stride, stride, 1),
            padding=padding,
            dilations=dilations if max(dilations) > 1 else None,
        )
        return _as_before(_plus(made, bias), layer.rank)

    def assign(self, kernel: Any) -> None:
        """Puts a kernel into the layer."""
        variable = getattr(self.layer, self.name)
        variable.assign(_reshaped(kernel, tuple(variable.shape)))

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

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import tensorflow as tf

        made = tf.nn.conv2d(_as_images(x, self.layer.rank), kernel, 1, "VALID")
        return _as_before(_plus(made, bias), self.layer.rank)

    def assign(self, kernel: Any) -> None:
        """Puts a kernel into the layer."""
        variable = self.layer.pointwise_kernel
        variable.assign(_reshaped(kernel, tuple(variable.shape)))

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

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import tensorflow as tf

        layer = self.layer
        shape = self.output_shape(tuple(x.shape))
        batch = tf.shape(x)[0] if shape[0] is None else shape[0]
        made = tf.nn.conv2d_transpose(
            x, kernel, (batch, *shape[1:]), strides=layer.strides, padding=layer.padding.upper()
        )
        return _plus(made, bias)


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

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Multiplies, as a 1 x 1 convolution."""
        import tensorflow as tf

        shape = tuple(x.shape)
        positions = shape[1 : len(shape) - self.axes]
        inner = tuple(self.layer.kernel.shape)[self.axes :]
        rows = int(kernel.shape[2])
        spatial = _spatial(positions)
        image = tf.reshape(x, (-1, *spatial, rows))
        made = _plus(tf.nn.conv2d(image, kernel, 1, "VALID"), bias)
        return tf.reshape(made, (-1, *_known(positions), *inner))

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

    def value(self) -> Any:
        """Returns the scales, (1, 1, 1, channels)."""
        import tensorflow as tf

        return tf.reshape(self.terms()[0], (1, 1, 1, -1))

    def bias(self) -> Any:
        """Returns the offsets."""
        return self.terms()[1]

    def assign(self, kernel: Any) -> None:
        """Refuses: what is behind the scales is not said."""
        raise NotImplementedError("scales are not assigned")

    def apply(self, x: Any, kernel: Any, bias: Any, *, for_file: bool = False) -> Any:
        """Scales and shifts each channel."""
        import tensorflow as tf

        shape = tuple(x.shape)
        channels = int(shape[-1])
        image = tf.reshape(x, (-1, *_spatial(shape[1:-1]), channels))
        made = tf.nn.depthwise_conv2d(
            image, tf.reshape(kernel, (1, 1, channels, 1)), (1, 1, 1, 1), "VALID"
        )
        return tf.reshape(_plus(made, bias), (-1, *_known(shape[1:-1]), channels))

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the same shape."""
        return shape


def _tensor(variable: Any) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def _plus(made: Any, bias: Any) -> Any:
    import tensorflow as tf

    return made if bias is None else tf.nn.bias_add(made, bias)


def _both(sizes: Sequence[int]) -> tuple[int, int]:
    """Returns sizes of an image: of a row of time the height's is 1."""
    return (1, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def _of_images(kernel: Any, rank: int) -> Any:
    import tensorflow as tf

    return tf.expand_dims(kernel, 0) if rank == 1 else kernel


def _as_images(x: Any, rank: int) -> Any:
    import tensorflow as tf

    return tf.expand_dims(x, 1) if rank == 1 else x


def _as_before(x: Any, rank: int) -> Any:
    import tensorflow as tf

    return tf.squeeze(x, 1) if rank == 1 else x


def _padded(layer: Any, x: Any) -> tuple[Any, str]:
    """Returns an input and how it is padded; what no convolution does is done before."""
    import tensorflow as tf

    if layer.padding != "causal":
        return x, layer.padding.upper()
    before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return tf.pad(x, ((0, 0), (before, 0), (0, 0))), "VALID"


def _spatial(positions: Sequence[int | None]) -> tuple[int, int]:
    """Returns positions as height and width: -1 would be unknown to integer kernels."""
    known = [size for size in positions if size is not None]
    if len(known) != len(positions):
        raise ValueError("positions must be known")
    if len(known) == 2:
        return known[0], known[1]
    return math.prod(known), 1


def _known(positions: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(int(size) for size in positions if size is not None)


def _reshaped(values: Any, shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.reshape(values, shape)

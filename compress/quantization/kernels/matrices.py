"""Kernels that are matrices, and scales by channel: convolutions of size 1."""

from __future__ import annotations

import math
from typing import Any

from compress.quantization.kernels._base import Affine, Kernel, Shape, spatial, tensor_of


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

        kernel = tensor_of(self.layer.kernel)
        rows = math.prod(kernel.shape[: self.axes])
        return tf.reshape(kernel, (1, 1, rows, -1))

    def bias(self) -> Any:
        """Returns the bias, (channels,), or None."""
        import tensorflow as tf

        bias = getattr(self.layer, "bias", None)
        if bias is None or self.bias_by_position:
            return None
        channels = tuple(self.layer.kernel.shape)[self.axes :]
        return tf.reshape(tf.broadcast_to(tensor_of(bias), channels), (-1,))

    def image(self, x: Any) -> Any:
        """Returns the input's positions as those of an image."""
        import tensorflow as tf

        shape = tuple(x.shape)
        rows = math.prod(self.layer.kernel.shape[: self.axes])
        return tf.reshape(x, (-1, *spatial(shape[1 : len(shape) - self.axes]), rows))

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
    def is_depthwise(self) -> bool:
        """Always."""
        return True

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
        return tf.reshape(x, (-1, *spatial(shape[1:-1]), shape[-1]))

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Scales each channel."""
        import tensorflow as tf

        scales = tf.reshape(kernel, (1, 1, int(image.shape[-1]), 1))
        return tf.nn.depthwise_conv2d(image, scales, (1, 1, 1, 1), "VALID")

    def restored(self, made: Any, x: Any) -> Any:
        """Returns what was made in the input's shape."""
        import tensorflow as tf

        return tf.reshape(made, (-1, *tuple(x.shape)[1:]))

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the same shape."""
        return shape

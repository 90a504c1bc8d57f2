"""Kernels as integers see them: every layer with one is a convolution of images.

LiteRT has scales by channel for convolutions, and its converter finds them only where the kernel
that is rounded is the one that is convolved: nothing may be transposed or reshaped in between.
So a dense layer is a 1 x 1 convolution and a convolution over time one of images of height 1, and
kernels are brought into that shape before they are rounded. Those of convolutions are in
`image_kernels.py`.
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

        scale = tf.math.rsqrt(tensor_of(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale *= tensor_of(layer.gamma)
        offset = -tensor_of(layer.moving_mean) * scale
        return scale, offset + tensor_of(layer.beta) if layer.center else offset

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

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel, which no other reads."""
        return False

    @abstractmethod
    def value(self) -> Any:
        """Returns the kernel, (height, width, inputs, channels) (graph code)."""

    def bias(self) -> Any:
        """Returns the bias, (channels,), or None."""
        import tensorflow as tf

        if not self.layer.use_bias or self.layer.bias is None:
            return None
        return tf.reshape(tensor_of(self.layer.bias), (-1,))

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

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the layer's output for one of its input."""
        made: Shape = tuple(self.layer.compute_output_shape(shape))
        return made


def tensor_of(variable: Any) -> Any:
    """Return a variable as a tensor (graph code)."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def spatial(positions: Sequence[int | None]) -> tuple[int, int]:
    """Returns positions as height and width; more than two axes as one."""
    known = [size for size in positions if size is not None]
    if len(known) != len(positions):
        raise ValueError("positions must be known")
    return (known[0], known[1]) if len(known) == 2 else (math.prod(known), 1)


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

"""Kernels of convolutions, over images or over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.quantization.kernels import Kernel, Shape, tensor_of


class OfImages(Kernel):
    """Of a convolution over images, or over time: images of height 1."""

    pads = True
    """Whether it is this kernel that looks beyond the edges."""

    def image(self, x: Any) -> Any:
        """Returns the input, padded where no convolution does that."""
        import tensorflow as tf

        layer = self.layer
        if self.pads and layer.padding == "causal":
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

    @property
    def is_depthwise(self) -> bool:
        """Whether its groups have a channel each."""
        inputs, channels = tuple(self.layer.kernel.shape)[-2:]
        return bool(inputs == 1 and channels == self.layer.groups)

    def value(self) -> Any:
        """Returns the kernel, as one of images."""
        return of_images(tensor_of(self.layer.kernel), self.layer.rank)

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import keras
        import tensorflow as tf

        layer = self.layer
        strides, dilations = both_sizes(layer.strides), both_sizes(layer.dilation_rate)
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

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel makes one output channel."""
        return bool(self.layer.depth_multiplier == 1)

    def value(self) -> Any:
        """Returns the kernel, (height, width, 1, channels)."""
        import tensorflow as tf

        kernel = of_images(tensor_of(getattr(self.layer, self.name)), self.layer.rank)
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
        dilations = both_sizes(layer.dilation_rate)
        # TensorFlow knows one stride for both axes: of a row of time the height is 1 anyway
        stride = max(both_sizes(layer.strides))
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
        """Returns the shape of what the convolution by channels makes."""
        if self.name == "kernel":
            return super().output_shape(shape)
        made = tuple(self.layer.compute_output_shape(shape))
        assert shape[-1] is not None
        return (*made[:-1], shape[-1] * self.layer.depth_multiplier)


class PointwiseKernel(OfImages):
    """Of the second convolution of `SeparableConv1D` and `SeparableConv2D`."""

    pads = False

    def value(self) -> Any:
        """Returns the kernel, (1, 1, inputs, channels)."""
        return of_images(tensor_of(self.layer.pointwise_kernel), self.layer.rank)

    def convolved(self, image: Any, kernel: Any, *, for_file: bool = False) -> Any:
        """Convolves."""
        import tensorflow as tf

        return tf.nn.conv2d(image, kernel, 1, "VALID")

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
        return tensor_of(self.layer.kernel)

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


def both_sizes(sizes: Sequence[int]) -> tuple[int, int]:
    """Returns sizes of an image: of a row of time the height's is 1."""
    return (1, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def of_images(kernel: Any, rank: int) -> Any:
    """Returns a kernel over time as one over images of height 1."""
    import tensorflow as tf

    return tf.expand_dims(kernel, 0) if rank == 1 else kernel

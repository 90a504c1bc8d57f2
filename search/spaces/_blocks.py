"""Common parts of the convolutional spaces: resolutions, channel counts, named layers."""

from __future__ import annotations

from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset
from compress.data.tasks import Task
from search.spaces._base import DrawnSpace, ShapeTensor, head

MIN_SIZE = 4
"""Minimum pixels per side of a stage's output; each stage halves the resolution."""
MIN_STRIDED_SIZE = 20
"""Minimum pixels per side of an image for which the stem may halve the resolution."""
# the statistics adapt within about 50 steps; Keras's 0.99 is too slow for short trainings
BN_MOMENTUM = 0.9


class ImageSpace(DrawnSpace):
    """A space of networks for images."""

    def check(self, data: Dataset) -> None:
        """Require images of at least 4 x 4 pixels.

        Raises:
            InputError: The examples are no such images.
        """
        shape = data.input_shape
        if len(shape) != 3 or min(shape[:2]) < MIN_SIZE:
            raise InputError(
                f"Space '{self.name}' must have images of at least {MIN_SIZE} x {MIN_SIZE} pixels. "
                f"Received: examples of shape {shape} ('{data.name}')."
            )


def find_max_stages(data: Dataset, reduction: int, limit: int) -> int:
    """Return the maximum number of stages for the resolution, 1 to `limit`.

    Args:
        data: Data with images.
        reduction: Largest factor by which the stem divides the resolution.
        limit: Maximum number of stages of the space.
    """
    size = min(data.input_shape[:2])
    stages, size = 1, -(-size // reduction)
    while stages < limit and -(-size // 2) >= MIN_SIZE:
        stages, size = stages + 1, -(-size // 2)
    return stages


def round_channels(width: float) -> int:
    """Return the nearest multiple of 8 that is at least 8 and at least 90 % of `width`.

    Reference:
        Sandler et al. 2018, "MobileNetV2": `_make_divisible` of the authors' code.
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def apply_conv(
    x: Any, name: str, width: int, kernel: int, stride: int = 1, activation: str = "relu"
) -> Any:
    """Apply convolution, normalization and activation; activation "": none.

    Args:
        x: A Keras tensor or a `ShapeTensor`.
        name: Prefix of the layers' names.
        width: Number of output channels.
        kernel: Size of the kernel.
        stride: Stride of the kernel.
        activation: See `apply_activation`.
    """
    x = apply_normalization(apply_bare_conv(x, name, width, kernel, stride), name)
    return apply_activation(x, name, activation) if activation else x


def apply_bare_conv(x: Any, name: str, width: int, kernel: int, stride: int) -> Any:
    """Apply a convolution without bias, normalization and activation.

    Args:
        x: A Keras tensor or a `ShapeTensor`.
        name: Name of the layer.
        width: Number of output channels.
        kernel: Size of the kernel.
        stride: Stride of the kernel.
    """
    if isinstance(x, ShapeTensor):
        return x.apply_conv(width, kernel, stride, bias=False)

    return keras.layers.Conv2D(
        width, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def apply_depthwise(x: Any, name: str, kernel: int, stride: int, activation: str = "relu") -> Any:
    """Apply depthwise convolution, normalization and activation.

    Args:
        x: A Keras tensor or a `ShapeTensor`.
        name: Prefix of the layers' names.
        kernel: Size of the kernel.
        stride: Stride of the kernel.
        activation: See `apply_activation`.
    """
    if isinstance(x, ShapeTensor):
        return apply_normalization(x.apply_depthwise(kernel, stride), name)

    x = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=name)(x)
    return apply_activation(apply_normalization(x, name), name, activation)


def apply_normalization(x: Any, name: str) -> Any:
    """Apply batch normalization, named `<name>_bn`."""
    if isinstance(x, ShapeTensor):
        return x.apply_normalization(4)

    return keras.layers.BatchNormalization(momentum=BN_MOMENTUM, name=f"{name}_bn")(x)


def apply_activation(x: Any, name: str, activation: str) -> Any:
    """Apply "relu", "relu6" or "hard_swish", named `<name>_<activation>`."""
    if isinstance(x, ShapeTensor):
        return x

    name = f"{name}_{activation}"
    if activation == "hard_swish":
        return keras.layers.Activation("hard_silu", name=name)(x)
    return keras.layers.ReLU(6.0 if activation == "relu6" else None, name=name)(x)


def add_shortcut(x: Any, y: Any, name: str) -> Any:
    """Add the tensor of a shortcut to another one; the layer is named `<name>_add`."""
    return y if isinstance(y, ShapeTensor) else keras.layers.Add(name=f"{name}_add")([x, y])


def apply_classifier(x: Any, dropout: float, task: Task) -> Any:
    """Apply the last layers: global average, dropout, the head of the task.

    Args:
        x: A Keras tensor or a `ShapeTensor`.
        dropout: Dropout rate, in [0, 1); 0: no dropout layer.
        task: The task, which sets the outputs.
    """
    if isinstance(x, ShapeTensor):
        return head(x.apply_average(), task)

    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return head(x, task)

"""Common parts of the convolutional spaces: resolutions, widths, named layers."""

from __future__ import annotations

from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset
from compress.data.tasks import Task
from search.spaces._base import DrawnSpace, Sketch, head

MIN_SIZE = 4
"""A stage halves the resolution; no stage goes below this many pixels a side."""
STRIDE_FROM = 20
"""Images of at least this many pixels a side may be halved by the stem already."""
# statistics follow within about 50 steps; Keras's 0.99 lags behind short trainings
BN_MOMENTUM = 0.9


class ImageSpace(DrawnSpace):
    """A space of networks for images."""

    def check(self, data: Dataset) -> None:
        """Require images of at least 4 x 4 pixels.

        Raises:
            InputError: Other examples.
        """
        shape = data.input_shape
        if len(shape) != 3 or min(shape[:2]) < MIN_SIZE:
            raise InputError(
                f"Space '{self.name}' must have images of at least {MIN_SIZE} x {MIN_SIZE} pixels. "
                f"Received: examples of shape {shape} ('{data.name}')."
            )


def stages_within(data: Dataset, reduction: int, limit: int) -> int:
    """Return how many stages the resolution allows, 1 to `limit`.

    Args:
        data: Images.
        reduction: By which the stem divides the resolution at most.
        limit: The space's own.
    """
    size = min(data.input_shape[:2])
    stages, size = 1, -(-size // reduction)
    while stages < limit and -(-size // 2) >= MIN_SIZE:
        stages, size = stages + 1, -(-size // 2)
    return stages


def multiple_of_8(width: float) -> int:
    """Return the nearest multiple of 8 that is at least 8 and not 10 % below `width`.

    Reference:
        Sandler et al. 2018, "MobileNetV2": `_make_divisible` of the authors' code.
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def conv(
    x: Any, name: str, width: int, kernel: int, stride: int = 1, activation: str = "relu"
) -> Any:
    """Apply convolution and normalization and, unless it is "", an activation."""
    x = normalize(bare_conv(x, name, width, kernel, stride), name)
    return activate(x, name, activation) if activation else x


def bare_conv(x: Any, name: str, width: int, kernel: int, stride: int) -> Any:
    """Apply a convolution without a bias, and nothing behind it."""
    if isinstance(x, Sketch):
        return x.conv(width, kernel, stride, bias=False)

    return keras.layers.Conv2D(
        width, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def depthwise(x: Any, name: str, kernel: int, stride: int, activation: str = "relu") -> Any:
    """Apply depthwise convolution, normalization and activation."""
    if isinstance(x, Sketch):
        return normalize(x.depthwise(kernel, stride), name)

    x = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=name)(x)
    return activate(normalize(x, name), name, activation)


def normalize(x: Any, name: str) -> Any:
    """Apply batch normalization, called `<name>_bn`."""
    if isinstance(x, Sketch):
        return x.normalize(4)

    return keras.layers.BatchNormalization(momentum=BN_MOMENTUM, name=f"{name}_bn")(x)


def activate(x: Any, name: str, activation: str) -> Any:
    """Apply "relu", "relu6" or "hard_swish", called `<name>_<activation>`."""
    if isinstance(x, Sketch):
        return x

    name = f"{name}_{activation}"
    if activation == "hard_swish":
        return keras.layers.Activation("hard_silu", name=name)(x)
    return keras.layers.ReLU(6.0 if activation == "relu6" else None, name=name)(x)


def add(x: Any, y: Any, name: str) -> Any:
    """Apply a shortcut: the sum, called `<name>_add`."""
    if isinstance(y, Sketch):
        return y

    return keras.layers.Add(name=f"{name}_add")([x, y])


def classify(x: Any, dropout: float, task: Task) -> Any:
    """End a network: global average, dropout, the head of the task."""
    if isinstance(x, Sketch):
        return head(x.mean(), task)

    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return head(x, task)

"""Layers with kernels."""

from __future__ import annotations

from typing import Any

from compress.quantization.call import Call
from compress.quantization.image_kernels import (
    DepthwiseKernel,
    ImageKernel,
    PointwiseKernel,
    TransposedKernel,
)
from compress.quantization.kernels import MatrixKernel
from compress.quantization.rules._base import CHANNELS_FIRST, OPEN_SIZE, KeptInFloats, layer_rule
from compress.quantization.rules.activations import activated
from compress.quantization.values import Value


@layer_rule("Conv1D", "Conv2D")
def convolution(call: Call) -> Value:
    """A kernel by channel, then the activation."""
    _check_convolution(call)
    made = call.kernel(ImageKernel(call.layer), call.inputs[0])
    return activated(call, made, call.layer.activation)


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: Call) -> Value:
    """A kernel a channel, then the activation."""
    _check_convolution(call, one_stride=True)
    made = call.kernel(DepthwiseKernel(call.layer), call.inputs[0])
    return activated(call, made, call.layer.activation)


@layer_rule("SeparableConv1D", "SeparableConv2D")
def separable(call: Call) -> Value:
    """Both of its kernels, with a range in between."""
    _check_convolution(call, one_stride=True)
    middle = call.kernel(DepthwiseKernel(call.layer, "depthwise_kernel"), call.inputs[0])
    made = call.kernel(PointwiseKernel(call.layer), middle)
    return activated(call, made, call.layer.activation)


@layer_rule("Conv2DTranspose")
def transposed(call: Call) -> Value:
    """A kernel for all channels, then the activation."""
    layer = call.layer
    _check_convolution(call)
    if layer.output_padding is not None or max(layer.dilation_rate) > 1:
        raise KeptInFloats("padding of its outputs and dilation have no integer kernel")
    return activated(call, call.kernel(TransposedKernel(layer), call.inputs[0]), layer.activation)


@layer_rule("Dense")
def dense(call: Call) -> Value:
    """A matrix as a 1 x 1 convolution, then the activation."""
    _check(call)
    made = call.kernel(MatrixKernel(call.layer), call.inputs[0])
    return activated(call, made, call.layer.activation)


@layer_rule("EinsumDense")
def einsum(call: Call) -> Value:
    """A matrix, where its equation multiplies the last axes of the input."""
    import tensorflow as tf

    layer = call.layer
    _check(call)
    summed = axes_summed(layer.equation)
    if not summed:
        raise KeptInFloats(
            f"its equation ({layer.equation}) is no product of the last axes and a matrix"
        )
    kernel = MatrixKernel(layer, summed)
    made = call.kernel(kernel, call.inputs[0])
    if kernel.bias_by_position:

        def bias() -> Any:
            return tf.convert_to_tensor(layer.bias.value)

        made = call.with_constant(tf.add, made, bias, layer)
    return activated(call, made, layer.activation)


def axes_summed(equation: str) -> int:
    """Returns over how many axes an equation sums, the input's last and the kernel's first.

    Args:
        equation: Of an `EinsumDense`: "abc,cde->abde" sums over one, "abcd,cde->abe" over two.

    Returns:
        0 where it is no such product.
    """
    left, _, made = equation.replace(" ", "").partition("->")
    x, _, kernel = left.partition(",")
    for count in range(1, min(len(x), len(kernel) + 1)):
        # what is kept of the input comes first: the batch axis, or "..." for it, at least
        if x[-count:] == kernel[:count] and made == x[:-count] + kernel[count:]:
            return count
    return 0


def _check_convolution(call: Call, *, one_stride: bool = False) -> None:
    """Refuses convolutions that have no integer kernel.

    Args:
        call: Of the layer.
        one_stride: Of both axes it must be the same.

    Raises:
        KeptInFloats: It has none.
    """
    layer = call.layer
    if layer.data_format != "channels_last":
        raise KeptInFloats(CHANNELS_FIRST)
    if one_stride and len(set(layer.strides)) > 1:
        raise KeptInFloats("strides that differ by axis have no integer kernel")
    _check(call)


def _check(call: Call) -> None:
    layer = call.layer
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise KeptInFloats("LoRA and kernels that Keras has quantized are left as they are")
    call.settled(call.inputs[0])  # its size is known then
    if None in call.shape_of(0)[1:]:
        raise KeptInFloats(OPEN_SIZE)
